"""Students: one causal pass from measurement to estimate, block by block."""
