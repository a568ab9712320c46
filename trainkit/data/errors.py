"""Errors of data that cannot be used: each problem has a code, a message, a place and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One problem of a dataset. `where` names the archive entry, row, column or array."""

    code: str
    message: str
    where: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return plain data, as in the HTTP API."""
        return asdict(self)


class DataError(ValueError):
    """The data cannot be used; `problems` holds at least one problem."""

    def __init__(self, problems: Sequence[DataProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.where}: {p.message}" if p.where else p.message for p in self.problems[:10]))

    def __reduce__(self) -> tuple[type[DataError], tuple[Sequence[DataProblem]]]:
        return type(self), (self.problems,)


def data_error(code: str, message: str, where: str = "", hint: str = "") -> DataError:
    """Return a DataError with one problem."""
    return DataError([DataProblem(code, message, where, hint)])


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One problem of what is to be predicted. `row` counts from 0; `message` names it as well."""

    code: str
    message: str
    row: int | None = None
    column: str | None = None
    hint: str = ""
    within: str | None = None
    """The field of the sample that holds the column, where it is not the sample itself."""


def input_error(message: str) -> InputError:
    """Return an InputError of one problem of what is to be predicted."""
    return InputError([InputProblem("invalid_input", message)])


class InputError(ValueError):
    """Inputs that a model cannot read; `problems` holds at least one problem."""

    def __init__(self, problems: Sequence[InputProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems[:10]))

    def __reduce__(self) -> tuple[type[InputError], tuple[Sequence[InputProblem]]]:
        return type(self), (self.problems,)
