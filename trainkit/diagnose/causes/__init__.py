"""The known causes of a bad run, one module each: `CAUSE` in `causes/<code>.py`. A new module needs no registration."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from trainkit.diagnose.cause import Cause
from trainkit.diagnose.verdicts import Code

CAUSES: dict[Code, Cause] = {
    module.name: import_module(f"{__name__}.{module.name}").CAUSE for module in iter_modules(__path__)
}
"""Code -> cause, in alphabetical order."""
CODES: tuple[Code, ...] = ("healthy", "inconclusive", *CAUSES)
"""All codes of verdicts."""
EXPLAINS: dict[Code, frozenset[Code]] = {code: cause.explains for code, cause in CAUSES.items() if cause.explains}
"""Cause -> the verdicts that it may produce as symptoms."""
