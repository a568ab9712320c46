"""Plots as PNG bytes: learning curves, confusion matrices, dataset previews, evidence of a diagnosis. No torch."""

from trainkit.plots.confusion_matrix import confusion
from trainkit.plots.learning_curves import curves

__all__ = ["confusion", "curves"]
