"""From a reader to a RecordStore: conditioning, measuring and writing, in parallel and resumable."""
