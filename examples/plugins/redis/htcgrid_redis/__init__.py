"""Redis for htcgrid: a stream that tasks come from, keys that results go to."""
