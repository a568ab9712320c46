"""Settings, tables, curves and what is taken out of a bundle."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trainkit_client.cli import app, output
from trainkit_client.cli.command import CommandError
from trainkit_client.cli.curves import BLANK, character, draw
from trainkit_client.cli.doctor import redacted
from trainkit_client.cli.settings import changed, flat, merge_patch, patch_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", min_size=1, max_size=2), JSON, max_size=4)


def test_set_reads_values_as_yaml_12_and_creates_objects() -> None:
    spec = {"dataset": "digits", "model": "mlp", "early_stop": [{"kind": "patience", "patience": 3}]}
    settings = [
        "optimizer.lr=1e-2",
        "model.hidden=[8, 4]",
        "early_stop.0.patience=7",
        "name=no",
        "train.deterministic=false",
    ]
    assert changed(spec, settings) == {
        "dataset": "digits",
        "model": {"kind": "mlp", "hidden": [8, 4]},
        "early_stop": [{"kind": "patience", "patience": 7}],
        "optimizer": {"lr": 0.01},
        "name": "no",
        "train": {"deterministic": False},
    }
    assert spec["model"] == "mlp", "the spec itself is left as it was"


@pytest.mark.parametrize("setting", ["lr", "=1", "early_stop.1.patience=2", "early_stop.first=2", "dataset.0.x.y=1"])
def test_a_setting_that_means_nothing_is_refused(setting: str) -> None:
    spec = {"dataset": 3, "early_stop": [{"kind": "patience"}]}
    if setting == "dataset.0.x.y=1":
        spec["dataset"] = [1]
    with pytest.raises(CommandError):
        changed(spec, [setting])


def merged(target: object, patch: object) -> object:
    """RFC 7396, section 2, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def without_null(value: object) -> object:
    """A merge patch cannot set null within an object."""
    if isinstance(value, dict):
        return {name: without_null(item) for name, item in value.items() if item is not None}
    return value


@given(before=OBJECTS, after=OBJECTS)
def test_a_patch_makes_the_one_of_the_other(before: dict[str, object], after: dict[str, object]) -> None:
    first, second = without_null(before), without_null(after)
    assert merged(first, merge_patch(first, second)) == second


def test_a_fork_changes_only_what_was_set() -> None:
    spec = {"optimizer": {"kind": "adam", "lr": 0.1}, "early_stop": [{"kind": "patience", "patience": 3}], "name": "x"}
    completed = {**spec, "schedule": {"kind": "constant", "warmup_epochs": 0.0}}
    assert patch_of(spec, ["optimizer.lr=0.2"], completed) == {"optimizer": {"lr": 0.2}}
    assert patch_of(spec, ["schedule.warmup_epochs=1"], completed) == {
        "schedule": {"kind": "constant", "warmup_epochs": 1}
    }
    assert patch_of(spec, ["early_stop.0.patience=5"], completed) == {
        "early_stop": [{"kind": "patience", "patience": 5}]
    }


def test_flat_names_every_leaf() -> None:
    assert flat({"a": {"b": [1, 2]}, "c": [{"d": 1}], "e": {}}) == {"a.b": [1, 2], "c.0.d": 1, "e": {}}


@given(text=st.text(max_size=40), width=st.integers(1, 30))
def test_cut_text_fits_and_holds_no_control_character(text: str, width: int) -> None:
    shown = output.cut(output.printable(text), width)
    assert output.display_width(shown) <= width
    assert not output.CONTROLS.search(shown)


def test_a_table_is_whole_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "n" * 300, "state": "failed"}, {"name": "\x1b[31mred", "state": "running"}]
    columns = (
        output.Column("name", lambda row: row["name"], shrinks=True),
        output.Column("state", lambda row: row["state"]),
    )
    output.Output().table(rows, columns)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{'n' * 300}  failed"
    assert lines[2].split() == ["\\u001b[31mred", "running"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (7500, "2 h 5 min"), (400_000, "4 d"), (None, "-")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


@given(
    points=st.lists(st.tuples(st.integers(0, 500), st.floats(-1e6, 1e6)), min_size=1, max_size=40),
    width=st.integers(1, 40),
    height=st.integers(1, 6),
)
def test_curves_stay_in_their_frame(points: list[tuple[float, float]], width: int, height: int) -> None:
    line = sorted(points)
    values = [y for _, y in line]
    rows = draw([line], width, height, min(values), max(values), line[-1][0])
    assert [len(row) for row in rows] == [width] * height
    drawn = "".join(character(cell) for row in rows for cell in row)
    assert any(ord(one) > BLANK for one in drawn)


def test_a_rising_line_rises() -> None:
    rows = draw([[(0.0, 0.0), (1.0, 1.0)]], 4, 2, 0.0, 1.0, 1.0)
    assert ["".join(character(cell) for cell in row) for row in rows] == ["  ⡠⠊", "⡠⠊  "]


def test_secrets_are_taken_out() -> None:
    text = (
        "Authorization: Bearer abc.def-123 url=redis://:hunter2@host:6379/0 postgresql://trainkit:pass@db/x "
        "tk_m3znw2xt_aaaaaaaaaaaaaaa password=secret99 my-own-secret"
    )
    cleaned = redacted(text, ["my-own-secret"])
    for secret in ("abc.def-123", "hunter2", "trainkit:pass", "tk_m3znw2xt", "secret99", "my-own-secret"):
        assert secret not in cleaned
    assert "host:6379" in cleaned


def test_a_bundle_without_a_service_holds_no_secret(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.tar.gz"
    environment = {
        "TRAINKIT_URL": "http://127.0.0.1:1",
        "TRAINKIT_KEY": "tk_abcdefgh_verysecretvalue",
        "HTTPS_PROXY": "http://me:pw12345@proxy:3128",
    }
    result = CliRunner().invoke(app, ["doctor", "--bundle", str(bundle), "--json"], env=environment)
    assert result.exit_code == 5
    checks = json.loads(result.stdout)["checks"]
    assert [one["level"] for one in checks if one["name"] == "service"] == ["fault"]
    assert bundle.stat().st_mode & 0o077 == 0
    with tarfile.open(bundle) as archive:
        files = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert {
        "trainkit-doctor/checks.json",
        "trainkit-doctor/machine.json",
        "trainkit-doctor/environment.json",
    } <= files.keys()
    everything = "".join(files.values())
    assert "verysecretvalue" not in everything
    assert "pw12345" not in everything
    assert "127.0.0.1:1" in everything
