"""One action on many jobs."""
