"""Users, what they may do in which project, and their browser sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, UtcDateTime
from service.roles import ProjectRole

UserKind = Literal["person", "service"]
MembershipSource = Literal["member", "group"]


class User(Base):
    """A person who has signed in, or a service account."""

    __tablename__ = "users"
    audited = Audited("user", omitted=frozenset({"claims_at", "last_seen_at"}))
    __table_args__ = (Index("users_by_subject", "issuer", "subject", unique=True), Index("users_by_email", "email"))
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[UserKind] = mapped_column(String(20))
    issuer: Mapped[str | None] = mapped_column(String(500))
    """Of a person: the provider, and the name there that never changes."""
    subject: Mapped[str | None] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(200))
    email: Mapped[str | None] = mapped_column(String(320))
    operator: Mapped[bool] = mapped_column(default=False)
    """By the groups of the newest token."""
    claims_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the newest token was issued: an older one changes nothing any more."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Membership(Base):
    """A user's role in a project: given by an admin, or by the groups of the newest token. The higher one holds."""

    __tablename__ = "memberships"
    audited = Audited("member")
    __table_args__ = (Index("memberships_by_project", "project_id"),)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    source: Mapped[MembershipSource] = mapped_column(String(20), primary_key=True)
    role: Mapped[ProjectRole] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BrowserSession(Base):
    """A signed-in browser. Its cookie holds a random token, of which only the hash is kept."""

    __tablename__ = "browser_sessions"
    __table_args__ = (Index("browser_sessions_by_user", "user_id"), Index("browser_sessions_by_end", "expires_at"))
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
