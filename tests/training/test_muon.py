"""Muon in float32 against torch's own."""

from __future__ import annotations

import pytest
import torch

from glassnet._errors import UsageError
from glassnet.training.muon import Float32Muon, orthogonal

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def trained(make: type[torch.optim.Optimizer], shape: tuple[int, int], **values: object) -> torch.Tensor:
    """Return a matrix after five steps down a fixed bowl."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(shape, generator=generator))
    target = torch.randn(shape, generator=generator)
    optimizer = make([matrix], **values)  # type: ignore[call-arg]
    for _ in range(5):
        optimizer.zero_grad()
        (matrix - target).square().sum().backward()
        optimizer.step()
    return matrix.detach()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
@pytest.mark.parametrize("values", [{}, {"nesterov": False, "momentum": 0.6}, {"weight_decay": 0.3, "lr": 0.05}])
def test_it_is_torchs_muon_where_torch_too_computes_in_float32(
    shape: tuple[int, int], values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(Float32Muon, shape, **values)
    rounded = trained(torch.optim.Muon, shape, **values)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    torch.testing.assert_close(found, trained(torch.optim.Muon, shape, **values), rtol=1e-5, atol=1e-6)
    assert not torch.equal(found, rounded)
    torch.testing.assert_close(found, rounded, rtol=0.05, atol=0.02)


def test_the_singular_values_come_to_about_one() -> None:
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrix, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_closure_is_refused() -> None:
    with pytest.raises(UsageError, match="no closure"):
        Float32Muon([torch.nn.Parameter(torch.ones(2, 2))]).step(lambda: 1.0)
