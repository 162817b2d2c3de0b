"""What is run beside a restoration, not by it: compiling for cards that are not here, tuning, counting."""
