"""`predict --engine ray`: a folder of files on a Ray cluster."""
