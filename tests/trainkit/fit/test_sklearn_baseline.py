"""Models that scikit-learn fits, as jobs: their figures are scikit-learn's own on the same split."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from trainkit.data import Dataset, split_indices
from trainkit.fit import sklearn_baseline
from trainkit.spec import resolve
from trainkit.spec.catalog import catalog

BOOSTING, SVM = {"kind": "gradient_boosting"}, {"kind": "rbf_svm"}
QUICK = {"kind": "gradient_boosting", "max_iter": 5}


def document(model: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"dataset": "data", "model": model, "split": "6:2:2", **fields}


def cut(data: Dataset, job_spec: dict[str, Any]) -> tuple[Any, np.ndarray, np.ndarray]:
    """(parts, inputs as float64, targets) of a dataset of arrays."""
    resolved = resolve(job_spec, data.facts).spec
    labels = data.targets if data.facts.classes is not None else None
    parts = split_indices(resolved.split, data.facts.samples, labels, data.split)
    return parts, np.asarray(data.inputs.values, np.float64), np.asarray(data.targets)


@pytest.fixture(scope="module")
def cancer() -> Dataset:
    x, y = load_breast_cancer(return_X_y=True)
    return Dataset.from_arrays(x.astype(np.float32), y.astype(np.int64))


@pytest.fixture(scope="module")
def wine() -> Dataset:
    x, y = load_wine(return_X_y=True)
    return Dataset.from_arrays(x.astype(np.float32), y.astype(np.int64))


@pytest.fixture(scope="module")
def diabetes() -> Dataset:
    x, y = load_diabetes(return_X_y=True)
    return Dataset.from_arrays(x.astype(np.float32), y.astype(np.float64))


def assert_same_metrics(
    got: dict[str, float], y: np.ndarray, answer: np.ndarray, scores: np.ndarray, loss: float
) -> None:
    assert got["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y, answer))
    for name, score in (("f1", sklearn_metrics.f1_score), ("recall", sklearn_metrics.recall_score)):
        assert got[name] == pytest.approx(score(y, answer, average="macro"))
    if scores.ndim == 1:
        assert got["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, scores))
    assert got["loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("name", ["cancer", "wine"])
def test_boosting_is_scikit_learns(name, request):
    data = request.getfixturevalue(name)
    parts, x, y = cut(data, document(BOOSTING))
    model = HistGradientBoostingClassifier(random_state=0).fit(x[parts.train], y[parts.train])
    result = tk.fit(document(BOOSTING), data)
    for part, index in (("val", parts.validation), ("test", parts.test)):
        shares = model.predict_proba(x[index])
        scores = shares[:, 1] if shares.shape[1] == 2 else shares
        loss = sklearn_metrics.log_loss(y[index], shares, labels=model.classes_)
        assert_same_metrics(result.evaluation["parts"][part], y[index], model.predict(x[index]), scores, loss)
    matrix = sklearn_metrics.confusion_matrix(y[parts.test], model.predict(x[parts.test]))
    assert result.evaluation["confusion_matrix"] == matrix.tolist()
    assert result.evaluation["samples"] == len(parts.test)
    assert (result.stop_reason, result.outcome, result.model) == ("completed", "finished", None)


@pytest.mark.parametrize("name", ["cancer", "wine"])
def test_the_kernel_machine_is_scikit_learns(name, request):
    data = request.getfixturevalue(name)
    parts, x, y = cut(data, document(SVM))
    model = make_pipeline(StandardScaler(), SVC()).fit(x[parts.train], y[parts.train])
    result = tk.fit(document(SVM), data)
    for part, index in (("val", parts.validation), ("test", parts.test)):
        scores = model.decision_function(x[index])
        loss = sklearn_metrics.hinge_loss(y[index], scores, labels=np.unique(y))
        assert_same_metrics(result.evaluation["parts"][part], y[index], model.predict(x[index]), scores, loss)


@pytest.mark.parametrize("kind", ["gradient_boosting", "rbf_svm"])
def test_regression_is_scikit_learns(kind, diabetes):
    job_spec = document({"kind": kind})
    parts, x, y = cut(diabetes, job_spec)
    one = HistGradientBoostingRegressor(random_state=0) if kind == "gradient_boosting" else None
    inner = one or make_pipeline(StandardScaler(), SVR())
    model = TransformedTargetRegressor(inner, transformer=StandardScaler()).fit(x[parts.train], y[parts.train])
    result = tk.fit(job_spec, diabetes)
    for part, index in (("val", parts.validation), ("test", parts.test)):
        got, answer = result.evaluation["parts"][part], model.predict(x[index])
        assert got["mse"] == pytest.approx(sklearn_metrics.mean_squared_error(y[index], answer), rel=1e-4)
        assert got["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(y[index], answer), rel=1e-4)
        assert got["r2"] == pytest.approx(sklearn_metrics.r2_score(y[index], answer), rel=1e-4)
        assert got["loss"] == pytest.approx(got["mse"] / y[parts.train].var(), rel=1e-4)


def test_several_numbers_have_a_model_each():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    y = np.stack([x @ [1, 2, 3], 10 * x[:, 0] ** 2], 1).astype(np.float64)
    data, job_spec = Dataset.from_arrays(x, y), document(SVM, target_scaling="none")
    parts, wide, _ = cut(data, job_spec)
    model = MultiOutputRegressor(make_pipeline(StandardScaler(), SVR())).fit(wide[parts.train], y[parts.train])
    expected = sklearn_metrics.r2_score(y[parts.test], model.predict(wide[parts.test]))
    assert tk.fit(job_spec, data).evaluation["metrics"]["r2"] == pytest.approx(expected, rel=1e-5)


def test_fields_reach_scikit_learn(cancer):
    model = {"kind": "rbf_svm", "c": 0.3, "gamma": 0.01, "standardise": False}
    job_spec = document(model, balance="class_weights", preprocess=[{"kind": "z_score"}])
    parts, x, y = cut(cancer, job_spec)
    scaled = StandardScaler().fit(x[parts.train])
    machine = SVC(C=0.3, gamma=0.01, class_weight="balanced").fit(scaled.transform(x[parts.train]), y[parts.train])
    scores = machine.decision_function(scaled.transform(x[parts.test]))
    got = tk.fit(job_spec, cancer).evaluation["metrics"]
    assert got["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y[parts.test], scores))
    assert got["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y[parts.test], scores > 0))
    shallow = {"kind": "gradient_boosting", "max_iter": 7, "max_depth": 1, "learning_rate": 0.5, "min_samples_leaf": 5}
    stump = HistGradientBoostingClassifier(
        max_iter=7, max_depth=1, learning_rate=0.5, min_samples_leaf=5, random_state=0
    ).fit(x[parts.train], y[parts.train])
    loss = sklearn_metrics.log_loss(y[parts.test], stump.predict_proba(x[parts.test]))
    assert tk.fit(document(shallow), cancer).evaluation["metrics"]["loss"] == pytest.approx(loss, rel=1e-6)


def test_over_sampling_is_seen_by_the_fit(cancer):
    plain, over = (tk.fit(document(QUICK, balance=balance), cancer).history for balance in ("none", "oversample"))
    assert plain != over


@pytest.mark.parametrize("model", [BOOSTING | {"max_iter": 5, "early_stopping": True}, SVM])
def test_the_same_seed_gives_the_same_bits(model, wine):
    first, second = (tk.fit(document(model, train={"seed": 3}), wine) for _ in range(2))
    assert first.history == second.history


def test_what_is_told_while_it_runs(cancer, tmp_path):
    events: list[dict[str, Any]] = []
    result = tk.fit(document(QUICK), cancer, on_event=events.append, workdir=tmp_path)
    kinds = [event["type"] for event in events]
    assert kinds[-2:] == ["log", "finished"]
    resolved = next(event for event in events if event["type"] == "runtime")
    assert (resolved["device"], resolved["parameters"]) == ("cpu", 0)
    assert "scikit-learn" in resolved["versions"]
    logged = {(row["split"], row["name"]) for row in result.history}
    assert {("train", "loss"), ("train", "accuracy"), ("val", "loss"), ("val", "loss_se"), ("test", "f1")} <= logged
    assert {(row["epoch"], row["step"]) for row in result.history} == {(1, 1)}
    finished = events[-1]
    assert (finished["artifact"], finished["best_epoch"], finished["stopped_epoch"]) == (None, 1, 1)
    assert (tmp_path / "plots" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("make", [images, numbers, lambda: sequences(shortest=5, longest=5)])
@pytest.mark.parametrize("model", [QUICK, SVM])
def test_any_samples_of_one_size_will_do(make, model):
    result = tk.fit(document(model), make())
    assert np.isfinite(result.evaluation["metrics"]["loss"])


def test_augmentation_makes_no_difference():
    plain = tk.fit(document(QUICK), images()).evaluation
    assert tk.fit(document(QUICK, augment=[{"kind": "rotate", "degrees": 20}]), images()).evaluation == plain


def test_a_class_that_training_never_saw_costs_much_but_is_a_number():
    data = vectors(120)
    labels = data.targets.copy()
    parts, x, _ = cut(data, document(QUICK, split={"train": 6, "validation": 2, "test": 2, "stratify": False}))
    labels[parts.train] = labels[parts.train] % 2
    labels[parts.test] = 2
    rare = Dataset.from_arrays(x.astype(np.float32), labels, classes=["a", "b", "c"])
    job_spec = document(QUICK, split={"train": 6, "validation": 2, "test": 2, "stratify": False})
    for model in (QUICK, SVM):
        got = tk.fit({**job_spec, "model": model}, rare).evaluation
        assert got["metrics"]["accuracy"] == 0
        assert 20 < got["metrics"]["loss"] < 50
    labels[parts.train] = 0
    one = Dataset.from_arrays(x.astype(np.float32), labels, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match='of class "a"'):
        tk.fit(job_spec, one)


def test_what_makes_no_sense_is_said(cancer):
    events: list[dict[str, Any]] = []
    tk.fit(spec(QUICK, optimizer={"kind": "sgd", "lr": 0.1}), cancer, on_event=events.append)
    warnings = [event["message"] for event in events if event["type"] == "log" and event["level"] == "warning"]
    assert [text.split(":")[0] for text in warnings] == ["/optimizer", "/train/epochs", "/train/batch_size"]
    with pytest.raises(tk.SpecError, match="no weights to take over"):
        tk.fit(document(QUICK, start_from={"model": "mdl_x"}), cancer)


class Wishes:
    """Says what is wished for once `after` questions have been asked."""

    def __init__(self, action: str | None, after: int = 0, **command: Any) -> None:
        self.wished = None if action is None else {"action": action, **command}
        self.after, self.calls = after, 0
        self.heard = threading.Event()

    def command(self) -> dict[str, Any] | None:
        self.calls += 1
        if self.calls <= self.after:
            return None
        self.heard.set()
        return self.wished


@pytest.mark.parametrize(
    ("action", "outcome"), [("cancel", "cancelled"), ("pause", "paused"), ("hand_back", "handed_back")]
)
@pytest.mark.parametrize("after", [0, 2])
def test_a_wish_waits_for_no_fit(action, outcome, after, cancer, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(sklearn_baseline, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sklearn_baseline, "_fit", lambda *_: released.wait(60))
    result = tk.fit(document(QUICK), cancer, control=Wishes(action, after))
    released.set()
    assert (result.outcome, result.evaluation, result.checkpoint) == (outcome, None, None)


def test_a_long_fit_gives_signs_of_life_and_a_stop_waits_for_it(cancer, monkeypatch):
    control, fit = Wishes("stop", after=5), sklearn_baseline._fit
    monkeypatch.setattr(sklearn_baseline, "LOOK_SECONDS", 0.01)

    def slow(*args: Any) -> Any:
        assert control.heard.wait(60)
        time.sleep(0.05)
        return fit(*args)

    monkeypatch.setattr(sklearn_baseline, "_fit", slow)
    result = tk.fit(document(QUICK), cancer, control=control)
    assert (result.outcome, result.stop_reason) == ("finished", "client_stop")
    assert control.calls > 5
    assert result.evaluation["samples"] > 0


def test_a_fit_over_its_time_fails_in_words(cancer, monkeypatch):
    released, events = threading.Event(), []
    monkeypatch.setattr(sklearn_baseline, "_fit", lambda *_: released.wait(60))
    with pytest.raises(ValueError, match="max_seconds"):
        tk.fit(document(QUICK, resources={"max_seconds": 0.01}), cancer, on_event=events.append)
    released.set()
    assert events[-1]["error"]["code"] == "not_trainable"


def test_without_scikit_learn_it_says_what_to_install(cancer, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    events: list[dict[str, Any]] = []
    with pytest.raises(ValueError, match="pip install"):
        tk.fit(document(QUICK), cancer, on_event=events.append)
    assert events[-1]["error"]["code"] == "not_trainable"


def test_the_catalogue_has_scikit_learns_defaults():
    entries = {entry["kind"]: entry["default"] for entry in catalog()["model"]}
    boosting = {name: value for name, value in entries["gradient_boosting"].items() if name != "kind"}
    for estimator in (HistGradientBoostingClassifier(), HistGradientBoostingRegressor()):
        defaults = estimator.get_params()
        assert boosting == {name: defaults[name] for name in boosting}
    machine = entries["rbf_svm"]
    assert (machine["c"], machine["gamma"], machine["epsilon"]) == (SVR().C, SVR().gamma, SVR().epsilon)
    assert (machine["c"], machine["gamma"]) == (SVC().C, SVC().gamma)
