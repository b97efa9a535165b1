"""Measurements on arrays: AUROC, groups, the long tail and fairness. They know neither Lightning nor files."""
