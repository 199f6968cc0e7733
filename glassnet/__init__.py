"""glassnet: convolutional neural networks made of glass.

    import glassnet as gn

    data = gn.load_data("digits")
    model = gn.build_model("lenet5", num_classes=10)
    run = gn.train(model, data, gn.TrainConfig(epochs=10), out="runs/first")

This module only re-exports, and does so on first use: `import glassnet` loads neither torch nor any other heavy
library. Nothing inside the package imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from glassnet._version import __version__ as __version__

if TYPE_CHECKING:
    from glassnet._errors import GlassnetError as GlassnetError
    from glassnet._errors import UsageError as UsageError
    from glassnet._errors import WorkError as WorkError
    from glassnet.comparison import Comparison as Comparison
    from glassnet.comparison import compare as compare
    from glassnet.data.examples import Dataset as Dataset
    from glassnet.data.examples import ExampleSet as ExampleSet
    from glassnet.data.sources import list_datasets as list_datasets
    from glassnet.data.sources import load_data as load_data
    from glassnet.evaluation.metrics import Evaluation as Evaluation
    from glassnet.evaluation.prediction import Prediction as Prediction
    from glassnet.evaluation.value_prediction import ValuePrediction as ValuePrediction
    from glassnet.experiments import resume as resume
    from glassnet.experiments import train as train
    from glassnet.inspection.ablation import ablate as ablate
    from glassnet.inspection.activation_statistics import activation_statistics as activation_statistics
    from glassnet.inspection.attribution import attribute as attribute
    from glassnet.inspection.attribution import map_to_photo as map_to_photo
    from glassnet.inspection.composition import composition as composition
    from glassnet.inspection.connectivity import connectivity as connectivity
    from glassnet.inspection.equivariance import equivariance as equivariance
    from glassnet.inspection.feature_maps import feature_maps as feature_maps
    from glassnet.inspection.filters import filters as filters
    from glassnet.inspection.neighbours import nearest as nearest
    from glassnet.inspection.projection import project as project
    from glassnet.inspection.receptive_field import receptive_field as receptive_field
    from glassnet.inspection.separation import separation as separation
    from glassnet.inspection.similarity import similarity as similarity
    from glassnet.inspection.summary import Summary as Summary
    from glassnet.inspection.summary import summary as summary
    from glassnet.inspection.top_images import top_images as top_images
    from glassnet.inspection.tracing import Trace as Trace
    from glassnet.inspection.tracing import trace as trace
    from glassnet.inspection.verification import verify as verify
    from glassnet.inspection.visualisation import visualize as visualize
    from glassnet.models import build_model as build_model
    from glassnet.models import list_models as list_models
    from glassnet.models.fully_convolutional import fully_convolutional as fully_convolutional
    from glassnet.models.gates import gate_inequalities as gate_inequalities
    from glassnet.models.gates import truth_table as truth_table
    from glassnet.models.linear import normal_equation as normal_equation
    from glassnet.models.linear import perceptron_rule as perceptron_rule
    from glassnet.models.weights import load_weights as load_weights
    from glassnet.nn.functional import convolve as convolve
    from glassnet.nn.initialisation import initialise as initialise
    from glassnet.nn.kernels import filter_image as filter_image
    from glassnet.nn.kernels import kernel as kernel
    from glassnet.nn.matrix import convolution_matrix as convolution_matrix
    from glassnet.rate_search import learning_rate_range as learning_rate_range
    from glassnet.runs import Run as Run
    from glassnet.runs import open_run as open_run
    from glassnet.training.config import TrainConfig as TrainConfig
    from glassnet.training.learning_rate_range import LearningRateRange as LearningRateRange
    from glassnet.views.lenses import picture as picture

_EXPORTS = {
    "GlassnetError": "glassnet._errors",
    "UsageError": "glassnet._errors",
    "WorkError": "glassnet._errors",
    "Comparison": "glassnet.comparison",
    "compare": "glassnet.comparison",
    "Dataset": "glassnet.data.examples",
    "ExampleSet": "glassnet.data.examples",
    "list_datasets": "glassnet.data.sources",
    "load_data": "glassnet.data.sources",
    "Evaluation": "glassnet.evaluation.metrics",
    "Prediction": "glassnet.evaluation.prediction",
    "ValuePrediction": "glassnet.evaluation.value_prediction",
    "resume": "glassnet.experiments",
    "train": "glassnet.experiments",
    "activation_statistics": "glassnet.inspection.activation_statistics",
    "top_images": "glassnet.inspection.top_images",
    "equivariance": "glassnet.inspection.equivariance",
    "feature_maps": "glassnet.inspection.feature_maps",
    "attribute": "glassnet.inspection.attribution",
    "map_to_photo": "glassnet.inspection.attribution",
    "composition": "glassnet.inspection.composition",
    "connectivity": "glassnet.inspection.connectivity",
    "ablate": "glassnet.inspection.ablation",
    "filters": "glassnet.inspection.filters",
    "receptive_field": "glassnet.inspection.receptive_field",
    "nearest": "glassnet.inspection.neighbours",
    "project": "glassnet.inspection.projection",
    "separation": "glassnet.inspection.separation",
    "similarity": "glassnet.inspection.similarity",
    "Summary": "glassnet.inspection.summary",
    "summary": "glassnet.inspection.summary",
    "Trace": "glassnet.inspection.tracing",
    "trace": "glassnet.inspection.tracing",
    "verify": "glassnet.inspection.verification",
    "visualize": "glassnet.inspection.visualisation",
    "build_model": "glassnet.models",
    "list_models": "glassnet.models",
    "fully_convolutional": "glassnet.models.fully_convolutional",
    "gate_inequalities": "glassnet.models.gates",
    "truth_table": "glassnet.models.gates",
    "normal_equation": "glassnet.models.linear",
    "perceptron_rule": "glassnet.models.linear",
    "load_weights": "glassnet.models.weights",
    "convolve": "glassnet.nn.functional",
    "initialise": "glassnet.nn.initialisation",
    "filter_image": "glassnet.nn.kernels",
    "kernel": "glassnet.nn.kernels",
    "convolution_matrix": "glassnet.nn.matrix",
    "Run": "glassnet.runs",
    "open_run": "glassnet.runs",
    "TrainConfig": "glassnet.training.config",
    "LearningRateRange": "glassnet.training.learning_rate_range",
    "learning_rate_range": "glassnet.rate_search",
    "picture": "glassnet.views.lenses",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'glassnet' has no attribute '{name}'")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
