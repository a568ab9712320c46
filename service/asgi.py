"""`uvicorn service.asgi:serve --factory`: the application as a process of its own, with its log set up."""

from __future__ import annotations

import gc
import sys

from fastapi import FastAPI

from service.app import create_app
from service.logging import set_up
from service.private_files import keep_files_private
from service.settings import Settings

SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter while another waits for it. With Python's 5 ms the event loop, which gives it up
at every write to a socket, gets some hundred turns a second while one request computes: health and refusals would wait."""


def serve() -> FastAPI:
    """Called by uvicorn after it has set up its own log, which ours takes the place of."""
    settings = Settings.from_env()
    set_up(settings)
    keep_files_private(settings)
    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(settings)
    # what the imports have left stays for good: a full collection that walks over it stops everybody for 0.2 s
    gc.freeze()
    return app
