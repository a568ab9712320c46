"""Duplicates: exact and near ones, with different labels, or in training and in a held-out part."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PARTS, Dataset, ImageInputs, Inputs, SequenceInputs, TableInputs
from trainkit.data.findings import Finding, finding

NEAR_BITS = 3
"""Largest Hamming distance of the 64-bit perceptual hashes of near duplicates."""
NEAR_LEVELS = 4.0
"""Largest mean absolute difference of near duplicates, in levels of 0..255."""
NEIGHBOURS = 8
MOST_PAIRS = 200_000
BLOCK_BYTES = 8 * 2**20
ROUNDING = 0.01
"""Near duplicate rows agree when rounded to this share of each column's standard deviation."""
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SampleNames:
    """Names of samples in messages."""

    names: Sequence[str] | None = None
    rows: bool = False
    """Whether samples are table rows, which count from 1 below the header; others count from 0."""

    def __getitem__(self, position: int) -> str:
        if self.names:
            return self.names[position]
        return f"row {position + 1}" if self.rows else f"sample {position}"


def digest(sample: bytes | memoryview) -> bytes:
    """Return a 16-byte digest of a sample."""
    return hashlib.blake2b(sample, digest_size=16).digest()


def digests(inputs: Inputs) -> NDArray[np.uint64]:
    """Return (n, 2): 128-bit digests that are equal for equal inputs."""
    if isinstance(inputs, SequenceInputs):
        cuts = zip(inputs.offsets[:-1].tolist(), inputs.offsets[1:].tolist(), strict=True)
        return stack_digests(digest(np.ascontiguousarray(inputs.values[a:b]).data.cast("B")) for a, b in cuts)
    if isinstance(inputs, ImageInputs) and inputs.columns is not None:
        return joined_digests(row_digests(inputs.pixels), digests(inputs.columns))
    return row_digests(table_rows(inputs) if isinstance(inputs, TableInputs) else _array(inputs))


def joined_digests(*parts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return (n, 2) digests of samples from those of their parts."""
    return row_digests(np.concatenate(parts, axis=1))


def row_digests(
    rows: NDArray[Any], prepare: Callable[[NDArray[Any]], NDArray[Any]] | None = None
) -> NDArray[np.uint64]:
    """Return (n, 2) digests of rows: each 64-bit word is mixed, weighted by its position, and summed, block by block.

    Vectorised, because a hash call for each of millions of short rows is slow. `prepare` maps a block of rows to one of
    the same type, so that no second array of all rows is needed.
    """
    size = int(np.prod(rows.shape[1:])) * rows.itemsize
    words = max(1, -(-size // 8))
    weights = np.random.default_rng(size).integers(1, 2**64, (2, words), np.uint64) | np.uint64(1)
    digests = np.empty((len(rows), 2), np.uint64)
    step = max(1, BLOCK_BYTES // (8 * words))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        raw = np.ascontiguousarray(block if prepare is None else prepare(block))
        padded = np.zeros((len(raw), 8 * words), np.uint8)
        padded[:, :size] = raw.view(np.uint8).reshape(len(raw), size)
        mixed = _splitmix64(padded.view(np.uint64) + weights[0])
        for half in (0, 1):
            digests[start : start + step, half] = _splitmix64((mixed * weights[half]).sum(1, dtype=np.uint64))
    return digests


def _splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele et al. 2014): every input bit affects every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def stack_digests(marks: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return (n, 2) from n digests."""
    return np.frombuffer(b"".join(marks), np.uint64).reshape(-1, 2)


def _array(inputs: Inputs) -> NDArray[Any]:
    return inputs.pixels if hasattr(inputs, "pixels") else inputs.values  # type: ignore[union-attr]


def table_rows(inputs: TableInputs, leave_out: str | None = None) -> NDArray[np.float64]:
    """Return (n, columns) of numbers and category codes."""
    chosen = [np.asarray(c.values, np.float64) for name, c in inputs.columns.items() if name != leave_out]
    return np.stack(chosen, axis=1)


def exact_duplicates(dataset: Dataset, marks: NDArray[np.uint64], named: SampleNames) -> list[Finding]:
    """Return findings of exact duplicates, duplicates with different labels, and duplicates in several parts."""
    groups, first = _groups(marks)
    again = len(groups) - len(first)
    if not again:
        return []
    copy = int(np.flatnonzero(first[groups] != np.arange(len(groups)))[0])
    example = f"{named[copy]} is {named[int(first[groups[copy]])]}"
    found = [
        finding("info", "duplicates", f"{again} samples are exact duplicates of others, e.g. {example}", named[copy])
    ]
    if dataset.targets is not None and dataset.facts.target_type == "class":
        torn = _conflicting(groups, first, np.asarray(dataset.targets))
        if len(torn):
            message = f"{len(torn)} samples have duplicates in another class: at most one of the labels is right"
            found.append(finding("warning", "conflicting_labels", message, named[int(torn[0])]))
    if dataset.split is not None:
        found += _between_parts(groups, first, np.asarray(dataset.split), named)
    return found


def repeated_images(
    dataset: Dataset, images: NDArray[np.uint64], marks: NDArray[np.uint64], named: SampleNames
) -> list[Finding]:
    """Return findings of images that several samples have beside other columns. `marks`: of images with their columns."""
    groups, first = _groups(images)
    again = np.flatnonzero((marks[first[groups]] != marks).any(1))
    if not len(again):
        return []
    example = f"{named[int(again[0])]} has that of {named[int(first[groups[again[0]]])]}"
    message = f"{len(again)} samples have the image of another one and other columns, e.g. {example}"
    found = [finding("info", "repeated_images", message, named[int(again[0])])]
    if dataset.split is not None:
        found += _between_parts(groups, first, np.asarray(dataset.split), named)
    return found


def _groups(marks: NDArray[np.uint64]) -> tuple[Index, Index]:
    """Return (group of each sample, first sample of each group)."""
    order = np.lexsort((marks[:, 1], marks[:, 0]))
    ordered = marks[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.cumsum(begins) - 1
    return groups, order[begins]  # the sort is stable: each group begins with its first sample


def _conflicting(groups: Index, first: Index, labels: NDArray[np.generic]) -> Index:
    """Return the first samples of the groups with different labels."""
    return np.sort(first[np.unique(groups[labels != labels[first[groups]]])])


def _between_parts(groups: Index, first: Index, split: NDArray[np.int8], named: SampleNames) -> list[Finding]:
    present = np.zeros((len(first), len(PARTS)), np.bool_)
    present[groups, split] = True
    shared = np.flatnonzero(present.sum(1) > 1)
    kinds = Counter(tuple(np.flatnonzero(row).tolist()) for row in present[shared])
    found = []
    for parts, count in kinds.items():
        names = " and ".join(PARTS[part] for part in parts)
        group = shared[(present[shared] == np.isin(np.arange(len(PARTS)), parts)).all(1)][0]
        message = f"{count} samples are in both {names}: the metrics of the held-out part will be too good"
        found.append(finding("warning", "leakage", message, named[int(first[group])]))
    return found


def near_images(
    hashes: NDArray[np.uint64], marks: NDArray[np.uint64], difference: Callable[[Index, Index], NDArray[np.float64]]
) -> tuple[Index, Index]:
    """Return pairs (earlier, later) of near duplicate, but not equal, images.

    The hashes are rotated by 16 bits and sorted, four times: hashes that differ in up to three bits agree in one of the
    four quarters, so they are close together when it leads. Each is compared with its next few neighbours, which bounds
    time and memory. `difference` returns the mean absolute difference of pairs.
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
    # one number for each pair: sorting numbers is ten times as fast as sorting rows, with the same order
    keys = np.unique(both[:, 0] * len(hashes) + both[:, 1])
    earlier, later = np.divmod(keys, len(hashes))
    differs = np.flatnonzero((marks[earlier] != marks[later]).any(1))[:MOST_PAIRS]
    earlier, later = earlier[differs], later[differs]
    alike = difference(earlier, later) <= NEAR_LEVELS
    return earlier[alike], later[alike]


def near_rows(rows: NDArray[np.floating], marks: NDArray[np.uint64]) -> tuple[Index, Index]:
    """Return pairs (earlier, later) of rows (n, d) that are equal when rounded, but not exactly. NaN equals NaN."""
    with np.errstate(all="ignore"):
        # a few columns at a time: copies of all rows would take several times their memory
        few = max(1, BLOCK_BYTES // (8 * max(1, len(rows))))
        spreads = [_spread(rows[:, start : start + few]) for start in range(0, rows.shape[1], few)]
        scale = np.concatenate(spreads) * ROUNDING
        scale[~(scale > 0)] = 1.0
        groups, first = _groups(row_digests(rows, lambda block: _rounded(block, scale)))
    later = np.flatnonzero(first[groups] != np.arange(len(groups)))
    earlier = first[groups[later]]
    differs = (marks[earlier] != marks[later]).any(1)
    return earlier[differs], later[differs]


def _spread(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the standard deviation of the finite values of each column."""
    finite = np.isfinite(rows)
    counts = np.maximum(1, finite.sum(0))
    means = np.where(finite, rows, 0).sum(0) / counts
    return np.asarray(np.sqrt((np.where(finite, rows - means, 0) ** 2).sum(0) / counts))


def _rounded(rows: NDArray[np.floating], scale: NDArray[np.floating]) -> NDArray[np.floating]:
    rounded = np.rint(rows / scale)
    rounded[np.isnan(rounded)] = np.nan  # one bit pattern for all NaN
    return np.asarray(rounded + 0.0)  # turns -0.0 into 0.0


def near_duplicates(dataset: Dataset, earlier: Index, later: Index, named: SampleNames, what: str) -> list[Finding]:
    """Return the findings of pairs of near duplicates."""
    if not len(later):
        return []
    example = f"{named[int(earlier[0])]} and {named[int(later[0])]}"
    message = f"{len(np.unique(later))} {what} are near duplicates of others, e.g. {example}"
    found = [finding("info", "near_duplicates", message, named[int(later[0])])]
    if dataset.split is not None:
        split = np.asarray(dataset.split)
        crossing = np.flatnonzero((split[earlier] == 0) != (split[later] == 0))
        if len(crossing):
            held = np.where(split[earlier] == 0, later, earlier)[crossing]
            a, b = named[int(earlier[crossing[0]])], named[int(later[crossing[0]])]
            message = f"{len(np.unique(held))} held-out {what} are near duplicates of training ones, e.g. {a} and {b}"
            found.append(finding("warning", "near_leakage", message, named[int(held[0])]))
    return found
