"""How attention and its friends run on this device. Knows tokens, not video; imports nothing above it."""
