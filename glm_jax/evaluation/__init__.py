"""Tasks of `evaluate`: scores of rows, clozes, blanks, perplexity."""
