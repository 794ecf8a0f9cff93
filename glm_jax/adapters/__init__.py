"""What stands beside or in the place of a model's own matrices: trained prefixes, quantised weights."""
