"""What could be chance: resampling of patients, intervals, permutation tests, correction for many labels."""
