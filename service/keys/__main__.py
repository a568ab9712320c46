"""`python -m service.keys create [--project P] [--name N] [--scopes read,write,admin,operator]` prints a new key once."""

from __future__ import annotations

import argparse
import sys

from service.database import make_engine
from service.keys.service import PROJECT_SCOPES, SCOPES, Scope, create_key
from service.private_files import keep_files_private
from service.sessions import session_factory
from service.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.keys", description=__doc__)
    parser.add_argument("action", choices=["create"])
    parser.add_argument("--project", default="default")
    parser.add_argument("--name", default="cli")
    parser.add_argument("--scopes", default=",".join(PROJECT_SCOPES))
    arguments = parser.parse_args()
    scopes: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in arguments.scopes.split(","))
    if not scopes or set(arguments.scopes.split(",")) - set(SCOPES):
        print(f"scopes are some of {', '.join(SCOPES)}, with commas", file=sys.stderr)
        return 2
    settings = Settings.from_env()
    keep_files_private(settings)
    with session_factory(make_engine(settings.database_url)).begin() as session:
        print(create_key(session, arguments.project, arguments.name, scopes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
