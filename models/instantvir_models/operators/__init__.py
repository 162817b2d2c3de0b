"""Known and estimated degradations A, and what follows from them in closed form."""
