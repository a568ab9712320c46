"""Dataset readers, the prepared form, and splits. NumPy only: no module of this package imports torch."""

from trainkit.data.dataset import ArrayInputs, Column, Dataset, ImageInputs, Inputs, SequenceInputs, TableInputs
from trainkit.data.errors import DataError, DataProblem
from trainkit.data.load import load_dataset, prepare
from trainkit.data.splits import Parts, class_weights, rebalance, split_indices

__all__ = [
    "ArrayInputs",
    "Column",
    "DataError",
    "DataProblem",
    "Dataset",
    "ImageInputs",
    "Inputs",
    "Parts",
    "SequenceInputs",
    "TableInputs",
    "class_weights",
    "load_dataset",
    "prepare",
    "rebalance",
    "split_indices",
]
