"""A case of the benchmark: a sound run, and what is planted in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmarks.diagnosis.datasets import PoolEntry
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import merge_patch

Document = dict[str, Any]
Strength = Literal["invisible", "slight", "clear", "gross"]
STRENGTHS: tuple[Strength, ...] = ("invisible", "slight", "clear", "gross")
Family = Literal["ordinary", "small", "low_signal", "noisy", "imbalanced", "unusual"]
FAMILIES: tuple[Family, ...] = ("ordinary", "small", "low_signal", "noisy", "imbalanced", "unusual")
"""Kinds of sound runs: as good as the data allows; few samples; weak data; noise in the inputs; classes of unequal size
that are learnt all the same; settings that are unusual and do no harm."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault: its strength, what was changed (`what`), and the recipe and document of the run with it alone."""

    code: Code
    strength: Strength
    what: str
    recipe: Mapping[str, Any] = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A run: `recipe` and `document` are with all faults, `sound_recipe` and `sound_document` are its twin without.

    `planted` is empty for a sound run, whose `family` says of which kind it is.
    """

    seed: int
    family: Family
    planted: tuple[Planted, ...]
    recipe: Mapping[str, Any]
    document: Document
    sound_recipe: Mapping[str, Any]
    sound_document: Document

    @property
    def name(self) -> str:
        """Seed, dataset, model, and what is planted."""
        faults = (
            " + ".join(f"{one.code} {one.strength} ({one.what})" for one in self.planted) or f"sound: {self.family}"
        )
        return f"{self.seed}: {self.recipe['dataset']}, {self.document['model']['kind']}, {faults}"


@dataclass(slots=True)
class Draft:
    """A sound run that a fault is still to be planted in. `document` and `recipe` may be changed by the fault's context."""

    random: np.random.Generator
    entry: PoolEntry
    kind: str
    recipe: dict[str, Any]
    document: Document

    @property
    def classes(self) -> bool:
        return bool(self.entry.classes)

    @property
    def samples(self) -> int:
        return int(self.recipe["n"])

    def context(self, patch: Mapping[str, Any]) -> None:
        """Change the run and its twin alike."""
        self.document = merge_patch(self.document, patch)


@dataclass(frozen=True, slots=True)
class Change:
    """What a fault changes, in the data and in the document."""

    what: str
    document: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
