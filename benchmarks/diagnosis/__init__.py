"""The diagnosis on runs generated from seeds, with and without planted faults: what it names, what its advice is worth.

    python -m benchmarks diagnosis --seeds 0:100 [--investigate SECONDS] [--jobs N] [--json FILE] [--markdown FILE]

Each run is trained with `trainkit.fit`, recorded as the service does, and diagnosed; its twin without the fault, and what
is recommended first, are trained too. Runs are kept under .cache/diagnosis until the library changes.
"""

from benchmarks.diagnosis.command import main

__all__ = ["main"]
