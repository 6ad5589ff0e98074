"""From a source to batches: samplers, worker processes, bad files."""
