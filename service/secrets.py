"""`python -m service.secrets rotate`: encrypt all stored secrets with the first key."""

from __future__ import annotations

import argparse
import sys

from service.audit.trail import acting, command
from service.database import make_engine, scrub
from service.secret_box import SecretBox, SecretKeyError
from service.sessions import session_factory
from service.settings import Settings
from service.stored_secrets import encrypt_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="trainkit secrets", description=__doc__)
    parser.add_argument("action", choices=["rotate"])
    parser.parse_args()
    settings = Settings.from_env()
    engine = make_engine(settings.database_url)
    try:
        with acting(command("rotateSecrets")):
            done = encrypt_all(session_factory(engine), SecretBox(settings))
    except SecretKeyError as error:
        print(f"secrets cannot be encrypted: {error}", file=sys.stderr)
        return 1
    if done.changed:
        scrub(engine)
    print(f"{done.changed} secrets were encrypted with the first key, {done.current} were already.")
    for problem in done.unreadable:
        print(problem, file=sys.stderr)
    return 1 if done.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
