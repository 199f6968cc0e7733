"""Inspection: opening a network. Takes any `nn.Module` and leaves it as it was."""

from glassnet.inspection.ablation import Ablation, ablate
from glassnet.inspection.attribution import Attribution, attribute, map_to_photo
from glassnet.inspection.composition import Composition, composition
from glassnet.inspection.connectivity import Connectivity, connectivity
from glassnet.inspection.equivariance import Equivariance, equivariance
from glassnet.inspection.feature_maps import FeatureMaps, feature_maps
from glassnet.inspection.filters import Filters, filters
from glassnet.inspection.neighbours import Nearest, nearest
from glassnet.inspection.projection import Projection, project
from glassnet.inspection.receptive_field import LayerReceptiveField, receptive_field
from glassnet.inspection.separation import Separation, separation
from glassnet.inspection.similarity import Similarity, similarity
from glassnet.inspection.summary import LayerRow, Summary, summary
from glassnet.inspection.top_images import TopImages, top_images
from glassnet.inspection.tracing import Step, Trace, Value, trace
from glassnet.inspection.visualisation import Visualisation, visualize

__all__ = [
    "Ablation",
    "Attribution",
    "Composition",
    "Connectivity",
    "Equivariance",
    "FeatureMaps",
    "Filters",
    "LayerReceptiveField",
    "LayerRow",
    "Nearest",
    "Projection",
    "Separation",
    "Similarity",
    "Step",
    "Summary",
    "TopImages",
    "Trace",
    "Value",
    "Visualisation",
    "ablate",
    "attribute",
    "composition",
    "connectivity",
    "equivariance",
    "feature_maps",
    "filters",
    "map_to_photo",
    "nearest",
    "project",
    "receptive_field",
    "separation",
    "similarity",
    "summary",
    "top_images",
    "trace",
    "visualize",
]
