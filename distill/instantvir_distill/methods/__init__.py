"""Objectives of distillation: each a small class over pure losses; none knows a network."""
