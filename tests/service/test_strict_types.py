"""In every body that a request may have, a number is a number and a boolean is a boolean, as the JSON schema says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import service.app  # noqa: F401 - imports every request model
from trainkit.spec import JobSpec, parse_spec
from trainkit.spec.optimizers import Adam
from trainkit.spec.preprocess import Pca
from trainkit.spec.strict_types import StrictTypes

np = pytest.importorskip("numpy")
COERCED: tuple[Any, ...] = (True, False, "1", "0.5", "true", "yes", 1, 0, 0.5, "1e-3")
"""What pydantic turns into a number or a boolean where the schema has it."""


def models(base: type[BaseModel] = StrictTypes) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


FIELDS = [(model, name) for model in dict.fromkeys(models()) for name in model.model_fields]


def test_no_value_is_taken_that_the_schema_refuses() -> None:
    refused = 0
    for model, name in FIELDS:
        schema = model.model_json_schema()
        field = {**schema["properties"][name], "$defs": schema.get("$defs", {})}
        validator = jsonschema_rs.Draft202012Validator(field)
        for value in COERCED:
            if validator.is_valid(value):
                continue
            refused += 1
            with pytest.raises(ValidationError) as caught:
                model.model_validate({name: value})
            places = [error["loc"][:1] for error in caught.value.errors()]
            assert (name,) in places or () in places, (model.__name__, name, value)
    assert refused > 3000


def test_whole_floats_are_whole_numbers() -> None:
    spec = parse_spec({"dataset": "d", "model": "mlp", "train": {"epochs": 5.0}, "preprocess": {"kind": "whiten"}})
    assert (spec.train.epochs, type(spec.train.epochs)) == (5, int)
    assert (Pca(components=3.0).components, Pca(components=1.0).components) == (3, 1.0)
    with pytest.raises(ValidationError):
        JobSpec.model_validate({"dataset": "d", "model": "mlp", "train": {"epochs": 5.5}})


def test_a_model_that_is_used_again_is_not_wrapped_again() -> None:
    """pydantic hands out the same schema to whatever uses the model; each use must not add a layer to it."""
    before = len(str(Adam.__pydantic_core_schema__))
    for _ in range(20):
        TypeAdapter(list[Adam])
    assert len(str(Adam.__pydantic_core_schema__)) == before
    for _ in range(50):
        TypeAdapter(JobSpec).json_schema()


def test_numbers_of_numpy_are_numbers() -> None:
    assert Adam(lr=np.float32(0.5)).lr == 0.5
    assert Adam(lr=np.int64(1)).lr == 1.0
    spec = JobSpec.model_validate({"dataset": "d", "model": "mlp", "train": {"epochs": np.int64(3)}})
    assert (spec.train.epochs, type(spec.train.epochs)) == (3, int)
