"""Wishes from outside: how a running job is asked to stop, pause or hand back."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Protocol, TypedDict


class Wish(TypedDict):
    """`stop` ends after the current step and keeps a model; `cancel` keeps none; `pause` and `handback` checkpoint.

    A stop with a `stop_reason` was decided elsewhere, where its decision stands: the run ends with that reason.
    """

    action: Literal["stop", "cancel", "pause", "handback"]
    keep: NotRequired[Literal["best", "last"]]
    stop_reason: NotRequired[str]
    reason: NotRequired[str]


class Control(Protocol):
    """Anything that can be asked for a wish. It is asked once a step, so it must answer at once."""

    def wish(self) -> Wish | dict[str, Any] | None:
        """What is wanted now, or None to go on."""
        ...


class Remembering:
    """A control whose newest wish holds for whoever asks next."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._wish: Wish | dict[str, Any] | None = None

    def wish(self) -> Wish | dict[str, Any] | None:
        self._wish = self._control.wish() or self._wish
        return self._wish
