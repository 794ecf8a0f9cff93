"""Data files only: the corpus (`corpus.en.xz`, `corpus.zh.xz`) and its `vocabulary.model`."""
