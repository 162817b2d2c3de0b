"""Restoration without a learnt network: one file per kind."""
