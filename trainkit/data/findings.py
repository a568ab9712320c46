"""Findings of a dataset report: severity, code, message and place."""

from __future__ import annotations

Finding = dict[str, str]


def finding(severity: str, code: str, message: str, where: str = "") -> Finding:
    """Return a finding of severity `error`, `warning` or `info`."""
    return {"severity": severity, "code": code, "message": message, "where": where}
