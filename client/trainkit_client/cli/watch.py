"""Watch a job: progress, curves and decisions, redrawn in a terminal, as lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer

from trainkit_client.cli.command import FAILED, INTERRUPTED, SUCCEEDED, Session
from trainkit_client.cli.outcome import ending, monitored
from trainkit_client.cli.output import duration, number, printable

if TYPE_CHECKING:
    from trainkit_client import Job

USABLE = frozenset({"succeeded", "stopped"})
LINE_SECONDS = 1.0
"""Between two lines where the output is no terminal."""


def watch(session: Session, identity: str) -> int:
    """Show a job until it ends. Returns the exit code: 0 when it has left a model, 1 when it has not."""
    job = session.client.jobs.get(identity)
    if session.output.terminal:
        job = watch_in_terminal(session, job)
    else:
        job = watch_as_lines(session, job)
    if session.output.quiet:
        print(job.id)
    return SUCCEEDED if job.state in USABLE else FAILED


def values_of(job: Job) -> dict[str, float | None]:
    """Return the newest values that a line shows: losses, and the metric that is monitored."""
    last = job.metric_values.last
    names = ["train_loss", "val_loss", monitored(job)]
    return {name: last[name] for name in dict.fromkeys(names) if name in last}


class Lines:
    """A job as lines: one for each change of its state, and for its progress at most one a second."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.state = ""
        self.epoch = -1
        self.next_line = 0.0

    def show(self, job: Job) -> None:
        """Print what has changed."""
        progress = job.progress
        epoch = progress.epoch if progress else 0
        now = time.monotonic()
        if job.state == self.state and (epoch == self.epoch or now < self.next_line):
            return
        changed, self.state, self.epoch, self.next_line = job.state != self.state, job.state, epoch, now + LINE_SECONDS
        if self.session.output.as_json:
            self.session.output.json_line(job.to_dict())
            return
        parts = [job.state] if changed else []
        if progress and progress.epochs:
            parts.append(f"epoch {progress.epoch}/{progress.epochs}")
            if progress.eta_seconds is not None and not job.has_ended:
                parts.append(f"{duration(progress.eta_seconds)} left")
        parts += [f"{name} {number(value)}" for name, value in values_of(job).items()]
        self.session.output.line("  ".join(parts))
        if job.has_ended:
            for text in ending(job):
                self.session.output.line(text)


def watch_as_lines(session: Session, job: Job) -> Job:
    """Print lines until the job ends; Ctrl-C leaves it alone."""
    lines = Lines(session)
    try:
        return job.wait(on_progress=lines.show)
    except KeyboardInterrupt:
        session.output.note(f"{job.id} goes on. Stop it: trainkit jobs stop {job.id}")
        raise typer.Exit(INTERRUPTED) from None


def watch_in_terminal(session: Session, job: Job) -> Job:
    """Redraw until the job ends; Ctrl-C asks what to do with it."""
    from trainkit_client.cli.watch_screen import Screen

    screen = Screen(session)
    while True:
        try:
            with screen.live():
                return job.wait(on_progress=screen.update)
        except KeyboardInterrupt:
            choice = ask(job)
        if choice == "leave":
            session.output.line(f"{job.id} goes on. Watch it again: trainkit jobs watch {job.id}")
            raise typer.Exit(INTERRUPTED)
        if choice == "stop":
            job = job.stop()


def ask(job: Job) -> str:
    """Ask what to do with a job that is watched no more: leave, stop or watch. Ctrl-C again leaves it."""
    question = (
        f"Job {printable(job.name or job.id)}: [l]eave it running, [s]top it and keep its model, [w]atch on? [l] "
    )
    try:
        sys.stderr.write(question)
        sys.stderr.flush()
        answer = sys.stdin.readline().strip().lower()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return "leave"
    return {"s": "stop", "stop": "stop", "w": "watch", "watch": "watch"}.get(answer, "leave")
