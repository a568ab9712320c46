"""Schemas of the OpenAPI document in the form that generators of clients understand, saying the same."""

from __future__ import annotations

import json
import re
from typing import Any

from service.response_model import STANDS_FOR
from trainkit.spec.catalog import SECTIONS, kinds

REFERENCE = "#/components/schemas/{model}"
Schemas = dict[str, dict[str, Any]]
COMPONENT_NAMES = {
    "BestOut": "BestTrial",
    "Body_create_dataset_v1_datasets_post": "DatasetForm",
    "Cost": "SimulatedCost",
    "EventOut": "JobEvent",
    "Expected": "ExpectedEffect",
    "LimitsIn": "ProjectLimitsPatch",
    "LimitsOut": "ProjectLimits",
    "LogsOut": "LogLines",
    "MessageOut": "WebhookMessage",
    "MetricsOut": "MetricRows",
    "ParentOut": "ParentJob",
    "ProgressOut": "JobProgress",
    "ProjectIn": "ProjectPatch",
    "ResultOut": "JobResult",
    "ResultsOut": "ExperimentResults",
    "RulesetOut": "RulesetOutcomes",
    "RuntimeOut": "JobRuntime",
    "SettingsIn": "ProjectSettingsPatch",
    "SettingsOut": "ProjectSettings",
    "ValidOut": "ValidatedSpec",
    "WarningOut": "SpecWarning",
}
"""Names of components that do not follow the rule of `client_name`."""
GENERIC = {"Page": "Page", "Cursor": "Page", "Listing": "List"}
UNION_NAMES: dict[tuple[str, ...], str] = {("Cnn", "ResidualCnn", "Torchvision"): "ImageModel"}
"""Names of unions of kinds that are no section of a spec."""

VALUE_NAMES = {
    **{"": "none", " ": "blank", ",": "comma", ".": "period", "'": "apostrophe", '"': "quote"},
    **{"*": "all", "job.*": "job_all", "inf": "infinity", "-inf": "minus_infinity"},
}
"""Names for values that are no names in any language."""

NULLABLE_NUMBER: dict[str, Any] = {
    "anyOf": [{"type": "number"}, {"type": "null"}],
    "description": "A number, or null where it is not finite.",
}
"""The component for such numbers in a list that is one of several forms: Go names the form after the type in it."""


def client_name(name: str) -> str:
    """Return a component's name for clients: `JobOut` is `Job`, `StopIn` is `StopRequest`, `Page_JobOut_` is `JobPage`."""
    if name in COMPONENT_NAMES:
        return COMPONENT_NAMES[name]
    if match := re.fullmatch(r"(Page|Cursor|Listing)_(\w+)_", name):
        return client_name(match[2]) + GENERIC[match[1]]
    if name.endswith("Out"):
        return name.removesuffix("Out")
    return re.sub(r"In$", "Request", name)


def for_clients(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with its schemas rewritten.

    - What stands for a component is a reference to it.
    - A union of kinds is a component of its own (`OptimizerSpec`), and so are its words (`OptimizerKind`) and the choice
      between both (`OptimizerChoice`): generators name a type after its component, or after the first place of many.
    - A list or a mapping that is one of several forms is a component too (`PreprocessList`, `JobSpecBalanceMap`), for
      languages where only a class tells it from the others; what in such a list may be null is one, too.
    - A pair of equal parts is a list of two.
    - Values of an enumeration that are no words have names (`x-enum-varnames`).
    - Defaults that are objects or lists, or one of several forms, stand in the description: few languages have such
      constants.
    - Fields have no titles, which generators take for names of classes.

    Raises ValueError where two components would have one name.
    """
    schemas: Schemas = document["components"]["schemas"]
    hoisted: Schemas = {}
    document = _rewritten(document, hoisted, _union_names())
    schemas = document["components"]["schemas"]
    schemas.update(hoisted)
    document = _renamed(document)
    schemas = document["components"]["schemas"]
    for name in list(schemas):
        for field, schema in schemas[name].get("properties", {}).items():
            _name_containers(schema, name + _camel(field), schemas)
        if isinstance(values := schemas[name].get("additionalProperties"), dict):
            _name_containers(values, f"{name}Value", schemas)
    return document


def _camel(name: str) -> str:
    return "".join(map(str.capitalize, name.split("_")))


def _name_containers(schema: dict[str, Any], name: str, schemas: Schemas) -> None:
    """Make the lists and mappings among the forms of `schema` components; those of its own values first."""
    for form in (schema, *schema.get("anyOf", []), *schema.get("oneOf", [])):
        if isinstance(values := form.get("additionalProperties"), dict):
            _name_containers(values, f"{name}Value", schemas)
    for key in ("anyOf", "oneOf"):
        forms = schema.get(key, [])
        if sum(form != {"type": "null"} for form in forms) < 2:
            continue
        for index, form in enumerate(forms):
            if form.get("type") not in ("array", "object"):
                continue
            inside, suffix = ("items", "List") if form["type"] == "array" else ("additionalProperties", "Map")
            item = form[inside].get("$ref", "").rpartition("/")[2] if isinstance(form.get(inside), dict) else ""
            component = (item.removesuffix("Choice") or name) + suffix
            if form.get("items") == {"anyOf": NULLABLE_NUMBER["anyOf"]}:
                schemas["NullableNumber"] = NULLABLE_NUMBER
                form["items"] = {"$ref": REFERENCE.format(model="NullableNumber")}
            if schemas.setdefault(component, form) != form:
                raise ValueError(f"two different schemas would be the component {component}")
            forms[index] = {"$ref": REFERENCE.format(model=component)}


def _union_names() -> dict[tuple[str, ...], str]:
    names: dict[tuple[str, ...], str] = {
        tuple(model.__name__ for model in kinds(union)): _camel(section)
        for section, union in reversed(SECTIONS.items())
    }
    return {**names, **UNION_NAMES}


def _rewritten(node: Any, hoisted: Schemas, names: dict[tuple[str, ...], str], *, is_schema: bool = False) -> Any:
    if isinstance(node, list):
        return [_rewritten(item, hoisted, names, is_schema=is_schema) for item in node]
    if not isinstance(node, dict):
        return node
    if component := node.get(STANDS_FOR):
        rest = {name: value for name, value in node.items() if name not in (STANDS_FOR, "type", "title")}
        return {"$ref": REFERENCE.format(model=component), **rest}
    result: dict[str, Any] = {}
    for name, value in node.items():
        if is_schema and name == "title" and isinstance(value, str):
            continue
        if name in ("examples", "example", "const", "enum") or (name == "default" and not isinstance(value, dict)):
            result[name] = value
        elif name in ("properties", "schemas", "patternProperties", "$defs") and isinstance(value, dict):
            result[name] = {key: _rewritten(one, hoisted, names, is_schema=True) for key, one in value.items()}
        elif name == "default" and is_schema:
            result[name] = value
        else:
            result[name] = _rewritten(value, hoisted, names, is_schema=is_schema or name == "schema")
    if not is_schema:
        return result
    for rewrite in (_flat, _without_compound_default, _as_list, _named_values):
        result = rewrite(result)
    return _hoisted(result, hoisted, names)


def _without_compound_default(schema: dict[str, Any]) -> dict[str, Any]:
    default, forms = schema.get("default"), schema.get("anyOf") or schema.get("oneOf") or []
    of_several = default is not None and sum(form != {"type": "null"} for form in forms) > 1
    if not of_several and not isinstance(default, dict | list):
        return schema
    rest = {name: value for name, value in schema.items() if name != "default"}
    text = " ".join(filter(None, (rest.get("description", ""), f"Default: `{json.dumps(default)}`.")))
    return {**rest, "description": text}


def _named_values(schema: dict[str, Any]) -> dict[str, Any]:
    values = schema.get("enum")
    if not isinstance(values, list) or not any(value in VALUE_NAMES for value in values):
        return schema
    return {**schema, "x-enum-varnames": [VALUE_NAMES.get(value, re.sub(r"\W", "_", value)) for value in values]}


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """A choice between forms, one of which is such a choice itself, as one."""
    forms = schema.get("anyOf", [])
    inner = next((form for form in forms if form.keys() - {"description"} == {"anyOf"}), None)
    if inner is None:
        return schema
    return {
        **inner,
        **schema,
        "anyOf": [one for form in forms for one in (inner["anyOf"] if form is inner else [form])],
    }


def _as_list(schema: dict[str, Any]) -> dict[str, Any]:
    parts = schema.get("prefixItems")
    if not parts or schema.get("maxItems") != len(parts):
        return schema
    if any(part != parts[0] for part in parts):
        return {**schema, "items": {"type": parts[0]["type"]}}  # of nothing, for tools that know no `prefixItems`
    return {**{name: value for name, value in schema.items() if name != "prefixItems"}, "items": parts[0]}


def _hoisted(schema: dict[str, Any], hoisted: Schemas, names: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """Put a union of kinds, or the choice between one and its words, among the components; return the rest."""
    if schema.get("discriminator", {}).get("propertyName") == "kind":
        members = tuple(member["$ref"].rpartition("/")[2] for member in schema["oneOf"])
        if members not in names:
            return schema
        return _referred(schema, ("oneOf", "discriminator"), f"{names[members]}Spec", hoisted)
    forms = schema.get("anyOf", [])
    union = next((form["$ref"] for form in forms if re.search(r"/\w+Spec$", form.get("$ref", ""))), None)
    words = next((form for form in forms if "enum" in form and form.get("type") == "string"), None)
    if union is None or words is None or union.rpartition("/")[2] not in hoisted:
        return schema
    name = union.rpartition("/")[2].removesuffix("Spec")
    choice = [{"$ref": union}, _referred(words, ("type", "enum"), f"{name}Kind", hoisted)]
    others = [form for form in forms if form not in ({"$ref": union}, words)]
    reference = _referred({"anyOf": choice}, ("anyOf",), f"{name}Choice", hoisted)
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, "anyOf": [reference, *others]} if others else {**reference, **rest}


def _referred(schema: dict[str, Any], moved: tuple[str, ...], name: str, hoisted: Schemas) -> dict[str, Any]:
    component = {key: value for key, value in schema.items() if key in moved}
    if hoisted.setdefault(name, component) != component:
        raise ValueError(f"two different schemas would be the component {name}")
    return {"$ref": REFERENCE.format(model=name), **{key: v for key, v in schema.items() if key not in moved}}


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    names = {name: client_name(name) for name in document["components"]["schemas"]}
    # in many languages each is a file, and many disks do not tell upper from lower case
    folded = [name.lower() for name in names.values()]
    if twice := {name for name in folded if folded.count(name) > 1}:
        raise ValueError(f"several components would be named {', '.join(sorted(twice))}; rename a class")
    prefix = REFERENCE.format(model="")

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if isinstance(node, dict):
            return {key: renamed(value) for key, value in node.items()}
        if isinstance(node, str) and node.startswith(prefix):
            return prefix + names[node.removeprefix(prefix)]
        return node

    document = renamed(document)
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {names[name]: schema for name, schema in sorted(schemas.items())}
    return document
