"""The Transformer (`transformer`), its parameters (`params`), its variants and its attention."""
