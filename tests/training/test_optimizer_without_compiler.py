from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import glassnet as gn
from glassnet.training.optimizer import OPTIMIZERS, without_compiler

PLAIN = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
}


def weights_after_steps(kind: type[torch.optim.Optimizer], values: dict[str, Any]) -> list[torch.Tensor]:
    model = gn.build_model("mlp", input_shape=(6,), num_classes=3, seed=0)
    optimizer = kind([{"params": list(model.parameters())}], **values)  # type: ignore[call-arg]
    for number in range(6):
        if number == 3:
            state = optimizer.state_dict()
            optimizer = kind([{"params": list(model.parameters())}], **values)  # type: ignore[call-arg]
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(number))
        model(inputs).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", PLAIN)
def test_steps_and_states_have_the_bits_of_torch(name: str) -> None:
    kind, values = PLAIN[name]
    expected, received = weights_after_steps(kind, values), weights_after_steps(without_compiler(kind), values)
    assert all(torch.equal(a, b) for a, b in zip(expected, received, strict=True))


def test_it_is_the_optimizer_by_name_and_type() -> None:
    plain = without_compiler(torch.optim.SGD)
    assert issubclass(plain, torch.optim.SGD)
    assert plain.__name__ == "SGD"
    assert without_compiler(torch.optim.SGD) is plain


def test_a_training_imports_no_compiler_and_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    code = """
import dataclasses, sys
import glassnet as gn
data = gn.load_data("shapes")
data = dataclasses.replace(data, train=data.train[:64], validation=data.validation[:8], test=data.test[:8])
for optimizer in sys.argv[1:]:
    config = gn.TrainConfig(epochs=1, batch_size=32, optimizer=optimizer)
    gn.train(gn.build_model("lenet5", num_classes=data.train.num_classes, input_shape=(3, 32, 32)), data, config,
             out=f"{optimizer}", progress=False)
print([name for name in ("torch._dynamo", "sympy", "scipy", "matplotlib", "torchmetrics", "pandas") if name in
       sys.modules])
"""
    names = [name for name in OPTIMIZERS if name != "muon" or hasattr(torch.optim, "Muon")]
    assert set(names) <= set(PLAIN) | {"muon"}
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
