"""How far a restored video is from the clean one, and from what was measured of it."""
