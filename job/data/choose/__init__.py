"""From pools to what is trained: split, mixed and ordered; and what a person should know of it."""
