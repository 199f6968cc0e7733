"""Networks in files of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glassnet import UsageError
from glassnet._user_code import Address
from glassnet.models.user_model import build_user_model, fitting_options, user_spec_of

HEAD = "import abc, torch\nfrom torch import nn\nfrom torch.nn import Linear\n"
NET = HEAD + (
    "class Net(nn.Module):\n"
    "    def __init__(self, num_classes, in_channels=3, channels=16, *, widths=(4,), rate=0.5):\n"
    "        super().__init__()\n"
    "        self.widths, self.channels = widths, channels\n"
    "        self.conv = nn.Conv2d(in_channels, 4, 3)\n"
    "        self.out = nn.Linear(4, num_classes)\n"
    "    def forward(self, images):\n"
    "        return self.out(self.conv(images).amax((2, 3)))\n"
    "def build(input_shape, channels):\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * input_shape[1] * input_shape[2], 2))\n"
)
FITTING = fitting_options(3, (1, 8, 8))


def address(folder: Path, text: str, name: str = "Net") -> Address:
    (folder / "net.py").write_text(text)
    return Address(folder / "net.py", name)


def test_what_fits_the_data_is_passed_where_the_signature_takes_it(tmp_path: Path) -> None:
    model = build_user_model(address(tmp_path, NET), fitting=FITTING, options={"widths": [7, 5]})
    spec = user_spec_of(model)
    assert spec is not None
    assert spec.options == {"num_classes": 3, "in_channels": 1, "widths": [7, 5]}
    assert model.channels == 16  # its own width, not the image's channels
    model = build_user_model(address(tmp_path, NET, "build"), fitting=FITTING)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 2)
    assert user_spec_of(model).options == {"input_shape": (1, 8, 8), "channels": 1}  # type: ignore[union-attr]


def test_numbers_have_no_channels_but_signals_have() -> None:
    assert fitting_options(2, (5,)) == {"num_classes": 2, "input_shape": (5,)}
    assert fitting_options(None, (4, 30)) == {"input_shape": (4, 30), "in_channels": 4, "channels": 4}


def test_the_seed_alone_decides_the_first_weights(tmp_path: Path) -> None:
    place = address(tmp_path, NET)
    torch.manual_seed(1)
    first = build_user_model(place, seed=5, fitting=FITTING).conv.weight
    state = torch.get_rng_state()
    again = build_user_model(place, seed=5, fitting=FITTING).conv.weight
    other = build_user_model(place, seed=6, fitting=FITTING).conv.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_options_are_stored_as_they_were_passed_whatever_the_constructor_does_to_them(tmp_path: Path) -> None:
    text = NET.replace("self.widths,", "widths.append(9); self.widths,")
    model = build_user_model(address(tmp_path, text), fitting=FITTING, options={"widths": [7]})
    assert model.widths == [7, 9]
    assert user_spec_of(model).options["widths"] == [7]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "name", "options", "message"),
    [
        (NET, "Nett", {}, "Unknown name in .*net.py 'Nett'. Did you mean 'Net'"),
        (NET, "Zzz", {}, r"Choose one of: Net\."),
        (HEAD, "Net", {}, "defines neither a network .* nor a function"),
        (HEAD + "class Net: pass", "Net", {}, "must be a class of nn.Module; it is a class of another kind"),
        (NET + "net = Net(3)", "net", {}, "a network that is built already. Name its class"),
        (HEAD + "Net = 5", "Net", {}, "or a function; got int"),
        (NET + "def f(): return 5", "f", {}, r"must return a network \(nn.Module\); it returned int"),
        (NET, "Net", {"width": 3}, "Unknown option of net.py:Net 'width'. Did you mean 'widths'"),
        (NET, "Net", {"rate": object}, "model.rate must be a number, a word, or a list"),
        (NET + "def f(): return Net(3)", "f", {"x": 3}, "net.py:f takes no options; got 'x'"),
        (
            NET + "def f(depth, hidden): pass",
            "f",
            {},
            "needs depth, hidden.*--set model.depth=VALUE --set model.hidden",
        ),
        (NET + "def f(depth, /): pass", "f", {}, "takes depth by position only"),
        (
            NET + "def f():\n    return {}['k']",
            "f",
            {},
            r"could not be built with f\(\): KeyError: 'k' \(.*net.py:15\)",
        ),
        (
            HEAD + "class Net(nn.Module):\n def __init__(self):\n  self.a = Linear(2, 3)",
            "Net",
            {},
            r"AttributeError.*:6\)",
        ),
        (HEAD + "class Net(nn.Module):\n def __init__(self):\n  pass", "Net", {}, "AttributeError"),
        (HEAD + "class Net(nn.Module):\n def __init__(self):\n  raise SystemExit", "Net", {}, "SystemExit"),
        (
            HEAD + "class Net(nn.Module, abc.ABC):\n @abc.abstractmethod\n def width(self): pass",
            "Net",
            {},
            "net.py:Net is abstract: it lacks width",
        ),
        (HEAD + "def f(): return nn.LazyLinear(3)", "f", {}, "layers of net.py:f must know their sizes; 'weight'"),
    ],
)
def test_a_mistake_in_the_file_or_the_options_is_said(
    text: str, name: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        build_user_model(address(tmp_path, text, name), fitting=FITTING, options=options)


def test_a_neighbour_imported_in_the_constructor_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("x = 1")
    text = NET + "def f():\n    import late\n    return Net(3)\n"
    spec = user_spec_of(build_user_model(address(tmp_path, text, "f")))
    assert spec is not None
    assert spec.sources == {"model.py": text.encode(), "source/late.py": b"x = 1"}
