"""`python -m service.keys create [--project P] [--name N] [--role ROLE[,operator]] [--expires-days D] [--max-jobs N]
[--max-compute-seconds S]` prints a new key."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from service.audit.trail import acting, command
from service.database import db_time, make_engine
from service.keys.service import create_key
from service.private_files import keep_files_private
from service.projects.repository import named
from service.projects.service import PROJECT_NAME
from service.roles import OPERATOR, PROJECT_ROLES, ROLES
from service.sessions import session_factory
from service.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.keys", description=__doc__)
    parser.add_argument("action", choices=["create"])
    parser.add_argument("--project", default="default")
    parser.add_argument("--name", default="cli")
    parser.add_argument("--role", default="admin")
    parser.add_argument("--expires-days", type=float, default=None)
    parser.add_argument("--max-jobs", type=int, default=None)
    parser.add_argument("--max-compute-seconds", type=float, default=None)
    arguments = parser.parse_args()
    roles = arguments.role.split(",")
    in_project = [role for role in PROJECT_ROLES if role in roles]
    if set(roles) - set(ROLES) or len(in_project) > 1:
        print(f"--role is {arguments.role!r}; it is one of {', '.join(ROLES)}, or admin,operator", file=sys.stderr)
        return 2
    if arguments.expires_days is not None and not 0 < arguments.expires_days <= 36_500:
        print(f"--expires-days is {arguments.expires_days:g}; it is above 0 and at most 36500", file=sys.stderr)
        return 2
    if why := _wrong_budget(arguments, roles):
        print(why, file=sys.stderr)
        return 2
    settings = Settings.from_env()
    keep_files_private(settings)
    sessions = session_factory(make_engine(settings.database_url))
    with acting(command("createKey")), sessions.begin() as session:
        days = arguments.expires_days
        expires_at = None if days is None else db_time(session) + timedelta(days=days)
        if named(session, arguments.project) is None and not PROJECT_NAME.match(arguments.project):
            rule = "a new project's name has up to 100 letters, digits, and . _ -, and begins with a letter or digit"
            print(f"--project is {arguments.project!r}; {rule}", file=sys.stderr)
            return 2
        project, role = (arguments.project, in_project[0]) if in_project else (None, None)
        operator = OPERATOR in roles
        bounds = {"max_jobs": arguments.max_jobs, "max_compute_seconds": arguments.max_compute_seconds}
        print(create_key(session, project, arguments.name, role, operator=operator, expires_at=expires_at, **bounds))
    return 0


def _wrong_budget(arguments: argparse.Namespace, roles: list[str]) -> str | None:
    """What is wrong with the budget; None where nothing is."""
    given = {"--max-jobs": arguments.max_jobs, "--max-compute-seconds": arguments.max_compute_seconds}
    bounds = {name: value for name, value in given.items() if value is not None}
    for name, value in bounds.items():
        if not 0 <= value < float("inf"):
            return f"{name} is {value:g}; it is 0 or more"
    if bounds and ("admin" in roles or OPERATOR in roles):
        return f"{', '.join(bounds)}: a key of the role {arguments.role} can create other keys; give --role developer"
    return None


if __name__ == "__main__":
    sys.exit(main())
