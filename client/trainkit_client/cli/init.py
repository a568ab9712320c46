"""`trainkit init`: a commented spec for a dataset, as the service completes and checks it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from trainkit_client.cli.command import REFUSED, CommandError, Session, command, single
from trainkit_client.cli.datasets import DatasetArgument

app = single()
MODELS = {
    "images": ("cnn", "mlp"),
    "sequences": ("lstm", "mlp"),
    "series": ("lstm", "mlp"),
    "images_and_columns": ("cnn",),
}
"""Kind of a dataset -> kinds of models to begin with, the first that fits; of all others an MLP."""
DEFAULT_MODELS = ("mlp", "lstm", "linear")
SECTIONS = (
    ("task", "What is predicted."),
    ("split", "Shares of the parts; a dataset that ships its own keeps them. The seed draws them."),
    ("preprocess", "Fitted on the training part alone."),
    ("augment", "Changes of training images, drawn anew in each epoch; [] for none."),
    ("model", "The network."),
    ("loss", "What training makes small."),
    ("optimizer", "How weights are changed. lr, the learning rate, is the first setting to try."),
    ("schedule", "How the learning rate changes with time."),
    ("regularize", "Against learning by heart: penalties on weights."),
    ("train", "The loop."),
    ("early_stop", "When to end before the last epoch; the best weights are kept."),
)
"""Fields of a spec in the order of the file, with what they are for."""
TRAIN_FIELDS = ("epochs", "batch_size", "seed", "monitor", "clip_norm", "checkpoint_seconds")
WIDTH = 100
LISTED = 12
"""Alternatives that a comment names at most."""


@command(
    app,
    None,
    "trainkit init digits\ntrainkit init cancer --output cancer.yaml --model linear\ntrainkit init digits --output -",
)
def init(
    session: Session,
    dataset: DatasetArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File to write; - prints it. Default: DATASET.yaml here.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Kind of the model; default: what fits the data.")] = None,
    target: Annotated[str | None, typer.Option(help="Of a table: the column to predict.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented spec for a dataset. It is checked: `trainkit jobs submit` takes it as it is."""
    found = session.find("datasets", dataset)
    if found["state"] != "ready":
        raise CommandError(f"Dataset {found['id']} is {found['state']}; a spec needs one that is ready.", REFUSED)
    report = session.get(f"/v1/datasets/{found['id']}/report")
    reference = f"{found['name']}:{found['version']}" if found.get("name") else found["id"]
    source: Any = {"id": reference, "target": target} if target else reference
    completed = completed_spec(session, source, model, report)
    text = written(completed, source, session.get("/v1/catalog"), found, report)
    check(session, text)
    path = Path(output or f"{found['name'] or found['id']}.yaml")
    if output == "-":
        print(text, end="")
        return
    if path.exists() and not force:
        raise CommandError(f"{path} is there already. Add --force to replace it.", REFUSED)
    path.write_text(text, encoding="utf-8")
    session.output.document(
        {"path": str(path)}, f"{path} is written. Train: trainkit jobs submit {path} --watch", str(path)
    )


def completed_spec(session: Session, source: Any, model: str | None, report: dict[str, Any]) -> dict[str, Any]:
    """Return the spec that the service completes, of the first kind of model that it accepts for this dataset."""
    from trainkit_client import Invalid

    kinds = [model] if model else [*MODELS.get(report.get("kind") or "", ()), *DEFAULT_MODELS]
    failure: Exception | None = None
    for kind in dict.fromkeys(kinds):
        try:
            spec: dict[str, Any] = session.post("/v1/specs:validate", {"dataset": source, "model": {"kind": kind}})[
                "spec"
            ]
            return spec
        except Invalid as error:
            failure = failure or error
            if any(item.pointer.startswith("/dataset") for item in error.errors):
                break  # no model changes that
    assert failure is not None
    raise failure


def check(session: Session, text: str) -> None:
    """Have the service check what is to be written."""
    session.client.request(
        "POST", "/v1/specs:validate", content=text.encode(), headers={"Content-Type": "application/yaml"}
    )


def written(
    spec: dict[str, Any], source: Any, catalog: dict[str, Any], dataset: dict[str, Any], report: dict[str, Any]
) -> str:
    """Return the file."""
    lines = [f"# A job on {dataset['name']}:{dataset['version']}: {described(dataset, report)}."]
    lines += ["# Submit it: trainkit jobs submit FILE --watch. Every field but dataset and model may be left out.", ""]
    lines += [f"name: {scalar(dataset['name'] or 'first')}", f"dataset: {flow(source)}", ""]
    for name, purpose in SECTIONS:
        value = section(name, spec)
        if name == "augment" and not value and report.get("kind") != "images":
            continue
        lines += comment(purpose)
        lines += comment(kinds_of(name, value, catalog))
        if isinstance(value, dict) and name in ("train", "model", "optimizer"):
            lines += [f"{name}:", *fields_of(name, value, catalog)]
        elif isinstance(value, list) and value:
            lines += [f"{name}:", *(f"  - {flow(item)}" for item in value)]
        else:
            lines.append(f"{name}: {flow(value)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def described(dataset: dict[str, Any], report: dict[str, Any]) -> str:
    """Return the dataset in a few words."""
    parts = [f"{report.get('kind') or dataset.get('kind')}", f"{dataset.get('samples')} samples"]
    if classes := dataset.get("classes"):
        parts.append(f"{len(classes)} classes")
    return ", ".join(parts)


def section(name: str, spec: dict[str, Any]) -> Any:
    """Return a field of the completed spec, without what few people set."""
    value = spec.get(name)
    if name == "train" and isinstance(value, dict):
        return {field: value[field] for field in TRAIN_FIELDS if field in value and value[field] is not None}
    if name == "split" and isinstance(value, dict):
        return {field: value[field] for field in ("train", "validation", "test", "stratify", "seed") if field in value}
    if name == "early_stop":
        monitor = (spec.get("train") or {}).get("monitor") or "val_loss"
        return [{"kind": "patience", "monitor": monitor, "patience": 10}, {"kind": "diverged"}]
    return without_nothing(value)


def without_nothing(value: Any) -> Any:
    """Return the value without fields that are null."""
    if isinstance(value, dict):
        return {name: without_nothing(item) for name, item in value.items() if item is not None}
    return [without_nothing(item) for item in value] if isinstance(value, list) else value


def kinds_of(name: str, value: Any, catalog: dict[str, Any]) -> str:
    """Return the alternatives to what is chosen."""
    entries = catalog.get(name) or []
    chosen = {
        item.get("kind") if isinstance(item, dict) else item for item in (value if isinstance(value, list) else [value])
    }
    others = [entry["kind"] for entry in entries if entry["kind"] not in chosen]
    if len(entries) < 2 or not others:
        return ""
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    return f"Others: {', '.join(others[:LISTED])}{more}."


def fields_of(name: str, value: dict[str, Any], catalog: dict[str, Any]) -> list[str]:
    """Return the fields of an object, each below what it means."""
    entries = catalog.get(name) or []
    entry = next((one for one in entries if one["kind"] == value.get("kind")), entries[0] if entries else {})
    properties = (entry.get("schema") or {}).get("properties") or {}
    lines = []
    for field, item in value.items():
        text = entry.get("description") if field == "kind" else (properties.get(field) or {}).get("description")
        lines += [f"  {line}" for line in comment((text or "").split("\n\n")[0])]
        lines.append(f"  {field}: {flow(item)}")
    return lines


def comment(text: str) -> list[str]:
    """Return the text as comment lines."""
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH)]


def flow(value: Any) -> str:
    """Return a value in YAML's flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(name)}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """Return a plain value: a word as it is, other text in quotes."""
    if isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() and value[0].isalpha():
        return value if value.lower() not in ("true", "false", "null", "yes", "no", "on", "off") else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}" if value else "0.0"
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text.partition("e")[0] else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)
