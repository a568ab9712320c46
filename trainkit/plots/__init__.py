"""Plots as PNG bytes: learning curves, confusion matrix, contact sheets, the evidence of a diagnosis. No torch."""

from trainkit.plots.learning_curves import confusion, curves

__all__ = ["confusion", "curves"]
