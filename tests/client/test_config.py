"""Where the service is found, and that a key goes nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trainkit_client import ConfigError, config

PROFILES = """
default = "lab"

[profiles.lab]
url = "https://lab.example/v1/"
key_file = "lab.key"
project = "vision"

[profiles.local]
url = "http://127.0.0.1:8321"
key = "tk_local"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user without any configuration."""
    folders = {
        "XDG_CONFIG_HOME": tmp_path / "config",
        "XDG_STATE_HOME": tmp_path / "state",
        "TRAINKIT_HOME": tmp_path / "h",
    }
    return {name: str(path) for name, path in folders.items()}


@pytest.fixture
def profiles(environment: dict[str, str]) -> dict[str, str]:
    """A user with two profiles."""
    path = config.config_file(environment)
    path.parent.mkdir(parents=True)
    path.write_text(PROFILES)
    (path.parent / "lab.key").write_text("tk_lab\n")
    return environment


def resolved(environment: dict[str, str], *arguments: Any, **named: Any) -> tuple[str, str, str | None]:
    found = config.resolve(*arguments, **named, environment=environment)
    return found.url, found.key, found.project


def test_arguments_environment_and_profiles_in_this_order(profiles: dict[str, str]) -> None:
    assert resolved(profiles) == ("https://lab.example", "tk_lab", "vision")
    assert resolved(profiles | {"TRAINKIT_PROFILE": "local"}) == ("http://127.0.0.1:8321", "tk_local", None)
    variables = profiles | {"TRAINKIT_URL": "http://one:1", "TRAINKIT_KEY": "tk_env", "TRAINKIT_PROJECT": "p"}
    assert resolved(variables) == ("http://one:1", "tk_env", "p")
    assert resolved(variables, profile="local") == ("http://127.0.0.1:8321", "tk_local", None)
    assert resolved(variables, "http://two:2", "tk_two", "q") == ("http://two:2", "tk_two", "q")


def test_a_key_goes_to_its_own_service_alone(profiles: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no key for http://other:1"):
        config.resolve("http://other:1", environment=profiles)
    with pytest.raises(ConfigError, match="no key"):
        config.resolve("http://other:1", environment=profiles | {"TRAINKIT_URL": "http://one:1", "TRAINKIT_KEY": "tk"})
    assert resolved(profiles, "https://LAB.example:443/v1")[1] == "tk_lab"  # the same address, written otherwise
    # a key without an address is meant for whatever is named
    assert resolved(profiles | {"TRAINKIT_KEY": "tk_env"}, "http://other:1") == ("http://other:1", "tk_env", None)


def test_a_running_service_is_found(environment: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir()
    (home / "api-key").write_text("tk_home\n")
    record = config.announce(home, "http://127.0.0.1:9999", environment)
    assert "tk_home" not in record.read_text()
    assert record.stat().st_mode & 0o077 == 0
    assert resolved(environment) == ("http://127.0.0.1:9999", "tk_home", None)
    without_choice = {name: value for name, value in environment.items() if name != "TRAINKIT_HOME"}
    assert resolved(without_choice) == ("http://127.0.0.1:9999", "tk_home", None)
    config.withdraw_announcement(home, environment)
    assert resolved(environment)[0] == config.DEFAULT_URL  # the key of the home remains


def test_one_of_several_running_services_must_be_chosen(environment: dict[str, str], tmp_path: Path) -> None:
    for number in (1, 2):
        home = tmp_path / f"home{number}"
        home.mkdir()
        (home / "api-key").write_text(f"tk_{number}")
        config.announce(home, f"http://127.0.0.1:900{number}", environment)
    environment.pop("TRAINKIT_HOME")
    with pytest.raises(ConfigError, match=r"9001.*9002|9002.*9001"):
        config.resolve(environment=environment)
    assert resolved(environment, "http://127.0.0.1:9002")[1] == "tk_2"
    assert resolved(environment | {"TRAINKIT_HOME": str(tmp_path / "home1")})[1] == "tk_1"


def test_a_service_that_has_ended_is_not_found(environment: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir()
    (home / "api-key").write_text("tk")
    record = config.announce(home, "http://127.0.0.1:9999", environment)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    record.write_text(record.read_text().replace(str(os.getpid()), str(child)))
    assert resolved(environment)[0] == config.DEFAULT_URL


def test_without_anything_the_message_says_what_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"TRAINKIT_URL.*trainkit up"):
        config.resolve(environment=environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles = 1", "must be tables"),
        ("[profiles.default]\nurl = 1", "must be text"),
        ("[profiles.default]\ntoken = 'x'", "unknown field 'token'"),
        ("[profiles.default]\nkey_file = 'missing'", "cannot be read"),
        ("default = 'nobody'", "no profile 'nobody'"),
        ("[[[", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_named(environment: dict[str, str], text: str, message: str) -> None:
    path = config.config_file(environment)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        config.resolve(environment=environment)
    assert str(path.parent) in str(raised.value)


@pytest.mark.parametrize("url", ["example.org", "ftp://example.org", "http://", "http://host:99999", ""])
def test_addresses_that_are_none(environment: dict[str, str], url: str) -> None:
    with pytest.raises(ConfigError, match="must be like"):
        config.resolve(url or " ", "tk", environment=environment)


def test_a_key_is_not_shown(environment: dict[str, str]) -> None:
    assert "tk_secret" not in repr(config.resolve("http://h:1", "tk_secret", environment=environment))
