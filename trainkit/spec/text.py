"""Text of users where it is shown: in plots, logs and terminals, which would read some characters as commands."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

Labels = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=500)]], Field(max_length=32)
]
"""Free key-value pairs; as long as a filter of lists may name, for every row of a list shows them."""
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that end lines, move a terminal's cursor, or turn the direction of writing around."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet read a cell of a CSV file as a formula; the last four are full-width forms.

Source: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
"""


def one_line(text: str) -> str:
    """Return the text with control characters replaced: it stays one line, and none of them works."""
    return text if text.isprintable() else CONTROLS.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Return the text with control characters written as in JSON, such as `\\u001b`."""
    return text if text.isprintable() else CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def csv_text(text: str) -> str:
    """Return a text cell of a CSV file: an apostrophe before what a spreadsheet would run as a formula.

    Only for text: numbers keep their minus sign.
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
