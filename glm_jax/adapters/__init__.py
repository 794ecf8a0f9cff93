"""What stands beside a model's own matrices or in their place: prefixes, quantised weights."""
