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
    from glassnet.models import build_model as build_model
    from glassnet.models import list_models as list_models

_EXPORTS = {
    "GlassnetError": "glassnet._errors",
    "UsageError": "glassnet._errors",
    "WorkError": "glassnet._errors",
    "build_model": "glassnet.models",
    "list_models": "glassnet.models",
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
