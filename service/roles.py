"""Roles: what somebody may do in a project, each including the ones before it; and the operator of the platform."""

from __future__ import annotations

from typing import Literal

ProjectRole = Literal["viewer", "developer", "admin"]
Role = Literal["viewer", "developer", "admin", "operator"]
PROJECT_ROLES: tuple[ProjectRole, ...] = ("viewer", "developer", "admin")
"""`viewer` reads; `developer` also uploads, trains and deletes; `admin` also manages keys, members and settings."""
OPERATOR: Literal["operator"] = "operator"
"""Of the platform, not of a project: makes projects, reads `/metrics`. It includes no role of a project, and none of them
includes it. Only the command line and the mapping of sign-in groups give it."""
ROLES: tuple[Role, ...] = (*PROJECT_ROLES, OPERATOR)


def includes(role: ProjectRole | None, required: ProjectRole) -> bool:
    """Whether a role may do all that the required one may."""
    return role is not None and PROJECT_ROLES.index(role) >= PROJECT_ROLES.index(required)


def lower_of(first: ProjectRole | None, second: ProjectRole | None) -> ProjectRole | None:
    """Return the role that may do less; None when one of them is none."""
    return None if first is None or second is None else min(first, second, key=PROJECT_ROLES.index)


def highest_of(*roles: ProjectRole | None) -> ProjectRole | None:
    """Return the role that may do most; None where there is none."""
    return max((role for role in roles if role is not None), key=PROJECT_ROLES.index, default=None)
