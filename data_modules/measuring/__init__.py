"""Where the beats are, how long their waves last, and how far each of that can be trusted."""
