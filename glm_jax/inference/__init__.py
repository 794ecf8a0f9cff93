"""The K/V cache, sampling, blank filling, and the `LanguageModel` that users hold."""
