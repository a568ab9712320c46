"""Data that cannot be used, with every reason: what, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One thing wrong with data. `where` names the archive entry, the row, the column or the array."""

    code: str
    message: str
    where: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """The wire form."""
        return asdict(self)


class DataError(ValueError):
    """The data cannot be used; `problems` has at least one reason."""

    def __init__(self, problems: Sequence[DataProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.where}: {p.message}" if p.where else p.message for p in self.problems[:10]))

    def __reduce__(self) -> tuple[type[DataError], tuple[Sequence[DataProblem]]]:
        return type(self), (self.problems,)


def refuse(code: str, message: str, where: str = "", hint: str = "") -> DataError:
    """A DataError of one problem."""
    return DataError([DataProblem(code, message, where, hint)])
