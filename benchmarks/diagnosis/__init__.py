"""The diagnosis on real runs with one planted fault each, and on sound ones: what it names, and what its advice is worth.

    python -m benchmarks diagnosis [--half first] [--only CODE] [--quick] [--jobs N] [--json FILE]

Each run is trained with `trainkit.fit`, recorded as the service does, and diagnosed; then the first next spec is trained,
and its validation metric compared. Runs are kept under .cache/diagnosis until the library changes.
"""

from benchmarks.diagnosis.command import main

__all__ = ["main"]
