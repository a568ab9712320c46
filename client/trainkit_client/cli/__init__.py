"""The `trainkit` command: this distribution's commands, and those that installed distributions add by entry points."""

from __future__ import annotations

from trainkit_client.cli.root import app, main

__all__ = ["app", "main"]
