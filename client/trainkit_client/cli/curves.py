"""Small curves of braille characters: two by four dots in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot by row and column of a cell (Unicode 10, block U+2800)."""
BLANK = 0x2800


@dataclass(slots=True)
class Cell:
    """The dots of one character, and how many are of which series."""

    bits: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def series(self) -> int | None:
        """The series with the most dots; None of an empty cell."""
        return max(self.counts, key=lambda key: self.counts[key]) if self.counts else None


def draw(
    series: Sequence[Sequence[tuple[float, float]]], width: int, height: int, low: float, high: float, end: float
) -> list[list[Cell]]:
    """Return rows of cells with a line for each series.

    Args:
        series: Points (x, y), x rising.
        width: Cells of a row.
        height: Rows.
        low: The y of the lowest row of dots.
        high: The y of the highest.
        end: The x of the right edge; the left one is the first x.
    """
    rows = [[Cell() for _ in range(width)] for _ in range(height)]
    start = min((points[0][0] for points in series if points), default=0.0)
    columns, lines = 2 * width - 1, 4 * height - 1

    def put(x: int, y: int, number: int) -> None:
        cell = rows[y // 4][x // 2]
        cell.bits |= DOTS[y % 4][x % 2]
        cell.counts[number] = cell.counts.get(number, 0) + 1

    for number, points in enumerate(series):
        before: tuple[int, int] | None = None
        for x, y in points:
            column = round(columns * (x - start) / (end - start)) if end > start else 0
            share = (y - low) / (high - low) if high > low else 0.5
            place = min(max(column, 0), columns), lines - round(lines * min(max(share, 0.0), 1.0))
            for dot in line(before or place, place):
                put(*dot, number)
            before = place
    return rows


def line(first: tuple[int, int], last: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots from one to another."""
    (x0, y0), (x1, y1) = first, last
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [(round(x0 + (x1 - x0) * k / steps), round(y0 + (y1 - y0) * k / steps)) for k in range(steps + 1)]


def character(cell: Cell) -> str:
    """Return the braille character of a cell; a space of an empty one."""
    return chr(BLANK | cell.bits) if cell.bits else " "
