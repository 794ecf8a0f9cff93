"""The Pallas kernels for TPUs, and the layout of their arrays."""
