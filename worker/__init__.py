"""The workers: Celery rings, a supervisor forks one training process for each job and ships what it says."""
