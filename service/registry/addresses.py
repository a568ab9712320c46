"""Parameters of addresses and queries that name a dataset or a model."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from service.registry.names import ALIAS, MAX_REFERENCE

FORMS = "its id, `name` (the newest version), `name:version` or `name@alias`"
DatasetReference = Annotated[
    str, Path(alias="dataset", min_length=1, max_length=MAX_REFERENCE, description=f"The dataset: {FORMS}.")
]
ModelReference = Annotated[
    str, Path(alias="model", min_length=1, max_length=MAX_REFERENCE, description=f"The model: {FORMS}.")
]
AliasOfAddress = Annotated[str, Path(alias="alias", pattern=ALIAS, description="Such as `production`.")]
