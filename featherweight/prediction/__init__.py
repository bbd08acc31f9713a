"""`predict`: texts, and files of any size at constant memory."""
