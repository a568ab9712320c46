"""The pool of datasets: 26 real ones that packages carry, and four synthetic ones."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray

from benchmarks.diagnosis.packages import fetch
from benchmarks.diagnosis.r_data import read_data_frame

Array = NDArray[Any]
Samples = tuple[Any, Array]
"""(X, y): X (n, d), (n, H, W), or a list of (T, F); y int64 classes 0..K-1 or float64."""
Form = Literal["vector", "image", "sequence"]


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A dataset of the pool: its samples, and its classes (0: numbers are predicted).

    `linear`: a linear model is as good as any there, within a few per cent.
    `low_signal`: even the best models are far from 1.
    """

    name: str
    samples: int
    classes: int
    load: Callable[[], Samples] = field(repr=False)
    form: Form = "vector"
    linear: bool = False
    low_signal: bool = False
    boosting: bool = False
    """Boosted trees are better there than networks: a network is no sound choice."""
    least: int = 0
    """Samples that a run needs to learn what there is to learn."""

    @property
    def aside(self) -> int:
        """Samples that no run sees: a quarter, but at least 30 and at most 1500."""
        return min(max(self.samples // 4, 30), 1500)

    @property
    def available(self) -> int:
        """Samples that a run may have."""
        return self.samples - self.aside


def _of_sklearn(name: str, scale: float = 1.0) -> Callable[[], Samples]:
    def load() -> Samples:
        x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        return (x / scale).astype(np.float32), y if y.dtype.kind == "f" else y.astype(np.int64)

    return load


def _digit_images() -> Samples:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return (x.reshape(-1, 8, 8) / 16).astype(np.float32), y.astype(np.int64)


def _data_frame(name: str, target: str, *, leave: tuple[str, ...] = ()) -> Callable[[], Samples]:
    """Columns of an .rda file: numbers as they are, factors of numbers as numbers, other factors one-hot."""

    def load() -> Samples:
        columns = read_data_frame(fetch(name))
        y = columns.pop(target)
        for left in leave:
            columns.pop(left)
        return np.column_stack([_numbers(column) for column in columns.values()]).astype(np.float32), _targets(y)

    return load


def _numbers(column: Array) -> Array:
    """The column as floats (n, 1), or (n, K) one-hot where it holds texts."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)[:, None]
    try:
        return column.astype(np.float64)[:, None]
    except ValueError:
        levels, codes = np.unique(column, return_inverse=True)
        return np.eye(len(levels))[codes]


def _targets(y: Array) -> Array:
    return y if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1].astype(np.int64)


def _parquet(name: str, target: str, *, leave: tuple[str, ...] = ()) -> Callable[[], Samples]:
    def load() -> Samples:
        from pyarrow.parquet import read_table

        table = read_table(fetch(name))
        columns = {column: np.array(table[column].to_pylist()) for column in table.column_names if column not in leave}
        y = columns.pop(target)
        x = np.column_stack([_numbers(column) for column in columns.values()]).astype(np.float32)
        kept = np.isfinite(x).all(1)
        return x[kept], _targets(y[kept])

    return load


def _river_flow() -> Samples:
    """River flow 48 h ahead at one gauge, from what eight gauges showed in the last 60 h."""
    from pyarrow.parquet import read_table

    table = read_table(fetch("river_flow.parquet"))
    inputs = [name for name in table.column_names if not name.endswith("_48H__0")]
    x = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in inputs]).astype(np.float32)
    y = table["CHSI2_48H__0"].to_numpy(zero_copy_only=False).astype(np.float64)
    kept = np.isfinite(x).all(1) & np.isfinite(y)
    return x[kept], y[kept]


def _autompg() -> Samples:
    """Miles per gallon from cylinders, displacement, power, weight, acceleration, year and origin."""
    lines = gzip.decompress(fetch("autompg.csv.gz").read_bytes()).decode().splitlines()
    rows = [line.split(",") for line in lines]
    table = np.array([[float(value) for value in [*row[:7], row[-1]]] for row in rows])
    return table[:, :-1].astype(np.float32), table[:, -1]


def _mnist() -> Samples:
    rows = np.loadtxt(
        io.StringIO(gzip.decompress(fetch("mnist_5k.csv.gz").read_bytes()).decode()), delimiter=",", dtype=np.float32
    )
    return _halved(rows[:, :-1].reshape(-1, 28, 28) / 255), rows[:, -1].astype(np.int64)


def _fashion() -> Samples:
    pixels = np.frombuffer(gzip.decompress(fetch("fashion_images.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress(fetch("fashion_labels.gz").read_bytes()), np.uint8, offset=8)
    return _halved(pixels.reshape(-1, 28, 28)[:12000].astype(np.float32) / 255), labels[:12000].astype(np.int64)


def _halved(images: Array) -> Array:
    """Images of half the side, each pixel the mean of four: a run on them takes seconds."""
    n, height, width = images.shape
    halved: Array = images.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4)).astype(np.float32)
    return halved


def _time_series(name: str) -> Callable[[], Samples]:
    """Sequences (T, F) of a .ts file: channels separated by colons, the label behind the last one."""

    def load() -> Samples:
        samples, labels = [], []
        for part in ("train", "test"):
            for line in fetch(f"{name}_{part}.ts").read_text().splitlines():
                if line and line[0] not in "#@":
                    *channels, label = line.split(":")
                    samples.append(np.array([channel.split(",") for channel in channels], np.float32).T)
                    labels.append(label)
        return samples, _targets(np.array(labels))

    return load


N_SYNTHETIC = 8000
GAUSSIAN_DISTANCE = 1.2
"""Distance of the two Gaussians' means in standard deviations."""


def _overlapping() -> Samples:
    """Two classes, N(-+d/2 u, I) in 10 dimensions, u a unit vector. Bayes accuracy Phi(d / 2) = 0.726."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, N_SYNTHETIC)
    direction = random.normal(size=10)
    direction /= np.linalg.norm(direction)
    x = random.normal(size=(N_SYNTHETIC, 10)) + GAUSSIAN_DISTANCE * np.outer(y - 0.5, direction)
    return x.astype(np.float32), y.astype(np.int64)


def _weak_linear() -> Samples:
    """y = w x + noise in 12 dimensions, |w|^2 = 1 and variance of noise 4. Best R^2 1 / (1 + 4) = 0.2."""
    random = np.random.default_rng(1)
    x, weights = random.normal(size=(N_SYNTHETIC, 12)), random.normal(size=12)
    y = x @ (weights / np.linalg.norm(weights)) + 2 * random.normal(size=N_SYNTHETIC)
    return x.astype(np.float32), y


def _friedman() -> Samples:
    """Friedman's first: 10 sin(pi a b) + 20 (c - 1/2)^2 + 10 d + 5 e + N(0, 1.5^2). Best R^2 0.92."""
    x, y = sklearn.datasets.make_friedman1(N_SYNTHETIC, noise=1.5, random_state=2)
    return x.astype(np.float32), y


def _clusters() -> Samples:
    """Eight classes of two clusters each in 16 dimensions (scikit-learn's make_classification)."""
    x, y = sklearn.datasets.make_classification(
        N_SYNTHETIC, 16, n_informative=10, n_redundant=2, n_classes=8, n_clusters_per_class=2, random_state=4
    )
    return x.astype(np.float32), y.astype(np.int64)


POOL: Mapping[str, PoolEntry] = {
    entry.name: entry
    for entry in (
        PoolEntry("digits", 1797, 10, _digit_images, "image", linear=True),
        PoolEntry("mnist", 5000, 10, _mnist, "image"),
        PoolEntry("fashion", 12000, 10, _fashion, "image"),
        PoolEntry("japanese_vowels", 640, 9, _time_series("vowels"), "sequence"),
        PoolEntry("italy_power", 1096, 2, _time_series("italy"), "sequence"),
        PoolEntry("iris", 150, 3, _of_sklearn("iris"), linear=True),
        PoolEntry("wine", 178, 3, _of_sklearn("wine"), linear=True),
        PoolEntry("breast_cancer", 569, 2, _of_sklearn("breast_cancer"), linear=True),
        PoolEntry("letters", 20000, 26, _data_frame("letters.rda", "lettr"), least=1500),
        PoolEntry("satellite", 6435, 6, _data_frame("satellite.rda", "classes")),
        PoolEntry("vehicle", 846, 4, _data_frame("vehicle.rda", "Class")),
        PoolEntry("sonar", 208, 2, _data_frame("sonar.rda", "Class")),
        PoolEntry("ionosphere", 351, 2, _data_frame("ionosphere.rda", "Class")),
        PoolEntry("glass", 175, 3, _data_frame("glass.rda", "Type"), low_signal=True),
        PoolEntry("speech", 990, 11, _data_frame("speech.rda", "Class", leave=("V1",))),
        PoolEntry("pima", 768, 2, _data_frame("pima.rda", "diabetes"), linear=True, low_signal=True),
        PoolEntry("shuttle", 57756, 3, _data_frame("shuttle.rda", "Class")),
        PoolEntry("spam", 4601, 2, _data_frame("spam.rda", "type"), linear=True, boosting=True),
        PoolEntry("musk", 476, 2, _data_frame("musk.rda", "Class")),
        PoolEntry("adult", 48842, 2, _parquet("adult.parquet", "income", leave=("native-country",)), linear=True),
        PoolEntry("ecoli", 307, 4, _parquet("ecoli.parquet", "class", leave=("SequenceName",)), linear=True),
        PoolEntry("diabetes", 442, 0, _of_sklearn("diabetes"), linear=True, low_signal=True),
        PoolEntry("california", 20640, 0, _parquet("california.parquet", "MedHouseVal"), boosting=True),
        PoolEntry("boston", 506, 0, _data_frame("boston.rda", "medv")),
        PoolEntry("autompg", 392, 0, _autompg),
        PoolEntry("river_flow", 4048, 0, _river_flow),
        PoolEntry("overlapping", 8000, 2, _overlapping, linear=True, low_signal=True),
        PoolEntry("weak_linear", 8000, 0, _weak_linear, linear=True, low_signal=True),
        PoolEntry("friedman", 8000, 0, _friedman, boosting=True, least=800),
        PoolEntry("clusters", 8000, 8, _clusters, least=1500),
    )
}


LEAST_OF_CLASS, LEAST_SHARE = 25, 0.01
"""Classes with fewer samples, or a smaller share of the whole dataset, are left out: whether they are learnt is chance."""


@cache
def samples_of(name: str) -> Samples:
    """Return (X, y) of a dataset of the pool, without the classes that are too rare; treat them as read-only.

    Raises ValueError if there are not as many as the pool says: then every case drawn from it would be another one.
    """
    entry = POOL[name]
    x, y = entry.load()
    if y.dtype.kind != "f":
        kept = np.flatnonzero(np.bincount(y)[y] >= max(LEAST_OF_CLASS, LEAST_SHARE * len(y)))
        x = [x[row] for row in kept] if isinstance(x, list) else x[kept]
        y = np.unique(y[kept], return_inverse=True)[1].astype(np.int64)
    found = len(y), 0 if y.dtype.kind == "f" else int(y.max()) + 1
    if found != (entry.samples, entry.classes):
        raise ValueError(f"{name} has (samples, classes) {found}; the pool says {(entry.samples, entry.classes)}")
    return x, y
