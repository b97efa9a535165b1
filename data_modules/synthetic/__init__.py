"""A synthetic ECG population whose truth is known: who is ill, with what, where on the ECG, and how well it shows."""
