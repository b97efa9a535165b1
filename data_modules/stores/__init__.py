"""RecordStore, its writer, and where its files lie."""
