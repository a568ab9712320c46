"""Who asks: an identity (a key or a user with roles in projects), and the principal that it is in one of them."""

from __future__ import annotations

from dataclasses import dataclass

from service.roles import ProjectRole

SERVICE_ACTOR = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, in which project, and as what."""

    actor: str
    """How events, limits and logs name it: `key:...`, `user:...` or `service`."""
    project_id: str = ""
    """Empty where no project is chosen: then there is no role either."""
    role: ProjectRole | None = None
    operator: bool = False
    key_id: str | None = None
    user_id: str | None = None
    is_archived: bool = False
    """Whether the project takes no writes."""
    choices: tuple[str, ...] = ()
    """Names of the projects of which one has to be chosen, where there are several."""
    project_ids: tuple[str, ...] = ()
    """All projects that the identity may enter."""

    @property
    def is_person(self) -> bool:
        """Whether it is somebody who has signed in, with a browser or a token of the provider, and not a key."""
        return self.user_id is not None and self.key_id is None


def service_principal(project_id: str, actor: str = SERVICE_ACTOR) -> Principal:
    """The service itself, at work in a project for somebody, whose name it acts in."""
    return Principal(actor, project_id, "developer")


@dataclass(frozen=True, slots=True)
class ProjectAccess:
    """A project that an identity may enter, and its role there."""

    id: str
    name: str
    role: ProjectRole | None
    """None where only the operator's role leads there."""
    is_archived: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """A key or a signed-in user, before a project is chosen."""

    actor: str
    projects: tuple[ProjectAccess, ...] = ()
    operator: bool = False
    key_id: str | None = None
    user_id: str | None = None

    def within(self, project: ProjectAccess | None) -> Principal:
        """The principal in that project; in none where there is None."""
        return Principal(
            actor=self.actor,
            project_id=project.id if project else "",
            role=project.role if project else None,
            operator=self.operator,
            key_id=self.key_id,
            user_id=self.user_id,
            is_archived=project is not None and project.is_archived,
            project_ids=tuple(one.id for one in self.projects),
            choices=() if project else tuple(sorted(one.name for one in self.projects)),
        )

    def alone(self) -> Principal:
        """The principal in its only project; in none where it has none or several."""
        return self.within(self.projects[0] if len(self.projects) == 1 else None)

    def find(self, name: str) -> ProjectAccess | None:
        """Return its project of that name or id."""
        return next((one for one in self.projects if name in (one.name, one.id)), None)
