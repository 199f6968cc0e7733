"""Evaluation: predict, and the figures that say how right a classifier is."""

from glassnet.evaluation.metrics import Evaluation, evaluate_logits, worst_mistakes
from glassnet.evaluation.prediction import Prediction, Predictions, predict_images, predict_outputs
from glassnet.evaluation.value_prediction import ValuePrediction, ValuePredictions

__all__ = [
    "Evaluation",
    "Prediction",
    "Predictions",
    "ValuePrediction",
    "ValuePredictions",
    "evaluate_logits",
    "predict_images",
    "predict_outputs",
    "worst_mistakes",
]
