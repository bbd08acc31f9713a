"""`serve`: predictions over HTTP."""
