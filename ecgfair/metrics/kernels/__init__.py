"""Exact and fast statistics: of all labels, groups and resamples at once."""
