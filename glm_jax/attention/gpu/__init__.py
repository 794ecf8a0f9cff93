"""The Pallas kernel for GPUs (through Triton), and tokamax."""
