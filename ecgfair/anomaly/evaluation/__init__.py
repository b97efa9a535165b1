"""Scores and maps put to the test: what is measured, of whom, and with what certainty."""
