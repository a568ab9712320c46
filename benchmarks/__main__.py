"""`python -m benchmarks [NAME ...]`: run every benchmark, or those named."""

from __future__ import annotations

import importlib
import sys

ALL = ("training", "batched", "augmentation", "intake", "upload", "metric_log", "mlflow_peer", "autopilot")


def main() -> None:
    """Run them in order; a wrong name lists the right ones."""
    names = sys.argv[1:] or list(ALL)
    for name in names:
        if name not in ALL:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(ALL)}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
