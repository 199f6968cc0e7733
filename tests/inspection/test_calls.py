"""What a forward pass is seen to do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassnet.inspection.calls import Call, Operation, Watcher, run_watched


class Notes(Watcher):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.modules: list[str] = []
        self.operations: list[str] = []

    def call(self, call: Call) -> None:
        self.calls.append(call.name)

    def module(self, path: str, module: nn.Module, output: object) -> None:
        self.modules.append(path)

    def operation(self, operation: Operation) -> None:
        self.operations.append(operation.name)


def notes(model: nn.Module, *shape: int) -> Notes:
    found = Notes()
    run_watched(model, torch.rand(shape), found)
    return found


class Busy(nn.Module):
    """Every way to write an operation, and questions that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] > 0
        assert x.size(1) == 4
        assert x.dim() == 2
        x = self.relu(self.relu(x))
        x = 2 * x + x - 1
        x += 1
        x = x.T.T @ torch.eye(4)
        x = self.inner(x)
        x = torch.relu_(x)
        if float(x.sum()) < 0:
            x = -x
        x = x.contiguous()
        return torch.nn.functional.dropout(x, training=self.training).flatten(1)


def test_layers_and_functions_are_named_once_each_in_order() -> None:
    found = notes(Busy(), 2, 4)
    expected = [
        "relu",
        "relu_1",
        "mul",
        "add",
        "sub",
        "add_1",
        "T",
        "T_1",
        "matmul",
        "inner.0",
        "inner.1",
        "relu_2",
        "sum",
    ]
    assert found.calls == expected
    assert found.modules == ["relu", "relu", "inner.0", "inner.1", "inner", ""]


def test_operations_are_seen_below_every_way_to_write_them() -> None:
    found = notes(Busy(), 2, 4)
    assert {"mul", "add", "sub", "relu", "mm", "addmm"} <= set(found.operations)


def test_compiled_and_scripted_modules_show_what_they_do() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), backend="eager")
    found = notes(nn.Sequential(compiled, nn.Linear(4, 2)), 2, 4)
    assert found.calls == ["0.0", "0.1", "1"]


def test_attention_is_seen_by_its_products_not_by_a_fused_shortcut() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=8, batch_first=True).eval()
    found = notes(layer, 1, 3, 8)
    assert found.operations.count("bmm") == 2
    assert "self_attn.multi_head_attention_forward" in found.calls


def test_what_a_watcher_computes_is_not_the_models() -> None:
    class Computing(Notes):
        def call(self, call: Call) -> None:
            super().call(call)
            _ = torch.relu(call.outputs[0]) + 1

    found = Computing()
    run_watched(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.rand(2, 3), found)
    assert found.calls == ["0", "1"]
    assert found.operations == ["relu", "tanh"]


def test_the_output_is_the_plain_models_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)
    ).eval()
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(run_watched(model, x, Notes()), model(x))  # type: ignore[arg-type]
