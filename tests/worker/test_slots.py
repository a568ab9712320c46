"""The slots of a worker are shared: one is left to predictions, and no project has them all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from service.fair_share.admission import WorkClass
from tests.support.stack import wait_for
from worker.slots import Slots


class SlotProcess:
    """A forked process that reserves once and keeps its reservation until it is killed, as a slot at work does."""

    def __init__(self, slots: Slots, project: str, work_class: WorkClass) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.write(writer, b"y" if slots.reserve(project, work_class) else b"n")
            signal.pause()
        os.close(writer)
        self.admitted = os.read(reader, 1) == b"y"
        os.close(reader)
        if not self.admitted:
            self.kill()

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.pid = 0


@pytest.fixture
def processes() -> Iterator[list[SlotProcess]]:
    started: list[SlotProcess] = []
    yield started
    for process in started:
        process.kill()


Work = tuple[str, WorkClass]
HEAVY_A: Work = ("a", "heavy")
HEAVY_B: Work = ("b", "heavy")
HEAVY_C: Work = ("c", "heavy")
LIGHT_A: Work = ("a", "light")
LIGHT_B: Work = ("b", "light")
CASES: dict[str, tuple[int, list[Work], list[bool]]] = {
    "of four slots one project has two for heavy work": (4, [HEAVY_A] * 3, [True, True, False]),
    "and three in all, so that another's prediction begins at once": (
        4,
        [HEAVY_A, HEAVY_A, LIGHT_A, LIGHT_A, LIGHT_B],
        [True, True, True, False, True],
    ),
    "two hostile uploads and a third project's leave the last slot to predictions": (
        4,
        [HEAVY_A, HEAVY_A, HEAVY_B, HEAVY_C, LIGHT_B],
        [True, True, True, False, True],
    ),
    "predictions of one project leave a slot": (4, [LIGHT_A] * 4, [True, True, True, False]),
    "of two slots heavy work has one": (2, [HEAVY_A, HEAVY_B, LIGHT_B], [True, False, True]),
    "one slot does all": (1, [HEAVY_A], [True]),
    "many slots": (10, [HEAVY_A] * 9 + [HEAVY_B], [*[True] * 8, False, True]),
}


@pytest.mark.parametrize("case", CASES)
def test_reservations(case: str, processes: list[SlotProcess]) -> None:
    count, works, expected = CASES[case]
    slots = Slots(count)
    for work in works:
        processes.append(SlotProcess(slots, *work))
    assert [process.admitted for process in processes] == expected
    slots.close()


def test_a_killed_slot_releases_what_it_had(processes: list[SlotProcess]) -> None:
    slots = Slots(2)
    processes.append(SlotProcess(slots, *HEAVY_A))
    assert not slots.reserve("b", "heavy")
    processes[0].kill()
    wait_for(lambda: slots.reserve("b", "heavy"), seconds=10)
    assert slots.reserve("c", "heavy"), "a slot has one reservation: the next one takes the place of the last"
    slots.release()
    slots.close()


def test_refused_work_is_remembered_once() -> None:
    slots = Slots(2)
    slots.note_refusal("predict")
    slots.note_refusal("predict")
    assert slots.take_refusals() == ["predict"]
    assert slots.take_refusals() == []
    slots.close()
