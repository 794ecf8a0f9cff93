"""Attention over one interval of keys per query, and the backends that compute it."""
