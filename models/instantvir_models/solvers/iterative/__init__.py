"""Solvers that ask a prior again and again, at falling noise: one loop, what differs is data."""
