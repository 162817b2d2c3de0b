"""Many videos on many machines: what is whose share, who works on what, and what came of it."""
