"""The service's own log, set up in one place for API, workers and housekeeping: text for people, JSON for machines.

Every line says what it belongs to (`bound`): the request, or the job and its attempt. No line says a secret.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from service.settings import Settings
from trainkit.spec.text import escaped

LINE = "%(asctime)s %(levelname)s %(process)d %(name)s %(message)s"
NOISY = ("celery.app.trace", "celery.worker.strategy", "alembic")
ONLY_JSON = frozenset({"worker"})
"""In text the number of the process says it already."""
SECRETS = (
    (re.compile(r"\bst_([0-9a-z]{8})_[0-9]+_[0-9a-f]+"), r"st_\1_***"),
    (re.compile(r"\btk_([0-9a-z]{8})_[0-9A-Za-z]+"), r"tk_\1_***"),
    (re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(\w://[^\s:/@]*):[^\s/@]+@"), r"\1:***@"),
)
_CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=MappingProxyType({}))


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Every line that is logged meanwhile, in this task and in what it calls, has these fields."""
    token = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def set_up(settings: Settings, level: int | str = logging.INFO) -> None:
    """Everything to stderr, in the form that `TRAINKIT_LOG_FORMAT` says."""
    kind = JsonLines if settings.log_format == "json" else TextLines
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(kind(secrets_of(settings)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error"):  # it has given them handlers of their own
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True  # `monitoring/requests.py` tells more, and no address
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """What must never be read in a log, though no pattern knows it."""
    found = [settings.metrics_token, settings.oidc_client_secret]
    for url in (settings.database_url, settings.broker_url):
        try:
            found.append(make_url(url).password)
        except (ArgumentError, ValueError):
            continue  # whoever uses it says what is wrong with it
    return tuple(secret for secret in found if secret and len(secret) >= 6)


class _Discreet:
    """Takes secrets out of a finished line, its traceback included."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)

    def hide(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, "***")
        for pattern, shown in SECRETS:
            line = pattern.sub(shown, line)
        return line


class TextLines(logging.Formatter):
    """A line for people; what it belongs to stands at its end, unless it says so itself."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(LINE)
        self._discreet = _Discreet(secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        fields = (f"{name}={value}" for name, value in _CONTEXT.get().items() if name not in ONLY_JSON)
        missing = [field for field in fields if field.partition("=")[0] + "=" not in record.message]
        return " ".join([super().formatMessage(record), *missing])

    def format(self, record: logging.LogRecord) -> str:
        # further lines are indented: no text in a message can look like a line of its own
        lines = (escaped(line.replace("\t", "    ")) for line in super().format(record).split("\n"))
        return self._discreet.hide("\n  ".join(lines))


class JsonLines(JsonFormatter):
    """One object a line: time, level, logger, pid, message, what it belongs to, and the traceback in `exception`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        reserved = [*RESERVED_ATTRS, "color_message"]  # uvicorn's, with escapes for a terminal
        super().__init__(rename_fields={"exc_info": "exception"}, json_ensure_ascii=False, reserved_attrs=reserved)
        self._discreet = _Discreet(secrets)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data |= {"level": record.levelname.lower(), "logger": record.name, "pid": record.process}
        log_data["message"] = record.getMessage()
        log_data.update(_CONTEXT.get())
        super().add_fields(log_data, record, message_dict)

    def format(self, record: logging.LogRecord) -> str:
        return escaped(self._discreet.hide(super().format(record)))
