"""Students on disk: safetensors with their configuration, checked by sha256."""
