"""From stores to batches: splits, samplers, data modules."""
