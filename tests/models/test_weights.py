from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from glassnet import UsageError, WorkError, build_model, load_weights


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_weights_survive_their_file(tmp_path: Path, suffix: str, name: str) -> None:
    published, own = build_model(name, seed=1), build_model(name, seed=2)
    path = tmp_path / f"weights.{suffix}"
    save_file(published.state_dict(), path) if suffix == "safetensors" else torch.save(published.state_dict(), path)
    result = load_weights(own, path)
    assert (result.num_loaded, result.left_as_built) == (len(published.state_dict()), ())
    assert all(torch.equal(value, own.state_dict()[key]) for key, value in published.state_dict().items())


def test_a_training_scripts_checkpoint_and_ddp_names_are_understood(tmp_path: Path) -> None:
    published, own = build_model("lenet5", seed=1), build_model("lenet5", seed=2)
    state = {f"module.{key}": value for key, value in published.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    load_weights(own, tmp_path / "w.pth")
    assert torch.equal(own.c1.weight, published.c1.weight)


def test_another_number_of_classes_is_refused_or_keeps_the_new_last_layer(tmp_path: Path) -> None:
    published, own = build_model("lenet5", num_classes=7, seed=1), build_model("lenet5", seed=2)
    head = own.output.weight.detach().clone()
    torch.save(published.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"'output.weight' must be \(10, 84\), got \(7, 84\).*keep_head=True"):
        load_weights(own, tmp_path / "w.pth")
    assert load_weights(own, tmp_path / "w.pth", keep_head=True).left_as_built == ("output.weight", "output.bias")
    assert torch.equal(own.c1.weight, published.c1.weight)
    assert torch.equal(own.output.weight, head)


def test_all_three_heads_of_googlenet_may_be_kept(tmp_path: Path) -> None:
    shape = (3, 33, 33)
    published = build_model("googlenet-torchvision", num_classes=6, input_shape=shape)
    own = build_model("googlenet-torchvision", num_classes=4, input_shape=shape)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    left = load_weights(own, tmp_path / "w.pth", keep_head=True).left_as_built
    assert {name.rpartition(".")[0] for name in left} == {"aux1.fc2", "aux2.fc2", "fc"}


def test_weights_of_another_network_are_named_even_when_the_head_may_differ(tmp_path: Path) -> None:
    torch.save(build_model("mlp").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="Missing: c1.weight, .* more; foreign: hidden1.weight"):
        load_weights(build_model("lenet5"), tmp_path / "w.pth", keep_head=True)
    torch.save(build_model("lenet5", input_shape=(3, 32, 32)).state_dict(), tmp_path / "rgb.pth")
    with pytest.raises(UsageError, match=r"'c1.weight' must be \(6, 1, 5, 5\), got \(6, 3, 5, 5\)"):
        load_weights(build_model("lenet5"), tmp_path / "rgb.pth", keep_head=True)


class Hostile:
    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_hostile_damaged_and_absent_files_are_refused_unexecuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"c1.weight": Hostile()}, f"hostile.{suffix}")
    Path(f"damaged.{suffix}").write_bytes(b"PK half a file")
    torch.save([1, 2], "list.pth")
    for name in (f"hostile.{suffix}", f"damaged.{suffix}", f"absent.{suffix}", "list.pth"):
        with pytest.raises(WorkError, match=f"Expected .*{name}"):
            load_weights(build_model("lenet5"), name)
    assert not Path("executed").exists()
