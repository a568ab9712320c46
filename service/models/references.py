"""Models as things with names and versions."""

from __future__ import annotations

from sqlalchemy import true

from service.models.tables import Model
from service.registry.repository import Resource

MODELS = Resource("model", Model, "mdl_", usable=true())
