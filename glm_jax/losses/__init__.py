"""Cross entropy and its sums by objective, for training and for evaluation."""
