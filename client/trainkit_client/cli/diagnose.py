"""`trainkit diagnose`: what is wrong with a run, why that is thought, and what to try next."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainkit_client.cli.command import REFUSED, CommandError, Session, command, single
from trainkit_client.cli.jobs import JobArgument, created, watch_job
from trainkit_client.cli.output import number, shown_value
from trainkit_client.cli.settings import flat

app = single()


@command(
    app,
    None,
    "trainkit diagnose @last\ntrainkit diagnose slow --investigate --runs 4\ntrainkit diagnose slow --apply 1",
)
def diagnose(
    session: Session,
    job: JobArgument,
    investigate: Annotated[
        bool, typer.Option("--investigate", help="First find out by short runs, with one change each.")
    ] = False,
    runs: Annotated[int | None, typer.Option(min=1, help="With --investigate: so many runs at most.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="With --investigate: so long at most.")] = None,
    apply: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Submit the Nth recommendation as a new job.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="With --apply: watch the new job.")] = False,
) -> int | None:
    """Say what is wrong with a run, and what to try next."""
    found = session.job(job)
    if investigate:
        running = found.investigate(jobs=runs, seconds=seconds)
        session.output.note(f"{running.id} makes short runs that find out.")
        running.wait(on_progress=Progress(session))
    if apply is not None:
        count = len(found.diagnosis().recommendations)
        if apply > count:
            raise CommandError(f"Job {found.id} has {count} recommendations; there is no number {apply}.", REFUSED)
        new = found.apply_recommendation(apply - 1)
        return created(session, new.to_dict(), watch)
    if watch:
        return watch_job(session, found.id)
    document = found.diagnosis().to_dict()
    if session.output.as_json:
        session.output.json(document)
    elif session.output.quiet:
        print("\n".join(verdict["code"] for verdict in document["verdicts"]))
    else:
        show(session, document)
    return None


class Progress:
    """Says on stderr how far an investigation has come."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shown = ""

    def __call__(self, job: Any) -> None:
        """Print a change."""
        done = f" {job.progress.percent:.0f}%" if job.progress and job.progress.percent is not None else ""
        text = f"investigation: {job.state}{done}"
        if text != self.shown:
            self.shown = text
            self.session.output.note(text)


def show(session: Session, document: dict[str, Any]) -> None:
    """Print verdicts, suspects and recommendations."""
    output = session.output
    if not document.get("final", True):
        output.line("The job still trains: this may change.")
    for verdict in document["verdicts"]:
        since = f", since epoch {verdict['since_epoch']}" if verdict.get("since_epoch") else ""
        output.line(f"{verdict['code']}  (confidence {number(verdict['confidence'])}{since})")
        output.line(f"  {verdict['message']}")
    if document.get("suspects"):
        output.line()
        output.line("Possible, but not shown by the record:")
        for suspect in document["suspects"]:
            settled = f" Settled by: {', '.join(suspect['settled_by'])}." if suspect.get("settled_by") else ""
            output.line(f"  {suspect['code']} ({number(suspect['suspicion'])}): {suspect['why']}{settled}")
    for place, one in enumerate(document["recommendations"], 1):
        if place == 1:
            output.line()
            output.line("Try next (--apply N submits one):")
        changes = ", ".join(f"{name}={shown_value(value)}" for name, value in flat(one["patch"]).items())
        output.line(f"  {place}. {changes}")
        output.line(f"     {one['why']}")
        if one.get("measured"):
            output.line(f"     measured: {shown_value(one['measured'])}")
