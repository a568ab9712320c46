"""`python -m benchmarks [NAME ...]`: run every benchmark, or those named; those of `ALONE` only by their names."""

from __future__ import annotations

import importlib
import sys

ALL = (
    "training",
    "batched",
    "augmentation",
    "intake",
    "upload",
    "metric_log",
    "mlflow_peer",
    "neighbours",
    "autopilot",
    "dashboard",
)
ALONE = ("diagnosis", "load", "fairness")
"""Too long to be run beside the others; options that follow are theirs."""


def main() -> None:
    """Run them in order; a wrong name lists the right ones."""
    names = sys.argv[1:] or list(ALL)
    if names[0] in ALONE:
        importlib.import_module(f"benchmarks.{names[0]}").main(names[1:])
        return
    for name in names:
        if name not in ALL:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(ALL + ALONE)}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
