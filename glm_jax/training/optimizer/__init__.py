"""Schedules, AdamW and Adafactor."""
