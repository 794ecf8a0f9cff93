"""What a run shows: metrics, plots, samples, progress, trackers, profiles."""
