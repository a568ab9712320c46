"""The home folder: private, held by one, with a socket path that the kernel accepts."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.home import EXIT_HOME_TAKEN, MAX_SOCKET_PATH, Home, Lock, RefusedError, make_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_folders_are_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    for folder in (home.folder, *(home.folder / name for name in ("run", "logs", "storage", "scratch"))):
        assert mode(folder) == 0o700


def test_files_that_an_earlier_version_left_open_are_closed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for name in ("trainkit.db", "trainkit.db-wal", "trainkit.db-shm", "logs/api.log", "logs/api.log.1", "storage/a/b"):
        path = home.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("rows")
        path.chmod(0o644)
    (home.folder / "logs/link").symlink_to("/etc/hostname")
    home.create()
    assert {mode(home.folder / name) for name in ("trainkit.db", "trainkit.db-wal", "trainkit.db-shm")} == {0o600}
    assert {mode(home.folder / name) for name in ("logs/api.log", "logs/api.log.1", "broker-password")} == {0o600}
    assert mode(home.folder / "storage") == 0o700, "so that what is below it cannot be reached"
    assert mode(Path("/etc/hostname")) != 0o600


def test_the_broker_has_a_password_that_stays(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    password = home.broker_password
    assert len(password) == 48
    home.create()
    assert home.environment({})["TRAINKIT_BROKER_URL"].startswith(f"redis+socket://:{password}@/")


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    Home(tmp_path / "home").create()
    assert mode(tmp_path / "home") == 0o700


def test_a_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(RefusedError, match="cannot use the folder"):
        make_private(tmp_path / "home")


def test_what_the_environment_says_already_stays(tmp_path: Path) -> None:
    environment = Home(tmp_path).environment({"TRAINKIT_DATABASE_URL": "postgresql+psycopg://db", "PATH": "/bin"})
    assert environment["TRAINKIT_DATABASE_URL"] == "postgresql+psycopg://db"
    assert environment["TRAINKIT_STORAGE_URL"] == str(tmp_path / "storage")
    assert environment["TRAINKIT_BROKER_URL"] == f"redis+socket://{tmp_path}/run/redis.sock?virtual_host=0"
    assert environment["PATH"] == "/bin"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["GOMP_SPINCOUNT"] == "1000"
    assert Home(tmp_path).environment({"GOMP_SPINCOUNT": "0"})["GOMP_SPINCOUNT"] == "0"


def test_a_long_home_puts_its_socket_into_a_private_temporary_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / ("x" * 120))
    home.create()
    assert len(os.fsencode(home.redis_socket)) <= MAX_SOCKET_PATH
    assert mode(home.redis_socket.parent) == 0o700
    home.redis_socket.parent.rmdir()


def test_the_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    script = """
import sys, pathlib
from service.cli.home import Lock
Lock(pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RefusedError, match=f"process {holder.pid}") as refused:
        Lock(tmp_path / "lock").acquire()
    assert refused.value.exit_code == EXIT_HOME_TAKEN
    holder.kill()
    holder.communicate()
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    lock.release()
