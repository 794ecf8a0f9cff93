"""Planning: compiles a training step for machines that are not there, and estimates its cost."""
