"""Measurements on arrays: AUROC, calibration, thresholds, long tail, chance. They know neither Lightning nor files."""
