"""Dataset files to rows: what a file is, which format its rows have, and what each row says."""
