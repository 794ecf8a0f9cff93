"""Objective, optimizer, step, loop and checkpoints."""
