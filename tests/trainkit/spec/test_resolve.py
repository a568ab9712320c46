"""What a dataset's facts decide, and what they forbid."""

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from trainkit.data.load import load_dataset
from trainkit.spec import ColumnFacts, DatasetFacts, JobSpec, SpecError, resolve

GREY = DatasetFacts(
    kind="images", samples=1000, input_shape=(1, 8, 8), classes={"a": 500, "b": 500}, target_type="class"
)
COLOUR = GREY.model_copy(update={"input_shape": (3, 8, 8)})
TABLE = DatasetFacts(
    kind="table",
    samples=200,
    target="species",
    columns=(
        ColumnFacts(name="length", type="numeric", unique=90),
        ColumnFacts(name="width", type="numeric", unique=80, missing=3),
        ColumnFacts(name="place", type="categorical", unique=3, categories={"x": 100, "y": 60, "z": 40}),
        ColumnFacts(name="code", type="categorical", unique=200, categories=None),
        ColumnFacts(name="species", type="categorical", unique=2, categories={"one": 100, "two": 100}),
    ),
)
RAGGED = DatasetFacts(
    kind="sequences",
    samples=300,
    input_shape=(29, 12),
    lengths=(7, 29),
    classes={"1": 150, "2": 150},
    target_type="class",
)
NUMBERS = DatasetFacts(kind="arrays", samples=442, input_shape=(10,), target_type="number")


def resolved(facts, **document):
    return resolve({"dataset": "ds_1", "model": {"kind": "mlp"}} | document, facts)


def refusals(facts, **document):
    with pytest.raises(SpecError) as caught:
        resolved(facts, **document)
    return {(problem.pointer, problem.code) for problem in caught.value.problems}


def test_defaults_by_kind():
    images = resolved(GREY)
    assert (images.spec.task, images.spec.loss.kind, images.outputs) == ("classification", "cross_entropy", 2)
    assert images.spec.train.monitor == "val_loss"
    numbers = resolved(NUMBERS)
    assert (numbers.spec.task, numbers.spec.loss.kind, numbers.spec.target_scaling) == ("regression", "mse", "z_score")
    assert resolved(RAGGED, model={"kind": "lstm"}).spec.task == "sequence_classification"
    assert resolved(GREY, model={"kind": "linear_svm"}).spec.loss.kind == "hinge"


def test_table_width_counts_one_hot_categories_and_a_category_for_missing():
    table = resolved(TABLE, dataset={"id": "ds_1", "ignore": ["code"]}, preprocess=[{"kind": "impute"}])
    assert table.sample.shape == (2 + 3,)
    with_gap = TABLE.model_copy(
        update={
            "columns": tuple(c.model_copy(update={"missing": 1}) if c.name == "place" else c for c in TABLE.columns)
        }
    )
    ignore = {"id": "ds_1", "ignore": ["code"]}
    assert resolved(with_gap, dataset=ignore, preprocess=[{"kind": "impute"}]).sample.shape == (2 + 4,)


def test_monitor_modes_are_written_out():
    rules = [{"kind": "patience", "monitor": "val_accuracy"}, {"kind": "target", "monitor": "val_loss", "value": 0.1}]
    spec = resolved(GREY, early_stop=rules).spec
    assert [rule.mode for rule in spec.early_stop] == ["max", "min"]
    assert spec.train.monitor == "val_accuracy"


@pytest.mark.parametrize(
    ("facts", "document", "refusal"),
    [
        (TABLE, {}, ("/preprocess", "missing_values")),
        (TABLE, {}, ("/dataset/ignore", "too_many_categories")),
        (TABLE, {"dataset": {"id": "d", "target": "specie"}}, ("/dataset/target", "unknown_column")),
        (TABLE, {"dataset": {"id": "d", "features": ["lenght"]}}, ("/dataset/features/0", "unknown_column")),
        (TABLE, {"dataset": {"id": "d", "features": ["species"]}}, ("/dataset/features/0", "target_as_feature")),
        (TABLE, {"task": "regression"}, ("/task", "target_not_numbers")),
        (GREY, {"augment": [{"kind": "hue"}]}, ("/augment/0", "needs_colour")),
        (NUMBERS, {"augment": [{"kind": "rotate"}]}, ("/augment/0", "images_only")),
        (
            NUMBERS,
            {"preprocess": [{"kind": "pca", "components": 11}]},
            ("/preprocess/0/components", "too_many_components"),
        ),
        (NUMBERS, {"balance": "oversample"}, ("/balance", "needs_classes")),
        (NUMBERS, {"loss": {"kind": "cross_entropy"}}, ("/loss/kind", "wrong_loss")),
        (NUMBERS, {"model": {"kind": "cnn"}}, ("/model/kind", "needs_image")),
        (RAGGED, {}, ("/model/kind", "needs_equal_lengths")),
        (GREY, {"model": {"kind": "gru"}}, ("/model/kind", "needs_sequence")),
        (GREY, {"model": {"kind": "cnn"}, "preprocess": [{"kind": "pca"}]}, ("/preprocess", "needs_image")),
        (GREY, {"split": "8:2", "early_stop": [{"kind": "patience"}]}, ("/early_stop/0/monitor", "no_validation")),
        (
            GREY,
            {"early_stop": [{"kind": "patience", "monitor": "val_mse"}]},
            ("/early_stop/0/monitor", "metric_not_measured"),
        ),
        (
            GREY,
            {"early_stop": [{"kind": "patience", "monitor": "test_loss"}]},
            ("/early_stop/0/monitor", "test_is_held_out"),
        ),
        (
            GREY,
            {"early_stop": [{"kind": "patience", "monitor": "val_acc"}]},
            ("/early_stop/0/monitor", "unknown_metric"),
        ),
        (
            GREY,
            {"early_stop": [{"kind": "patience", "monitor": "val_accuracy", "mode": "min"}]},
            ("/early_stop/0/mode", "wrong_mode"),
        ),
        (
            GREY,
            {"augment": [{"kind": "mixup"}], "loss": {"kind": "hinge"}},
            ("/augment/0", "needs_soft_targets"),
        ),
        (
            GREY,
            {"regularize": {"label_smoothing": 0.1}, "loss": {"kind": "mse"}},
            ("/regularize/label_smoothing", "needs_cross_entropy"),
        ),
    ],
)
def test_impossible_combinations_are_refused(facts, document, refusal):
    assert refusal in refusals(facts, **document)


def test_hue_on_colour_images_is_fine():
    assert resolved(COLOUR, augment=[{"kind": "hue"}]).spec.augment


def test_warnings_do_not_refuse():
    result = resolved(GREY, regularize={"l2": 1, "weight_decay": 0.1}, split="8:2")
    assert {warning.code for warning in result.warnings} >= {"double_decay", "no_validation"}
    assert result.spec.train.monitor is None


def test_predefined_parts_decide_whether_there_is_validation():
    shipped = GREY.model_copy(update={"splits": {"train": 900, "test": 100}})
    assert resolved(shipped, early_stop=[{"kind": "patience"}]).spec.train.monitor == "val_loss"


def test_a_resolved_spec_is_a_fixed_point():
    once = resolved(GREY, early_stop=[{"kind": "patience"}]).spec
    again = resolve(once.model_dump(mode="json"), GREY).spec
    assert again == once


@pytest.mark.parametrize(
    ("optimizer", "update"),
    [
        ("sgd", "proximal"),
        ("ema_momentum", "proximal"),
        ("heavy_ball", "proximal"),
        ("nesterov", "proximal"),
        ("adagrad", "subgradient"),
        ("rmsprop", "subgradient"),
        ("adam", "subgradient"),
        ("lion", "subgradient"),
        ("muon", "subgradient"),
    ],
)
def test_l1_is_a_proximal_step_with_optimizers_that_step_by_the_gradient(optimizer, update):
    result = resolved(GREY, optimizer={"kind": optimizer}, regularize={"l1": 5})
    assert result.spec.regularize.l1_update == update
    assert ("l1_without_zeros" in {warning.code for warning in result.warnings}) == (update == "subgradient")
    other = {"proximal": "subgradient", "subgradient": "proximal"}[update]
    chosen = resolved(GREY, optimizer={"kind": optimizer}, regularize={"l1": 5, "l1_update": other})
    assert chosen.spec.regularize.l1_update == other
    expected = "l1_without_zeros" if update == "proximal" else "l1_decoupled"
    assert expected in {warning.code for warning in chosen.warnings}


@pytest.mark.parametrize(
    ("regularize", "pointers"),
    [
        ({"l2": 0.01}, ["/regularize/l2"]),
        ({"l1": 0.01}, ["/regularize/l1"]),
        ({"l1": 0.01, "l2": 1e-4}, ["/regularize/l1", "/regularize/l2"]),
        ({"l2": 0.01, "scale": "sum"}, []),
        ({"l2": 0.01, "scale": "mean"}, []),
        ({"l2": 5}, []),
        ({}, []),
    ],
)
def test_a_penalty_that_libraries_do_not_divide_is_warned_about(regularize, pointers):
    warnings = resolved(GREY, regularize=regularize, optimizer={"kind": "sgd"}).warnings
    weak = sorted((w for w in warnings if w.code == "weak_penalty"), key=lambda w: w.pointer)
    assert [warning.pointer for warning in weak] == pointers
    if pointers == ["/regularize/l2"]:
        assert "the decay is 1.25e-05, 800 times weaker than weight_decay=0.01 in PyTorch" in weak[0].message
        assert "1600 times weaker than L2(0.01) in Keras" in weak[0].message
    few = GREY.model_copy(update={"samples": 60, "classes": {"a": 30, "b": 30}})
    assert not [w for w in resolved(few, regularize=regularize).warnings if w.code == "weak_penalty"]


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e39", "1e400"])
@pytest.mark.parametrize(("column", "pointer"), [("g", "/dataset/ignore"), ("y", "/dataset/target")])
def test_infinite_numbers_are_refused_before_the_run(value: str, column: str, pointer: str, tmp_path: Path) -> None:
    """A number beyond float32 is infinite where it is used, so it is counted at intake and refused at validation."""
    rows = [{"f": str(row), "g": "0.5", "y": "1.5"} for row in range(40)]
    rows[3][column] = value
    path = tmp_path / "t.csv"
    path.write_text("f,g,y\n" + "".join(f"{row['f']},{row['g']},{row['y']}\n" for row in rows))
    facts = load_dataset(path, target="y").facts
    counted = facts.column(column)
    assert counted is not None
    assert counted.infinite == 1
    spec = {"dataset": {"id": "ds_1", "target": "y"}, "model": {"kind": "mlp"}}
    with pytest.raises(SpecError) as caught:
        resolve(spec, facts)
    assert [(problem.pointer, problem.code) for problem in caught.value.problems] == [(pointer, "infinite_values")]


def test_weights_by_hand_are_one_for_each_class_by_name():
    assert resolved(GREY, balance={"a": 1, "b": 5}).spec.balance == {"a": 1.0, "b": 5.0}
    assert refusals(GREY, balance={"a": 1, "c": 5}) == {("/balance/c", "unknown_class"), ("/balance", "missing_class")}
    assert refusals(GREY, balance={}) == {("/balance", "missing_class")}
    assert refusals(NUMBERS, balance={"a": 1}) == {("/balance", "needs_classes")}
    table = {"dataset": {"id": "ds_1", "ignore": ["code"]}, "preprocess": [{"kind": "impute"}]}
    assert resolved(TABLE, balance={"one": 2, "two": 1}, **table).spec.balance == {"one": 2.0, "two": 1.0}


@pytest.mark.parametrize("weight", [0, -1, "five", None])
def test_a_weight_is_a_positive_number(weight):
    (problem,) = refusals(GREY, balance={"a": 1, "b": weight})
    assert problem[0] == "/balance/b"


def test_a_kept_head_of_a_file_is_checked_on_the_worker():
    found = resolved(NUMBERS, start_from={"file": "w.safetensors", "head": "keep"}).warnings
    assert [warning.pointer for warning in found if warning.code == "unchecked_head"] == ["/start_from/head"]


@pytest.mark.parametrize(
    "short",
    [{"preprocess": "z_score"}, {"preprocess": {"kind": "z_score"}}, {"augment": "noise"}, {"early_stop": "diverged"}],
)
def test_the_json_schema_takes_one_step_without_a_list(short):
    document = {"dataset": "ds_1", "model": {"kind": "mlp"}, **short}
    JobSpec.model_validate(document)
    assert Draft202012Validator(JobSpec.model_json_schema()).is_valid(document)
    for section in short:
        assert not Draft202012Validator(JobSpec.model_json_schema()).is_valid({**document, section: 3})
