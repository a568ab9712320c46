# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""Models: find, predict, evaluate, download, name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainkit_client._sync.datasets import Dataset
from trainkit_client._sync.resource import Resource, find, listed, parsed, plain_rows
from trainkit_client._sync.rows import Rows
from trainkit_client._sync.runtime import in_thread
from trainkit_client.downloads import target_file
from trainkit_client.inputs import encode_inputs
from trainkit_client.predictions import Predictions
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import Alias, Evaluation, ModelFields, ModelRowFields

if TYPE_CHECKING:
    from trainkit_client._sync.client import Client

Part = Literal["all", "train", "validation", "test"]
SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "zip": ".zip"}


class ModelActions(Resource):
    """What can be done with a model that is known by its id."""

    def _path(self, rest: str = "") -> str:
        return f"/v1/models/{segment(self.id)}{rest}"

    def predict(self, inputs: Any, *, ignore_extra: bool = False) -> Predictions:
        """Return one prediction for each input, in their order.

        Args:
            inputs: a data frame (pandas, polars, Arrow); an array with the samples along its first axis; an image of PIL;
                the path of an image, of a file of rows or of a folder of images; a mapping for one row; or a list of
                mappings, rows, images or paths.
            ignore_extra: allow columns that the model does not know.
        """
        body = in_thread(encode_inputs, inputs)
        document = self._client.request(
            "POST",
            self._path("/predict"),
            params={"ignore_extra": ignore_extra or None},
            content=body.content,
            headers={"Content-Type": body.media_type},
        )
        return Predictions.of(document)

    def evaluate(
        self,
        data: Any,
        *,
        part: Part = "all",
        target: str | None = None,
        ignore_extra: bool = False,
    ) -> Evaluation:
        """Return the metrics of the model on labelled samples.

        Args:
            data: a dataset, or the name or id of one; a `pathlib.Path` of a file of labelled samples; or labelled rows as
                `predict` takes them. Text is always a dataset's name.
            part: of a dataset: a part of the model's own split, or one that the dataset ships.
            target: the column with the answers, if it is called otherwise than in training.
        """
        if isinstance(data, str | Dataset):
            named = {"id": id_of(data)} if target is None else {"id": id_of(data), "target": target}
            document = self._client.request("POST", self._path("/evaluate"), json={"dataset": named, "part": part})
            return parsed(Evaluation, document)
        body = in_thread(encode_inputs, data)
        document = self._client.request(
            "POST",
            self._path("/evaluate"),
            params={"target": target, "ignore_extra": ignore_extra or None},
            content=body.content,
            headers={"Content-Type": body.media_type},
        )
        return parsed(Evaluation, document)

    def download(
        self, path: str | Path = ".", *, format: Literal["safetensors", "onnx", "zip"] = "safetensors"
    ) -> Path:
        """Download the model into a file or a folder, and return the file's path.

        `trainkit.load_model` reads `safetensors` and `zip`.
        """
        target = target_file(path, f"{self.id}{SUFFIXES[format]}")
        return self._client.transport.download(self._path("/download"), target, params={"format": format})

    def alias(self, alias: str) -> Alias:
        """Let `name@alias`, such as `digits@production`, mean this version from now on."""
        return parsed(Alias, self._client.request("PUT", self._path(f"/aliases/{segment(alias)}")))

    def remove_alias(self, alias: str) -> None:
        """Let an alias of the name mean nothing from now on."""
        self._client.request("DELETE", self._path(f"/aliases/{segment(alias)}"))

    def alias_history(self, **filters: Any) -> Rows[Alias]:
        """Return what the aliases of the name mean and have meant, newest first."""
        return plain_rows(self._client, Alias, self._path("/aliases"), filters)

    def update(
        self, *, name: str | None = None, labels: Mapping[str, str | None] | None = None, **fields: Any
    ) -> Model:
        """Change `name`, `labels` or `notes`. A label of None is removed, and so are notes of None."""
        given = {"name": name, "labels": labels and dict(labels)}
        body = {key: value for key, value in given.items() if value is not None} | fields
        return Model.bind(self._client, self._client.request("PATCH", self._path(), json=body))

    def delete(self) -> None:
        """Delete the model and its files; its job stays. Conflict while an alias means it."""
        self._client.request("DELETE", self._path())


class Model(ModelFields, ModelActions):
    """A trained model as it was last read: one version of a name."""


class ModelRow(ModelRowFields, ModelActions):
    """A model in a list: without lineage and manifest. `load` returns the whole model."""

    def load(self) -> Model:
        """Return the whole model."""
        return Model.bind(self._client, self._client.request("GET", self._path()))


class Models:
    """The models of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, reference: str) -> Model:
        """Return a model: by `name` (its newest version), `name:version`, `name@alias`, id, beginning of an id, `@last`."""
        return Model.bind(self._client, find(self._client, "/v1/models", "mdl", id_of(reference), by_name=False))

    def list(self, **filters: Any) -> Rows[ModelRow]:
        """Return models, newest first. Filters are those of `GET /v1/models`, such as `name`, `kind`, `job`."""
        return listed(self._client, ModelRow, "/v1/models", filters)
