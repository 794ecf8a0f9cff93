"""One module for each scheme of published checkpoints: its config keys and its tensor names."""
