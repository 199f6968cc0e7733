"""What `attribute` gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet.inspection.attribution.faithfulness import Faithfulness

TITLES = {
    "saliency": "Saliency",
    "gradient_x_input": "Gradient x input",
    "smoothgrad": "SmoothGrad",
    "guided_backpropagation": "Guided backpropagation",
    "integrated_gradients": "Integrated gradients",
    "deeplift": "DeepLIFT",
    "lrp": "LRP",
    "grad_cam": "Grad-CAM",
    "occlusion": "Occlusion",
    "shapley_sampling": "Shapley sampling",
}
"""The methods by their usual names."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribution:
    """How much each value of an image counts for one output; `gn.picture` draws it, `str()` says what was found."""

    method: str
    target: int
    """Number of the output."""
    class_name: str
    """Empty where no classes are known."""
    output: float
    """The target's output (a logit) for the image."""
    baseline_output: float
    """The same for the baseline."""
    scores: Tensor
    """Of the image's shape `(C, H, W)`, on the CPU."""
    map: Tensor
    """One score a place, `(H, W)`: the sum over channels, or their largest where the scores are sizes of gradients."""
    image: Tensor
    """`(C, H, W)` before it was normalised: `uint8` pixels where there were such."""
    promised: float | None
    """What the scores, and what was absorbed, sum up to by the method's theory: the output, for most methods less the
    baseline's. None where the method promises nothing."""
    absorbed: float
    """What biases and stabilisers took (LRP)."""
    layer: str
    """Whose maps were used (Grad-CAM); else empty."""
    faithfulness: Faithfulness
    notes: tuple[str, ...] = ()

    @property
    def completeness_gap(self) -> float | None:
        """What the scores sum up to, with what was absorbed, less what they should; None without a promise."""
        if self.promised is None:
            return None
        return float(self.scores.double().sum()) + self.absorbed - self.promised

    @property
    def relative_gap(self) -> float | None:
        """The gap's size as a share of what was promised."""
        if self.promised is None or self.completeness_gap is None:
            return None
        gap = abs(self.completeness_gap)
        return gap / abs(self.promised) if self.promised else math.inf if gap else 0.0

    @property
    def top_share(self) -> float:
        """Share of all the scores' size that lies on the tenth of the places with the largest ones."""
        sizes = self.map.abs().flatten().double()
        total = float(sizes.sum())
        count = max(1, round(len(sizes) / 10))
        return float(sizes.topk(count).values.sum()) / total if total else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON, the map included."""
        plain = (
            "method",
            "target",
            "class_name",
            "output",
            "baseline_output",
            "promised",
            "absorbed",
            "layer",
            "notes",
        )
        return {
            **{name: getattr(self, name) for name in plain},
            "completeness_gap": self.completeness_gap,
            "relative_gap": self.relative_gap,
            "top_share": self.top_share,
            "faithfulness": self.faithfulness.to_dict(),
            "map": torch.where(self.map.isfinite(), self.map, 0.0).tolist(),
        }

    def __str__(self) -> str:
        name = f"'{self.class_name}'" if self.class_name else f"output {self.target}"
        text = f"{TITLES[self.method]} for {name} ({self.output:.3g}): the strongest tenth of the pixels holds "
        text += f"{self.top_share:.0%} of the scores' size; deletion {self.faithfulness.deletion_score:.3g}"
        text += f", insertion {self.faithfulness.insertion_score:.3g}"
        if self.layer:
            text += f"; from layer {self.layer}"
        if self.completeness_gap is not None and self.promised is not None:
            biases = f", with the {self.absorbed:.3g} that biases took," if self.absorbed else ""
            text += f"; the scores{biases} sum up to {self.promised + self.completeness_gap:.4g}, where the method "
            text += f"promises {self.promised:.4g}"
        return text + "."

    def __repr__(self) -> str:
        return f"Attribution('{self.method}', target {self.target}, {tuple(self.scores.shape)})"
