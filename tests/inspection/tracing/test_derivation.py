"""The text of a unit: in a terminal, as Markdown, LaTeX and plain values."""

from __future__ import annotations

import json

import torch
from torch import nn

import glassnet as gn
from glassnet.inspection.tracing import Unit


def neuron() -> Unit:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -1.0, 0.5]]))
        layer.bias.fill_(0.25)
    return gn.trace(nn.Sequential(layer), torch.tensor([1.0, 3.0, -4.0])).unit("0:0")


def test_the_text_of_a_neuron_is_a_table_that_adds_up() -> None:
    assert str(neuron()) == "\n".join([
        "0:0 = -2.75   (linear: sum of input x weight + bias)",
        "  source   value  weight  product",
        "  input:0      1       2        2  0.weight[0,0]",
        "  input:1      3      -1       -3  0.weight[0,1]",
        "  input:2     -4     0.5       -2  0.weight[0,2]",
        "  sum of products     -3",
        "  bias 0.bias[0]    0.25",
        "  total            -2.75",
        "  torch's value    -2.75  the same",
    ])  # fmt: skip


def test_a_long_table_is_cut_politely_and_shown_whole_on_request() -> None:
    unit = neuron()
    cut = unit.to_text(limit=1)
    assert "... and 2 smaller terms, together 0 (all=True, or --all, shows every term)" in cut
    assert "input:1" in cut
    assert "input:2" not in cut
    assert unit.to_text(all=True, limit=1) == str(unit)


def test_markdown_is_a_table_a_teacher_can_paste() -> None:
    lines = neuron().to_markdown().splitlines()
    assert lines[0] == "**`0:0` = -2.75** (linear: sum of input x weight + bias)"
    assert "| `input:0` | 1 | 2 | 2 | 0.weight[0,0] |" in lines
    assert "| total | -2.75 |" in lines


def test_latex_writes_the_sum_out() -> None:
    text = neuron().to_latex()
    assert text.startswith(r"\begin{align*}")
    assert r"(1)(2) + (3)(-1) + (-4)(0.5)" in text
    assert r"\underbrace{0.25}_{\text{bias}}" in text
    assert r"\text{0:0} &= -2.75" in text
    assert text.count("{") == text.count("}")


def test_plain_values_are_json_and_hold_every_term() -> None:
    found = json.loads(json.dumps(neuron().to_dict(), allow_nan=False))
    assert [term["product"] for term in found["terms"]] == [2, -3, -2]
    assert (found["total"], found["value"], found["difference"]) == (-2.75, -2.75, 0)
    assert found["terms"][1]["factor_source"] == "0.weight[0,1]"


def test_a_softmax_shows_its_sum_and_no_weights() -> None:
    unit = gn.trace(nn.Sequential(nn.Softmax(1)), torch.tensor([[0.0, 1.0]])).unit("0:1")
    text = str(unit)
    assert "e^(z - m) / sum of e^(z - m)" in text
    assert "sum of products" not in text
    assert dict(unit.working)["m, the largest"] == 1.0
    assert all(term["factor"] is None for term in unit.to_dict()["terms"])
    assert r"\text{e\^{}(z - m) / sum of e\^{}(z - m)}" in unit.to_latex()
