"""Help is quick, names both sets of commands, and tells what the commands are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from trainkit_client.cli import app
from trainkit_client.cli.root import COMMANDS, LazyCommands
from trainkit_client.version import __version__

ROOT = Path(__file__).parents[3]
CPU_SECONDS = 0.4
"""Of `trainkit --help`: on a quiet machine, the wall time is about the same."""


def cpu_seconds(*arguments: str) -> float:
    """The time of a process, user's and system's."""
    process = subprocess.Popen([sys.executable, "-m", "trainkit_client.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_is_quick() -> None:
    assert min(cpu_seconds("--help") for _ in range(4)) < CPU_SECONDS


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from trainkit_client.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'httpx', 'pydantic', 'rich', 'yaml', 'trainkit.spec', 'celery', 'torch'}\n"
        "print(slow & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_the_list_says_what_the_commands_say() -> None:
    group = get_command(app)
    for name, listed in COMMANDS.items():
        assert (
            group.commands[name].help.split("\n")[0].rstrip(".").startswith(listed.summary.rstrip(".").split(":")[0])
        ), name


def test_both_sets_are_listed_where_both_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    both = CliRunner().invoke(app, ["--help"]).output
    assert "The server, on this machine" in both
    assert all(f"  {name}" in both for name in (*COMMANDS, "up", "api", "worker", "key"))
    monkeypatch.setattr(LazyCommands, "added", {})
    alone = CliRunner().invoke(app, ["--help"]).output
    assert "The server" not in alone
    assert all(f"  {name}" in alone for name in COMMANDS)


@pytest.mark.parametrize("width", [80, 120])
def test_help_fits_its_terminal(width: int) -> None:
    group = get_command(app)
    pages = [[name] for name in group.commands] + [["jobs", name] for name in group.commands["jobs"].commands]
    for words in ([], *pages):
        result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(width)}, terminal_width=width)
        assert result.exit_code == 0
        text = result.output.split("\nExample")[0]
        assert max(len(line) for line in text.splitlines()) <= width, words


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"trainkit {__version__}\n"


def test_client_and_server_have_one_version() -> None:
    from trainkit.version import __version__ as server

    assert server == __version__
