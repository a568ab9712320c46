"""`trainkit jobs`: submit, look, act."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trainkit_client.cli import completion
from trainkit_client.cli.command import FAILED, CommandError, Session, command, group
from trainkit_client.cli.output import Column, age, duration, local_time, number, parsed_time, shown_value
from trainkit_client.cli.settings import changed, flat, patch_of

app = group("Submit, list, watch, stop, compare and change jobs.")
USABLE = frozenset({"succeeded", "stopped"})
"""States of a job that has ended with a model."""

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Name, id, a beginning of it, or @last.", autocompletion=completion.JOBS)
]
JobsArgument = Annotated[
    list[str],
    typer.Argument(metavar="JOB...", help="Names, ids, beginnings of them, or @last.", autocompletion=completion.JOBS),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the spec, as in optimizer.lr=0.01; repeatable."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def best_metric(job: dict[str, Any]) -> str:
    """Return the metric that is worth most in a list: of the test part, else of the validation part."""
    best = (job.get("metrics") or {}).get("best") or {}
    for part in ("test", "val"):
        for name in ("accuracy", "r2", "loss"):
            if best.get(f"{part}_{name}") is not None:
                return f"{part}_{name} {number(best[f'{part}_{name}'])}"
    return "-"


def percent(job: dict[str, Any]) -> str:
    """Return how far a job has come."""
    value = (job.get("progress") or {}).get("percent")
    return "-" if value is None else f"{value:.0f}%"


JOB_COLUMNS = (
    Column("id", lambda job: job["id"]),
    Column("name", lambda job: job.get("name"), shrinks=True),
    Column("state", lambda job: job["state"]),
    Column("done", percent, right=True),
    Column("best", best_metric, min_width=100),
    Column("dataset", lambda job: dataset_name(job), shrinks=True, min_width=110),
    Column("age", lambda job: age(job.get("created_at")), right=True),
)


def dataset_name(job: dict[str, Any]) -> str:
    """Return `digits:1`."""
    dataset = job.get("dataset") or {}
    return f"{dataset.get('name', '')}:{dataset.get('version', '')}"


def sentence(job: dict[str, Any]) -> str:
    """Return one line about a job."""
    return f"{job['id']} ({job.get('name') or 'no name'}) is {job['state']}"


def read_spec(
    file: str, settings: list[str], complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> tuple[bytes, str]:
    """Return the body of a request and its type. Without settings a file is sent as it is, so that errors name its lines."""
    from trainkit_client.documents import JSON_TYPE, YAML_TYPE, read_yaml

    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise CommandError(f"The spec {file!r} cannot be read: {error}.") from None
    if not settings:
        return text.encode(), YAML_TYPE
    spec = read_yaml(text)
    document = changed(spec, settings, None if complete is None else lambda: complete(spec))
    return json.dumps(document, allow_nan=False).encode(), JSON_TYPE


def completed_by(session: Session) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what asks the service for the completed spec; of one that it refuses there is none."""

    def complete(spec: dict[str, Any]) -> dict[str, Any]:
        from trainkit_client import Invalid

        try:
            return dict(session.post("/v1/specs:validate", spec)["spec"])
        except Invalid:
            return {}  # what is wrong is said when the job is submitted

    return complete


@command(
    app,
    "submit",
    "trainkit jobs submit job.yaml\ntrainkit jobs submit job.yaml --set optimizer.lr=0.01 --set train.epochs=2 --watch",
)
def submit(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Spec as YAML or JSON; - reads standard input.")],
    settings: SetOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the job until it ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the spec and estimate its cost only.")] = False,
) -> int | None:
    """Submit a job."""
    content, kind = read_spec(file, settings or [], completed_by(session))
    headers = {"Content-Type": kind}
    if dry_run:
        checked = session.client.request("POST", "/v1/specs:validate", content=content, headers=headers)
        session.output.document(checked, identity="")
        estimate = checked.get("estimate") or {}
        session.output.fields_for_people(
            [
                ("valid", "yes"),
                ("parameters", estimate.get("parameters")),
                ("memory", estimate.get("memory_bytes") and f"{estimate['memory_bytes'] / 1e6:.0f} MB"),
                ("time", estimate.get("seconds") and duration(estimate["seconds"])),
                ("warnings", "\n".join(warning["message"] for warning in checked.get("warnings", []))),
            ]
        )
        return None
    job = session.client.request("POST", "/v1/jobs", content=content, headers=headers)
    if watch:
        return watch_job(session, job["id"])
    session.output.document(job, f"{sentence(job)}.")
    return None


def watch_job(session: Session, job: str) -> int:
    """Show a job until it ends, and return the exit code."""
    from trainkit_client.cli.watch import watch

    return watch(session, job)


@command(
    app,
    "list",
    "trainkit jobs list\ntrainkit jobs list --state running,queued --limit 50\n"
    "trainkit jobs list --where 'metric.val_accuracy>=0.9' --sort=-metrics.best.val_accuracy",
)
def list_jobs(
    session: Session,
    state: Annotated[
        str | None, typer.Option(help="Only these states, with commas.", autocompletion=completion.states)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only this name; digits* for a beginning.")] = None,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Only on this dataset.", autocompletion=completion.DATASETS)
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only with this label.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="A filter of the API: metric.val_accuracy>=0.9.")] = None,
    sort: Annotated[str | None, typer.Option(help="A field; - before it puts the largest first.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 20,
) -> None:
    """List jobs, newest first."""
    filters: dict[str, Any] = {"state": state, "name": name, "group": group, "dataset": dataset, "sort": sort}
    for text in label or []:
        key, mark, value = text.partition("=")
        if not mark:
            raise CommandError(f"--label takes NAME=VALUE; got {text!r}.")
        filters[f"label.{key}"] = value
    rows = session.rows("/v1/jobs", **filters, where=where, limit=limit)
    session.output.rows(rows, JOB_COLUMNS, "There are no such jobs.")


@command(app, "show", "trainkit jobs show @last\ntrainkit jobs show digits --json")
def show(session: Session, job: JobArgument) -> None:
    """Show a job: state, settings, metrics, result."""
    found = session.find("jobs", job)
    session.output.document(found)
    progress, result, runtime = (found.get(name) or {} for name in ("progress", "result", "runtime"))
    error = found.get("error") or {}
    session.output.fields_for_people(
        [
            ("id", found["id"]),
            ("name", found.get("name")),
            ("state", found["state"]),
            ("stop reason", found.get("stop_reason")),
            ("error", f"{error['message']} ({error['code']})\n{error.get('hint', '')}".strip() if error else None),
            ("dataset", dataset_name(found)),
            ("group", found.get("group")),
            ("labels", found.get("labels")),
            ("notes", found.get("notes")),
            ("epoch", f"{progress['epoch']} of {progress['epochs']}" if progress else None),
            ("best epoch", result.get("best_epoch")),
            ("model", result.get("model")),
            ("test", result.get("test")),
            ("best", validation_values(found)),
            ("verdict", result.get("verdict")),
            ("device", runtime.get("device")),
            ("parameters", runtime.get("parameters")),
            ("attempts", found.get("attempts")),
            ("parent", parent_of(found)),
            ("created", local_time(found.get("created_at"))),
            ("started", local_time(found.get("started_at"))),
            ("took", took(found)),
        ]
    )


def validation_values(job: dict[str, Any]) -> dict[str, Any]:
    """Return the best metrics of the validation part."""
    best = job["metrics"]["best"]
    return {name: value for name, value in best.items() if name.startswith("val_")}


def parent_of(job: dict[str, Any]) -> str | None:
    """Return where a job comes from."""
    parent = job.get("parent")
    return f"{parent['relation']} of {parent['job']}" if parent else None


def took(job: dict[str, Any]) -> str | None:
    """Return how long a job has trained, or trains."""
    started, ended = parsed_time(job.get("started_at")), parsed_time(job.get("finished_at"))
    return duration((ended - started).total_seconds()) if started and ended else None


@command(app, "watch", "trainkit jobs watch @last\ntrainkit jobs watch digits --json")
def watch_command(session: Session, job: JobArgument) -> int:
    """Show progress, curves and decisions until the job ends. Exit code 0: it has a model; 1: it has none.

    Ctrl-C asks whether to leave the job alone or to stop it. With --json each change is a line.
    """
    return watch_job(session, session.find("jobs", job)["id"])


@command(app, "logs", "trainkit jobs logs @last --tail 20\ntrainkit jobs logs digits --follow --level warning")
def logs(
    session: Session,
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    level: Annotated[str | None, typer.Option(help="Lowest level shown: debug, info, warning, error.")] = None,
    grep: Annotated[str | None, typer.Option(help="Only lines that contain this text (case-insensitive).")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only lines of this attempt.")] = None,
    tail: Annotated[int | None, typer.Option(min=1, max=5000, help="Start with the last N lines.")] = None,
) -> None:
    """Print the log of a job: time, attempt, level, text. With --json each line is an object."""
    found = session.job(job)
    for line in found.logs(follow=follow, level=level, contains=grep, attempt=attempt, tail=tail):
        if session.output.as_json:
            session.output.json_line(line.to_dict())
        else:
            moment = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if line.at else "-"
            session.output.line(f"{moment} {line.attempt} {line.level} {line.text}")


def act(session: Session, jobs: list[str], action: str, body: dict[str, Any] | None = None) -> int | None:
    """Ask for an action on each job; one that is refused does not hold up the others."""
    from trainkit_client import TrainkitError

    answers, failure = [], None
    for reference in jobs:
        try:
            found = session.find("jobs", reference)
            answers.append(session.post(f"/v1/jobs/{found['id']}/{action}", body))
        except TrainkitError as error:
            if len(jobs) == 1:
                raise
            failure = error
            session.output.error(f"{reference}: {error}")
    if session.output.as_json:
        session.output.json(answers[0] if len(jobs) == 1 else answers)
    for answer in answers:
        session.output.line(f"{sentence(answer)}.")
    return FAILED if failure else None


@command(app, "stop", "trainkit jobs stop long\ntrainkit jobs stop long --keep last")
def stop(
    session: Session,
    jobs: JobsArgument,
    keep: Annotated[Literal["best", "last"], typer.Option(help="The weights that the model has.")] = "best",
) -> int | None:
    """End training after the current step and keep a usable model."""
    return act(session, jobs, "stop", {"keep": keep})


@command(app, "cancel", "trainkit jobs cancel long")
def cancel(session: Session, jobs: JobsArgument) -> int | None:
    """End jobs now and keep nothing."""
    return act(session, jobs, "cancel")


@command(app, "pause", "trainkit jobs pause long")
def pause(session: Session, jobs: JobsArgument) -> int | None:
    """Write a checkpoint and free the worker."""
    return act(session, jobs, "pause")


@command(app, "resume", "trainkit jobs resume long\ntrainkit jobs resume digits --extra-epochs 2")
def resume(
    session: Session,
    job: JobArgument,
    extra_epochs: Annotated[int, typer.Option(min=0, help="For a job that has ended: this many epochs more.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the job until it ends.")] = False,
) -> int | None:
    """Go on: the paused job itself, or a new job from where an ended one stopped."""
    return created(session, session.job(job).resume(extra_epochs).to_dict(), watch)


def created(session: Session, job: dict[str, Any], watch: bool) -> int | None:
    """Print a new job, or watch it."""
    if watch:
        return watch_job(session, job["id"])
    session.output.document(job, f"{sentence(job)}.")
    return None


@command(app, "fork", "trainkit jobs fork digits --set optimizer.lr=0.0005")
def fork(
    session: Session,
    job: JobArgument,
    settings: SetOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the new job until it ends.")] = False,
) -> int | None:
    """Start a new job from the newest checkpoint, with changed settings."""
    found = session.job(job)
    return created(session, found.fork(patch_of(found.spec, settings or [], found.resolved or {})).to_dict(), watch)


@command(app, "retry", "trainkit jobs retry digits")
def retry(
    session: Session,
    job: JobArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the new job until it ends.")] = False,
) -> int | None:
    """Start a new job with the same spec, from its beginning."""
    return created(session, session.job(job).retry().to_dict(), watch)


@command(app, "delete", "trainkit jobs delete old --yes")
def delete(session: Session, jobs: JobsArgument, yes: YesOption = False) -> None:
    """Delete jobs that have ended, with what they have left; their models stay."""
    found = [session.find("jobs", job) for job in jobs]
    confirm("; ".join(sentence(job) for job in found), yes)
    for job in found:
        session.client.request("DELETE", f"/v1/jobs/{job['id']}")
        session.output.line(f"{job['id']} ({job.get('name')}) is deleted.")
    if session.output.as_json:
        session.output.json({"deleted": [job["id"] for job in found]})


def confirm(what: str, yes: bool) -> None:
    """Ask before something is deleted. Raises CommandError where nobody can answer."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("This deletes, and nobody can be asked here. Add --yes.")
    if not typer.confirm(f"{what}. Delete?", err=True):
        raise CommandError("Nothing was deleted.", FAILED)


def whole_spec(job: dict[str, Any]) -> dict[str, Any]:
    """Return the completed spec of a job, flat; of one whose dataset is not read yet, what was submitted."""
    leaves = flat(job.get("resolved") or job["spec"])
    return {
        name: value for name, value in leaves.items() if name not in ("name", "group") and not name.startswith("labels")
    }


@command(app, "compare", "trainkit jobs compare digits digits-mlp")
def compare(session: Session, jobs: JobsArgument) -> None:
    """Compare jobs side by side: state, metrics, and the settings in which they differ."""
    if len(jobs) < 2:
        raise CommandError("compare takes two jobs or more.")
    found = [session.find("jobs", job) for job in jobs]
    specs = [whole_spec(job) for job in found]
    names = sorted({name for spec in specs for name in spec})
    differing = [name for name in names if len({json.dumps(spec.get(name)) for spec in specs}) > 1]
    metrics = list(dict.fromkeys(name for job in found for name in (*test_values(job), *validation_values(job))))
    if session.output.as_json:
        session.output.json({"jobs": found, "differing_settings": {n: [s.get(n) for s in specs] for n in differing}})
        return
    rows: list[dict[str, Any]] = [{"name": "state", "values": [job["state"] for job in found]}]
    rows.append({"name": "took", "values": [took(job) for job in found]})
    rows.append({"name": "best epoch", "values": [(job.get("result") or {}).get("best_epoch") for job in found]})
    for name in metrics:
        values = [test_values(job).get(name, validation_values(job).get(name)) for job in found]
        rows.append({"name": name, "values": values})
    rows += [{"name": name, "values": [spec.get(name) for spec in specs]} for name in differing]
    columns = [Column("", lambda row: row["name"], shrinks=True)]
    for place, job in enumerate(found):
        title = f"{job.get('name') or job['id']}"
        columns.append(Column(title, partial(value_at, place), shrinks=True))
    if not session.output.quiet:
        session.output.table(rows, columns)


def value_at(place: int, row: dict[str, Any]) -> Any:
    """Return the value of one of the compared jobs."""
    return row["values"][place]


def test_values(job: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of the test part."""
    return {f"test_{name}": value for name, value in ((job.get("result") or {}).get("test") or {}).items()}


@command(app, "diff", "trainkit jobs diff digits digits-mlp")
def diff(session: Session, first: JobArgument, second: JobArgument) -> None:
    """Print the settings in which two jobs differ."""
    before, after = (session.find("jobs", job) for job in (first, second))
    old, new = whole_spec(before), whole_spec(after)
    changes = [
        {"field": name, "first": old.get(name), "second": new.get(name)}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) or (name in old) != (name in new)
    ]
    if session.output.as_json:
        session.output.json({"first": before["id"], "second": after["id"], "changes": changes})
        return
    session.output.line(f"--- {before['id']} ({before.get('name')})")
    session.output.line(f"+++ {after['id']} ({after.get('name')})")
    for change in changes:
        name = change["field"]
        if name in old:
            session.output.line(f"- {name}: {shown_value(old[name])}")
        if name in new:
            session.output.line(f"+ {name}: {shown_value(new[name])}")
    if not changes:
        session.output.note("They have the same settings.")


@command(app, "open", "trainkit jobs open @last")
def open_job(session: Session, job: JobArgument) -> None:
    """Print the address of a job in the dashboard, and open it in a browser from a terminal."""
    import webbrowser

    found = session.find("jobs", job)
    address = f"{session.client.connection.url}/#/jobs/{found['id']}"
    session.output.document({"id": found["id"], "url": address}, address, address)
    if session.output.terminal:
        webbrowser.open(address)
