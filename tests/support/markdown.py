"""What tests read from Markdown pages: fenced blocks, links, headings, and the commands of shell blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
UNKNOWN = re.compile(r"^```", re.MULTILINE)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
INFO = re.compile(r'^(?P<language>\w+)(?: title="(?P<title>[^"]+)")?$')
PUNCTUATION = "();<>|&\n"


@dataclass(frozen=True)
class Fence:
    """One fenced code block."""

    path: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def written_pages() -> list[Path]:
    """README.md, the other pages of the project's folder and all pages of docs/ that are written by hand."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def fences_of(text: str, path: str) -> list[Fence]:
    """The fenced blocks of a page. Raises ValueError for an info string that is neither a language nor has a title."""
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        info = INFO.match(match["info"].strip())
        if info is None:
            raise ValueError(f'{path}:{line}: the fence ```{match["info"]} must be a language, or language title="..."')
        found.append(Fence(path, line, info["language"], info["title"] or "", match["text"]))
    if len(UNKNOWN.findall(text)) != 2 * len(found):
        raise ValueError(f"{path} has a fence without a language, or one that is not closed")
    return found


def outside_fences(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors_of(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    found = set()
    for heading in HEADING.findall(outside_fences(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip()))
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell block, as words; assignments before a command are left out.

    Substitutions `$(...)` outside of quotes are commands of their own; redirections stay in the list as words.
    """
    lexer = shlex.shlex(_without_comments(text.replace("\\\n", " ")), posix=True, punctuation_chars=PUNCTUATION)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token and set(token) <= set(PUNCTUATION) - set("<>"):
            if command := _without_assignments(words):
                yield command
            words = []
        else:
            words.append(token)


def _without_assignments(words: list[str]) -> list[str]:
    while words and (re.match(r"^\w+=", words[0]) or words[0] in ("do", "then", "else", "if", "while", "until", "!")):
        words = words[1:]
    return words


def _without_comments(text: str) -> str:
    """The text without what follows a # that begins a word outside of quotes."""
    kept, quote, comment = [], "", False
    for index, character in enumerate(text):
        if comment and character != "\n":
            continue
        comment = False
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (index == 0 or text[index - 1].isspace()):
            comment = True
            continue
        kept.append(character)
    return "".join(kept)
