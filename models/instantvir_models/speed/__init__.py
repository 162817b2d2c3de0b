"""How fast the whole command is here, and whether what it makes so fast is right."""
