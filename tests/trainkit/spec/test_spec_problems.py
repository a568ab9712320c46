"""Every spec error names its place (RFC 6901), says what is wrong and what to do, and all come at once."""

import pytest

from trainkit.spec import SpecError, parse_spec
from trainkit.spec.problems import pointer


def problems(document):
    with pytest.raises(SpecError) as caught:
        parse_spec(document)
    return {problem.pointer: problem for problem in caught.value.problems}


MINIMAL = {"dataset": "ds_1", "model": {"kind": "mlp"}}


def test_all_errors_come_at_once_with_pointers():
    found = problems(
        {
            "dataset": "ds_1",
            "model": {"kind": "mlpp"},
            "optimizer": {"kind": "adam", "lr2": 1},
            "early_stop": [{"kind": "patience", "patince": 3}],
            "train": {"epochs": "x"},
            "split": "8:x",
            "colour": "red",
        }
    )
    assert set(found) == {
        "/model/kind",
        "/optimizer/lr2",
        "/early_stop/0/patince",
        "/train/epochs",
        "/split",
        "/colour",
    }


@pytest.mark.parametrize(
    ("document", "where", "code", "hint"),
    [
        (MINIMAL | {"model": {"kind": "mlpp"}}, "/model/kind", "unknown_kind", 'Did you mean "mlp"?'),
        (MINIMAL | {"model": {}}, "/model", "missing_kind", "Known kinds"),
        (MINIMAL | {"optimzer": {}}, "/optimzer", "unknown_field", 'Did you mean "optimizer"?'),
        (MINIMAL | {"optimizer": {"kind": "adam", "lrr": 1}}, "/optimizer/lrr", "unknown_field", 'Did you mean "lr"?'),
        ({"model": {"kind": "mlp"}}, "/dataset", "missing_field", "Add it."),
        (MINIMAL | {"balance": "overample"}, "/balance", "unknown_value", 'Did you mean "oversample"?'),
        (
            MINIMAL | {"model": {"kind": "mlp", "spatial_dropout": 0.5}},
            "/model/spatial_dropout",
            "unknown_field",
            "dropout",
        ),
    ],
)
def test_a_typo_gets_the_nearest_name(document, where, code, hint):
    problem = problems(document)[where]
    assert problem.code == code
    assert hint in problem.hint


@pytest.mark.parametrize("document", [None, [], "text", 3, {"dataset": "x"}, {"dataset": {"id": ""}, "model": 1}])
def test_any_document_gets_problems_never_another_exception(document):
    assert problems(document)


def test_infinite_and_missing_numbers_are_refused():
    found = problems(MINIMAL | {"optimizer": {"kind": "sgd", "lr": float("inf")}, "regularize": {"l1": float("nan")}})
    assert set(found) == {"/optimizer/lr", "/regularize/l1"}


def test_true_is_the_usual_dropout_of_a_half():
    def rates(value):
        model = parse_spec(MINIMAL | {"model": {"kind": "cnn", "dropout": value, "spatial_dropout": value}}).model
        return model.dropout, model.spatial_dropout

    assert (rates(True), rates(False), rates(0.25)) == ((0.5, 0.5), (0.0, 0.0), (0.25, 0.25))


def test_pointers_escape_slash_and_tilde():
    assert pointer(["a/b", "c~d", 0]) == "/a~1b/c~0d/0"


def test_a_spec_is_frozen():
    spec = parse_spec(MINIMAL)
    with pytest.raises(Exception, match="frozen"):
        spec.name = "other"


def test_ranges_run_upwards():
    steps = [
        {"kind": "random_resized_crop", "scale": [0.9, 0.5]},
        {"kind": "random_erasing", "ratio": [2, 1]},
        {"kind": "random_resized_crop", "scale": [0.5, 0.5]},
    ]
    assert set(problems(MINIMAL | {"augment": steps})) == {"/augment/0/scale", "/augment/1/ratio"}


@pytest.mark.parametrize(
    ("section", "where", "expected"),
    [
        ({"train": {"epochs": True}}, "/train/epochs", "`epochs` must be a whole number; got true"),
        ({"optimizer": {"kind": "adam", "lr": True}}, "/optimizer/lr", "`lr` must be a number; got true"),
        (
            {"model": {"kind": "mlp", "hidden": [8, True]}},
            "/model/hidden/1",
            "item 1 of `hidden` must be a whole number",
        ),
        ({"early_stop": {"kind": "patience", "patience": True}}, "/early_stop/patience", "must be a whole number"),
        ({"early_stop": [{"kind": "patience", "patience": True}]}, "/early_stop/0/patience", "must be a whole number"),
        ({"balance": {"no": True, "yes": 2}}, "/balance/no", "must be a number; got true"),
    ],
)
def test_true_is_no_number(section, where, expected):
    """pydantic reads true as 1: a run of one epoch, or a learning rate of 1, without a word."""
    found = problems(MINIMAL | section)
    assert list(found) == [where]
    assert expected in found[where].message


def test_booleans_stay_where_they_belong():
    spec = parse_spec(MINIMAL | {"optimizer": {"kind": "sgd", "momentum": 0.9, "nesterov": True}})
    assert spec.optimizer.nesterov is True
