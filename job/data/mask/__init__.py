"""A row to token ids and labels: rendered by the checkpoint's template, masked, and proved."""
