"""What is written: each name by one rule, and whole or not at all."""
