"""Predictions, one for each input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trainkit_client import frames
from trainkit_client.errors import BadResponse
from trainkit_client.types import Prediction

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Predictions(list[Prediction]):
    """Predictions in the order of the inputs: of a classifier with `label` and `probabilities`, else with `value`."""

    @classmethod
    def of(cls, document: Any) -> Predictions:
        """Return the predictions of a response. Raises BadResponse."""
        try:
            return cls(Prediction.model_validate(item) for item in document["predictions"])
        except (KeyError, TypeError, ValidationError):
            raise BadResponse("The service answered no predictions.") from None

    @property
    def labels(self) -> list[str | None]:
        """The label of each prediction."""
        return [prediction.label for prediction in self]

    @property
    def values(self) -> list[Any]:
        """The number, or the numbers, of each prediction."""
        return [prediction.value for prediction in self]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each prediction, with a column for each class: `probabilities.NAME`."""
        return frames.to_pandas(Prediction, self)

    def to_polars(self) -> polars.DataFrame:
        """Return the same as a polars DataFrame."""
        return frames.to_polars(Prediction, self)

    def to_arrow(self) -> pyarrow.Table:
        """Return the same as an Arrow table."""
        return frames.to_arrow(Prediction, self)
