"""What a report finds: one finding is a severity, a code, a sentence, and the place."""

from __future__ import annotations

Finding = dict[str, str]


def finding(severity: str, code: str, message: str, where: str = "") -> Finding:
    """One finding: severity `error`, `warning` or `info`."""
    return {"severity": severity, "code": code, "message": message, "where": where}
