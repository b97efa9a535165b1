"""Measurements on arrays: AUROC, calibration, thresholds, the long tail, chance. They know no Lightning and no files."""
