"""Notes of people and agents on groups of jobs and on experiments."""
