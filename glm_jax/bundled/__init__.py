"""Data files only: the corpus (`corpus.*.xz`), its vocabulary, and a model of it."""
