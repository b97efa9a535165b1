"""Controlled anomalies for real normal records, with their exact place: the truth that maps are tested on."""
