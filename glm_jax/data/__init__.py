"""Token store, rows and row stream: numpy alone, no TensorFlow."""
