"""Measurements on arrays: AUROC, calibration, thresholds, groups, the long tail. They know neither Lightning nor files."""
