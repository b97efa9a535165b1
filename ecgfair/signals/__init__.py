"""Pure batched tensor functions on signals in millivolts; no Lightning, no files."""
