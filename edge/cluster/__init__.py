"""`predict --engine ray`: predictions for a folder of files on a Ray cluster."""
