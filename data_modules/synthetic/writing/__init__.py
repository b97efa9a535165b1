"""Populations on disk, and what is told of them."""
