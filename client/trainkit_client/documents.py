"""Specs as they are sent: of a mapping, a file, YAML text or a model; YAML is read as the service reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from trainkit_client.errors import TrainkitError

if TYPE_CHECKING:
    import yaml

SpecInput: TypeAlias = "Mapping[str, Any] | BaseModel | str | Path"
"""A spec: a mapping, a model of `trainkit_client.spec`, the path of a YAML or JSON file, or YAML text of several lines."""
YAML_TYPE, JSON_TYPE = "application/yaml", "application/json"


class SpecFileError(TrainkitError, ValueError):
    """A spec cannot be read as a mapping."""


def body_of(spec: SpecInput | None, fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the body of a request and its media type. `fields` replace those of the spec.

    A file without further fields is sent as it is, so that the service tells about each line as it was written.
    """
    if isinstance(spec, str | Path) and not fields:
        return text_of(spec).encode(), YAML_TYPE
    document = {**(mapping_of(spec) if spec is not None else {}), **plain(fields)}
    return json.dumps(document, allow_nan=False).encode(), JSON_TYPE


def mapping_of(spec: SpecInput) -> dict[str, Any]:
    """Return a spec as plain data. Raises SpecFileError."""
    if isinstance(spec, str | Path):
        return read_yaml(text_of(spec))
    value = plain(spec)
    if not isinstance(value, dict):
        raise SpecFileError(f"A spec must be a mapping, a model, a file or YAML text; got {type(spec).__name__}.")
    return value


def plain(value: Any) -> Any:
    """Return plain data of models, handles of datasets and jobs, paths and tuples."""
    if isinstance(value, BaseModel):
        identity = getattr(value, "id", None)
        if hasattr(value, "_client") and isinstance(identity, str):  # a handle: what it is about is named by its id
            return identity
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)  # a scalar of numpy
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def text_of(spec: str | Path) -> str:
    """Return the text of a file, or YAML text itself: text of several lines, or a mapping in braces."""
    if isinstance(spec, str) and ("\n" in spec or spec.lstrip().startswith("{")):
        return spec
    try:
        return Path(spec).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SpecFileError(f"The spec {str(spec)!r} cannot be read: {error}.") from None


def read_yaml(text: str) -> dict[str, Any]:
    """Return a document of YAML 1.2 or JSON. Raises SpecFileError, also for a key that is there twice."""
    import yaml

    try:
        document = yaml.load(text, _loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecFileError(f"The spec is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise SpecFileError(f"A spec must be a mapping of fields; got {type(document).__name__}.")
    return document


_LOADER: list[type[yaml.SafeLoader]] = []


def _loader() -> type[yaml.SafeLoader]:
    """Return the loader of the core schema of YAML 1.2, as the service has it.

    PyYAML implements YAML 1.1, in which `1e-3` is text, `no` is false and `1:30` is 90.
    """
    if not _LOADER:
        _LOADER.append(_core_schema_loader())
    return _LOADER[0]


def _core_schema_loader() -> type[yaml.SafeLoader]:
    import yaml

    class CoreLoader(yaml.SafeLoader):
        """Reads plain scalars by the core schema, and refuses repeated keys."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # none of YAML 1.1

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"the field {repeated!r} is there twice (line {node.start_mark.line + 1})")
            return super().construct_mapping(node, deep)

    def integer(loader: Any, node: Any) -> int:
        text = loader.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)

    def floating(loader: Any, node: Any) -> float:
        return float(re.sub(r"^([-+]?)\.(?=[in])", r"\1", loader.construct_scalar(node).lower()))

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            list("-+.0123456789"),
        ),
    ):
        CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
    CoreLoader.add_constructor("tag:yaml.org,2002:int", integer)
    CoreLoader.add_constructor("tag:yaml.org,2002:float", floating)
    return CoreLoader
