"""Labels of one vocabulary told in another."""
