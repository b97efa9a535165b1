"""From files to batches: readers, the prepared RecordStore and the LightningDataModule that streams from it."""
