"""Loss functions; every one is a mean, so that the terms of a sum keep their balance at any batch size."""
