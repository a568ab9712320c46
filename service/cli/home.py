"""The home folder of `trainkit up`: its permissions, its lock, and the environment of the processes that use it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# sun_path holds 108 bytes with its end mark; redis appends nothing, other systems allow a few bytes less.
MAX_SOCKET_PATH = 100
PACKAGES = Path(__file__).resolve().parents[2]
# In a checkout the client is a distribution in a folder of its own.
SEARCH_PATH = [PACKAGES, *(folder for folder in [PACKAGES / "client"] if (folder / "trainkit_client").is_dir())]


class RefusedError(Exception):
    """The command cannot run until the user changes something; `exit_code` tells the kind."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code


EXIT_HOME_TAKEN = 10
EXIT_PORT_TAKEN = 11
EXIT_NOT_STARTED = 12
EXIT_MISSING_PART = 13
"""From 10 on: 1 to 5 mean the same for all commands of `trainkit` (EXIT_CODES in docs/generate.py)."""


@dataclass(frozen=True, slots=True)
class Home:
    """`<home>/`: database, keys, broker-password, storage/, scratch/, run/, logs/, lock; for its owner alone."""

    folder: Path

    @classmethod
    def at(cls, folder: Path | None) -> Home:
        """Return the home in the given folder, else TRAINKIT_HOME, else ~/.trainkit."""
        chosen = folder or Path(os.environ.get("TRAINKIT_HOME") or "~/.trainkit")
        return cls(chosen.expanduser().absolute())

    @property
    def key_file(self) -> Path:
        return self.folder / "api-key"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Redis listens: run/redis.sock, or in the temporary folder when that is too long."""
        path = self.folder / "run" / "redis.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"trainkit-{os.getuid()}-{name}" / "redis.sock"

    @property
    def _credentials(self) -> str:
        return f":{self.broker_password}@" if self.broker_password else ""

    def create(self) -> None:
        """Create what is missing, private to the owner. Raises RefusedError when another user owns a folder."""
        for folder in (
            self.folder,
            self.redis_socket.parent,
            *(self.folder / name for name in ("run", "logs", "storage", "scratch")),
        ):
            make_private(folder)
        self._tighten()
        if not self._password_file.exists():
            write_private(self._password_file, secrets.token_hex(24) + "\n")

    def _tighten(self) -> None:
        """Take from others the files that earlier versions made readable; their folders are closed already."""
        for pattern in ("trainkit.db*", "api-key", "lock", "broker-password", "secret-key", "logs/*", "run/*"):
            for path in self.folder.glob(pattern):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077:
                    path.chmod(0o600)

    @property
    def _password_file(self) -> Path:
        return self.folder / "broker-password"

    @property
    def broker_password(self) -> str:
        """Password of the embedded broker; empty before `create`."""
        return self._password_file.read_text().strip() if self._password_file.exists() else ""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """`given`, completed with what the parts need to find this home; what is set already stays."""
        defaults = {
            "TRAINKIT_HOME": str(self.folder),
            "TRAINKIT_DATABASE_URL": f"sqlite:///{self.folder / 'trainkit.db'}",
            "TRAINKIT_BROKER_URL": f"redis+socket://{self._credentials}{self.redis_socket}?virtual_host=0",
            "TRAINKIT_STORAGE_URL": str(self.folder / "storage"),
            "TRAINKIT_SCRATCH": str(self.folder / "scratch"),
            # Idle OpenMP threads would compete with the training processes, which set their own number.
            "OMP_NUM_THREADS": "1",
            # A thread that waits at a barrier spins for a moment, then sleeps. By default it spins for milliseconds, and
            # where another process takes the core, two threads are ten and more times slower than one.
            "GOMP_SPINCOUNT": "1000",
            "PYTHONUNBUFFERED": "1",
            # Modules in the current folder must not shadow our packages.
            "PYTHONSAFEPATH": "1",
        }
        search = [*map(str, SEARCH_PATH), *filter(None, [given.get("PYTHONPATH")])]
        fixed = {"TRAINKIT_HOME": str(self.folder), "PYTHONPATH": os.pathsep.join(search)}
        return {**defaults, **given, **fixed}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def make_private(folder: Path) -> None:
    """A folder with mode 0700 that is ours. Raises RefusedError for a link, a file or another user's folder."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISLNK(found.st_mode):  # a link to a bigger disk is fine when its target belongs to this user
            found = folder.stat()
        if found.st_uid != os.getuid():
            raise RefusedError(
                f"{folder} belongs to another user", "Choose another folder with --home.", EXIT_HOME_TAKEN
            )
        folder.chmod(0o700)
    except OSError as error:
        raise RefusedError(
            f"cannot use the folder {folder}: {error.strerror}", "Choose another with --home.", EXIT_HOME_TAKEN
        ) from None


class Lock:
    """A lock that allows one `trainkit up` for each home. The kernel releases it when its holder ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def acquire(self) -> None:
        """Acquire the lock and write this pid into it. Raises RefusedError, naming the holder's pid."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            raise RefusedError(
                f"trainkit is already up in {self.path.parent} (process {holder})",
                f"Stop it with `kill {holder}`, or start another one with --home DIR --port N.",
                EXIT_HOME_TAKEN,
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock. The file stays, so that two processes never lock two different files."""
        os.ftruncate(self._file, 0)
        os.close(self._file)
