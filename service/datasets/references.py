"""Datasets as things with names and versions."""

from __future__ import annotations

from service.datasets.tables import DatasetVersion
from service.registry.repository import Resource

DATASETS = Resource("dataset", DatasetVersion, "ds_", usable=DatasetVersion.state != "invalid")
"""A dataset that is being checked counts as usable: jobs wait for it."""
