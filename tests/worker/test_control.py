"""Commands through the pipe: the newest holds, asking never blocks, a dead supervisor ends the child."""

from __future__ import annotations

import os
import time
from pathlib import Path

from worker import processes
from worker.control import ControlReceiver, ControlSender, control_pipe


def test_the_newest_command_holds_until_another_comes() -> None:
    reading, writing = control_pipe()
    control, sender = ControlReceiver(reading), ControlSender(writing)
    assert control.command() is None
    sender.send({"action": "pause"})
    sender.send({"action": "stop", "keep": "last"})
    assert control.command() == {"action": "stop", "keep": "last"}
    assert control.command() == {"action": "stop", "keep": "last"}
    sender.send({"action": "cancel"})
    assert control.command() == {"action": "cancel"}
    sender.close()
    os.close(reading)


def test_a_repeated_command_is_sent_once() -> None:
    reading, writing = control_pipe()
    sender = ControlSender(writing)
    sender.send({"action": "cancel"})
    sender.send({"action": "cancel"})
    assert os.read(reading, 1000) == b'{"action": "cancel"}\n'
    sender.close()
    os.close(reading)


def test_half_a_line_is_no_command() -> None:
    reading, writing = control_pipe()
    control = ControlReceiver(reading)
    os.write(writing, b'{"action": ')
    assert control.command() is None
    os.write(writing, b'"cancel"}\n')
    assert control.command() == {"action": "cancel"}
    os.close(writing)
    os.close(reading)


def test_a_command_for_a_child_that_has_gone_is_no_error() -> None:
    reading, writing = control_pipe()
    os.close(reading)
    sender = ControlSender(writing)
    sender.send({"action": "cancel"})
    sender.close()


def test_the_child_ends_when_the_supervisor_closes_the_pipe(tmp_path: Path) -> None:
    reading, writing = control_pipe()

    def run() -> None:
        control = ControlReceiver(reading)
        while True:
            control.command()
            time.sleep(0.01)

    child = processes.fork(run, log=tmp_path / "log", keep=[reading])
    os.close(reading)
    assert child.poll() is None
    os.close(writing)
    assert child.wait().code == 1
