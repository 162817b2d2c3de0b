"""How a student is made: clips, losses, optimisers, recipes and the trainer."""
