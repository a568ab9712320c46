"""llms.txt (llmstxt.org): the documentation as Markdown, for programs that read it instead of a site.

python -m docs.llms FOLDER      writes llms.txt, llms-full.txt, and every page below docs/pages/
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from docs.generate import pages  # noqa: E402

NOT_IN_FULL = ("reference/http.md",)
"""Pages of hundreds of kilobytes that say again what a document says: /openapi.json."""
SUMMARY_LENGTH = 200
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


class Page(NamedTuple):
    """A page in the order of the navigation."""

    section: str
    title: str
    path: str
    text: str
    summary: str
    """Empty for a generated page, which begins with the file that it was generated from."""


def all_pages(generated: Mapping[str, str]) -> list[Page]:
    """Return every page as the navigation lists them, those with these generated ones."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return [
        Page(section, title, path, text, summary_of(text) if path not in generated else "")
        for section, title, path in _entries(navigation)
        for text in [generated.get(path) or (ROOT / "docs" / path).read_text(encoding="utf-8")]
    ]


def summary_of(text: str) -> str:
    """Return the first sentences of the first paragraph of a page."""
    blocks = re.split(r"\n\s*\n", FENCE.sub("", text))
    plain = (block.strip() for block in blocks if block.strip() and block.lstrip()[0] not in "#|!-*>1<")
    paragraph = " ".join(LINK.sub(r"\1", next(plain, "")).split())
    return paragraph if len(paragraph) <= SUMMARY_LENGTH else f"{paragraph[:SUMMARY_LENGTH].rsplit(' ', 1)[0]} ..."


def _entries(navigation: list[object], section: str = "") -> Iterator[tuple[str, str, str]]:
    for entry in navigation:
        if isinstance(entry, str):
            yield section, section or entry, entry
        elif isinstance(entry, dict):
            for title, target in entry.items():
                if isinstance(target, list):
                    yield from _entries(target, title)
                else:
                    yield section, title, target


def llms_files(generated: Mapping[str, str]) -> dict[str, str]:
    """Return every file by its path.

    Args:
        generated: The generated pages by their path (`docs/generate.py`).
    """
    found = all_pages(generated)
    first, *others = found
    lines = [f"# {first.title}", "", f"> {first.summary}", ""]
    lines += [
        "Agents use the service by [MCP](docs/pages/how-to/mcp.md). All pages in one file: [llms-full.txt](llms-full.txt)."
    ]
    section = None
    for page in others:
        if page.section != section:
            section = page.section
            lines += ["", f"## {section}"] if section else []
        about = f": {page.summary}" if page.summary else ""
        lines.append(f"- [{page.title}](docs/pages/{page.path}){about}")
    full = [f"<!-- {page.path} -->\n{page.text.strip()}\n" for page in found if page.path not in NOT_IN_FULL]
    return {
        "llms.txt": "\n".join(lines) + "\n",
        "llms-full.txt": "\n".join(full),
        **{f"docs/pages/{page.path}": page.text for page in found},
    }


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write the files below a folder."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(llms_files(pages()), Path(sys.argv[1]))
