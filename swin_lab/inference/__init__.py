"""Predictions and embeddings of images by a checkpoint of any origin, on the command line and from Python."""

from swin_lab.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
