"""Messages that people read: what a chat or a mail says of a message that programs would get as JSON.

Names of jobs and labels are text of others: here they are made unable to add headers, links or mentions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from service.job_links import page_of
from service.webhooks.delivery_queue import ClaimedDelivery

MAX_LINE = 300
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Control characters, line separators, and those that turn the direction of what follows."""
MENTION = re.compile(r"@(?=\w)")
ZERO_WIDTH_SPACE = "\u200b"
SIGNS = {"above": ">", "below": "<", "at_least": ">=", "at_most": "<="}


def slack_body(claimed: ClaimedDelivery, public_url: str) -> bytes:
    """Return `{"text": ...}`, which Slack, Mattermost, Rocket.Chat and others take."""
    headline, lines, link = _described(json.loads(claimed.body), public_url)
    text = "\n".join([f"*{_escaped(headline)}*", *map(_escaped, lines), *([link] if link else [])])
    return json.dumps({"text": text}).encode()


def mail_of(claimed: ClaimedDelivery, sender: str, recipients: Sequence[str], public_url: str) -> EmailMessage:
    """Return a mail. Its Message-ID is the same in every attempt, so that a mailbox can recognise a repeated one."""
    headline, lines, link = _described(json.loads(claimed.body), public_url)
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, ", ".join(recipients)
    mail["Subject"] = f"[trainkit] {headline}"
    mail["Message-ID"] = f"<{claimed.claim.id}@{sender.rpartition('@')[2]}>"
    mail["Date"] = format_datetime(datetime.fromisoformat(json.loads(claimed.body)["timestamp"]))
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join([headline, "", *lines, *(["", link] if link else [])]) + "\n")
    return mail


def _described(message: Mapping[str, Any], public_url: str) -> tuple[str, list[str], str | None]:
    """Return (headline, further lines, link) without control characters."""
    data = message["data"]
    if "job" not in data:
        what = data.get("webhook", {}).get("description") or data.get("webhook", {}).get("id", "")
        return "Test message", [_line(f"The webhook {what} works.")], None
    job, event = data["job"], data["event"]
    name = job["name"] or job["id"]
    if "metric" in event:
        headline = f"{name}: {threshold_text(event)}"
        value = event["value"] if event["value"] is not None else event.get("nonfinite")
        lines = [f"{event['metric']} is {value} at step {event['step']}, epoch {event['epoch']}."]
    else:
        headline = f"{name} {event['to']}"
        lines = [
            f"It went from {event['from']} to {event['to']}: {event['reason'] or job['stop_reason'] or 'no reason given'}."
        ]
        if job["error_code"]:
            lines.append(f"Error: {job['error_code']}.")
    lines.append(f"Job: {job['id']}")
    if job["labels"]:
        lines.append("Labels: " + ", ".join(f"{key}={value}" for key, value in sorted(job["labels"].items())))
    return _line(headline), [_line(line) for line in lines], page_of(public_url, job["id"])


def threshold_text(threshold: Mapping[str, Any]) -> str:
    """Return a threshold as list filters write it: `val_accuracy>=0.9`."""
    side = next(side for side in SIGNS if threshold.get(side) is not None)
    return f"{threshold['metric']}{SIGNS[side]}{threshold[side]:g}"


def _line(text: str) -> str:
    line = CONTROL.sub(" ", text).encode(errors="replace").decode().strip()
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _escaped(text: str) -> str:
    """Escape what Slack reads as links and mentions; elsewhere a mention is a plain `@name`."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MENTION.sub("@" + ZERO_WIDTH_SPACE, text)
