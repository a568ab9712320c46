"""Commands from outside: how a run is asked to stop, pause or hand back."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Protocol, TypedDict


class Command(TypedDict):
    """`stop` ends after the current step and keeps a model; `cancel` keeps none; `pause` and `hand_back` checkpoint.

    A stop with a `stop_reason` was decided outside the run (a rule across jobs): the run ends with that reason.
    """

    action: Literal["stop", "cancel", "pause", "hand_back"]
    keep: NotRequired[Literal["best", "last"]]
    stop_reason: NotRequired[str]
    reason: NotRequired[str]


class Control(Protocol):
    """Anything that can be asked for a command. It is asked once a step, so it must answer at once."""

    def command(self) -> Command | dict[str, Any] | None:
        """The command in force, or None to continue."""
        ...


class LatestCommand:
    """A control whose newest command stays in force for whoever asks next."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._command: Command | dict[str, Any] | None = None

    def command(self) -> Command | dict[str, Any] | None:
        """The newest command."""
        self._command = self._control.command() or self._command
        return self._command


class SharedControl:
    """One control for several runs: its first command is in force for each of them."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._command: Command | dict[str, Any] | None = None

    def command(self) -> Command | dict[str, Any] | None:
        """The first command."""
        if self._command is None:
            self._command = self._control.command()
        return self._command
