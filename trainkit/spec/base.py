"""The base of every spec model: frozen, strict about unknown fields, documented by attribute docstrings."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from trainkit.spec.strict_types import StrictTypes


class SpecModel(StrictTypes):
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


_Dropped = Annotated[float, Field(ge=0, lt=1)]
DropProbability = Annotated[_Dropped, BeforeValidator(_usual, json_schema_input_type=bool | _Dropped)]
"""A probability of dropping; `true` is the usual 0.5, `false` and 0 drop nothing."""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1e3)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65536)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class ShortForm:
    """Annotation of a union of kinds: a bare text is the kind, so that `optimizer: adam` is `optimizer: {kind: adam}`.

    `names`: further words, such as torchvision's `resnet18`, each with the fields that it stands for.
    """

    def __init__(self, names: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.names = dict(names or {})

    def write_out(self, value: Any) -> Any:
        """The object that `value` stands for; what is no short form comes back as it is."""
        if isinstance(value, str):
            return dict(self.names.get(value, {"kind": value}))
        if isinstance(value, Mapping) and isinstance(kind := value.get("kind"), str) and kind in self.names:
            return {**value, **self.names[kind]}
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        # a word says nothing but the kind: one that needs a value has no short form
        models = [
            model for model in get_args(source) if not any(one.is_required() for one in model.model_fields.values())
        ]
        words = [model.model_fields["kind"].default for model in models] + list(self.names)
        written = core_schema.union_schema([schema, core_schema.literal_schema(words)])
        return core_schema.no_info_before_validator_function(self.write_out, schema, json_schema_input_schema=written)


def as_list(value: Any) -> Any:
    """A text or an object with a `kind`, where a list is meant, as a list of one."""
    return [value] if isinstance(value, str) or (isinstance(value, Mapping) and "kind" in value) else value


class _OneOrMore:
    """Annotation of a list of kinds: one alone needs no brackets. The JSON schema says so."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        written = core_schema.union_schema([schema, handler.generate_schema(_item_of(source))])
        return core_schema.no_info_before_validator_function(as_list, schema, json_schema_input_schema=written)


def _item_of(source: Any) -> Any:
    """The type of the entries of `tuple[T, ...]`, also within Annotated and beside None."""
    if get_origin(source) is tuple:
        return get_args(source)[0]
    return _item_of(next(part for part in get_args(source) if part is not NoneType))


OneOrMore = _OneOrMore()
