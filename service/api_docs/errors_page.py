"""The page that a problem's `type` leads to: every code, what it means and what to do."""

from __future__ import annotations

import html
import re

from service.problem_types import PROBLEM_TYPES

CODE_SPAN = re.compile(r"`([^`]+)`")
INTRODUCTION = """\
An error response is a problem document (RFC 9457). `code` names what is wrong and never changes; `detail` says what was
wrong this time; `errors` names each place. `type` is the address of an entry below. Programs compare `code`."""
FIELDS = ("status", "meaning", "what to do")


def errors_page() -> bytes:
    """Return the page as HTML that loads its style sheet and nothing else. An entry's id is its code."""
    entries = "\n".join(
        f'<section id="{code}"><h2><a href="#{code}"><code>{code}</code></a> {html.escape(entry.title)}</h2>\n<dl>'
        + "".join(
            f"<dt>{name}</dt><dd>{_inline(text)}</dd>"
            for name, text in zip(FIELDS, (", ".join(map(str, entry.statuses)), entry.meaning, entry.hint), strict=True)
        )
        + "</dl></section>"
        for code, entry in sorted(PROBLEM_TYPES.items())
    )
    index = " ".join(f'<a href="#{code}"><code>{code}</code></a>' for code in sorted(PROBLEM_TYPES))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>trainkit: errors</title>
<link rel="stylesheet" href="errors.css">
</head>
<body>
<main>
<h1>Errors</h1>
<p>{_inline(INTRODUCTION)}</p>
<nav aria-label="Codes">{index}</nav>
{entries}
</main>
</body>
</html>
""".encode()


def _inline(text: str) -> str:
    """Escape the text, with its code spans as elements."""
    return CODE_SPAN.sub(r"<code>\1</code>", html.escape(text, quote=False))
