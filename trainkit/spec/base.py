"""The base of every spec model: frozen, strict about unknown fields, documented by attribute docstrings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class SpecModel(BaseModel):
    """Frozen data. Unknown fields are errors, so a typo never trains the wrong model in silence."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


Probability = Annotated[float, Field(ge=0, le=1)]
USUAL_DROP = 0.5


def _usual(value: object) -> object:
    return {True: USUAL_DROP, False: 0.0}[value] if isinstance(value, bool) else value


DropProbability = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_usual, json_schema_input_type=bool | float)]
"""A probability of dropping; `true` is the usual 0.5, `false` and 0 drop nothing."""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1e3)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65536)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
