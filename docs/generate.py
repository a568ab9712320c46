"""The generated pages of the reference: a MkDocs hook that writes them from the code when the site is built.

    python docs/generate.py FOLDER      writes the pages as Markdown files, to read them without a site

Nothing generated is committed, so that no page can fall behind the code. torch is not imported.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # MkDocs runs hooks without the project's folder on the path
    sys.path.insert(0, str(ROOT))

Schema = dict[str, Any]
SECTION_TITLES = {
    "preprocess": "Preprocessing",
    "augment": "Augmentation",
    "model": "Models",
    "init": "Weight initialisation",
    "loss": "Losses",
    "optimizer": "Optimizers",
    "schedule": "Learning-rate schedules",
    "early_stop": "Early-stop rules",
    "task": "Tasks",
    "balance": "Class balancing",
    "activation": "Activations",
    "norm": "Normalisation layers",
    "head": "Heads of convolutional networks",
    "pool": "Pooling",
    "sequence_pooling": "Pooling of sequences",
    "target_scaling": "Scaling of regression targets",
    "transfer_advice": "Rules of thumb for transfer learning",
    "metric": "Evaluation metrics",
    "experiment": "Kinds of experiments",
}
"""Headings of the page of techniques; a section of the catalogue that is not named here gets its own name."""
LONGEST_DEFAULT = 60
"""Characters of a default that a table still shows."""
SPEC_FIELDS_OF = ("dataset", "split", "regularize", "train", "start_from", "adapt", "resources", "diagnose")
"""Fields of a spec that hold one object each: their fields stand on the spec's page."""


# Markdown


def cell(text: object) -> str:
    """`text` as one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; an empty text where there are no rows."""
    columns = list(head)
    body = ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    if not body:
        return ""
    return "\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]) + "\n"


def code(value: object) -> str:
    """`value` as JSON in a code span; an empty text for nothing."""
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def page(title: str, source: str, *parts: str) -> str:
    """A page with its title, the file it was made from, and its parts."""
    note = f"This page is generated from the code ({source})."
    return "\n\n".join([f"# {title}", note, *(part.strip() for part in parts if part.strip())]) + "\n"


# JSON schemas


def type_of(schema: Schema) -> str:
    """What a JSON schema allows, in a few words of Markdown."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rsplit('/', 1)[-1]}`"
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        values = schema["enum"]
        listed = ", ".join(code(value) for value in values[:12])
        return f"{listed} ... ({len(values)} names)" if len(values) > 12 else listed
    for union in ("anyOf", "oneOf"):
        if union in schema:
            if "discriminator" in schema:
                return "one of the kinds"
            if any("discriminator" in option for option in schema[union]):
                return " or ".join(["one of the kinds", *(["null"] if {"type": "null"} in schema[union] else [])])
            return " or ".join(dict.fromkeys(type_of(option) for option in schema[union]))
    if "allOf" in schema:
        return " and ".join(type_of(option) for option in schema["allOf"])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: {type_of(schema['prefixItems'][0])}"
        return f"list of {type_of(items)}" if items else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {type_of(values)}" if isinstance(values, dict) and values else "object"
    if kind in ("integer", "number"):
        return f"{kind}{limits(schema)}"
    if kind == "string" and "pattern" in schema:
        return f"string, `{schema['pattern']}`"
    return str(kind or "any")


def limits(schema: Schema) -> str:
    """The bounds of a number, such as ` >= 0, < 1`."""
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    # those of 64 bits go without saying
    bounds = [
        f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema and abs(schema[name]) < 2**63 - 1
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def fields_table(schema: Schema, leave_out: Iterable[str] = ()) -> str:
    """Every field of an object: name, type, default, description."""
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        if name in leave_out:
            continue
        default = "required" if name in required else code(field.get("default"))
        if len(default) > LONGEST_DEFAULT:
            default = "its own defaults"
        rows.append((f"`{name}`", type_of(field), default or "none", field.get("description", "")))
    return table(("field", "type", "default", "meaning"), rows)


def description(text: str | None) -> str:
    """A docstring as a paragraph."""
    return " ".join(inspect.cleandoc(text or "").split())


# The pages


def spec_page() -> str:
    """Fields of a job spec."""
    from trainkit.spec import JobSpec
    from trainkit.spec.catalog import SINGLE_MODELS

    parts = [
        "A job spec is one JSON or YAML document. Only `dataset` and `model` are required. A field that is not known is\n"
        "an error. `POST /v1/specs:validate` checks a spec without creating a job, and `GET /v1/specs/schema` returns\n"
        "the JSON schema.",
        '```yaml title="Job spec"\ndataset: digits\nmodel: {kind: mlp, hidden: [128]}\noptimizer: {kind: adam, lr: 0.001}\n'
        "train: {epochs: 10}\n```",
        "The kinds that fit into `model`, `optimizer`, `schedule`, `loss`, `preprocess`, `augment`, `early_stop` and\n"
        "`init` are listed in [techniques](techniques.md).",
        "## Short forms",
        "A bare word is a kind, and a single step needs no list. A name of torchvision is a model.",
        '```yaml title="Job spec"\ndataset: digits\nmodel: resnet18\noptimizer: adam\nloss: cross_entropy\n'
        "preprocess: z_score\nearly_stop: [patience, diverged]\n```",
        "`{kind: sgd, momentum: 0.9, nesterov: true}` takes the steps of `torch.optim.SGD`. `ema_momentum` is the mean of\n"
        "the gradients: its steps are `1 - momentum` times as long at the same `lr`. Words of Keras, PyTorch and\n"
        "scikit-learn are not fields, but the refusal names ours: `epochs` leads to `train.epochs`, `units` to `hidden`.",
        "A key given twice is an error, with its place.",
        "## Top-level fields",
        linked(fields_table(JobSpec.model_json_schema())),
    ]
    for name in SPEC_FIELDS_OF:
        model = SINGLE_MODELS[name]
        schema = model.model_json_schema()
        parts += [f"## {name}", description(model.__doc__), fields_table(schema)]
        for nested, inner in schema.get("$defs", {}).items():
            if inner.get("type") == "object":
                parts += [f"### {nested}", inner.get("description", ""), fields_table(inner)]
    return page("Job spec", "`trainkit/spec`", *parts)


def linked(rows: str) -> str:
    """The table of a spec's fields, with links to where their contents are described."""
    lines = rows.splitlines()
    for index, line in enumerate(lines):
        name = line.split("`")[1] if "`" in line else ""
        if name in SECTION_TITLES:
            target = f"techniques.md#{slug(SECTION_TITLES[name])}"
            lines[index] = line.replace("one of the kinds", f"[one of the kinds]({target})")
        elif name in SPEC_FIELDS_OF:
            lines[index] = line.replace(f"`{line.split('`')[3]}`", f"[object](#{name})", 1)
    return "\n".join(lines)


def techniques_page() -> str:
    """Every kind of the catalogue."""
    from trainkit.spec.catalog import SECTIONS, SINGLE_MODELS, catalog, kinds
    from trainkit.spec.experiments import KINDS

    listed = catalog()
    parts = [
        "Everything that can be chosen in a spec by its `kind` or by a word. `GET /v1/catalog` returns the same list as\n"
        "JSON, with the JSON schema of every kind.",
    ]
    for section, entries in listed.items():
        if section in SINGLE_MODELS or section == "failure":
            continue
        parts.append(f"## {SECTION_TITLES.get(section, section)}")
        models: dict[str, Any] = dict(KINDS) if section == "experiment" else {}
        if section in SECTIONS:
            models = {model.model_fields["kind"].default: model for model in kinds(SECTIONS[section])}
        if models:
            links = {kind: f"{section}-{slug(kind)}" for kind in models}
            parts.append(
                table(
                    ("kind", "what it is"),
                    ((f"[`{e['kind']}`](#{links[e['kind']]})", e["description"]) for e in entries),
                )
            )
            for entry in entries:
                kind = entry["kind"]
                fields = fields_table(entry["schema"], leave_out=("kind",))
                parts += [f"### {kind} {{ #{links[kind]} }}", description(models[kind].__doc__), fields or "No fields."]
        else:
            extra = [key for key in ("better",) if any(key in entry for entry in entries)]
            rows = ((f"`{e['kind']}`", *(e[key] for key in extra), e["description"]) for e in entries)
            parts.append(table(("name", *extra, "meaning"), rows))
    return page("Techniques", "`trainkit/spec/catalog.py`", *parts)


def slug(text: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def openapi_document() -> Schema:
    """The service's OpenAPI document, made without a database or a broker."""
    from service.app import create_app
    from service.settings import Settings

    # nothing is written there: the folder is made when the application starts, and it does not start here
    storage = ROOT / ".cache" / "docs"
    settings = Settings.from_env({"TRAINKIT_HOME": str(storage), "TRAINKIT_BROKER_URL": "memory://"})
    return create_app(settings).openapi()


def http_page() -> str:
    """Every route, its parameters and its bodies."""
    document = openapi_document()
    by_tag: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    parts = [
        "All routes but the health checks and the sign-in need a key: `Authorization: Bearer KEY`. The role that a route\n"
        "needs stands beside it; each includes the ones before it: viewer, developer, admin. Bodies are JSON unless a route\n"
        "names another type. An error is a problem document (`ProblemDocument` below, RFC 9457). A running service has the\n"
        "same as an OpenAPI document at `/openapi.json`, and as a page to try it out at `/docs`.",
    ]
    for tag, operations in by_tag.items():
        parts.append(f"## {tag.capitalize()}")
        parts.append(
            table(
                ("route", "role", "what it does"),
                (
                    (f"[`{method} {path}`](#{anchor(method, path)})", role_of(o), o["summary"])
                    for method, path, o in operations
                ),
            )
        )
        for method, path, operation in operations:
            parts += [f"### {method} {path} {{ #{anchor(method, path)} }}", *operation_parts(operation)]
    parts.append("## Objects")
    parts.append(
        "Objects that are part of a job spec are described in [job spec](spec.md) and [techniques](techniques.md)."
    )
    shown = set(reachable(document))
    for name in sorted(shown):
        schema = document["components"]["schemas"][name]
        if schema.get("type") == "object" and "properties" in schema:
            parts += [f"### {name}", schema.get("description", ""), fields_table(schema)]
    return page("HTTP API", "the OpenAPI document", *parts)


def role_of(operation: Schema) -> str:
    """The role that a route needs: one of those named, or any."""
    if not operation.get("security"):
        return "(open)"
    return " or ".join(role for one in operation["security"] for role in one["key"]) or "any"


def anchor(method: str, path: str) -> str:
    """The anchor of a route's heading."""
    return slug(f"{method} {path}").replace("_", "-")


def operation_parts(operation: Schema) -> Iterator[str]:
    """Summary, parameters, request and responses of a route."""
    yield f"{operation['summary']}." if not operation["summary"].endswith(".") else operation["summary"]
    yield operation.get("description", "")
    yield table(
        ("parameter", "in", "type", "default", "meaning"),
        (
            (
                f"`{p['name']}`",
                p["in"],
                type_of(p["schema"]),
                "required" if p.get("required") else code(p["schema"].get("default")) or "none",
                p.get("description") or p["schema"].get("description", ""),
            )
            for p in operation.get("parameters", ())
        ),
    )
    bodies = operation.get("requestBody", {}).get("content", {})
    if bodies:
        yield "Request body: " + "; ".join(f"`{kind}`: {body_type(body)}" for kind, body in bodies.items()) + "."
    rows = []
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        forms = "; ".join(f"`{kind}`: {body_type(body)}" for kind, body in content.items())
        rows.append((status, response.get("description", ""), forms))
    problems = [status for status, *_ in rows if status >= "4"]
    yield table(("status", "meaning", "body"), (row for row in rows if row[0] < "4"))
    if problems:
        yield f"Errors: {', '.join(problems)}."


def body_type(body: Schema) -> str:
    """The type of a body, linked to the object's description."""
    schema = body.get("schema") or {}
    name = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
    return f"[`{name}`](#{slug(name)})" if name and name not in SPEC_OBJECTS else type_of(schema)


SPEC_OBJECTS = frozenset({"JobSpec", "ExperimentSpec", "RuleSet"})
"""Objects that have a page of their own."""


def reachable(document: Schema) -> Iterator[str]:
    """Names of the objects that requests and responses use, spec objects left out."""
    schemas = document["components"]["schemas"]
    waiting = references(document["paths"])
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in SPEC_OBJECTS:
            continue
        seen.add(name)
        yield name
        waiting |= references(schemas[name])


def references(node: object) -> set[str]:
    """Names of the component schemas that a part of the document refers to."""
    if isinstance(node, dict):
        reference = str(node.get("$ref", ""))
        found = {reference.rsplit("/", 1)[-1]} if "/schemas/" in reference or "/$defs/" in reference else set()
        return found.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


EXIT_CODES = (
    ("0", "succeeded; of `watch` and `--watch`: the job has a model"),
    ("1", "failed: the job has no model, a metric missed its bound, `doctor` found a fault, the service had an error"),
    ("2", "used wrongly: an unknown option, a file that cannot be read, no address or key, a name that means several"),
    ("3", "not found"),
    ("4", "refused by the service: an invalid spec, a role that may not, a state that does not allow it"),
    ("5", "unreachable: no answer, or a service or proxy that cannot answer now"),
    ("10", "`trainkit up`: its home is in use, or belongs to another user"),
    ("11", "`trainkit up`: the port is in use"),
    ("12", "`trainkit up`: a part did not start"),
    ("13", "`trainkit up`: a part is missing, such as Redis"),
    ("130", "interrupted by Ctrl-C"),
)


def cli_page() -> str:
    """Every command of `trainkit`."""
    import typer

    from trainkit_client.cli import app

    root: Any = typer.main.get_command(app)
    parts = ["```bash\ntrainkit --help\n```", description(root.help), options_table(root)]
    parts += ["## Exit codes", "All commands have the same ones.", table(("code", "means"), EXIT_CODES)]
    for words, command in commands(root, ()):
        parts += [f"## trainkit {' '.join(words)}", description(command.help), f"```text\n{usage(words, command)}\n```"]
        parts.append(options_table(command))
        parts.append(f"```bash\n{command.epilog}\n```" if command.epilog else "")
    return page("Command line", "`client/trainkit_client/cli` and `service/cli/app.py`", *parts)


def commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of every command that does something, groups gone through."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def usage(words: tuple[str, ...], command: Any) -> str:
    """The usage line."""
    arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
    return " ".join(["trainkit", *words, "[OPTIONS]", *arguments])


def options_table(command: Any) -> str:
    """Arguments and options of a command."""
    rows = []
    for parameter in command.params:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper()}`"
        default = parameter.default if isinstance(parameter.default, str | int | float) else None
        plain = default is not None and not isinstance(default, bool)
        rows.append((names, f"`{default}`" if plain else "", getattr(parameter, "help", "") or ""))
    return table(("argument or option", "default", "meaning"), rows)


def settings_rows() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, read from the source of `Settings`."""
    from service import settings

    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    definition = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    meanings: dict[str, str] = {}
    fields: dict[str, ast.expr | None] = {}
    for node, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields[node.target.id] = node.value
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                meanings[node.target.id] = str(following.value.value)
    reader = next(n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "from_env")
    call = next(
        n for n in ast.walk(reader) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "cls"
    )
    values = settings.Settings.from_env({})
    rows = []
    for keyword in call.keywords:
        constants = [str(n.value) for n in ast.walk(keyword.value) if isinstance(n, ast.Constant)]
        names = [text for text in constants if text.isupper()]
        name = keyword.arg or ""
        if not names and isinstance(keyword.value, ast.Name):  # `home`, which is read a line earlier
            names = ["TRAINKIT_HOME"]
        if not names:
            names = [f"TRAINKIT_{'OTEL' if name == 'tracing' else name.upper()}"]
        rows.append((names[0], default_text(name, getattr(values, name)), meanings.get(name, "")))
    return rows


def default_text(name: str, value: object) -> str:
    """A default as the page shows it: folders below the home folder, large numbers as they are written."""
    from service.settings import Settings

    home = str(Settings.from_env({}).home)
    if value is None or value == () or value == "":
        return "none"
    if isinstance(value, bool):
        return "off" if not value else "on"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).replace(home, "<home>") if name != "home" else "~/.trainkit"
    return f"`{text}`"


def settings_page() -> str:
    """Every environment variable."""
    return page(
        "Settings",
        "`service/settings.py`",
        "All settings are environment variables, read once when a process starts. Give the API and the workers the same\n"
        "values. `trainkit up` sets the database, the broker and the folders itself, below its home folder `<home>`.",
        "```bash\nTRAINKIT_LOG_FORMAT=json TRAINKIT_MAX_RUNNING_JOBS=4 trainkit up --home .home\n```",
        table(
            ("variable", "default", "meaning"),
            ((f"`{n}`", default, meaning) for n, default, meaning in settings_rows()),
        ),
        "A project can change its own retention and limits: [keep or remove old data](../how-to/retention.md).",
    )


def failures_page() -> str:
    """The closed list of error codes of jobs and datasets."""
    from trainkit.spec.failures import FAILURES, Layer

    rows = ((f"`{f.code}`", f.layer, "yes" if f.retryable else "no", f.meaning, f.hint) for f in FAILURES.values())
    return page(
        "Failures",
        "`trainkit/spec/failures.py`",
        "`error` of a failed job, and of an invalid dataset, is `{code, layer, message, evidence, retryable, hint}`.\n"
        "`code` is one of the list below; `message` and `evidence` describe this occasion: measured memory, exit status,\n"
        "JSON pointer, traceback, the end of the log.",
        '```json title="Failure"\n' + json.dumps(EXAMPLE_FAILURE, indent=2) + "\n```",
        f"`layer` ({', '.join(f'`{layer}`' for layer in Layer.__args__)}) says where to look. The service retries by itself "  # type: ignore[attr-defined]
        "only what the platform or its\nresources caused, at most `resources.max_attempts` times. A lost worker is counted\n"
        "apart, in `interruptions`.",
        table(("code", "layer", "retried", "what happened", "what to do"), rows),
        FAILURE_NOTES,
    )


EXAMPLE_FAILURE = {
    "code": "loss_not_finite",
    "layer": "spec",
    "message": "the loss became nan in step 3 of epoch 1",
    "evidence": {"step": 3, "epoch": 1, "where": "output", "layer": "body.block_1.linear"},
    "retryable": False,
    "hint": "Lower `optimizer.lr`, set `train.clip_norm` (1.0), or scale the inputs (`z_score`).",
}
FAILURE_NOTES = """\
## loss_not_finite: where it began
The evidence is `{step, epoch, batch_loss, where, layer, layer_type, ...}`. `where` is one of

- `input`: a value of the data; `sample` is its number in the dataset;
- `parameter`: a weight;
- `output`: the output of `layer`, whose input values went up to `max_abs_before`;
- `loss`: the loss, of outputs up to `max_abs_before`.

A job that diverges after an evaluation with finite losses keeps those best weights: it ends as `stopped`, not `failed`.

## out_of_memory and out_of_gpu_memory: a spec that fits
The evidence has `next_spec`: `{patch, spec, fork, why}`. Where `fork` is true, a fork of the job with `patch` continues
from the last checkpoint. Otherwise submit `spec`, which is the whole document. The patch halves `train.batch_size` and
accumulates the gradients of two passes, so that every optimizer step stays the same.

## Errors of a dataset
The `error.code` of an invalid dataset can also be the code of the first problem in its file, such as `bad_row`, or of the
copying of its source, such as `s3_not_found`. The dataset's report lists every problem.

## Errors of a request
A request that is wrong (HTTP 4xx) creates no job, and so it is no failure of a job. The answer is a problem document with
the place of every mistake: see [errors](errors.md).
"""


def errors_page() -> str:
    """The closed list of problem types."""
    from service.problem_types import PROBLEM_TYPES

    sections = [
        f"## {code} {{ #{code} }}\n{', '.join(map(str, entry.statuses))}: {entry.title}. {entry.meaning}\n\n{entry.hint}"
        for code, entry in sorted(PROBLEM_TYPES.items())
    ]
    return page(
        "Errors",
        "`service/problem_types.py`",
        "Every error response is a problem document (RFC 9457) with `Content-Type: application/problem+json`.",
        '```json title="Problem document"\n' + json.dumps(EXAMPLE_PROBLEM, indent=2) + "\n```",
        "`code` names what is wrong and never changes: compare it, not `type`, `title` or `detail`. `type` is the address\n"
        "of the code's description on the service that answers, with its sub-path; this page has the same text. `errors`\n"
        "names each place: `pointer` is a JSON pointer into the body, or `query/NAME`, `header/NAME`, `path/NAME`. Quote\n"
        "`request_id` to the operator: the log has it.",
        "Why a *job* failed is another list: [failures](failures.md).",
        *sections,
    )


EXAMPLE_PROBLEM = {
    "type": "/docs/errors#invalid_request",
    "title": "Not valid",
    "status": 422,
    "code": "invalid_request",
    "detail": 'Unknown query parameter "limt".',
    "errors": [
        {
            "pointer": "query/limt",
            "code": "unknown_parameter",
            "message": 'unknown query parameter "limt"',
            "hint": 'Did you mean "limit"?',
        }
    ],
    "request_id": "5e3f0a94c1b24d07",
}


def prometheus_families() -> dict[str, tuple[str, tuple[str, ...], str, str]]:
    """(type, labels, exposed by, description) of every metric family of the API and the workers."""
    from sqlalchemy import create_engine

    from service.instrumentation import WORK_METRICS
    from service.monitoring.gauges import BrokerInfo, BuildInfo, PoolGauges, StateGauges
    from service.monitoring.request_metrics import REQUEST_METRICS
    from service.settings import Settings
    from worker.context import make_context
    from worker.metrics import WORKER_METRICS
    from worker.metrics_server import ReachabilityCollector

    engine = create_engine("sqlite:////nowhere/x.db")
    context = make_context(Settings.from_env({"TRAINKIT_BROKER_URL": "memory://"}))
    found: dict[str, tuple[str, tuple[str, ...], str, str]] = {}
    for metrics, where in ((REQUEST_METRICS, "API"), (WORK_METRICS, "API, worker"), (WORKER_METRICS, "worker")):
        for metric in metrics:
            for family in metric.describe():
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found[name] = (family.type, tuple(metric._labelnames), where, family.documentation)
    nothing: Any = lambda: None  # noqa: E731 - a factory of sessions that is never called
    collectors: list[tuple[Any, str]] = [
        (StateGauges(nothing), "API"),
        (PoolGauges(engine), "API"),
        (BuildInfo(engine), "API, worker"),
        (BrokerInfo(context.doorbell), "API"),
        (ReachabilityCollector(context), "worker"),
    ]
    for collector, where in collectors:
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            found[family.name] = (family.type, tuple(family._labelnames), where, family.documentation)
    return found


def prometheus_page() -> str:
    """Every metric family that Prometheus can scrape."""
    rows = (
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), where, text)
        for name, (kind, labels, where, text) in sorted(prometheus_families().items())
    )
    return page(
        "Prometheus metrics",
        "`service/monitoring`, `worker`",
        "How to scrape them: [monitor with Prometheus and Grafana](../how-to/monitoring.md).",
        "```text\nsum by (state) (max by (state) (trainkit_jobs))\n```",
        "Every label has a closed set of values: the id of a job, dataset or project is never one. `route` is a template,\n"
        "such as `/v1/jobs/{job_id}`, or `(none)` where a request was answered before a route was found. `status` is a\n"
        "class (`2xx` ... `5xx`, or `none` when the client closed the connection first). `layer` and `code` are those of\n"
        "[failures](failures.md), empty without one.",
        table(("metric", "type", "labels", "exposed by", "meaning"), rows),
        "Counters of work are counted by the process that commits it: take the `sum` over all targets. Gauges from the\n"
        "database are the same in every API process: take the `max`. The API also exposes `process_*` of itself.",
    )


@cache
def pages() -> dict[str, str]:
    """Every generated page, by its path below `docs/`."""
    return {
        "reference/spec.md": spec_page(),
        "reference/techniques.md": techniques_page(),
        "reference/http.md": http_page(),
        "reference/cli.md": cli_page(),
        "reference/settings.md": settings_page(),
        "reference/failures.md": failures_page(),
        "reference/errors.md": errors_page(),
        "reference/prometheus.md": prometheus_page(),
    }


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those of the folder (called by MkDocs)."""
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_post_build(config: Any) -> None:
    """Write llms.txt, and the pages as Markdown, into the site (called by MkDocs)."""
    from docs.llms import llms_files, write

    write(llms_files(pages()), Path(config["site_dir"]))


def main() -> None:
    """Write the pages below a folder."""
    folder = Path(sys.argv[1])
    for path, content in pages().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
