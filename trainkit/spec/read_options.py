"""How an upload is to be read, where its bytes leave a choice. What is left out is found out and said in the report."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _text_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        "x".encode(name)
    except (LookupError, TypeError, ValueError, UnicodeError):
        raise ValueError(f"{name!r} is no text encoding; usual ones are utf-8, cp1252, latin-1, utf-16") from None
    return name


Delimiter = Annotated[str, Field(pattern=r'^([^\r\n\x00"]|tab)$', description="Tables: one character, or `tab`.")]
Encoding = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.:-]{1,40}$", description="Tables: such as utf-8, cp1252, utf-16."),
    AfterValidator(_text_encoding),
]
Header = Annotated[bool, Field(description="Tables: whether the first row names the columns.")]
ImageSize = Annotated[
    str,
    Field(pattern=r"^[1-9]\d{0,3}(x[1-9]\d{0,3})?$", description="Images: WIDTHxHEIGHT, or one number for squares."),
]


class ReadOptions(BaseModel):
    """Overrides of what the readers would find out themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    delimiter: Delimiter | None = None
    encoding: Encoding | None = None
    header: Header | None = None
    image_size: ImageSize | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that images are brought to; None for the commonest of theirs."""
        if self.image_size is None:
            return None
        width, _, height = self.image_size.partition("x")
        return int(height or width), int(width)

    @property
    def separator(self) -> str | None:
        """The delimiter itself."""
        return "\t" if self.delimiter == "tab" else self.delimiter


DEFAULT_READ_OPTIONS = ReadOptions()
