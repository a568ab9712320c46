"""Whether a process has ended is said only of one that can be seen, and never of another with the same number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from service import process_identity
from service.process_identity import current, has_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def identity_of(pid: int) -> str:
    found = process_identity._of_process(pid)
    assert found is not None
    return found


def test_a_process_that_runs_or_is_stopped_has_not_ended(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert not has_ended(current())
    assert not has_ended(identity)
    sleeper.send_signal(signal.SIGSTOP)
    assert not has_ended(identity)


def test_a_killed_process_has_ended_also_before_its_parent_has_reaped_it(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(identity), "a zombie runs nothing"
    sleeper.wait()
    assert has_ended(identity)


def changed(part: int, separator: str = ";") -> Callable[[str], str]:
    def change(identity: str) -> str:
        parts = identity.split(separator)
        parts[part] += "0"
        return separator.join(parts)

    return change


CHANGES: dict[str, tuple[Callable[[str], str], bool]] = {
    "another start: the number was used again": (changed(-1, "/"), True),
    "another boot, or another machine of the same host name": (changed(0), False),
    "another container": (changed(1), False),
    "no identity": (lambda _: "", False),
    "what an older version wrote": (lambda _: "host/12", False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_only_what_can_be_seen_has_ended(case: str) -> None:
    change, expected = CHANGES[case]
    identity = current()
    assert identity is not None
    assert has_ended(change(identity)) is expected


def test_none_has_not_ended() -> None:
    assert not has_ended(None)


def test_a_name_with_brackets_and_spaces_is_read(tmp_path: object) -> None:
    script = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b'); print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert not has_ended(identity_of(process.pid))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
