"""Token store, rows and row stream: numpy and Grain, no TensorFlow."""
