"""Forked processes that cannot outlive their parent: start them without secrets, wait, and report how they ended."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from trainkit.processes import die_with_parent
from worker.confinement import Confinement, confine

# What a child may see of the environment; addresses of database, broker and storage and cloud keys stay out.
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME",
    "TRAINKIT_FAILPOINTS",
)
KEPT_PREFIXES = (
    "LC_",
    "PYTHON",
    "OMP_",
    "GOMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "TORCH_",
    "PYTORCH_",
    "MALLOC_",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `code` when it exited, `signal` when it was killed; `peak_bytes`: its largest resident memory."""

    code: int | None
    signal: int | None
    peak_bytes: int

    @property
    def clean(self) -> bool:
        return self.code == 0

    @property
    def status(self) -> int:
        """Exit status as a shell reports it: the code, or 128 + signal (137 SIGKILL, 139 SIGSEGV)."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class ForkedProcess:
    """A forked child, leader of its own session."""

    def __init__(self, pid: int, alive: int) -> None:
        self.pid = pid
        self.exit: Exit | None = None
        # The child holds the other end of this pipe: it reads as ended when the child has ended.
        self._alive = open(alive, "rb", buffering=0)  # noqa: SIM115

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> Exit:
        """Block until it ends."""
        ended = self._wait(0)
        assert ended is not None
        return ended

    def signal(self, number: int) -> None:
        """Signal the whole session, unless it has been reaped (its number may be another's by now)."""
        if self.exit is None:
            for target in (os.killpg, os.kill):  # the group exists only once the child has called setsid
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    target(self.pid, number)

    def kill(self) -> Exit:
        """SIGKILL, then reap it."""
        self.signal(signal.SIGKILL)
        ended = self.wait()
        self._alive.close()
        return ended

    def sleep(self, seconds: float) -> None:
        """Sleep, but wake up when it ends."""
        select.select([self._alive], [], [], seconds)

    def memory_bytes(self) -> int:
        """Resident memory now; 0 when it cannot be read."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _wait(self, options: int) -> Exit | None:
        if self.exit is None:
            pid, status, usage = os.wait4(self.pid, options)
            if pid == 0:
                return None
            killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            unit = 1 if sys.platform == "darwin" else 1024
            self.exit = Exit(code, killed_by, usage.ru_maxrss * unit)
        return self.exit


def fork(
    run: Callable[[], None],
    *,
    log: Path,
    keep: Iterable[int] = (),
    threads: int | None = None,
    confinement: Confinement | None = None,
) -> ForkedProcess:
    """Run `run` in a forked child: own session, dies with its parent, no inherited descriptors but `keep`, no secrets.

    With a `confinement` it touches nothing else, and ends with exit code 1 where the system refuses to confine it.

    `os.fork` and not multiprocessing, which refuses inside a Celery pool process. stdout and stderr go to `log`; an
    exception is printed there and the exit code is 1.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    alive, child_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(child_end)
        return ForkedProcess(pid, alive)
    # The parent's garbage is not the child's to finalise: closing a database connection here would wait for a lock that
    # another thread held at the fork, or close a descriptor whose number is in use again.
    gc.freeze()
    code = 1
    try:
        os.setsid()
        die_with_parent(parent)
        _reset_signals()
        _redirect(log)
        _close_all_but({0, 1, 2, child_end, *keep})
        _forget_resource_tracker()
        _scrub_environment(threads)
        raise_oom_score()
        if confinement is not None:
            confine(confinement)
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: the parent's handlers, buffers and connections are not the child's to close.
        os._exit(code)


def raise_oom_score() -> None:
    """Let the kernel, when memory runs out, kill this process before the worker, the broker or the database."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")


def _reset_signals() -> None:
    """A service manager signals the whole group at once; only the supervisor decides how the child ends."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    for default in (signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(default, signal.SIG_DFL)


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


def _close_all_but(keep: set[int]) -> None:
    limit = os.sysconf("SC_OPEN_MAX")
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    except OSError:
        opened = list(range(min(limit, 65536)))
    for descriptor in opened:
        if descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _forget_resource_tracker() -> None:
    """The parent's tracker of shared memory is behind a descriptor that is closed now: the child starts one of its own."""
    if module := sys.modules.get("multiprocessing.resource_tracker"):
        module._resource_tracker._fd = module._resource_tracker._pid = None


def _scrub_environment(threads: int | None) -> None:
    for name in list(os.environ):
        if name not in KEPT_VARIABLES and not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    if threads is not None:
        for name in THREAD_VARIABLES:
            os.environ[name] = str(threads)
