"""What a run reports: metrics, plots, samples, progress, trackers, profiles."""
