"""A picture of whatever inspection found: one function for all of its results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from glassnet._errors import UsageError
from glassnet.inspection.ablation import Ablation
from glassnet.inspection.attribution import Attribution
from glassnet.inspection.composition import Composition
from glassnet.inspection.equivariance import Equivariance
from glassnet.inspection.feature_maps import FeatureMaps
from glassnet.inspection.filters import Filters
from glassnet.inspection.neighbours import Nearest
from glassnet.inspection.projection import Projection
from glassnet.inspection.receptive_field import LayerReceptiveField
from glassnet.inspection.separation import Separation
from glassnet.inspection.similarity import Similarity
from glassnet.inspection.top_images import TopImages
from glassnet.inspection.visualisation import Visualisation
from glassnet.views.attribution_sheets import attribution_sheet, visualisation_sheet
from glassnet.views.field_sheets import ablation_sheet, field_sheet, top_sheet
from glassnet.views.map_sheets import filter_sheet, map_sheet
from glassnet.views.object_sheets import composition_sheet, separation_sheet
from glassnet.views.similarity_sheets import equivariance_sheet, nearest_sheet, projection_sheet, similarity_sheet

SHEETS: dict[type, Callable[..., Image.Image]] = {
    FeatureMaps: map_sheet,
    Filters: filter_sheet,
    LayerReceptiveField: field_sheet,
    TopImages: top_sheet,
    Ablation: ablation_sheet,
    Attribution: attribution_sheet,
    Visualisation: visualisation_sheet,
    Similarity: similarity_sheet,
    Nearest: nearest_sheet,
    Separation: separation_sheet,
    Composition: composition_sheet,
    Projection: projection_sheet,
    Equivariance: equivariance_sheet,
}
"""What draws each kind of result; its keywords are those of `picture`."""


def picture(result: object, **options: Any) -> Image.Image:
    """Return a result of inspection as a Pillow image, with labels, scale and the finding in a sentence.

    `gn.picture(gn.feature_maps(run, photo, "conv2")).save("maps.png")`. Feature maps take `image` (which of the kept
    ones) and `most` (how many channels), filters `most` and `most_inputs`, a receptive field `unit` and `image`
    (`(C, H, W)` pixels to draw on), an ablation `most`.

    Raises `UsageError` for another kind of result.
    """
    for kind, draw in SHEETS.items():
        if isinstance(result, kind):
            return draw(result, **options)
    known = ", ".join(kind.__name__ for kind in SHEETS)
    raise UsageError(f"Expected a result of inspection that can be drawn ({known}); got {type(result).__name__}.")
