"""The version of the client; a client and a server of one release have the same one."""

from __future__ import annotations

__version__ = "0.1.0"
