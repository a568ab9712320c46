"""`trainkit queue`, `workers`, `projects` and `keys`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainkit_client.cli import completion
from trainkit_client.cli.command import CommandError, Session, command, group, single
from trainkit_client.cli.jobs import YesOption, confirm, percent
from trainkit_client.cli.output import Column, age, local_time
from trainkit_client.cli.settings import flat

ACTIVE = "running,starting,stopping,pausing,queued,validating,paused"
"""States of jobs that have not ended, in the order of the table."""
queue_app, workers_app = single(), single()
projects_app = group("List, create and show projects.")
keys_app = group("List, create and revoke API keys.")


@command(queue_app, None, "trainkit queue")
def queue(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
) -> None:
    """Show the jobs that wait, train or are paused."""
    fields = "id,name,state,progress,priority,created_at,started_at"
    rows = list(session.rows("/v1/jobs", state=ACTIVE, fields=fields, limit=limit))
    order = {state: place for place, state in enumerate(ACTIVE.split(","))}
    rows.sort(key=lambda row: (order.get(row["state"], 9), -(row.get("priority") or 0), row["created_at"]))
    columns = (
        Column("id", lambda row: row["id"]),
        Column("name", lambda row: row.get("name"), shrinks=True),
        Column("state", lambda row: row["state"]),
        Column("done", percent, right=True),
        Column("priority", lambda row: row.get("priority"), right=True, min_width=90),
        Column(
            "waits", lambda row: age(row["created_at"]) if row["state"] in ("queued", "validating") else "-", right=True
        ),
    )
    session.output.rows(rows, columns, "No job waits or trains.")


@command(workers_app, None, "trainkit workers")
def workers(session: Session) -> None:
    """Show the workers that were seen lately."""
    columns = (
        Column("id", lambda row: row["id"], shrinks=True),
        Column("queues", lambda row: ",".join(row.get("queues") or [])),
        Column("slots", lambda row: row.get("slots"), right=True),
        Column("device", lambda row: row.get("device")),
        Column("version", lambda row: (row.get("versions") or {}).get("trainkit"), min_width=90),
        Column("seen", lambda row: f"{age(row.get('seen_at'))} ago", right=True),
        Column("up", lambda row: age(row.get("started_at")), right=True, min_width=90),
    )
    session.output.rows(
        session.rows("/v1/workers"), columns, "No worker was heard lately: jobs wait until one is started."
    )


PROJECTS = (
    Column("id", lambda row: row["id"]),
    Column("name", lambda row: row.get("name"), shrinks=True),
    Column("archived", lambda row: row.get("archived_at") is not None),
    Column("age", lambda row: age(row.get("created_at")), right=True),
)
ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Name or id.", autocompletion=completion.PROJECTS)
]


@command(projects_app, "list", "trainkit projects list")
def list_projects(session: Session) -> None:
    """List the projects that this key may see."""
    session.output.rows(session.rows("/v1/projects"), PROJECTS, "There are no projects.")


@command(projects_app, "show", "trainkit projects show default")
def show_project(session: Session, project: ProjectArgument) -> None:
    """Show a project: its limits, and what it has used."""
    found = session.find("projects", project)
    usage = session.get(f"/v1/projects/{found['id']}/usage")
    session.output.document({**found, "usage": usage})
    limits = {name: value for name, value in (found.get("limits") or {}).items() if value is not None}
    session.output.fields_for_people(
        [
            ("id", found["id"]),
            ("name", found.get("name")),
            ("created", local_time(found.get("created_at"))),
            ("limits", "\n".join(f"{name} {value}" for name, value in limits.items())),
            (
                "used",
                "\n".join(f"{name} {value}" for name, value in flat(usage).items() if isinstance(value, int | float)),
            ),
        ]
    )


@command(projects_app, "create", "trainkit projects create vision")
def create_project(session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]) -> None:
    """Create a project; the operator's key may."""
    answer = session.post("/v1/projects", {"name": name})
    session.output.document(answer, f"{answer['id']} ({answer['name']}) is created.")


KEYS = (
    Column("id", lambda row: row["id"]),
    Column("name", lambda row: row.get("name"), shrinks=True),
    Column("role", lambda row: role_of(row)),
    Column("state", lambda row: "revoked" if row.get("revoked_at") else "valid"),
    Column("expires", lambda row: local_time(row.get("expires_at")) or "never", min_width=90),
    Column("used", lambda row: f"{age(row['last_used_at'])} ago" if row.get("last_used_at") else "never", right=True),
)


def role_of(key: dict[str, Any]) -> str:
    """Return the roles of a key."""
    return ",".join(filter(None, [key.get("role"), "operator" if key.get("operator") else None]))


@command(keys_app, "list", "trainkit keys list")
def list_keys(session: Session) -> None:
    """List API keys; no list shows a secret."""
    session.output.rows(session.rows("/v1/keys"), KEYS, "There are no keys.")


@command(keys_app, "create", "trainkit keys create ci --role developer --expires-days 90")
def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    role: Annotated[str, typer.Option(help="viewer, developer or admin.")] = "developer",
    expires_days: Annotated[float | None, typer.Option(min=0.01, help="Days after which it ends.")] = None,
) -> None:
    """Create an API key. The secret is printed once, and nothing else on standard output."""
    body: dict[str, Any] = {"name": name, "role": role}
    if expires_days is not None:
        body["expires_in"] = round(86400 * expires_days)
    answer = session.post("/v1/keys", body)
    session.output.document(answer, answer["key"], answer["key"])
    session.output.note(
        f"{answer['id']} ({answer['name']}, {role_of(answer)}) is created. Its secret is shown only now."
    )


@command(keys_app, "revoke", "trainkit keys revoke ci --yes")
def revoke_key(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name or id.", autocompletion=completion.KEYS)],
    yes: YesOption = False,
) -> None:
    """Revoke a key: it works no more."""
    found = [row for row in session.rows("/v1/keys") if key in (row["id"], row["name"]) and not row.get("revoked_at")]
    if len(found) != 1:
        names = ", ".join(f"{row['id']} ({row['name']})" for row in found)
        raise CommandError(
            f"{len(found)} keys are called {key!r}: {names}." if found else f"There is no key {key!r}.", 3
        )
    confirm(f"Key {found[0]['id']} ({found[0]['name']})", yes)
    session.client.request("DELETE", f"/v1/keys/{found[0]['id']}")
    session.output.document({"revoked": found[0]["id"]}, f"Key {found[0]['id']} ({found[0]['name']}) is revoked.", "")
