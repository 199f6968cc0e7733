"""Networks that others wrote, with weights drawn at random: every call is seen and every number written out agrees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn

transformers = pytest.importorskip("transformers", reason="`pip install transformers` brings the networks of this file")

IMAGE = (3, 32, 32)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet": ("ForImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "ViT": (
        "ForImageClassification",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "image_size": 32, "patch_size": 8},
    ),
    "ConvNext": ("ForImageClassification", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    "MobileNetV2": ("ForImageClassification", {"depth_multiplier": 0.35, "image_size": 32}),
    "Swin": (
        "ForImageClassification",
        {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    ),
    "Bert": (
        "ForSequenceClassification",
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "vocab_size": 50},
    ),
}  # fmt: skip


class Logits(nn.Module):
    """The logits alone of a network that gives a record."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs).logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")  # of the networks' own library
def test_every_call_of_a_network_of_transformers_is_itemised_and_agrees(name: str) -> None:
    purpose, options = MODELS[name]
    config = getattr(transformers, f"{name}Config")(num_labels=5, **options)
    torch.manual_seed(0)
    network = getattr(transformers, name + purpose)(config).eval()
    inputs = torch.randint(0, 50, (1, 7)) if name == "Bert" else torch.randn(IMAGE)
    model = Logits(network)
    trace = gn.trace(model, inputs)
    assert trace.coverage == 1, trace.without_rule
    with torch.no_grad():
        whole = model(inputs if name == "Bert" else inputs[None])
    torch.testing.assert_close(trace.output, whole, rtol=0, atol=0)
    assert gn.verify(model, inputs, units=20).passed
