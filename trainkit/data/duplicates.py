"""Samples that occur twice: exactly, almost, under two labels, or in training and in a held-out part."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PARTS, Dataset, Inputs, SequenceInputs, TableInputs
from trainkit.data.findings import Finding, finding

NEAR_BITS = 3
"""Perceptual hashes of 64 bits that differ in at most so many may be of the same picture."""
NEAR_LEVELS = 4.0
"""Mean absolute difference, in levels of 0..255, up to which two pictures count as the same."""
NEIGHBOURS = 8
MOST_PAIRS = 200_000
BLOCK_BYTES = 8 * 2**20
GRAIN = 0.01
"""Rows are almost the same when their numbers agree to a hundredth of each column's deviation."""
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Named:
    """How samples are called in messages."""

    names: Sequence[str] | None = None
    rows: bool = False
    """Whether samples are rows of a table, which count from 1 below the header; others count from 0."""

    def __getitem__(self, position: int) -> str:
        if self.names:
            return self.names[position]
        return f"row {position + 1}" if self.rows else f"sample {position}"


def digest(sample: bytes | memoryview) -> bytes:
    """16 bytes that stand for a sample."""
    return hashlib.blake2b(sample, digest_size=16).digest()


def digests(inputs: Inputs) -> NDArray[np.uint64]:
    """(n, 2): 128 bits for each sample that are equal when the inputs are."""
    if isinstance(inputs, SequenceInputs):
        cuts = zip(inputs.offsets[:-1].tolist(), inputs.offsets[1:].tolist(), strict=True)
        return joined(digest(np.ascontiguousarray(inputs.values[a:b]).data.cast("B")) for a, b in cuts)
    return row_digests(table_rows(inputs) if isinstance(inputs, TableInputs) else _array(inputs))


def row_digests(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """(n, 2) of the rows' bytes: each 64-bit word is mixed, weighted by its place, and summed; a block at a time.

    Not one hash a row: there may be millions of short ones.
    """
    size = int(np.prod(rows.shape[1:])) * rows.itemsize
    words = max(1, -(-size // 8))
    weights = np.random.default_rng(size).integers(1, 2**64, (2, words), np.uint64) | np.uint64(1)
    made = np.empty((len(rows), 2), np.uint64)
    step = max(1, BLOCK_BYTES // (8 * words))
    for start in range(0, len(rows), step):
        raw = np.ascontiguousarray(rows[start : start + step])
        padded = np.zeros((len(raw), 8 * words), np.uint8)
        padded[:, :size] = raw.view(np.uint8).reshape(len(raw), size)
        mixed = _mixed(padded.view(np.uint64) + weights[0])
        for half in (0, 1):
            made[start : start + step, half] = _mixed((mixed * weights[half]).sum(1, dtype=np.uint64))
    return made


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the word reaches every other."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def joined(marks: Iterable[bytes]) -> NDArray[np.uint64]:
    """(n, 2) of n digests."""
    return np.frombuffer(b"".join(marks), np.uint64).reshape(-1, 2)


def _array(inputs: Inputs) -> NDArray[Any]:
    return inputs.pixels if hasattr(inputs, "pixels") else inputs.values  # type: ignore[union-attr]


def table_rows(inputs: TableInputs, leave_out: str | None = None) -> NDArray[np.float64]:
    """(n, columns) of numbers and category codes."""
    chosen = [np.asarray(c.values, np.float64) for name, c in inputs.columns.items() if name != leave_out]
    return np.stack(chosen, axis=1)


def exact(dataset: Dataset, marks: NDArray[np.uint64], named: Named) -> list[Finding]:
    """Copies, copies under different labels, and copies across parts."""
    groups, first = _groups(marks)
    again = len(groups) - len(first)
    if not again:
        return []
    copy = int(np.flatnonzero(first[groups] != np.arange(len(groups)))[0])
    example = f"{named[copy]} is {named[int(first[groups[copy]])]}"
    found = [
        finding("info", "duplicates", f"{again} samples are exact copies of others; the first: {example}", named[copy])
    ]
    if dataset.targets is not None and dataset.facts.target_type == "class":
        torn = _differing(groups, first, np.asarray(dataset.targets))
        if len(torn):
            message = f"{len(torn)} samples stand under two or more classes: at most one of their labels can be right"
            found.append(finding("warning", "conflicting_labels", message, named[int(torn[0])]))
    if dataset.split is not None:
        found += _across(groups, first, np.asarray(dataset.split), named)
    return found


def _groups(marks: NDArray[np.uint64]) -> tuple[Index, Index]:
    """(group of each sample, first sample of each group)."""
    order = np.lexsort((marks[:, 1], marks[:, 0]))
    ordered = marks[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.cumsum(begins) - 1
    return groups, order[begins]  # the sort is stable: each group begins with its first sample


def _differing(groups: Index, first: Index, labels: NDArray[np.generic]) -> Index:
    """First samples of the groups whose labels are not all the same."""
    return np.sort(first[np.unique(groups[labels != labels[first[groups]]])])


def _across(groups: Index, first: Index, split: NDArray[np.int8], named: Named) -> list[Finding]:
    present = np.zeros((len(first), len(PARTS)), np.bool_)
    present[groups, split] = True
    shared = np.flatnonzero(present.sum(1) > 1)
    kinds = Counter(tuple(np.flatnonzero(row).tolist()) for row in present[shared])
    found = []
    for parts, count in kinds.items():
        names = " and ".join(PARTS[part] for part in parts)
        group = shared[(present[shared] == np.isin(np.arange(len(PARTS)), parts)).all(1)][0]
        message = f"{count} samples stand in {names}: the figures of the held-out part will be too good"
        found.append(finding("warning", "leakage", message, named[int(first[group])]))
    return found


def near_images(
    hashes: NDArray[np.uint64], marks: NDArray[np.uint64], difference: Callable[[Index, Index], NDArray[np.float64]]
) -> tuple[Index, Index]:
    """Pairs (earlier, later) of pictures that are almost, but not exactly, the same.

    Four times the hashes are rotated by 16 bits and sorted: hashes that differ in up to three bits agree in one of the
    four quarters, so they come close together when that one leads. Each is compared with its next few neighbours; time
    and memory are bounded, whatever the pictures. `difference` gives the mean absolute difference of pairs.
    """
    pairs: list[NDArray[np.int64]] = []
    for turn in range(4):
        turned = hashes << np.uint64(16 * turn) | (hashes >> np.uint64(64 - 16 * turn) if turn else np.uint64(0))
        order = np.argsort(turned, kind="stable")
        ordered = hashes[order]
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            close = np.flatnonzero(np.bitwise_count(ordered[step:] ^ ordered[:-step]) <= NEAR_BITS)
            pairs.append(np.stack([order[close], order[close + step]], axis=1))
    if not pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    both = np.sort(np.concatenate(pairs), axis=1)
    # one number a pair: sorting numbers is ten times as fast as sorting rows, and the order is the same
    keys = np.unique(both[:, 0] * len(hashes) + both[:, 1])
    earlier, later = np.divmod(keys, len(hashes))
    differs = np.flatnonzero((marks[earlier] != marks[later]).any(1))[:MOST_PAIRS]
    earlier, later = earlier[differs], later[differs]
    alike = difference(earlier, later) <= NEAR_LEVELS
    return earlier[alike], later[alike]


def near_rows(rows: NDArray[np.floating], marks: NDArray[np.uint64]) -> tuple[Index, Index]:
    """Pairs (earlier, later) of rows (n, d) that are the same once rounded, but not exactly. NaN equals NaN."""
    with np.errstate(all="ignore"):
        finite = np.isfinite(rows)
        counts = np.maximum(1, finite.sum(0))
        means = np.where(finite, rows, 0).sum(0) / counts
        spread = np.sqrt((np.where(finite, rows - means, 0) ** 2).sum(0) / counts)
        rounded = np.rint(rows / np.where(spread > 0, spread * GRAIN, 1.0))
    rounded[np.isnan(rounded)] = np.nan  # one bit pattern for all of them
    groups, first = _groups(row_digests(rounded + 0.0))  # minus zero is zero
    later = np.flatnonzero(first[groups] != np.arange(len(groups)))
    earlier = first[groups[later]]
    differs = (marks[earlier] != marks[later]).any(1)
    return earlier[differs], later[differs]


def near(dataset: Dataset, earlier: Index, later: Index, named: Named, what: str) -> list[Finding]:
    """Findings of pairs that are almost the same."""
    if not len(later):
        return []
    example = f"{named[int(earlier[0])]} and {named[int(later[0])]}"
    message = f"{len(np.unique(later))} {what} are almost the same as others; the first: {example}"
    found = [finding("info", "near_duplicates", message, named[int(later[0])])]
    if dataset.split is not None:
        split = np.asarray(dataset.split)
        crossing = np.flatnonzero((split[earlier] == 0) != (split[later] == 0))
        if len(crossing):
            held = np.where(split[earlier] == 0, later, earlier)[crossing]
            a, b = named[int(earlier[crossing[0]])], named[int(later[crossing[0]])]
            message = (
                f"{len(np.unique(held))} held-out {what} are almost the same as training ones; the first: {a} and {b}"
            )
            found.append(finding("warning", "near_leakage", message, named[int(held[0])]))
    return found
