"""Loss functions; every one is averaged, so that the terms of a sum keep their balance at any batch size."""
