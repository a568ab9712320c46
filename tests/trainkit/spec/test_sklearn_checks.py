"""Specs of models that scikit-learn fits, and the baselines that a spec is held against."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec import DatasetFacts, JobSpec, SpecError, resolve
from trainkit.spec.baselines import baselines
from trainkit.spec.checks.sklearn_models import MOST_SVM_SAMPLES
from trainkit.spec.estimate import estimate
from trainkit.spec.facts import ColumnFacts
from trainkit.spec.memory import next_spec
from trainkit.spec.models import SKLEARN_KINDS

CLASSES = {"a": 300, "b": 300, "c": 300}


def facts(kind: str = "arrays", samples: int = 900, **fields: Any) -> DatasetFacts:
    known: dict[str, Any] = {"input_shape": (6,), "classes": CLASSES, "target_type": "class"}
    return DatasetFacts(kind=kind, samples=samples, **{**known, **fields})


def table(target: str, *, gaps: int = 0, samples: int = 900) -> DatasetFacts:
    columns = (
        ColumnFacts(name="x", type="numeric", unique=800, missing=gaps),
        ColumnFacts(name="colour", type="categorical", unique=2, categories={"red": 450, "blue": 450}),
        ColumnFacts(name="price", type="numeric", unique=800),
        ColumnFacts(name="kind", type="categorical", unique=2, categories={"yes": 500, "no": 400}),
    )
    return DatasetFacts(kind="table", samples=samples, columns=columns, target=target)


NUMBERS: dict[str, Any] = {"classes": None, "target_type": "number"}
ALL = ["linear", "linear_svm", "small_mlp", "gradient_boosting", "rbf_svm"]
OF_NUMBERS = ["linear", "small_mlp", "gradient_boosting", "rbf_svm"]
NETWORKS = ["linear", "linear_svm", "small_mlp"]
CASES = {
    "vectors": (facts(), {}, ALL),
    "vectors of numbers": (facts(**NUMBERS), {}, OF_NUMBERS),
    "several numbers": (facts(**NUMBERS, target_width=3), {}, OF_NUMBERS),
    "table": (table("kind"), {}, ALL),
    "table of numbers": (table("price"), {"target_scaling": "min_max"}, OF_NUMBERS),
    "table with gaps": (table("kind", gaps=9), {"preprocess": [{"kind": "impute"}]}, ALL),
    "images": (facts("images", input_shape=(3, 8, 8), input_dtype="uint8"), {}, NETWORKS),
    "idx": (facts("idx", input_shape=(1, 8, 8), input_dtype="uint8"), {"augment": [{"kind": "rotate"}]}, NETWORKS),
    "image table of numbers": (facts("image_table", input_shape=(1, 8, 8), **NUMBERS), {}, ["linear", "small_mlp"]),
    "image arrays": (facts(input_shape=(8, 8)), {"preprocess": [{"kind": "pca", "components": 5}]}, NETWORKS),
    "equal sequences": (facts("sequences", input_shape=(7, 2), lengths=(7, 7)), {}, NETWORKS),
    "sequences": (facts("sequences", input_shape=(7, 2), lengths=(3, 7)), {}, ["small_gru"]),
    "forecasting": (
        table("price"),
        {"task": "forecasting", "dataset": {"id": "d", "window": 8, "ignore": ["colour", "kind"]}},
        ["linear", "small_mlp"],
    ),
    "own parts, none for validation": (facts(splits={"train": 800, "test": 100}), {"split": "8:2"}, ALL),
    "folds": (facts(), {"split": {"folds": 5, "fold": 2}}, ALL),
}


@pytest.mark.parametrize("case", CASES)
def test_baselines_are_valid_specs_of_the_same_task(case):
    known, fields, names = CASES[case]
    document = {"dataset": "d", "model": {"kind": "mlp", "dropout": 0.5}, "train": {"seed": 7, "epochs": 3}, **fields}
    document["model"] = {"images": {"kind": "cnn"}, "sequences": {"kind": "lstm"}}.get(case, document["model"])
    requested = resolve(JobSpec.model_validate(document), known)
    found = baselines(document, known)
    assert [name for name, _ in found] == names
    for name, baseline in found:
        resolved = resolve(baseline, known)
        assert [w.code for w in resolved.warnings if w.code == "not_used"] == []
        for same in ("task", "split", "dataset", "balance", "target_scaling"):
            assert getattr(resolved.spec, same) == getattr(requested.spec, same), same
        assert resolved.spec.train.seed == 7
        assert resolved.spec.train.monitor == requested.spec.train.monitor
        assert resolved.spec.name == f"baseline {name}"
        assert estimate(resolved, known)["memory_bytes"] > 0


def test_vectors_are_scaled_unless_the_spec_does():
    def steps(known: DatasetFacts, *preprocess: dict[str, Any]) -> list[str]:
        document = {"dataset": "d", "model": {"kind": "mlp"}, "preprocess": list(preprocess)}
        found = {tuple(step["kind"] for step in one["preprocess"]) for _, one in baselines(document, known)}
        assert len(found) == 1
        return list(found.pop())

    assert steps(facts()) == ["z_score"]
    assert steps(facts(), {"kind": "min_max"}) == ["min_max"]
    assert steps(facts(), {"kind": "zero_mean"}, {"kind": "pca", "components": 2}) == ["z_score", "pca"]
    assert steps(table("kind", gaps=9), {"kind": "impute"}) == ["impute", "z_score"]
    assert steps(facts("images", input_shape=(1, 8, 8), input_dtype="uint8")) == []


def test_the_metric_is_kept_and_ends_the_networks():
    document = {"dataset": "d", "model": {"kind": "mlp"}, "train": {"monitor": "val_f1"}}
    for name, one in baselines(document, facts()):
        assert one["train"]["monitor"] == "val_f1"
        if name in SKLEARN_KINDS:
            assert "early_stop" not in one
        else:
            assert one["early_stop"][1] == {"kind": "patience", "monitor": "val_f1", "patience": 10}
            assert 20 <= one["train"]["epochs"] <= 200


def test_a_bad_document_is_refused_as_ever():
    with pytest.raises(SpecError, match="unknown field"):
        baselines({"dataset": "d", "model": {"kind": "mlp"}, "modell": 1}, facts())
    with pytest.raises(SpecError, match="reads images"):
        baselines({"dataset": "d", "model": {"kind": "cnn"}}, facts())


def problems(known: DatasetFacts, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as raised:
        resolve({"dataset": "d", "model": {"kind": "rbf_svm"}, **fields}, known)
    return [(problem.pointer, problem.code) for problem in raised.value.problems]


def test_sklearn_baseline_refusals():
    assert problems(facts(), start_from={"model": "mdl_x"}) == [("/start_from", "no_weights")]
    assert problems(facts(), adapt={"target_dataset": "ds_x"}) == [("/adapt", "no_network")]
    ragged = facts("sequences", input_shape=(7, 2), lengths=(3, 7))
    assert problems(ragged) == [("/model/kind", "needs_equal_lengths")]
    assert problems(facts(), model={"kind": "rbf_svm", "init": {"kind": "zeros"}}) == [("/model/init", "unknown_field")]
    assert problems(facts(), model={"kind": "rbf_svm", "gamma": 0})[0][0] == "/model/gamma"


@pytest.mark.parametrize("samples", [25_000, 25_001, 30_011, 1_234_567])
def test_a_kernel_machine_takes_so_many_samples_and_baselines_mind_that(samples):
    known = facts(samples=samples, classes={"a": samples, "b": 0})
    assert problems(known, split={"train": 9, "validation": 1, "test": 0}) == [("/split/subsample", "too_many_samples")]
    document = {"dataset": "d", "model": {"kind": "mlp"}, "split": "9:1:0"}
    last = dict(baselines(document, known))["rbf_svm"]
    assert resolve(last, known).spec.split.subsample == pytest.approx(MOST_SVM_SAMPLES / (0.9 * samples), rel=1e-3)


def test_what_is_set_in_vain_is_warned_of_and_what_a_second_look_adds_is_not():
    document = {
        "dataset": "d",
        "model": {"kind": "gradient_boosting"},
        "augment": [{"kind": "noise", "std": 0.1}],
        "schedule": {"kind": "cosine"},
        "loss": {"kind": "focal"},
        "train": {"epochs": 3, "seed": 1, "threads": 1},
    }
    resolved = resolve(JobSpec.model_validate(document), facts())
    assert [w.pointer for w in resolved.warnings] == ["/augment", "/schedule", "/train/epochs", "/loss"]
    assert {w.code for w in resolved.warnings} == {"not_used"}
    assert resolved.spec.loss.kind == "cross_entropy"
    plain = resolve(JobSpec(dataset="d", model={"kind": "rbf_svm"}), facts())
    assert (plain.warnings, plain.spec.loss.kind) == ((), "hinge")
    assert resolve(plain.spec, facts()).warnings == ()  # a resolved spec is resolved again by the worker


def test_estimates_grow_as_the_fits_do():
    def seconds(samples: int, **model: Any) -> float:
        known = facts(samples=samples)
        return estimate(resolve(JobSpec(dataset="d", model=model), known), known)["seconds"]

    assert seconds(24_000, kind="rbf_svm") / seconds(6000, kind="rbf_svm") == pytest.approx(16, rel=0.15)
    ten = {"kind": "gradient_boosting", "max_iter": 1000}
    assert seconds(90_000, **ten) / seconds(9000, **ten) == pytest.approx(10, rel=0.05)
    offer = next_spec({"dataset": "d", "model": {"kind": "rbf_svm"}}, {})
    assert (offer["patch"], offer["fork"]) == (None, False)
    assert "subsample" in offer["why"]
