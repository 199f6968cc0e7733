from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.runs import Run


def bright_spot() -> nn.Module:
    """Channel 1 sums 3x3 pixels."""
    conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[1] = 1
    return nn.Sequential(conv, nn.Flatten(), nn.Linear(2 * 64, 3))


def spotted(count: int) -> Tensor:
    """Dark images with a square of 3x3 in each, brighter from one to the next, each at its own place."""
    found = torch.zeros(count, 1, 8, 8)
    for index in range(count):
        row, column = 1 + index % 5, 1 + index % 4
        found[index, 0, row : row + 3, column : column + 3] = (index * 7) % count + 1
    return found


def test_the_strongest_images_come_first_with_their_place_and_patch() -> None:
    inputs = spotted(23)
    found = gn.top_images(bright_spot(), inputs, "0:1", n=4, batch_size=5)
    order = sorted(range(23), key=lambda index: -((index * 7) % 23))[:4]
    assert [entry.position for entry in found] == order
    assert [entry.activation for entry in found] == [9.0 * v for v in (23, 22, 21, 20)]
    for entry in found:
        row, column = 1 + entry.position % 5, 1 + entry.position % 4
        assert entry.unit.position == (row + 1, column + 1)
        assert entry.box == ((row, row + 3), (column, column + 3))
        assert torch.equal(entry.patch, inputs[entry.position, :, row : row + 3, column : column + 3])
        assert torch.equal(entry.image, inputs[entry.position])
    assert found.num_examples == 23
    assert found.mean == pytest.approx(9 * 12)


@pytest.mark.parametrize("batch_size", [1, 4, 512])
def test_the_batch_size_does_not_change_what_is_found(batch_size: int) -> None:
    inputs = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = gn.top_images(bright_spot(), inputs, "0:1", batch_size=batch_size)
    with torch.no_grad():
        values = bright_spot()[0](inputs)[:, 1].flatten(1).amax(1)
    assert [entry.position for entry in found] == values.argsort(descending=True)[:9].tolist()


def test_one_unit_counts_at_its_own_position_only() -> None:
    inputs = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = gn.top_images(bright_spot(), inputs, "0:1@0,7", n=3)
    with torch.no_grad():
        values = bright_spot()[0](inputs)[:, 1, 0, 7]
    assert [entry.position for entry in found] == values.argsort(descending=True)[:3].tolist()
    assert found[0].box == ((0, 2), (6, 8))
    assert found[0].patch.shape == (1, 2, 2)


def test_a_split_of_a_run_has_classes_and_pixels(digits_run: Run, digits: Dataset) -> None:
    found = gn.top_images(digits_run, digits.test, "output:3", n=5)
    assert [entry.class_name for entry in found] == ["3"] * 5
    assert found[0].image.dtype == torch.uint8
    assert found[0].box == ((0, 32), (0, 32))
    logits, labels = digits_run.outputs(digits.test)
    best = logits[:, 3].argsort(descending=True)[:5]
    assert [entry.position for entry in found] == best.tolist()
    assert [entry.label for entry in found] == labels[best].tolist()
    assert "5 of them are '3'" in str(found)


def test_a_loader_is_read_once_and_in_its_order() -> None:
    inputs, labels = spotted(23), torch.arange(23) % 3
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=6)
    found = gn.top_images(bright_spot(), (batch for batch in loader), "0:1", n=2)
    assert [entry.activation for entry in found] == [207.0, 198.0]
    assert [entry.label for entry in found] == [entry.position % 3 for entry in found]


def test_fewer_examples_than_asked_for_are_all_shown() -> None:
    assert len(gn.top_images(bright_spot(), spotted(3), "0:1")) == 3


def test_plain_values_tell_it_all() -> None:
    values = gn.top_images(bright_spot(), spotted(5), "0:1", n=1).to_dict()
    assert values["unit"] == "0:1"
    assert values["images"][0]["unit"].startswith("0:1@")  # type: ignore[index]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("0", "Expected one channel of '0', such as '0:0'"),
        ("0:2", "^Layer '0' gives 2x8x8: a channel is 0 to 1; got 2"),
        ("0:1@8,0", "a position is 0 to 7; got 8"),
        ("0:1@3", "a position has 2 numbers behind @; got 1"),
        ("conv:1", "Unknown layer 'conv'"),
        ("0:x", "A unit is layer:channel or layer:channel@row,col"),
    ],
)
def test_a_wrong_unit_is_explained(unit: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gn.top_images(bright_spot(), spotted(3), unit)


def test_wrong_examples_are_explained() -> None:
    with pytest.raises(UsageError, match="n must be a whole number of at least 1; got 0"):
        gn.top_images(bright_spot(), spotted(3), "0:1", n=0)
    with pytest.raises(UsageError, match="expected at least one example, got none"):
        gn.top_images(bright_spot(), spotted(3)[:0], "0:1")
    with pytest.raises(UsageError, match="A batch is a tensor, or a pair of inputs and labels; got dict"):
        gn.top_images(bright_spot(), [{"x": 1}], "0:1")
    with pytest.raises(UsageError, match="Expected a model .* or a run; got str"):
        gn.top_images("model", spotted(3), "0:1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "n", "said"),
    [
        ([0, 0, 1, 1], 3, "most give 3 to 1 (mean of all 1.5); 2 of them are 'b'."),
        ([0, 0, 1, 1], 4, "(mean of all 1.5); 2 each are 'b' and 'a'."),
        ([0, 0, 1, 1], 1, "The image of 4 that excites 0:0 most gives 3 (mean of all 1.5); it is 'b'."),
        ([1, 0, 2, 1], 3, "; no two are of one class."),
    ],
)
def test_the_sentence_counts_the_commonest_classes(labels: list[int], n: int, said: str) -> None:
    model = nn.Sequential(nn.Identity())
    inputs = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    examples = ExampleSet(inputs, torch.tensor(labels), ("a", "b", "c"))
    assert said in str(gn.top_images(model, examples, "0:0", n=n))


def test_a_class_is_a_feature_of_the_layer_that_gives_the_scores() -> None:
    with pytest.raises(UsageError, match=r"Expected a unit of a layer; got 'class:1'.*such as '1:3'"):
        gn.top_images(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), torch.zeros(2, 1, 2, 2), "class:1")


def test_a_data_set_of_torch_is_told_to_be_wrapped_in_a_loader() -> None:
    examples = TensorDataset(torch.zeros(2, 1, 8, 8), torch.zeros(2))
    with pytest.raises(UsageError, match=r"got TensorDataset. Wrap it: torch.utils.data.DataLoader"):
        gn.top_images(bright_spot(), examples, "0:1")  # type: ignore[arg-type]
