"""Who the records are of: people, their conditions, what is planted for whom, and the best possible score."""
