"""`compare`: models on the same texts, as a record, tables, an HTML page and pictures."""
