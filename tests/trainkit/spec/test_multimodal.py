"""Specs of models of images and columns: defaults, problems with their places, warnings, estimates."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.image_tables import MODEL, image_table
from trainkit.nn.build import build_model
from trainkit.nn.network import block_names, count_parameters
from trainkit.spec import resolve
from trainkit.spec.estimate import estimate
from trainkit.spec.facts import ColumnFacts, DatasetFacts
from trainkit.spec.memory import next_spec
from trainkit.spec.models import Multimodal, body_block_names, smaller_model
from trainkit.spec.patch import full_form, merge_patch
from trainkit.spec.preprocess import ZScore
from trainkit.spec.problems import SpecError
from trainkit.spec.resolve import load_resolved

FACTS = image_table().facts
PLAIN = FACTS.model_copy(update={"columns": None})


def with_column(**fields: Any) -> DatasetFacts:
    return FACTS.model_copy(update={"columns": (*(FACTS.columns or ()), ColumnFacts(**fields))})


def problems(document: dict[str, Any], facts: DatasetFacts = FACTS) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as refused:
        resolve({"dataset": "d", "model": MODEL, **document}, facts)
    assert all(problem.hint for problem in refused.value.problems)
    return [(problem.pointer, problem.code) for problem in refused.value.problems]


def test_columns_are_standardised_by_default_and_images_as_they_are() -> None:
    resolved = resolve({"dataset": "d", "model": MODEL}, FACTS)
    assert resolved.spec.preprocess == ()
    assert resolved.spec.preprocess_columns == (ZScore(),)
    assert [(one.pointer, one.code) for one in resolved.warnings] == [("/preprocess_columns", "standardised")]
    assert (resolved.sample.shape, resolved.sample.columns) == ((1, 6, 6), 3)  # two sides, one age
    plain = resolve({"dataset": "d", "model": MODEL, "preprocess_columns": []}, FACTS)
    assert (plain.spec.preprocess_columns, plain.warnings) == ((), ())
    again = load_resolved(resolved.spec.model_dump(mode="json"), FACTS)
    assert (again.spec, again.sample) == (resolved.spec, resolved.sample)


def test_features_and_ignored_columns_choose_what_is_read() -> None:
    ignored = resolve({"dataset": {"id": "d", "ignore": ["age"]}, "model": MODEL}, FACTS)
    chosen = resolve({"dataset": {"id": "d", "features": ["age"]}, "model": MODEL}, FACTS)
    assert (ignored.sample.columns, chosen.sample.columns) == (2, 1)


@pytest.mark.parametrize("model", ["cnn", "mlp", "gradient_boosting", {"kind": "torchvision", "name": "resnet18"}])
def test_a_model_of_the_image_alone_warns_of_unused_columns(model: Any) -> None:
    found = [one for one in resolve({"dataset": "d", "model": model}, FACTS).warnings if one.code == "unused_columns"]
    assert [one.pointer for one in found] == ["/model/kind"]
    assert "(side, age)" in found[0].message
    dataset = {"id": "d", "ignore": ["side", "age"]}
    assert "unused_columns" not in {one.code for one in resolve({"dataset": dataset, "model": model}, FACTS).warnings}
    assert "unused_columns" not in {one.code for one in resolve({"dataset": "d", "model": model}, PLAIN).warnings}


@pytest.mark.parametrize(
    ("document", "facts", "expected"),
    [
        ({}, PLAIN, [("/model/kind", "needs_columns")]),
        ({}, PLAIN.model_copy(update={"kind": "images"}), [("/model/kind", "needs_columns")]),
        ({"dataset": {"id": "d", "ignore": ["side", "age"]}}, FACTS, [("/dataset/features", "no_features")]),
        ({"dataset": {"id": "d", "ignore": ["sid"]}}, FACTS, [("/dataset/ignore/0", "unknown_column")]),
        ({"dataset": {"id": "d", "features": ["label", "age"]}}, FACTS, [("/dataset/features/0", "target_as_feature")]),
        ({"dataset": {"id": "d", "target": "age"}}, FACTS, [("/dataset/target", "target_is_fixed")]),
        ({"dataset": {"id": "d", "ignore": ["a"]}, "model": "cnn"}, PLAIN, [("/dataset/ignore", "no_columns")]),
        ({"model": "cnn", "preprocess_columns": ["z_score"]}, FACTS, [("/preprocess_columns", "needs_multimodal")]),
        ({"model": "cnn", "preprocess_columns": ["z_score"]}, PLAIN, [("/preprocess_columns", "needs_multimodal")]),
        ({}, with_column(name="w", type="numeric", missing=3), [("/preprocess_columns", "missing_values")]),
        ({}, with_column(name="w", type="numeric", infinite=1), [("/dataset/ignore", "infinite_values")]),
        ({}, with_column(name="w", type="categorical", unique=5000), [("/dataset/ignore", "too_many_categories")]),
        ({"preprocess": ["impute"]}, FACTS, [("/preprocess/0", "tables_only")]),
        ({"preprocess": [{"kind": "pca", "components": 2}]}, FACTS, [("/preprocess", "needs_image")]),
        ({"preprocess_columns": ["z_score", "impute"]}, FACTS, [("/preprocess_columns/1", "order")]),
        (
            {"preprocess_columns": [{"kind": "pca", "components": 9}]},
            FACTS,
            [("/preprocess_columns/0/components", "too_many_components")],
        ),
        (
            {"preprocess_columns": [{"kind": "z_score", "per": "channel"}]},
            FACTS,
            [("/preprocess_columns/0/per", "images_only")],
        ),
        ({"augment": [{"kind": "mixup"}]}, FACTS, [("/augment/0", "not_with_columns")]),
        ({"augment": [{"kind": "cutmix"}]}, FACTS, [("/augment/0", "not_with_columns")]),
        ({"adapt": {"target_dataset": "ds_1"}}, FACTS, [("/adapt", "not_with_columns")]),
        ({"start_from": {"model": "m", "freeze": {"first": 1}}}, FACTS, [("/start_from/freeze", "no_block_order")]),
        ({"start_from": {"model": "m", "freeze": ["image.block_9"]}}, FACTS, [("/start_from/freeze", "no_such_block")]),
        (
            {"train": {"batch_size": 1}, "model": {**MODEL, "columns": {"norm": "batch"}}},
            FACTS,
            [("/train/batch_size", "batch_norm_of_one")],
        ),
        ({"model": {**MODEL, "image": "lstm"}}, FACTS, [("/model/image", "unknown_kind")]),
        ({"model": {**MODEL, "columns": "cnn"}}, FACTS, [("/model/columns", "unknown_value")]),
        (
            {"model": {**MODEL, "image": {"kind": "cnn", "init": {"kind": "pretrained", "job": "job_1"}}}},
            FACTS,
            [("/model", "invalid_value")],
        ),
    ],
)
def test_problems_name_their_place(document: dict[str, Any], facts: DatasetFacts, expected: Any) -> None:
    assert problems(document, facts) == expected


def test_impute_and_categories_of_gaps_count_in_the_width() -> None:
    facts = with_column(name="w", type="categorical", missing=3, unique=2, categories={"a": 50, "b": 43})
    steps = [{"kind": "impute", "categorical": "category"}, "z_score"]
    resolved = resolve({"dataset": "d", "model": MODEL, "preprocess_columns": steps}, facts)
    assert resolved.sample.columns == 3 + 3


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        {"kind": "multimodal"},
        {
            **MODEL,
            "columns": {"hidden": [], "norm": "none"},
            "dense": [],
            "image": {"kind": "residual_cnn", "channels": [4]},
        },
        {**MODEL, "image": {"kind": "cnn", "channels": [4, 6], "head": "flatten", "dense": [7], "dropout": 0.5}},
        {"kind": "multimodal", "image": {"kind": "torchvision", "name": "squeezenet1_1", "image_size": 32}},
        {
            "kind": "multimodal",
            "image": {
                "kind": "torchvision",
                "name": "resnet18",
                "include_top": False,
                "dense": [9, 5],
                "image_size": 32,
            },
        },
    ],
)
@pytest.mark.parametrize("steps", [["z_score"], [{"kind": "pca", "components": 2}]])
def test_the_estimate_counts_the_parameters_of_the_network(model: dict[str, Any], steps: list[Any]) -> None:
    resolved = resolve({"dataset": "d", "model": model, "preprocess_columns": steps}, FACTS)
    width = 3 if steps == ["z_score"] else 2
    network = build_model(resolved.spec.model, (1, 6, 6), 2, seed=0, columns=width)
    counted = estimate(resolved, FACTS)
    assert counted["parameters"] == count_parameters(network)[0]
    assert counted["trainable"] == counted["parameters"]
    assert list(body_block_names(resolved.spec.model)) == block_names(network)


def test_short_forms_and_patches_reach_the_encoders() -> None:
    document = {"dataset": "d", "model": {"kind": "multimodal", "image": "resnet18", "columns": "mlp"}}
    written = full_form(document)["model"]
    assert written == {
        "kind": "multimodal",
        "image": {"kind": "torchvision", "name": "resnet18"},
        "columns": {"kind": "mlp"},
    }
    assert resolve(document, FACTS).spec.model == Multimodal.model_validate(written)
    patched = merge_patch(document, {"model": {"image": {"kind": "cnn", "init": "zeros"}, "columns": {"hidden": [4]}}})
    assert patched["model"]["image"] == {"kind": "cnn", "init": {"kind": "zeros"}}
    assert patched["model"]["columns"] == {"kind": "mlp", "hidden": [4]}


def test_a_smaller_model_and_one_that_needs_less_memory_are_of_the_same_kind() -> None:
    model = Multimodal.model_validate({"image": {"kind": "cnn", "channels": [64, 64], "kernel": 5}, "dense": [256]})
    small = smaller_model(model)
    assert isinstance(small, Multimodal)
    assert (small.image.kind, small.columns.hidden, small.dense) == ("cnn", (16,), (32,))
    least = {"batch_size": 2}  # batch norm of the image encoder takes no single sample
    document = {"dataset": "d", "model": model.model_dump(mode="json"), "train": least}
    offer = next_spec(document, {})
    assert offer["patch"] == {
        "model": {
            "image": {"kind": "cnn", "channels": [32, 32]},
            "columns": {"kind": "mlp", "hidden": [32, 16]},
            "dense": [128],
        }
    }
    assert offer["spec"]["model"]["image"]["kernel"] == 5
    resolve(offer["spec"], FACTS)
