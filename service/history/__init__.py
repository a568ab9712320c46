"""History of groups of jobs and experiments."""
