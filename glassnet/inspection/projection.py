"""Images laid out on a plane by what a layer makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import derive_seed
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Examples, Subject, opened, stream
from glassnet.inspection.capture import layer_of
from glassnet.inspection.similarity import collected, labels_of

PROJECTIONS = ("pca", "tsne")
MOST_FEATURES = 50
"""t-SNE is given this many principal components, as van der Maaten and Hinton (2008) do."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Projection:
    """Images as points on a plane, near where a layer finds them alike."""

    layer: str
    method: str
    points: Tensor
    """`(N, 2)`, float64."""
    explained: tuple[float, float] | None
    """Share of the variance along each axis (PCA); None for t-SNE, whose distances have no such meaning."""
    purity: float | None
    """Share of the points whose nearest neighbour on the plane has the same label; None without labels."""
    labels: tuple[int | None, ...]
    class_names: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        plain = ("layer", "method", "explained", "purity", "labels", "class_names")
        return {
            **{name: getattr(self, name) for name in plain},
            "points": self.points.tolist(),
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        text = f"{'PCA' if self.method == 'pca' else 't-SNE'} of {len(self.points):,} images as {self.layer} sees them"
        if self.explained is not None:
            text += f": the plane holds {sum(self.explained):.0%} of the variance"
        if self.purity is not None:
            text += f"{';' if self.explained else ':'} {self.purity:.0%} of the points lie next to their own class"
        return text + "."

    def __repr__(self) -> str:
        return f"Projection('{self.layer}', {self.method}, {len(self.points)} images)"


def project(
    subject: Subject,
    examples: Examples,
    layer: str,
    method: str = "pca",
    *,
    perplexity: float | None = None,
    seed: int = 0,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Projection:
    """Lay examples out on a plane by what `layer` makes of them: by `pca`, or by `tsne`, drawn from `seed`.

    `perplexity`, about how many neighbours count (t-SNE), is by default 30, or less for fewer than 91 images.

    The model is left as it was. Raises `UsageError` for an unknown layer or method, and for fewer than 3 examples.
    """
    model, record = opened(subject, preprocessing)
    if method not in PROJECTIONS:
        raise unknown_name("projection", str(method), PROJECTIONS)
    if perplexity is not None and method != "tsne":
        raise UsageError("perplexity is t-SNE's; leave it out, or say method='tsne'.")
    layer_of(model, layer)
    source = stream(examples, model, record, batch_size)
    features, kept = collected(model, record, source.batches, layer, None)
    if len(features) < 3:
        raise UsageError(f"A projection needs at least 3 examples; got {len(features)}.")
    rows = features.flatten(1).double().numpy()
    if not np.isfinite(rows).all():
        raise UsageError(f"Layer '{layer}' gives numbers that are not finite on these examples; choose another layer.")
    points, explained = _points(rows, method, perplexity, seed)
    labels = labels_of(kept)
    return Projection(
        layer=layer,
        method=method,
        points=torch.from_numpy(points),
        explained=explained,
        purity=_purity(points, labels),
        labels=labels,
        class_names=tuple(source.class_names),
        set_aside=source.set_aside,
    )


def _points(
    rows: np.ndarray, method: str, perplexity: float | None, seed: int
) -> tuple[np.ndarray, tuple[float, float] | None]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    state = derive_seed(seed, "projection") % 2**32
    count = min(2 if method == "pca" else MOST_FEATURES, *rows.shape)
    pca = PCA(n_components=count, random_state=state)
    with np.errstate(invalid="ignore", divide="ignore"):  # constant outputs have no variance to take shares of
        points = pca.fit_transform(rows)
    if method == "pca":
        shares = [*np.nan_to_num(pca.explained_variance_ratio_).tolist(), 0.0][:2]
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), (shares[0], shares[1])
    largest = (len(rows) - 1) / 3
    perplexity = min(30.0, largest) if perplexity is None else perplexity
    if not 0 < perplexity < len(rows):
        raise UsageError(f"perplexity must lie between 0 and the number of examples, {len(rows)}; got {perplexity}.")
    return TSNE(perplexity=perplexity, random_state=state, init="pca").fit_transform(points).astype(np.float64), None


def _purity(points: np.ndarray, labels: tuple[int | None, ...]) -> float | None:
    from sklearn.neighbors import NearestNeighbors

    if any(label is None for label in labels):
        return None
    neighbours = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(return_distance=False)
    same = [labels[row] == labels[int(near[0])] for row, near in enumerate(neighbours)]
    return sum(same) / len(same)
