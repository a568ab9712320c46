"""`trainkit doctor`: find what is wrong with a set-up, and pack what somebody who helps needs to see."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from trainkit_client.cli.command import FAILED, UNREACHABLE, USAGE, CommandError, Session, command, single
from trainkit_client.cli.help import uses_color
from trainkit_client.cli.output import parsed_time, printable, size
from trainkit_client.version import __version__

app = single()
OK, WARNING, FAULT = "ok", "warning", "fault"
MARKS = {OK: ("32", "ok"), WARNING: ("33", "warning"), FAULT: ("31", "FAULT")}
CLOCK_SECONDS = 30.0
"""By which the clocks may differ: tokens and signatures have an end, and figures of time are wrong."""
SEEN_SECONDS = 60.0
"""After which a worker that was not heard is taken for ended."""
FREE_BYTES, FREE_SHARE = 2e9, 0.05
LOG_BYTES = 200_000
"""Of each log in the bundle: its end."""
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
REDACTED = "[redacted]"
SECRETS = (
    re.compile(r"tk_[A-Za-z0-9_\-]{8,}"),
    re.compile(r"(?<=Bearer )[^\s\"']+"),
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=password=)[^\s&\"']+"),
)
"""Keys of the service, bearer tokens, and the user and password of addresses."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one thing, and what to do."""

    name: str
    level: str
    message: str
    action: str = ""


class Findings:
    """Checks as they are made, and the documents that they have read."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.checks: list[Check] = []
        self.documents: dict[str, Any] = {}
        self.home: Path | None = None
        self.skew = 0.0
        self.reached = False
        self.unreachable = False

    def add(self, name: str, level: str, message: str, action: str = "") -> None:
        """Note one."""
        self.checks.append(Check(name, level, message, action))

    def read(self, name: str, path: str) -> Any:
        """Return the document at a path, and keep it; None where it is refused, which is noted."""
        from trainkit_client import TrainkitError

        try:
            self.documents[name] = self.session.get(path)
        except TrainkitError as error:
            self.add(name, FAULT, str(error).split("\n")[0], "See what the check before it says.")
            return None
        return self.documents[name]


@command(app, None, "trainkit doctor\ntrainkit doctor --bundle trainkit-doctor.tar.gz")
def doctor(
    session: Session,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was found, versions and the ends of logs, without secrets."),
    ] = None,
) -> int:
    """Find what is wrong with the set-up: address, key, versions, workers, disk, clock, GPU. Exit code 1: a fault."""
    findings = Findings(session)
    for check in (
        check_client,
        check_service,
        check_key,
        check_versions,
        check_clock,
        check_workers,
        check_gpu,
        check_disk,
    ):
        check(findings)
        if findings.unreachable and check is check_service:
            break
    faults = [one for one in findings.checks if one.level == FAULT]
    if session.output.as_json:
        session.output.json({"checks": [asdict(one) for one in findings.checks], "faults": len(faults)})
    elif not session.output.quiet:
        show(findings.checks)
    if bundle is not None:
        write_bundle(bundle, findings)
        session.output.note(f"{bundle} is written. Look into it before you send it: logs may name your data.")
    return UNREACHABLE if findings.unreachable else FAILED if faults else 0


def show(checks: list[Check]) -> None:
    """Print the checks, and what to do below those that found something."""
    width = max(len(one.name) for one in checks)
    for one in checks:
        code, mark = MARKS[one.level]
        shown = f"\033[{code}m{mark.ljust(7)}\033[0m" if uses_color() else mark.ljust(7)
        print(f"{shown}  {one.name.ljust(width)}  {printable(one.message)}")
        if one.action:
            print(f"{' ' * (11 + width)}{printable(one.action)}")


def check_client(findings: Findings) -> None:
    """Where the address and the key come from, and who can read the configuration."""
    from trainkit_client import ConfigError
    from trainkit_client.config import config_file

    path = config_file()
    if path.exists() and path.stat().st_mode & 0o077 and "key" in path.read_text(encoding="utf-8", errors="replace"):
        findings.add("configuration", WARNING, f"{path} can be read by other users.", f"chmod 600 {path}")
    try:
        connection = findings.session.client.connection
    except ConfigError as error:
        findings.add("configuration", FAULT, str(error), "")
        findings.unreachable = True
        return
    findings.add("configuration", OK, f"{connection.url}, from: {connection.source}")
    if connection.url.startswith("http://") and not connection.is_loopback:
        findings.add(
            "encryption", WARNING, f"The key is sent to {connection.url} in the clear.", "Put a TLS proxy before it."
        )
    if match := re.fullmatch(r"(?:trainkit up in|home) (.+)", connection.source):
        findings.home = Path(match[1])
    elif connection.is_loopback and os.environ.get("TRAINKIT_HOME"):
        findings.home = Path(os.environ["TRAINKIT_HOME"])


def check_service(findings: Findings) -> None:
    """Whether it answers, and its database, storage and broker."""
    import httpx

    if findings.unreachable:
        return
    connection = findings.session.client.connection
    try:
        answer = httpx.get(f"{connection.url}/readyz", timeout=10, trust_env=not connection.is_loopback)
        document = answer.json()
        parts = {name: document[name] for name in ("database", "storage", "broker")}
    except (httpx.HTTPError, OSError) as error:
        findings.unreachable = True
        what = (
            "Start it with `trainkit up`, or correct TRAINKIT_URL."
            if connection.is_loopback
            else "Is the address right?"
        )
        findings.add("service", FAULT, f"No answer from {connection.url}: {error}", what)
        return
    except (ValueError, KeyError, TypeError):
        findings.unreachable = True
        findings.add(
            "service", FAULT, f"{connection.url} is another program, or a proxy ({answer.status_code}).", "Correct it."
        )
        return
    findings.documents["readyz"] = document
    if answer.headers.get("date"):
        server_time = parsedate_to_datetime(answer.headers["date"]).timestamp()
        findings.skew = time.time() - server_time
    wrong = {name: value for name, value in parts.items() if value != "ok"}
    for name, value in wrong.items():
        level = WARNING if name == "broker" else FAULT
        effect = "Work is found later without it." if name == "broker" else "The service answers nothing without it."
        findings.add(name, level, f"{name}: {value}. {effect}", "Look into the log of the API.")
    if not wrong:
        findings.add("service", OK, "ready: database, storage and broker answer")


def check_key(findings: Findings) -> None:
    """Whether the key is known, and whose it is."""
    me = findings.read("key", "/v1/me")
    if me is None:
        return
    project = (me.get("project") or {}).get("name")
    expires = (me.get("key") or {}).get("expires_at")
    text = f"role {me.get('role') or 'none'}{' and operator' if me.get('operator') else ''}, project {project}"
    moment = parsed_time(expires)
    if moment is not None and (moment - datetime.now(UTC)).days < 7:
        findings.add("key", WARNING, f"{text}; it ends at {expires}.", "Create another: trainkit keys create NAME")
    elif me.get("role") == "viewer":
        findings.add("key", WARNING, f"{text}: it cannot submit jobs.", "Ask for a key of the role developer.")
    else:
        findings.add("key", OK, text)


def check_versions(findings: Findings) -> None:
    """Whether client, service and workers are of one version."""
    info = findings.read("info", "/v1/info")
    if info is None:
        return
    if info["version"] != __version__:
        findings.add(
            "versions",
            WARNING,
            f"The client is {__version__}, the service {info['version']}.",
            f"pip install trainkit-client=={info['version']}",
        )
        return
    python = platform.python_version()
    findings.add("versions", OK, f"trainkit {info['version']} on both sides; Python {python}; {info['database']}")


def check_clock(findings: Findings) -> None:
    """Whether the clocks agree."""
    if abs(findings.skew) > CLOCK_SECONDS:
        ahead = "ahead of" if findings.skew > 0 else "behind"
        message = f"The clock of this machine is {abs(findings.skew):.0f} s {ahead} the service's."
        findings.add("clock", FAULT, message, "Synchronise both with NTP.")
    else:
        findings.add("clock", OK, f"within {max(1, round(abs(findings.skew)))} s of the service's")


def check_workers(findings: Findings) -> None:
    """Whether each queue has a worker, and whether one has fallen silent."""
    page = findings.read("workers", "/v1/workers?limit=1000")
    if page is None:
        return
    now = datetime.now(UTC).timestamp() - findings.skew
    heard: list[dict[str, Any]] = []
    silent: list[dict[str, Any]] = []
    for worker in page["data"]:
        seen = parsed_time(worker.get("seen_at"))
        (heard if seen and now - seen.timestamp() < SEEN_SECONDS else silent).append(worker)
    served = {queue for worker in heard for queue in worker.get("queues") or []}
    effects = {
        "train": "jobs stay queued",
        "data": "datasets stay validating",
        "predict": "predictions are refused",
    }
    for queue, effect in effects.items():
        if queue not in served:
            action = f"Start one: trainkit worker --queues {queue} (the first needs a few seconds)."
            findings.add("workers", FAULT, f"No worker of the queue {queue} was heard: {effect}.", action)
    if silent:
        names = ", ".join(str(worker["id"]) for worker in silent[:5])
        findings.add("workers", WARNING, f"Not heard for {SEEN_SECONDS:.0f} s: {names}", "Are they running?")
    versions = {(worker.get("versions") or {}).get("trainkit") for worker in heard}
    if len(versions) > 1:
        findings.add(
            "workers", WARNING, f"Workers of several versions: {', '.join(map(str, versions))}", "Update them."
        )
    if set(effects) <= served:
        slots = sum(int(worker.get("slots") or 0) for worker in heard if "train" in (worker.get("queues") or []))
        findings.add(
            "workers", OK, f"{len(heard)} heard; {slots} {'job' if slots == 1 else 'jobs'} can train at a time"
        )


def check_gpu(findings: Findings) -> None:
    """Whether a GPU of this machine is used."""
    info = findings.documents.get("info") or {}
    if not info:
        return
    used = bool((info.get("features") or {}).get("cuda"))
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    local = findings.session.client.connection.is_loopback
    if used:
        findings.add("gpu", OK, "a worker has a GPU")
    elif driver and local:
        message = "This machine has an NVIDIA driver, and no worker has a GPU."
        findings.add(
            "gpu",
            WARNING,
            message,
            "Is torch built for CUDA? python -c 'import torch; print(torch.cuda.is_available())'",
        )
    else:
        findings.add("gpu", OK, "none: jobs train on the CPU")


def check_disk(findings: Findings) -> None:
    """Whether this machine, where it runs the service, has room; and whether the home is for its owner alone."""
    home = findings.home
    if home is None or not home.is_dir():
        return
    usage = shutil.disk_usage(home)
    text = f"{size(usage.free)} of {size(usage.total)} free for {home}"
    if usage.free < FREE_BYTES or usage.free < FREE_SHARE * usage.total:
        findings.add(
            "disk", WARNING if usage.free >= FREE_BYTES / 10 else FAULT, text, "Delete datasets or jobs, or free space."
        )
    else:
        findings.add("disk", OK, text)
    if home.stat().st_mode & 0o077:
        findings.add("home", FAULT, f"{home} can be read by other users.", f"chmod 700 {home}")
    memory = Path("/dev/shm")
    if memory.is_dir() and (free := shutil.disk_usage(memory).free) < 64e6:
        findings.add("shared memory", WARNING, f"/dev/shm has {size(free)} free.", "In Docker: --shm-size=1g")


# --- the bundle ---


def redacted(text: str, secrets: list[str]) -> str:
    """Return the text without keys, tokens and passwords."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for pattern in SECRETS:
        text = pattern.sub(REDACTED, text)
    return text


def known_secrets(findings: Findings) -> list[str]:
    """Return the secrets that this process can read, to look for them; the longest first."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= 6}
    client = findings.session.__dict__.get("client")
    if client is not None:
        found.add(client.connection.key)
    for name in ("api-key", "broker-password", "secret-key"):
        if findings.home is not None and (findings.home / name).is_file():
            found.add((findings.home / name).read_text(encoding="utf-8").strip())
    return sorted((secret for secret in found if secret), key=len, reverse=True)


def bundle_files(findings: Findings) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file."""
    yield "checks.json", json.dumps([asdict(one) for one in findings.checks], indent=2)
    machine = {
        "client": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "time": datetime.now(UTC).isoformat(),
        "packages": installed(),
    }
    yield "machine.json", json.dumps(machine, indent=2)
    settings = {
        name: REDACTED if SECRET_NAME.search(name) else value
        for name, value in sorted(os.environ.items())
        if name.startswith(("TRAINKIT_", "CUDA_", "OMP_")) or name.upper().endswith("_PROXY")
    }
    yield "environment.json", json.dumps(settings, indent=2)
    for name, document in findings.documents.items():
        yield f"{name}.json", json.dumps(document, indent=2)
    if findings.home is not None:
        for log in sorted((findings.home / "logs").glob("*.log")):
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                yield f"logs/{log.name}", file.read().decode("utf-8", "replace")


def installed() -> dict[str, str]:
    """Return the versions of what matters here."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("trainkit", "trainkit-client", "torch", "httpx", "pydantic", "typer", "rich", "celery", "redis"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_bundle(path: Path, findings: Findings, now: Callable[[], float] = time.time) -> None:
    """Write the archive, for its owner alone."""
    secrets = known_secrets(findings)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.", USAGE) from None
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in bundle_files(findings):
            content = redacted(text, secrets).encode()
            entry = tarfile.TarInfo(f"trainkit-doctor/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now()), 0o600
            archive.addfile(entry, io.BytesIO(content))
