"""References on a job's own split, against scikit-learn called by hand; what they must not read or disturb."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KernelCenterer, StandardScaler

from trainkit.data import Dataset, SequenceInputs
from trainkit.data.dataset import make_dataset
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.estimates import wilson_interval
from trainkit.fit import attainable as module
from trainkit.fit.attainable import attainable, attainable_event, reference_seconds
from trainkit.fit.encoding.prepare import cut_parts
from trainkit.fit.fit_and_diagnose import fit_and_diagnose
from trainkit.fit.references import models, networks
from trainkit.fit.references.models import Clock
from trainkit.fit.references.samples import read_samples
from trainkit.spec import resolve

SPEC: dict[str, Any] = {"dataset": "d", "model": {"kind": "mlp", "hidden": [8]}, "split": "6:2:2"}


def measured(data: Dataset, seconds: float = 60.0, **fields: Any) -> Attainable:
    found = attainable(resolve({**SPEC, **fields}, data.facts), data, seconds=seconds)
    assert found is not None
    return found


def row(found: Attainable, name: str) -> dict[str, Any]:
    return next(dict(one) for one in found.references if one["name"].startswith(name))


def parts(data: Dataset, **fields: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    spec = resolve({**SPEC, **fields}, data.facts).spec
    cut = cut_parts(spec, data, data.targets if data.facts.target_type == "class" else None)
    return cut.train, cut.validation, cut.test


@pytest.fixture(scope="module")
def cancer() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x, y = load_breast_cancer(return_X_y=True)
    return x[:300, :8], y[:300]


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "EPOCHS", 6)


def test_references_of_classes_are_those_of_scikit_learn(cancer: tuple[Any, Any]) -> None:
    x, y = cancer
    data = Dataset.from_arrays(x, y)
    found, (train, held, _) = measured(data), parts(data)
    assert (found.metric, found.samples, found.train_samples, found.complete) == ("accuracy", 60, 180, True)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=2 / 30, max_iter=1000, tol=1e-8)).fit(
        x[train], y[train]
    )
    logistic = row(found, "logistic regression, strong penalty")
    assert logistic["value"] == linear.score(x[held], y[held])
    assert logistic["recall"] == pytest.approx(balanced_accuracy_score(y[held], linear.predict(x[held])))
    assert (logistic["low"], logistic["high"]) == wilson_interval(logistic["value"], 60)
    seed = read_samples(resolve(SPEC, data.facts).spec, data).seed % 2**32  # type: ignore[union-attr]
    boosted = HistGradientBoostingClassifier(max_iter=150, early_stopping=True, random_state=seed).fit(
        x[train], y[train]
    )
    assert row(found, "gradient boosting")["value"] == boosted.score(x[held], y[held])
    assert row(found, "constant")["value"] == max(np.mean(y[held] == 0), np.mean(y[held] == 1))


def test_references_of_numbers_are_those_of_scikit_learn() -> None:
    x, y = load_diabetes(return_X_y=True)
    data = Dataset.from_arrays(x, y)
    found, (train, held, _) = measured(data), parts(data)
    alphas = [penalty * len(train) for penalty in models.PENALTIES]
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas)).fit(x[train], y[train])
    assert row(found, "ridge regression")["value"] == pytest.approx(r2_score(y[held], ridge.predict(x[held])), abs=1e-6)
    assert (found.metric, found.reference) == ("r2", "ridge regression")
    assert found.low < found.value < found.high


def test_the_kernel_is_that_of_scikit_learn_where_every_sample_is_a_centre() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y, held = x[:300], y[:300], x[300:]
    clock = Clock(time.monotonic() + 60)
    answer = models.kernel(5.0, 0)(torch.from_numpy(x), y[:, None], None, clock)(torch.from_numpy(held)).numpy()[:, 0]
    scaler, centred = StandardScaler().fit(x), KernelCenterer()
    similar = [rbf_kernel(scaler.transform(one), scaler.transform(x), gamma=1 / (5 * 10)) for one in (x, held)]
    kernels = [centred.fit_transform(similar[0]), centred.transform(similar[1])]
    gaps = []
    for penalty in models.PENALTIES:
        machine = KernelRidge(alpha=penalty * 300, kernel="precomputed").fit(kernels[0], y - y.mean())
        gaps.append(float(np.abs(machine.predict(kernels[1]) + y.mean() - answer).max()))
    assert min(gaps) < 1e-3 * y.std()


def test_noise_attains_what_a_constant_does_and_a_signal_more() -> None:
    random = np.random.default_rng(0)
    x, noise = random.normal(size=(400, 6)), random.integers(0, 2, 400)
    found = measured(Dataset.from_arrays(x, noise))
    assert found.low <= row(found, "constant")["value"] <= found.high
    numbers = measured(Dataset.from_arrays(x, random.normal(size=400)))
    assert numbers.low <= 0 <= numbers.high
    assert numbers.high < 0.3
    xor = measured(Dataset.from_arrays(x, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(np.int64)))
    assert xor.low > row(xor, "constant")["high"]
    assert row(xor, "logistic regression")["high"] < xor.low  # no line tells them apart
    assert xor.reference == "gradient boosting"


def test_neither_the_test_part_nor_the_validation_part_has_a_say(cancer: tuple[Any, Any]) -> None:
    x, y = cancer
    data = Dataset.from_arrays(x, y, split=np.arange(300) % 5 // 2)
    train, held, test = parts(data)
    before, changed = measured(data), x.copy()
    changed[test] = 1e6
    assert untimed(measured(Dataset.from_arrays(changed, y, split=data.split))) == untimed(before)
    swapped = y.copy()
    swapped[held] = 1 - swapped[held]
    other = measured(Dataset.from_arrays(x, swapped, split=data.split))
    assert other.reference == before.reference
    assert other.value == pytest.approx(1 - before.value)
    assert len(train) == other.train_samples


def untimed(found: Attainable) -> dict[str, Any]:
    """What it says but for the seconds that it took."""
    document = found.as_dict()
    rows = [{name: value for name, value in one.items() if name != "seconds"} for one in document.pop("references")]
    return {**document, "references": rows, "seconds": 0}


def test_random_numbers_and_threads_of_the_process_are_left_as_they_were(small_networks: None) -> None:
    x, y = load_digits(n_class=2, return_X_y=True)
    data = Dataset.from_arrays((x[:120] * 15).astype(np.uint8).reshape(-1, 8, 8), y[:120])
    np.random.seed(0)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), torch.get_num_threads()
    found = measured(data, model={"kind": "cnn", "channels": [4]})
    assert row(found, "small CNN")["state"] == "fitted"
    assert row(found, "small CNN")["value"] > 0.9
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.get_num_threads() == before[2]
    assert untimed(measured(data, model={"kind": "cnn"})) == untimed(found)


def test_sequences_have_features_and_a_gru(small_networks: None) -> None:
    random = np.random.default_rng(0)
    waves = [np.sin((0.3 + 0.5 * (n % 2)) * np.arange(10 + n % 9) + n)[:, None] for n in range(150)]
    noisy = [(wave + random.normal(0, 0.1, wave.shape)).astype(np.float32) for wave in waves]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in noisy])]).astype(np.int64)
    inputs = SequenceInputs(np.concatenate(noisy), offsets)
    data = make_dataset("sequences", inputs, np.arange(150) % 2, ("slow", "fast"), None)
    found = measured(data, model={"kind": "gru", "hidden": 4})
    assert found.low > row(found, "constant")["high"]
    assert row(found, "GRU")["state"] == "fitted"
    assert {one["state"] for one in found.references} == {"fitted"}


def test_forecasts_are_measured_against_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NETWORK_SECONDS", 1e9)
    season = np.tile([0.0, 3, 1, 5, 2, 8], 60)[:, None]
    forecast = {"task": "forecasting", "model": {"kind": "lstm", "hidden": 4}, "dataset": {"id": "d", "horizon": 2}}
    found = measured(Dataset.from_arrays(season), **forecast)
    assert row(found, "seasonal naive")["value"] == 1.0
    assert not found.complete
    walk = np.cumsum(np.random.default_rng(0).normal(size=400))
    data = Dataset.from_arrays(walk[:, None])
    found = measured(data, **{**forecast, "dataset": {"id": "d", "horizon": 1}})
    samples = read_samples(resolve({**SPEC, **forecast, "dataset": {"id": "d"}}, data.facts).spec, data)
    assert samples is not None
    held = samples.held_y[:, 0]
    last = walk[np.flatnonzero(walk.astype(np.float32) == np.float32(held[0]))[0] - 1 :][: len(held)]
    assert row(found, "last value")["value"] == pytest.approx(r2_score(held, last), abs=1e-4)


def test_what_cannot_be_measured_is_none() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    data = Dataset.from_arrays(x, x[:, 0])
    assert attainable(resolve({**SPEC, "split": "8:2"}, data.facts), data) is None
    constant = Dataset.from_arrays(x, np.ones(40))
    assert attainable(resolve(SPEC, constant.facts), constant) is None
    few = Dataset.from_arrays(x[:10], x[:10, 0])
    assert attainable(resolve({**SPEC, "split": {"train": 7, "validation": 1, "test": 2}}, few.facts), few) is None


def test_a_part_too_small_for_folds_gives_the_constant() -> None:
    data = Dataset.from_arrays(np.arange(12.0).reshape(6, 2), np.arange(6) % 2, split=[0, 0, 0, 0, 1, 1])
    assert measured(data).reference == "constant"


def test_a_failing_reference_is_a_row_and_no_error(monkeypatch: pytest.MonkeyPatch, cancer: tuple[Any, Any]) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(models, "kernel", lambda *_: fail)
    monkeypatch.setattr(models, "boosting", lambda *_: lambda x, y, classes, clock: lambda held: held * np.nan)
    data = Dataset.from_arrays(*cancer)
    found = measured(data)
    assert row(found, "kernel")["reason"] == "MemoryError: no room"
    assert row(found, "gradient boosting")["reason"] == "ValueError: its answers are not finite"
    assert found.complete
    assert found.reference.startswith("logistic")
    ensemble = resolve({**SPEC, "model": {"kind": "ensemble", "members": ["mdl_a", "mdl_b"]}}, data.facts)
    assert attainable_event(ensemble, data, trained=1.0) is None
    monkeypatch.setattr(module, "read_samples", fail)
    assert attainable_event(resolve(SPEC, data.facts), data, trained=1.0) is None


def test_a_reference_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch, cancer: tuple[Any, Any]) -> None:
    def endless(x: Any, y: Any, classes: Any, clock: Clock) -> Any:
        return Clock(time.monotonic() + 0.3, clock.interrupted).run(lambda: time.sleep(300))

    monkeypatch.setattr(models, "boosting", lambda *_: endless)
    found = measured(Dataset.from_arrays(*cancer))
    assert (row(found, "gradient boosting")["state"], found.complete) == ("stopped", False)
    assert "value" not in row(found, "gradient boosting")
    assert found.worth_repeating(120.0)
    assert row(found, "constant")["state"] == "fitted"
    assert (
        attainable(resolve(SPEC, Dataset.from_arrays(*cancer).facts), Dataset.from_arrays(*cancer), seconds=0) is None
    )


def test_a_new_command_ends_the_measurement_and_the_one_before_does_not(cancer: tuple[Any, Any]) -> None:
    class Commands:
        def __init__(self, *commands: Any) -> None:
            self.commands = list(commands)

        def command(self) -> Any:
            return self.commands.pop(0) if len(self.commands) > 1 else self.commands[0]

    data = Dataset.from_arrays(*cancer)
    resolved, stop = resolve(SPEC, data.facts), {"action": "stop"}
    whole = attainable(resolved, data, seconds=60, control=Commands(stop))
    assert whole is not None
    assert whole.complete
    cut = attainable(resolved, data, seconds=60, control=Commands(*[stop] * 6, {"action": "pause"}))
    assert cut is None or not cut.complete


def test_large_data_are_read_in_part(monkeypatch: pytest.MonkeyPatch, cancer: tuple[Any, Any]) -> None:
    from trainkit.fit.references import samples

    monkeypatch.setattr(samples, "MOST_SAMPLES", 90)
    found = measured(Dataset.from_arrays(*cancer))
    assert (found.train_samples, found.train_share, found.samples) == (90, 0.5, 60)


@pytest.mark.parametrize(("trained", "seconds"), [(0.1, 2.0), (10.0, 5.0), (1000.0, 20.0)])
def test_references_take_half_the_time_of_the_run_within_bounds(trained: float, seconds: float) -> None:
    assert reference_seconds(trained) == seconds


def test_a_diagnosed_run_has_it_in_its_record(cancer: tuple[Any, Any]) -> None:
    data = Dataset.from_arrays(*cancer)
    document = {**SPEC, "train": {"epochs": 2}}
    run = fit_and_diagnose(document, data, attainable="measure")
    assert run.record.attainable is not None
    assert run.record.attainable.low <= run.record.attainable.value <= run.record.attainable.high
    again = fit_and_diagnose(document, data, attainable=run.record.attainable)
    assert again.record.attainable == run.record.attainable
    assert fit_and_diagnose(document, data).record.attainable is None
    assert [len(one.record.get("val_loss")) for one in (run, again)] == [2, 2]
    assert (run.record.get("val_loss").value == again.record.get("val_loss").value).all()
