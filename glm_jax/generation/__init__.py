"""Decoding: sampling, beams, blanks, continuations; `LanguageModel`."""
