"""Where the service is and with which key: arguments, environment, a profile, or a `trainkit up` that runs on this machine.

# ~/.config/trainkit/config.toml
default = "lab"

[profiles.lab]
url = "https://train.example.org"
key_file = "~/.config/trainkit/lab.key"     # or: key = "tk_..."
project = "vision"
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainkit_client.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8321"
KNOWN_FIELDS = frozenset({"url", "key", "key_file", "project"})


@dataclass(frozen=True, slots=True)
class Connection:
    """A service, and who speaks to it."""

    url: str
    """Without a slash at the end, and without `/v1`."""
    key: str = field(repr=False)
    project: str | None = None
    source: str = "arguments"
    """Where the address was found, for messages."""

    @property
    def is_loopback(self) -> bool:
        """Whether the service runs on this machine."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Source:
    """What one place says; None where it says nothing."""

    name: str
    url: str | None = None
    key: str | None = field(default=None, repr=False)
    project: str | None = None
    running: bool = False
    """Whether it is a service that was found to run on this machine."""


def resolve(
    url: str | None = None,
    key: str | None = None,
    project: str | None = None,
    profile: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Connection:
    """Return the connection that these arguments mean, completed from the environment, a profile and a running service.

    A key that belongs to one address is never sent to another: that of a profile or of a running service is used for its
    own address only. Raises ConfigError, which says what to set.
    """
    environment = os.environ if environment is None else environment
    given = Source("arguments", url and normal_url(url), key, project)
    found = [given, *_sources(profile, environment, needs_running=not (url and key))]
    chosen = next((source for source in found if source.url), None)
    if chosen is None:
        raise ConfigError(
            "No service is configured and none runs on this machine. Set TRAINKIT_URL and TRAINKIT_KEY, write a profile "
            f"into {config_file(environment)}, or start one with `trainkit up`."
        )
    running = [source for source in found if source.running]
    if chosen.running and len(running) > 1:  # a command must not reach the wrong one
        listed = "; ".join(f"{source.url} ({source.name})" for source in running)
        raise ConfigError(
            f"Several services run on this machine: {listed}. Choose one with TRAINKIT_URL or TRAINKIT_HOME."
        )
    address = chosen.url or DEFAULT_URL
    fitting = [source for source in found if source.url is None or same_service(source.url, address)]
    used_key = next((source.key for source in fitting if source.key), None)
    if used_key is None:
        raise ConfigError(
            f"There is no key for {address} (found in: {chosen.name}). Set TRAINKIT_KEY, pass key=..., or write it into a "
            f"profile of {config_file(environment)}."
        )
    used_project = next((source.project for source in fitting if source.project), None)
    return Connection(address, used_key.strip(), used_project, chosen.name)


def _sources(profile: str | None, environment: Mapping[str, str], *, needs_running: bool) -> Iterator[Source]:
    """Yield the places below arguments, the strongest first. A profile that was named stands above the environment."""
    if profile is not None:
        yield profile_source(profile, environment)
        return
    in_environment = Source(
        "environment",
        normal_url(environment["TRAINKIT_URL"]) if environment.get("TRAINKIT_URL") else None,
        environment.get("TRAINKIT_KEY") or None,
        environment.get("TRAINKIT_PROJECT") or None,
    )
    yield in_environment
    chosen = environment.get("TRAINKIT_PROFILE")
    if chosen or (chosen := default_profile(environment)):
        yield profile_source(chosen, environment)
    if needs_running and not (in_environment.url and in_environment.key):
        yield from running_services(environment)


def normal_url(url: str) -> str:
    """Return an address without `/v1` and slashes at its end. Raises ConfigError for what is none."""
    text = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"The address of the service must be like {DEFAULT_URL}; got {url!r}.")
    return text


def same_service(one: str, other: str) -> bool:
    """Whether two addresses are the same scheme, host, port and path."""

    def parts(url: str) -> tuple[str, str, int, str]:
        split = urlsplit(url)
        host = (split.hostname or "").lower()
        host = "127.0.0.1" if host == "localhost" else host
        return split.scheme, host, split.port or {"http": 80, "https": 443}.get(split.scheme, 0), split.path.rstrip("/")

    return parts(one) == parts(other)


def config_file(environment: Mapping[str, str] | None = None) -> Path:
    """Return the path of the profiles: TRAINKIT_CONFIG, else `trainkit/config.toml` of the user's configuration."""
    environment = os.environ if environment is None else environment
    if named := environment.get("TRAINKIT_CONFIG"):
        return Path(named).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "trainkit" / "config.toml"


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder of what is remembered between calls: unfinished uploads, running services."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "trainkit"


def default_profile(environment: Mapping[str, str]) -> str | None:
    """Return the name of the profile that is used when none is named: `default = "..."` of the file."""
    document = _read_profiles(environment)
    name = document.get("default")
    if name is None:
        return "default" if "default" in _profiles(document, environment) else None
    if not isinstance(name, str):
        raise ConfigError(f"{config_file(environment)}: default must be the name of a profile; got {name!r}.")
    return name


def profile_source(name: str, environment: Mapping[str, str]) -> Source:
    """Return what a profile says. Raises ConfigError when it is missing or wrong."""
    path = config_file(environment)
    profiles = _profiles(_read_profiles(environment), environment)
    values = profiles.get(name)
    if not isinstance(values, dict):
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(f"{path} has no profile {name!r}. Profiles: {known}.")
    if unknown := sorted(set(values) - KNOWN_FIELDS):
        raise ConfigError(f"{path}: profiles.{name} has an unknown field {unknown[0]!r}; it may have {_listed()}.")
    if wrong := next((key for key, value in values.items() if not isinstance(value, str)), None):
        raise ConfigError(f"{path}: profiles.{name}.{wrong} must be text; got {values[wrong]!r}.")
    key = values.get("key")
    if key is None and "key_file" in values:
        key = read_key(path.parent / Path(values["key_file"]).expanduser())
    url = values.get("url")
    return Source(f"profile {name}", normal_url(url) if url else None, key, values.get("project"))


def _listed() -> str:
    return ", ".join(sorted(KNOWN_FIELDS))


def _profiles(document: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ConfigError(f"{config_file(environment)}: profiles must be tables such as [profiles.lab].")
    return profiles


def _read_profiles(environment: Mapping[str, str]) -> dict[str, Any]:
    path = config_file(environment)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None


def read_key(path: Path) -> str:
    """Return the key in a file. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"The key file {path} cannot be read: {error}.") from None


# --- services that run on this machine ------------------------------------------------------------------------------


def announce(home: Path, url: str, environment: Mapping[str, str] | None = None) -> Path:
    """Record that a service of this process runs on this machine, so that clients find it; returns the record's path.

    The record holds no key: clients read it from the home, if they may.
    """
    path = _record(home, environment)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"home": str(home), "url": normal_url(url), "pid": os.getpid()})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")  # with mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(temporary).replace(path)
    return path


def withdraw_announcement(home: Path, environment: Mapping[str, str] | None = None) -> None:
    """Remove the record of a service that ends."""
    _record(home, environment).unlink(missing_ok=True)


def _record(home: Path, environment: Mapping[str, str] | None) -> Path:
    name = hashlib.sha256(os.fsencode(home.expanduser().absolute())).hexdigest()[:16]
    return state_folder(environment) / "running" / f"{name}.json"


def running_services(environment: Mapping[str, str]) -> list[Source]:
    """Return the services of this user that run on this machine and whose key can be read; TRAINKIT_HOME chooses one."""
    home = environment.get("TRAINKIT_HOME")
    if home:
        paths = [_record(Path(home), environment)]
    else:
        paths = sorted((state_folder(environment) / "running").glob("*.json"))
    found = [source for path in paths if (source := _running(path)) is not None]
    if not found:  # one that could not record itself: at the default address, with the key of the default home
        folder = Path(home or "~/.trainkit").expanduser()
        with contextlib.suppress(OSError, ValueError):
            key = (folder / "api-key").read_text(encoding="utf-8").strip()
            return [Source(f"home {folder}", DEFAULT_URL, key)]
    return found


def _running(record: Path) -> Source | None:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        home, url, pid = Path(content["home"]), normal_url(content["url"]), int(content["pid"])
        os.kill(pid, 0)
        key = (home / "api-key").read_text(encoding="utf-8").strip()
    except (OSError, ValueError, KeyError, TypeError, OverflowError, ConfigError):
        return None  # it has ended, or belongs to another user
    return Source(f"trainkit up in {home}", url, key, running=True)
