"""Names: one class per name, and no word that was replaced by the field's own comes back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainkit", "service", "worker", "client/trainkit_client")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "examples", "docs")
"""Migrations are left out: they tell what tables were called before."""

OLD_WORDS: frozenset[str] = frozenset(
    {
        "AcrossRule",
        "Along",
        "Asked",
        "Cuts",
        "Ended",
        "Evaluated",
        "LeftAloneError",
        "Plotted",
        "Sight",
        "Standing",
        "Tally",
        "Which",
        "Wish",
        "across_decisions",
        "across_of",
        "batch_leader",
        "be_the_first_to_go",
        "decided",
        "endings",
        "housekeeper",
        "hurry",
        "keep_house",
        "last_words",
        "log_setup",
        "loss_of_value",
        "mend_times",
        "next_specs",
        "piloting",
        "reap",
        "request_families",
        "rides",
        "riding",
        "ring_for_unheard",
        "rooms",
        "rung_at",
        "same_as_taken",
        "take_over",
        "tallies",
        "withdraw",
        "worst",
    }
)
"""Whole identifiers, and names of files and folders, that must not come back."""
OLD_PARTS: frozenset[str] = frozenset(
    {
        "companion",
        "companions",
        "giveaways",
        "handback",
        "prescription",
        "prescriptions",
        "remedies",
        "remedy",
        "rides",
        "riding",
        "salvage",
        "strays",
        "yardstick",
        "yardsticks",
    }
)
"""Words that must not come back as a part of an identifier either: `giveaways` forbids `find_giveaways`, `GiveawaysOf`."""

VAGUE_PARTS: frozenset[str] = frozenset(
    {
        "asked",
        "here",
        "looked",
        "made",
        "mine",
        "own",
        "said",
        "theirs",
        "there",
        "told",
        "wanted",
    }
)
"""Words that say where a thing came from and not what it is: forbidden as a part of an identifier, but in the sentence
that names a test. Say the noun of what is held: `response`, `expected`, `events`."""


@pytest.mark.parametrize("packages", [PACKAGES[:-1], PACKAGES[-1:]])
def test_no_two_classes_share_a_name(packages: tuple[str, ...]) -> None:
    """The client is a distribution of its own: `Job` is the same thing there, as users see it."""
    modules: dict[str, set[str]] = {}
    for folder in packages:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.parent.name == "_sync":
                continue  # generated: the classes of `_async` without `await`
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    modules.setdefault(node.name, set()).add(str(file.relative_to(ROOT)))
    shared = {name: sorted(files) for name, files in modules.items() if len(files) > 1}
    assert not shared, f"Several modules define a class of the same name. Name each after what it is: {shared}"


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every identifier that the code defines or uses, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name, line
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, line
            case ast.alias(name=name, asname=alias):
                yield from ((part, line) for part in (*name.split("."), alias) if part)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, line


def parts_of(name: str) -> set[str]:
    """The words of an identifier: `find_giveaways` and `FindGiveaways` both hold find and giveaways."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


LIBRARY_NAMES = frozenset({"connection_made"})
"""Methods that a library calls by this name: asyncio's protocols."""


def old_words_in(name: str) -> set[str]:
    """Which replaced words an identifier is or holds."""
    if name in LIBRARY_NAMES:
        return set()
    parts = OLD_PARTS if name.startswith("test_") else OLD_PARTS | VAGUE_PARTS
    return ({name, name.lstrip("_")} & OLD_WORDS) | (parts_of(name) & parts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_old_word_comes_back(folder: str) -> None:
    found: set[str] = set()
    for file in sorted((ROOT / folder).rglob("*.py")):
        where = file.relative_to(ROOT)
        found |= {f"{where}: {word}" for part in where.with_suffix("").parts for word in old_words_in(part)}
        for name, line in identifiers(ast.parse(file.read_text())):
            found |= {f"{where}:{line}: {word} in {name}" for word in old_words_in(name)}
    assert not found, "These words were replaced by the field's own, see CONTRIBUTING.md:\n" + "\n".join(sorted(found))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("told_rows", {"told"}),
        ("OwnPostgres", {"own"}),
        ("_in_own_thread", {"own"}),
        ("known", set()),
        ("download", set()),
        ("test_layers_are_told_apart", set()),
        ("test_giveaways_are_told_apart", {"giveaways"}),
    ],
)
def test_old_words_are_found_as_parts(name: str, words: set[str]) -> None:
    assert old_words_in(name) == words
