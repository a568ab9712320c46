"""Programs that tests drive: from PATH, else out of Debian's package, unpacked and never installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def find_program(name: str, package: str, inside: str) -> str | None:
    """Return the path of a program; None when this machine has it not and cannot get it.

    Args:
        name: What it is called on PATH.
        package: The Debian package that holds it.
        inside: Its path in the package.
    """
    if found := shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin"):
        return found
    folder = Path(tempfile.gettempdir()) / f"trainkit-{name}-{os.getuid()}"
    program = folder / inside
    if not program.exists() and os.getuid() == 0 and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with contextlib.suppress(subprocess.TimeoutExpired):  # a mirror that does not answer
            _unpack(package, folder)
    return str(program) if program.exists() else None


def _unpack(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        for commands in ([f"download {package}"], ["update", f"download {package}"]):
            for command in commands:
                done = subprocess.run(
                    ["apt-get", "-qq", *command.split()], cwd=place, capture_output=True, timeout=120, check=False
                )
            if done.returncode == 0 and (packages := list(Path(place).glob("*.deb"))):
                unpacked = Path(tempfile.mkdtemp(dir=folder.parent))
                subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(unpacked)], capture_output=True, check=False)
                if not folder.exists():  # two at a time may get here
                    unpacked.rename(folder)
                return
