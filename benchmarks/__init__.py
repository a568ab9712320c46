"""Ratios against peers and floors, measured in the same run: `make bench`, or `python -m benchmarks NAME`."""
