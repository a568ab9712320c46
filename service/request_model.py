"""The base of JSON bodies."""

from __future__ import annotations

from pydantic import ConfigDict

from trainkit.spec.strict_types import StrictTypes


class RequestModel(StrictTypes):
    """A JSON body: unknown fields are errors, so that a typo is never ignored in silence."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
