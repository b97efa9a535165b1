"""One module a data source; each yields ``Record`` or ``Rejected``, and loses nothing in silence."""
