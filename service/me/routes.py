"""HTTP of who the caller is."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import Authenticated, CurrentIdentity
from service.context import Service
from service.keys import repository as keys
from service.keys.schemas import KeyBudgetOut
from service.keys.service import expiry
from service.me.schemas import MeKey, MeOut, MeUser, me_projects
from service.request_sessions import ReadSession, SessionRoute
from service.users import repository as users

router = APIRouter(prefix="/v1", tags=["users"], route_class=SessionRoute)


@router.get("/me", response_model=MeOut, summary="Who the caller is, in which project, and as what")
def get_me(who: Authenticated, identity: CurrentIdentity, context: Service, session: ReadSession) -> MeOut:
    """User or key, the project that requests are about, the role there, and all projects that the caller may choose
    with `Trainkit-Project`.
    """
    projects = me_projects(identity)
    user = users.get(session, who.user_id) if who.user_id else None
    key = keys.key(session, who.key_id) if who.key_id else None
    shown = None
    if key is not None:
        budget = None if key.budget is None else KeyBudgetOut.model_validate(key.budget)
        shown = MeKey(id=key.id, name=key.name, expires_at=expiry(key, context.settings.max_key_days), budget=budget)
    return MeOut(
        user=MeUser.model_validate(user) if user else None,
        key=shown,
        project=next((one for one in projects if one.id == who.project_id), None),
        role=who.role,
        operator=who.operator,
        projects=projects,
    )
