"""A confined process reads its dataset and writes its scratch folder; everything else fails, and real jobs pass."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.support.worker_context import Place
from tests.support.worker_runs import run_one
from worker import confinement, intake, training_process
from worker.confinement import Confinement, ConfinementError, Support, check_support, landlock, paths, seccomp, user
from worker.context import make_context
from worker.outputs import OutputRefusedError, output_path
from worker.processes import fork

pytestmark = pytest.mark.skipif(
    os.environ.get("TRAINKIT_CONFINEMENT") == "off", reason="confinement is off, as while coverage is measured"
)
NEEDS_LANDLOCK = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
NEEDS_SECCOMP = pytest.mark.skipif(not seccomp.available(), reason="no seccomp filter for this system")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives processes other users")


class Scene:
    """A home with a database, two datasets and a scratch folder for one process."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.dataset, self.foreign = self.home / "storage/prepared/ds_1", self.home / "storage/prepared/ds_2"
        self.scratch, self.job = self.home / "scratch", self.home / "scratch/job_1"
        self.database = self.home / "trainkit.db"
        for path in (self.dataset, self.foreign, self.job):
            path.mkdir(parents=True, mode=0o700)
        for file in (self.dataset / "x", self.foreign / "x", self.database):
            file.write_text("rows")
            file.chmod(0o600)

    def run(self, act: Callable[[], Any], support: Support | None = None) -> tuple[bool, str]:
        """(whether the confined process ended well, its output)."""
        support = support or check_support(self.scratch)
        log = self.scratch / "log"
        log.unlink(missing_ok=True)
        child = fork(act, log=log, confinement=Confinement((self.dataset,), self.job, support))
        return child.wait().clean, log.read_text()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def attempts(acts: dict[str, Callable[[], Any]]) -> Callable[[], None]:
    """Do all acts and print how each ended, as JSON."""

    def act() -> None:
        results = {}
        for name, attempt in acts.items():
            try:
                attempt()
                results[name] = "done"
            except OSError as error:
                results[name] = type(error).__name__
        print(json.dumps(results))

    return act


@contextmanager
def attacks(scene: Scene) -> Iterator[dict[str, Callable[[], Any]]]:
    """What code that has taken a process over might try, by what it reaches."""
    mark = Path(f"/tmp/confined-{os.getpid()}")
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as broker:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        broker.bind(str(scene.home / "redis.sock"))
        broker.listen()
        parent, address = os.getpid(), listener.getsockname()
        yield {
            "read another dataset": (scene.foreign / "x").read_bytes,
            "list another dataset": lambda: list(scene.foreign.iterdir()),
            "read the database": scene.database.read_bytes,
            "write the database": lambda: scene.database.open("ab"),
            "truncate the database": lambda: os.truncate(scene.database, 4),
            "list other jobs": lambda: list(scene.scratch.iterdir()),
            "change its dataset": lambda: (scene.dataset / "x").open("ab"),
            "write into its dataset": lambda: (scene.dataset / "y").write_text("row"),
            "write beside its scratch": lambda: (scene.scratch / "job_2").mkdir(),
            "write /tmp": lambda: mark.write_text(""),
            "read the machine's name": Path("/etc/hostname").read_bytes,
            "link to the database": lambda: (scene.job / "database").symlink_to(scene.database),
            "hard link to its dataset": lambda: (scene.job / "x").hardlink_to(scene.dataset / "x"),
            "read the worker's environment": Path(f"/proc/{parent}/environ").read_bytes,
            "open the worker's memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDONLY),
            "connect by TCP": lambda: socket.create_connection(address, 5),
            "listen": lambda: socket.create_server(("127.0.0.1", 0)),
            "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "connect to the broker": lambda: socket.socket(socket.AF_UNIX).connect(str(scene.home / "redis.sock")),
            "signal the worker": lambda: os.kill(parent, 0),
            "remove the database": scene.database.unlink,
        }
    mark.unlink(missing_ok=True)


@NEEDS_ROOT
def test_without_confinement_every_attack_succeeds(scene: Scene) -> None:
    """Or the next test would prove nothing."""
    with attacks(scene) as acts:
        child = fork(attempts(acts), log=scene.scratch / "log")
        assert child.wait().clean
    results = json.loads((scene.scratch / "log").read_text())
    assert results == dict.fromkeys(acts, "done")


@NEEDS_LANDLOCK
@NEEDS_SECCOMP
@pytest.mark.parametrize("private_user", [pytest.param(True, marks=NEEDS_ROOT), False])
def test_nothing_but_dataset_and_scratch_is_reached(scene: Scene, private_user: bool) -> None:
    support = replace(check_support(scene.scratch), private_user=private_user)
    allowed: dict[str, Callable[[], Any]] = {
        "read its dataset": (scene.dataset / "x").read_bytes,
        "write its scratch": lambda: (scene.job / "result").write_text("model"),
        "rename in its scratch": lambda: (scene.job / "result").rename(scene.job / "tmp" / "model"),
        "read itself": Path("/proc/self/status").read_text,
        "write /dev/null": lambda: Path(os.devnull).write_text("x"),
    }
    with attacks(scene) as acts:
        refused = {**acts, "read /etc/shadow": Path("/etc/shadow").read_bytes}
        ended, output = scene.run(attempts({**refused, **allowed}), support)
    assert ended, output
    results = json.loads(output)
    # a hard link is refused as one between file systems
    assert {name for name in refused if results[name] not in ("PermissionError", "OSError")} == set()
    assert {name: results[name] for name in allowed} == dict.fromkeys(allowed, "done")
    assert scene.database.read_text() == (scene.dataset / "x").read_text() == "rows"


@NEEDS_ROOT
@NEEDS_LANDLOCK
@NEEDS_SECCOMP
def test_a_worker_of_root_gives_each_process_a_user(scene: Scene) -> None:
    """Its files, no others; one capability, which reads; and it still dies with the worker."""

    def act() -> None:
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        (scene.job / "file").touch()
        print(json.dumps([os.getpid(), os.getresuid(), os.getgroups(), status["CapEff"].strip(), status["NoNewPrivs"]]))

    ended, output = scene.run(act)
    assert ended, output
    pid, users, groups, capabilities, no_new_privs = json.loads(output)
    assert users == [user.FIRST_USER + pid] * 3
    assert 0 not in groups
    assert int(capabilities, 16) == 1 << user.CAP_DAC_READ_SEARCH
    assert no_new_privs == "1"
    assert (scene.job / "file").stat().st_uid == user.FIRST_USER + pid


@NEEDS_ROOT
@NEEDS_LANDLOCK
def test_a_confined_process_dies_with_its_worker(scene: Scene) -> None:
    """A change of user clears the signal that the kernel sends at the parent's death."""
    script = f"""
        import os, time
        from pathlib import Path
        from worker.confinement import Confinement, check_support
        from worker.processes import fork
        scratch = Path({str(scene.scratch)!r})
        act = lambda: (print(os.getpid(), flush=True), time.sleep(60))
        fork(act, log=scratch / "log", confinement=Confinement((), scratch / "job_1", check_support(scratch)))
        while not (scratch / "log").exists() or not (scratch / "log").read_text().strip():
            time.sleep(0.01)
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    pid = int((scene.scratch / "log").read_text())
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} outlived its worker")


def test_what_libraries_need_works(scene: Scene) -> None:
    """Temporary files, threads, shared memory, started interpreters with pickled work, a compiler's caches.

    The parent has used shared memory as well: its tracker is behind a descriptor that the child does not have.
    """
    resource_tracker.ensure_running()

    def act() -> None:
        import multiprocessing
        import tempfile
        from multiprocessing import shared_memory

        with tempfile.NamedTemporaryFile() as file:
            assert file.name.startswith(str(scene.job))
        segment = shared_memory.SharedMemory(create=True, size=8)
        segment.close()
        segment.unlink()
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe()
        process = context.Process(target=sender_of_sum, args=(sender, [1, 2]))
        process.start()
        assert receiver.recv() == (3, os.getuid())
        process.join()
        if compiler := shutil.which("cc"):
            source = Path(tempfile.gettempdir(), "one.c")
            source.write_text("int one(void) { return 1; }")
            subprocess.run([compiler, "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
            import ctypes

            assert ctypes.CDLL(str(source.with_suffix(".so"))).one() == 1
        from matplotlib.figure import Figure

        Figure().savefig(scene.job / "plot.png")

    ended, output = scene.run(act)
    assert ended, output
    assert (scene.job / "plot.png").stat().st_size > 100


def sender_of_sum(sender: Any, numbers: list[int]) -> None:
    """Run in a started interpreter, which has to import this very module."""
    sender.send((sum(numbers), os.getuid()))


def test_limits_on_resources(scene: Scene) -> None:
    import resource

    def act() -> None:
        names = ("CORE", "NOFILE", "CPU", "DATA")
        limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in names}
        try:
            bytearray(1 << 30)
            limits["allocated"] = 1
        except MemoryError:
            limits["allocated"] = 0
        print(json.dumps(limits))

    allowed = Confinement((), scene.job, check_support(scene.scratch), data_bytes=256 << 20, cpu_seconds=7200)
    child = fork(act, log=scene.scratch / "log", confinement=allowed)
    assert child.wait().clean, (scene.scratch / "log").read_text()
    limits = json.loads((scene.scratch / "log").read_text())
    assert limits["CORE"] == 0
    assert limits["CPU"] == 7200
    assert 0 < limits["NOFILE"] <= confinement.MAX_OPEN_FILES
    assert limits["DATA"] > 256 << 20
    assert limits["allocated"] == 0


@NEEDS_SECCOMP
def test_dangerous_system_calls_are_refused_and_threads_start(scene: Scene) -> None:
    from worker.confinement.syscalls import syscall

    column = list(seccomp.AUDIT_ARCHITECTURES).index(platform.machine())
    calls = {name: numbers[column] for name, numbers in seccomp.CALLS.items()}

    def act() -> None:
        import threading

        results = {}
        for name, number in calls.items():
            try:
                syscall(number, -1, -1, -1, -1, -1, -1)
                results[name] = 0
            except OSError as error:
                results[name] = error.errno
        new_user_namespace = 0x10000000
        try:
            syscall(seccomp.CLONE[column], new_user_namespace | 17, 0, 0, 0, 0)
            os._exit(3)  # both of the processes that there are now
        except OSError as error:
            results["namespace"] = error.errno
        thread = threading.Thread(target=results.setdefault, args=("thread", 1))
        thread.start()
        thread.join()
        print(json.dumps(results))

    # without Landlock and another user, so that nothing else refuses them
    ended, output = scene.run(act, Support(0, True, False))
    assert ended, output
    results = json.loads(output)
    assert results.pop("thread") == 1
    assert results == dict.fromkeys([*calls, "namespace"], 1), "EPERM for all"


def test_numbers_of_system_calls_are_the_headers() -> None:
    """Where the kernel's headers are installed, for this processor."""
    name = {"x86_64": "unistd_64.h", "aarch64": "unistd.h"}.get(platform.machine(), "none")
    headers = sorted(Path("/usr/include").glob(f"**/asm*/{name}"))
    text = "".join(header.read_text() for header in headers)
    numbers = {one: int(number) for one, number in re.findall(r"#define __NR_(\w+)\s+(\d+)\n", text)}
    if not numbers:
        pytest.skip("no kernel headers")
    column = list(seccomp.AUDIT_ARCHITECTURES).index(platform.machine())
    calls = {**seccomp.CALLS, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
    wrong = {name: both[column] for name, both in calls.items() if numbers.get(name, both[column]) != both[column]}
    assert not wrong


@pytest.mark.parametrize("machine", seccomp.AUDIT_ARCHITECTURES)
def test_the_filter_decides_as_its_list_says(machine: str) -> None:
    """Interpreted here for every call number: on a processor that is not this machine's, too."""
    column = list(seccomp.AUDIT_ARCHITECTURES).index(machine)
    program = seccomp.instructions(machine)

    def decide(number: int, argument: int = 0, architecture: int = seccomp.AUDIT_ARCHITECTURES[machine]) -> int:
        loaded, at = 0, 0
        while True:
            one = program[at]
            at += 1
            if one.code == seccomp.RETURN:
                return int(one.value)
            if one.code == seccomp.LOAD:
                loaded = {0: number, 4: architecture, 16: argument}[one.value]
                continue
            holds = {
                seccomp.JUMP_EQUAL: loaded == one.value,
                seccomp.JUMP_AT_LEAST: loaded >= one.value,
                seccomp.JUMP_ANY_BIT: bool(loaded & one.value),
            }[one.code]
            at += one.when_true if holds else one.when_false

    refused = {numbers[column] for numbers in seccomp.CALLS.values()}
    eperm, enosys = seccomp.ERRNO | 1, seccomp.ERRNO | 38
    clone, clone3 = seccomp.CLONE[column], seccomp.CLONE3[column]
    for number in range(600):
        expected = eperm if number in refused else enosys if number == clone3 else seccomp.ALLOW
        assert decide(number) == expected, number
    assert decide(clone, 0x10000000) == eperm
    assert decide(clone, 0x003D0F00) == seccomp.ALLOW, "a thread"
    assert decide(0, architecture=0x40000003) == eperm, "the calls of another processor"
    assert (decide(seccomp.X32_CALLS + 41) == eperm) == (machine == "x86_64")


def test_a_system_without_any_of_it_still_runs(scene: Scene) -> None:
    ended, output = scene.run(attempts({"read": (scene.dataset / "x").read_bytes}), Support(0, False, False))
    assert ended
    assert json.loads(output) == {"read": "done"}


def test_missing_confinement_is_reported_and_may_be_required(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = replace(Settings.from_env({"TRAINKIT_HOME": str(tmp_path)}), scratch=tmp_path / "scratch")
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(seccomp, "available", lambda: False)
    messages = [message for _, message in confinement.describe(settings)]
    assert any("no Landlock" in message for message in messages)
    assert any("no seccomp" in message for message in messages)
    with pytest.raises(ConfinementError, match="TRAINKIT_CONFINEMENT"):
        check_support(tmp_path / "other", required=True)
    off = confinement.describe(replace(settings, confinement="off"))
    assert "confinement is off" in off[0][1]
    with pytest.raises(ValueError, match="auto, required, off"):
        Settings.from_env({"TRAINKIT_CONFINEMENT": "yes"})


def test_secrets_below_a_readable_folder_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "programs", lambda: (tmp_path,))
    assert (tmp_path / "home", tmp_path) in paths.exposed([tmp_path / "home"])
    settings = Settings.from_env({"TRAINKIT_HOME": str(tmp_path / "home"), "TRAINKIT_SCRATCH": "/scratch"})
    assert any("which every job may read" in message for _, message in confinement.describe(settings))


def test_results_are_taken_from_the_scratch_folder_alone(scene: Scene) -> None:
    (scene.job / "model").mkdir()
    (scene.job / "model/weights").touch()
    assert output_path(scene.job, str(scene.job / "model")) == scene.job / "model"
    (scene.job / "inner").mkdir()
    (scene.job / "inner/link").symlink_to(scene.database)
    outside = [scene.database, scene.job / "../../trainkit.db", scene.job / "inner", scene.job / "inner/link"]
    for path in outside:
        with pytest.raises(OutputRefusedError):
            output_path(scene.job, str(path))


@pytest.fixture
def confined_place(place: Place) -> Place:
    """A worker that refuses to run without complete confinement."""
    settings = replace(place.context.settings, confinement="required")
    place.context = make_context(settings)
    return place


@NEEDS_LANDLOCK
@NEEDS_SECCOMP
def test_a_real_job_passes_through_and_meets_the_walls(confined_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training process that reads its dataset cannot read the other one, the database or the network."""
    place = confined_place
    dataset, foreign = place.table(), place.upload(b"a,label\n1,yes\n2,no\n" * 40, "foreign", "t.csv", "label")
    while intake.claim_and_check(place.context):
        pass
    storage = place.context.storage
    files = [path for path in storage.root.rglob("*") if path.is_file() and foreign in str(path)]
    assert files
    real = training_process._fit

    def attack(task: Any, control: Any, on_event: Any) -> str:
        for path in [*files, *place.context.settings.home.glob("*.db")]:
            with pytest.raises(PermissionError):
                path.read_bytes()
        with pytest.raises(PermissionError):
            socket.socket()
        return real(task, control, on_event)

    monkeypatch.setattr(training_process, "_fit", attack)
    job = place.submit(dataset, train={"epochs": 2})
    assert run_one(place)
    assert place.job(job).state == "succeeded", place.job(job).error


@NEEDS_LANDLOCK
def test_a_job_that_names_a_foreign_file_as_its_checkpoint_fails(
    confined_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The worker, which may read that file, does not copy it for the job."""
    place, target = confined_place, tmp_path / "secret"
    target.write_text("secret")

    def attack(task: Any, control: Any, on_event: Any) -> str:
        event = {"type": "checkpoint", "path": str(target), "step": 1, "epoch": 1, "sha256": "0" * 64, "bytes": 6}
        on_event({**event, "exact": True})
        return "finished"

    monkeypatch.setattr(training_process, "_fit", attack)
    job = place.submit(place.table())
    assert run_one(place)
    assert place.job(job).state in ("failed", "queued")
    assert "scratch folder" in json.dumps(place.job(job).error or [one.error for one in place.attempts(job)])
    assert not [path for path in place.context.storage.root.rglob("checkpoints/**/*") if path.is_file()]


@pytest.mark.soak
def test_a_compiled_network_trains_confined(confined_place: Place) -> None:
    """torch.compile writes C++, compiles it in processes that it starts, and loads the result."""
    if not shutil.which("g++"):
        pytest.skip("no compiler")
    place = confined_place
    job = place.submit(place.table(), train={"epochs": 1, "compile": True})
    assert run_one(place)
    assert place.job(job).state == "succeeded", place.job(job).error
    assert place.job(job).runtime["compile"]
