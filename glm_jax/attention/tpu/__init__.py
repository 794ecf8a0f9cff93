"""The Pallas kernel for TPUs, and the layout of its tiles."""
