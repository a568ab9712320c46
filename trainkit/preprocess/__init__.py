"""Preprocessing, fitted on the training part: zero_mean, min_max, z_score, pca, whiten."""

from trainkit.preprocess.pipeline import Pipeline, pipeline

__all__ = ["Pipeline", "pipeline"]
