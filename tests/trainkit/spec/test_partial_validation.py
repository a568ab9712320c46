"""Errors of the document's form and of its dataset come together, and a part that does not parse breeds no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data.splits import largest_remainder
from trainkit.spec import DatasetFacts, SpecError, resolve
from trainkit.spec.job import JobSpec
from trainkit.spec.split import SplitSpec, part_sizes

GREY = DatasetFacts(
    kind="images", samples=1000, input_shape=(1, 8, 8), classes={"a": 500, "b": 500}, target_type="class"
)
GOOD = {"dataset": "d", "model": {"kind": "mlp"}}


def refusals(document: object, facts: DatasetFacts = GREY) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        resolve(document, facts)
    assert all(problem.hint for problem in caught.value.problems), "every refusal says what to do"
    return {problem.pointer: problem.code for problem in caught.value.problems}


def test_five_kinds_of_refusal_at_once():
    document = {
        "dataset": "d",
        "model": {"kind": "mlp", "spatial_dropout": 0.5},
        "optimizer": {"kind": "adamm"},
        "preprocess": [{"kind": "pca", "components": 65}],
        "augment": [{"kind": "hue"}],
        "split": "8:2",
        "early_stop": [{"kind": "patience"}],
    }
    assert refusals(document) == {
        "/model/spatial_dropout": "unknown_field",
        "/optimizer/kind": "unknown_kind",
        "/preprocess/0/components": "too_many_components",
        "/augment/0": "needs_colour",
        "/early_stop/0/monitor": "no_validation",
    }


def test_a_stand_in_keeps_the_positions_of_its_neighbours():
    steps = [{"kind": "hueee"}, {"kind": "noise", "std": -1}, {"kind": "hue"}]
    assert set(refusals(GOOD | {"augment": steps})) == {"/augment/0/kind", "/augment/1/std", "/augment/2"}


@pytest.mark.parametrize(
    "broken",
    [
        {"model": {"kind": "cnnn"}},
        {"split": "8:x"},
        {"early_stop": [{"kind": "target", "monitor": "val_loss"}]},
        {"preprocess": [{"kind": "imputee"}]},
        {"train": {"epochs": "many"}},
        {"start_from": {"freeze": "body"}},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_what_does_not_parse_breeds_no_problem_of_its_stand_in(broken):
    with pytest.raises(SpecError) as caught:
        resolve(GOOD | broken, GREY)
    assert len(caught.value.problems) == 1
    both = refusals(GOOD | broken | {"augment": [{"kind": "hue"}], "resources": {"priority": 999}})
    assert len(both) == 3


@pytest.mark.parametrize("document", [None, [], {}, {"model": {"kind": "mlp"}}, {"dataset": {"id": ""}, "model": 1}])
def test_invalid_document_raises_no_other_exception(document):
    with pytest.raises(SpecError):
        resolve(document, GREY)


def test_a_sound_document_passes():
    assert resolve(GOOD, GREY).spec.model.kind == "mlp"


@given(st.integers(0, 3000), st.lists(st.floats(0.01, 10), min_size=2, max_size=3))
def test_sizes_are_known_without_the_data(total, shares):
    whole = sum(shares)
    fractions = [share / whole for share in shares]
    assert part_sizes(total, fractions) == largest_remainder(total, np.array(fractions)).tolist()


def test_a_part_that_rounding_alone_would_fill_is_seen_to_be_empty():
    """3 samples at .55 : .20 : .25 are 2, 0 and 1: no validation, though 0.6 rounds to 1."""
    facts = GREY.model_copy(update={"samples": 3})
    split = SplitSpec(train=0.55, validation=0.2, test=0.25)
    spec = JobSpec.model_validate(GOOD | {"split": split.model_dump(), "early_stop": [{"kind": "patience"}]})
    with pytest.raises(SpecError, match="validation part would be empty"):
        resolve(spec, facts)


def test_a_part_that_rounding_alone_would_empty_is_not_refused():
    facts = GREY.model_copy(update={"samples": 5})
    spec = JobSpec.model_validate(GOOD | {"split": "8:1:0", "early_stop": [{"kind": "patience"}]})
    assert resolve(spec, facts).spec.train.monitor == "val_loss"
