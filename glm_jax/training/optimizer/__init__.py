"""Optimizers and learning-rate schedules: AdamW and Adafactor."""
