"""Client of the training service trainkit."""
