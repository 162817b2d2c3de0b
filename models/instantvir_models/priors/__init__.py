"""What natural video looks like, as posterior means at any noise level; teachers and solvers ask it."""
