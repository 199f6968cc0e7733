from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from glassnet import UsageError, build_model
from glassnet.inspection.filters import filters
from glassnet.inspection.summary import summary

LENET5 = [
    # name, output, parameters, multiplications: by hand from LeCun et al. 1998, section II.B (every C3 map sees all)
    ("c1", (6, 28, 28), (5 * 5 + 1) * 6, 25 * 6 * 28 * 28),
    ("act1", (6, 28, 28), 0, 0),
    ("s2", (6, 14, 14), 0, 0),
    ("c3", (16, 10, 10), (25 * 6 + 1) * 16, 150 * 16 * 100),
    ("act3", (16, 10, 10), 0, 0),
    ("s4", (16, 5, 5), 0, 0),
    ("c5", (120, 1, 1), (25 * 16 + 1) * 120, 400 * 120),
    ("act5", (120, 1, 1), 0, 0),
    ("flatten", (120,), 0, 0),
    ("f6", (84,), 121 * 84, 120 * 84),
    ("act6", (84,), 0, 0),
    ("output", (10,), 85 * 10, 840),
]


def test_lenet5_has_the_layers_and_counts_of_its_paper() -> None:
    result = summary(build_model("lenet5"), (1, 32, 32))
    rows = [(row.name, row.output_shape, row.num_parameters, row.num_multiplications) for row in result.rows]
    assert rows == LENET5
    assert result.num_parameters == 61_706
    assert result.num_multiplications == sum(row[3] for row in LENET5)
    assert result.uncounted == ()


def test_the_table_shows_every_row_and_the_total() -> None:
    lines = str(summary(build_model("lenet5"), (1, 32, 32))).splitlines()
    columns = ["layer", "kind", "input", "output", "kernel", "stride", "pad", "parameters", "multiplications"]
    assert lines[0].split() == [*columns, "additions", "KiB", "field"]
    cells = ["c1", "Conv2d", "1x32x32", "6x28x28", "5x5", "1", "0", "156", "117,600", "117,600", "18.4", "5x5"]
    assert lines[1].split() == cells
    assert lines[-1].split() == ["total", "61,706", "416,520", "416,520", "57.0"]


def test_grouped_strided_and_one_dimensional_layers_are_counted() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8), nn.Flatten(2), nn.Conv1d(8, 2, 3))
    counts = [row.num_multiplications for row in summary(model, (4, 9, 9)).rows]
    assert counts == [2 * 8 * 9 * 16, 8 * 16, 0, 8 * 2 * 3 * 14]


def test_a_linear_layer_over_positions_counts_each_of_them() -> None:
    assert summary(nn.Sequential(nn.Linear(5, 7)), (3, 5)).num_multiplications == 3 * 35


class Odd(nn.Module):
    """A layer with an operation that glassnet has no rule for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(torch.eye(4) + x.T @ x)[:1]


def test_an_unknown_kind_is_said_to_be_not_counted() -> None:
    result = summary(nn.Sequential(OrderedDict(fc=nn.Linear(4, 4), odd=Odd())), (4,))
    assert result.uncounted == ("odd",)
    assert "not counted" in str(result)
    assert "at least" in str(result).splitlines()[-1]


def test_parameters_used_twice_are_counted_once() -> None:
    layer = nn.Linear(4, 4)
    result = summary(nn.Sequential(layer, nn.ReLU(), layer), (4,))
    assert [row.num_parameters for row in result.rows] == [20, 0, 0]
    assert result.num_parameters == 20
    assert result.num_multiplications == 32


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    summary(model, (1, 8, 8))
    with pytest.raises(UsageError, match=r"does not take an input of 1x9x9: .*Give the input shape"):
        summary(model, (1, 9, 9))
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_filters_are_a_copy_of_the_first_convolutions_kernels() -> None:
    model = build_model("lenet5")
    found = filters(model)
    assert found.layer == "c1"
    assert torch.equal(found.weights, model.c1.weight)
    found.weights.zero_()
    assert model.c1.weight.abs().sum() > 0
    assert filters(model, "c3").weights.shape == (16, 6, 5, 5)


def test_a_wrong_layer_gets_the_nearest_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown convolution 'c2'. Did you mean 'c\d' or 'c\d'"):
        filters(build_model("lenet5"), "c2")
    with pytest.raises(UsageError, match="Sequential has no 2-D one"):
        filters(build_model("softmax"))


def test_positions_folded_into_the_batch_are_counted() -> None:
    class EveryPixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.permute(0, 2, 3, 1).reshape(-1, 3))

    assert summary(EveryPixel(), (3, 8, 8)).num_multiplications == 64 * 30


def test_weights_outside_layers_are_counted_where_they_are_used() -> None:
    class WithOwnWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.head = nn.Linear(4, 2)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.head(rows * self.scale)

    result = summary(WithOwnWeights(), (4,))
    assert [(row.name, row.num_parameters, row.num_multiplications) for row in result.rows] == [
        ("mul", 4, 4),
        ("head", 10, 8),
    ]
    assert result.uncounted == ()


def test_an_empty_sequential_is_an_identity() -> None:
    assert summary(nn.Sequential(nn.Sequential(), nn.Linear(2, 2)), (2,)).uncounted == ()


@pytest.mark.parametrize("shape", [64, (1, -8, 8), "1x8x8", (1.0, 8, 8)])
def test_an_input_shape_that_is_none_is_refused(shape: object) -> None:
    with pytest.raises(UsageError, match="input_shape must be positive whole numbers"):
        summary(nn.Flatten(), shape)  # type: ignore[arg-type]


def residual_block() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.relu(self.conv(x)) + x)

    return nn.Sequential(OrderedDict(stem=nn.Conv2d(1, 2, 3), body=nn.Sequential(Block(), Block())))


def test_functions_stand_in_the_tree_under_the_module_that_calls_them() -> None:
    result = summary(residual_block(), (1, 8, 8))
    names = [row.name for row in result.rows]
    assert names[1:5] == ["body.0.conv", "body.0.relu", "body.0.add", "body.0.relu_1"]
    assert [row.is_function for row in result.rows[1:5]] == [False, False, True, False]
    lines = str(result).splitlines()
    assert [line.split("  ")[0] or line[:8].rstrip() for line in lines[2:5]] == ["body", "  0", "    conv"]
    assert {container.name: container.num_parameters for container in result.containers} == {
        "body": 76,
        "body.0": 38,
        "body.1": 38,
    }


def test_memory_counts_new_outputs_and_not_what_is_changed_in_place() -> None:
    result = summary(residual_block(), (1, 8, 8))
    assert {row.name: row.num_bytes for row in result.rows[:5]} == {
        "stem": 2 * 36 * 4,
        "body.0.conv": 2 * 36 * 4,
        "body.0.relu": 0,
        "body.0.add": 2 * 36 * 4,
        "body.0.relu_1": 0,
    }


def test_receptive_fields_stand_in_the_rows() -> None:
    result = summary(residual_block(), (1, 8, 8))
    assert [row.field_size for row in result.rows if row.name.endswith(("stem", "add"))] == [(3, 3), (5, 5), (7, 7)]


def test_a_narrow_terminal_gets_fewer_columns_and_keeps_the_counts() -> None:
    result = summary(build_model("lenet5"), (1, 32, 32))
    narrow = result.table(80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.splitlines()[0].split()[-2:] == ["parameters", "multiplications"] or "field" in narrow
    assert result.table(10_000) == str(result)


def test_markdown_has_a_row_per_layer_with_its_full_name() -> None:
    lines = summary(residual_block(), (1, 8, 8)).markdown().splitlines()
    assert lines[0].startswith("| layer | kind | input |")
    assert lines[1].startswith("| :-- | :-- | :-- | :-- | --: |")
    assert lines[5].startswith("| body.0.add | function | 2x6x6 | 2x6x6 |")
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines)
    assert lines[-1].startswith("| **total** |")


def test_the_lecture_table_has_the_rows_and_columns_of_a_lecture() -> None:
    lines = summary(build_model("lenet5"), (1, 32, 32)).lecture_table().splitlines()
    assert lines[0].split() == ["layer", "in", "out", "kernel", "stride", "pad", "channels", "parameters"]
    assert [line.split()[0] for line in lines[1:-1]] == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]
    assert lines[3].split() == ["c3", "14x14", "10x10", "5x5", "1", "0", "6", "->", "16", "2,416"]
    assert lines[-1].split() == ["total", "61,706"]


def test_functional_convolutions_show_their_window_and_own_their_weights() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1, 3, 3))
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(nn.functional.max_pool2d(nn.functional.conv2d(x, self.weight, stride=2, padding=1), 2))

    convolution, pool, _ = summary(Functional(), (1, 9, 9)).rows
    assert (convolution.name, convolution.kernel_size, convolution.stride, convolution.padding) == (
        "conv2d", (3, 3), (2, 2), (1, 1),
    )  # fmt: skip
    assert (convolution.num_parameters, convolution.is_weighted) == (27, True)
    assert (pool.kernel_size, pool.stride) == ((2, 2), (2, 2))


def test_parametrised_and_compiled_modules_are_seen() -> None:
    weight_normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    model = nn.Sequential(OrderedDict(conv=weight_normed, act=torch.compile(nn.ReLU(), backend="eager")))
    rows = summary(model, (1, 5, 5)).rows
    assert [(row.name, row.kind) for row in rows] == [("conv", "ParametrizedConv2d"), ("act", "ReLU")]
    assert (rows[0].num_parameters, rows[0].num_multiplications) == (2 + 18 + 2, 18 * 9)


def test_a_model_of_tokens_is_given_tokens() -> None:
    model = nn.Sequential(OrderedDict(embed=nn.Embedding(10, 4), flatten=nn.Flatten(), head=nn.Linear(12, 2)))
    result = summary(model, (3,))
    assert result.uncounted == ()
    assert [row.num_multiplications for row in result.rows] == [0, 0, 24]
    assert result.rows[2].field_size == (3,)


class Unmet(nn.Module):
    """A model with a head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if not self.training else self.fc(x) + self.head(x).sum()


def test_what_a_pass_does_not_meet_leaves_its_count_exact() -> None:
    text = str(summary(Unmet(), (4,)))
    assert "not met" in text
    assert "15" in text.splitlines()[-2]
    assert "at least" not in text


def test_a_model_of_two_inputs_is_told_to_be_wrapped() -> None:
    with pytest.raises(UsageError, match="It is called with one tensor: wrap a model that takes others"):
        summary(nn.Bilinear(2, 2, 2), (2,))
