"""From dataset files to masked tokens: formats, rendering, encoding, splits and their audit.

Nothing here imports torch; the tokenizer is handed in.
"""
