"""The Pallas kernels for GPUs (through Triton), and tokamax."""
