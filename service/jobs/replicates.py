"""Which jobs repeat each other: their specs differ in seeds and folds alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DESCRIPTIVE = ("name", "labels", "group", "notes")
DRAWN_BY = {"split": ("seed", "fold", "resample_seed"), "train": ("seed",)}


def replicate_key(spec: Mapping[str, Any]) -> str:
    """Return a digest of a spec without its seeds, its fold and what describes it: equal for repetitions of one run."""
    kept = {name: value for name, value in spec.items() if name not in DESCRIPTIVE}
    for section, names in DRAWN_BY.items():
        if isinstance(value := kept.get(section), Mapping):
            kept[section] = {name: setting for name, setting in value.items() if name not in names}
    # a section that holds nothing else is as good as none
    kept = {name: value for name, value in kept.items() if value is not None and (value or name not in DRAWN_BY)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode(errors="surrogatepass")).hexdigest()[:16]
