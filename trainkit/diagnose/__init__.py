"""What the numbers of a run say about it. Pure: no framework, so that training and the service share it."""
