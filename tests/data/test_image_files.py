from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glassnet import UsageError
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.image_files import ImageFiles, content_digest


def files(count: int = 4, mode: str = "RGB", digests: tuple[str, ...] | None = None) -> ImageFiles:
    sizes = torch.tensor([[10, 40], [30, 20], [20, 10], [50, 90], [60, 5]])[:count]
    paths = tuple(Path(f"{name}.jpg") for name in "abcde"[:count])
    return ImageFiles(paths, mode, sizes, digests or tuple(content_digest(path.stem.encode()) for path in paths))


def examples(inputs: ImageFiles) -> ExampleSet:
    return ExampleSet(inputs, torch.arange(len(inputs)) % 2, ("ant", "bee"))


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])],
    ids=["slice", "rows", "mask"],
)
def test_a_slice_positions_and_a_mask_choose_the_same_files(index: slice | torch.Tensor) -> None:
    whole, chosen = files(), files()[index]
    assert chosen.paths == (Path("b.jpg"), Path("c.jpg"))
    assert chosen.sizes.tolist() == [[30, 20], [20, 10]]
    assert chosen.digests == whole.digests[1:3]


def test_positions_may_repeat_and_be_in_any_order() -> None:
    assert [path.stem for path in files()[torch.tensor([3, 0, 3])].paths] == ["d", "a", "d"]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_the_typical_shape_is_the_median_height_and_the_median_width(mode: str, channels: int) -> None:
    assert files(5, mode).typical_shape == (channels, 30, 20)  # heights 10 20 30 50 60, widths 5 10 20 40 90


def test_no_files_have_channels_and_no_size() -> None:
    empty = files()[:0]
    assert len(empty) == 0
    assert empty.typical_shape == (3, 0, 0)
    assert empty.sizes.shape == (0, 2)


def test_fields_that_do_not_belong_together_are_refused() -> None:
    one = files()
    with pytest.raises(UsageError, match="L or RGB; got 'RGBA'"):
        ImageFiles(one.paths, "RGBA", one.sizes, one.digests)
    with pytest.raises(UsageError, match=r"sizes must be int64 \(4, 2\).*got torch.float32 \(4, 2\)"):
        ImageFiles(one.paths, "L", one.sizes.float(), one.digests)
    with pytest.raises(UsageError, match="a digest for each of 4 files; got 3"):
        ImageFiles(one.paths, "L", one.sizes, one.digests[:3])


def test_a_digest_tells_of_the_content_alone() -> None:
    assert content_digest(b"abc") == content_digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
    assert content_digest(b"abd") != content_digest(b"abc")


def test_a_set_of_files_is_a_set_of_images() -> None:
    whole = examples(files())
    assert whole.is_image
    assert whole.input_shape == (3, 20, 20)
    assert len(whole) == 4
    assert repr(whole) == "ExampleSet(4 image files, typically (3, 20, 20), 2 classes)"
    part = whole[[3, 1]]
    assert isinstance(part.inputs, ImageFiles)
    assert [path.stem for path in part.inputs.paths] == ["d", "b"]
    assert part.labels.tolist() == [1, 1]
    assert part.aligned_to(("bee", "ant")).labels.tolist() == [0, 0]


def test_labels_for_more_or_fewer_files_are_refused() -> None:
    with pytest.raises(UsageError, match=r"labels must be int64 \(4,\)"):
        ExampleSet(files(), torch.zeros(3, dtype=torch.int64), ("ant",))


def test_files_may_have_values_to_predict() -> None:
    assert ExampleSet(files(), torch.zeros(4, 2), ()).is_regression


def test_the_fingerprint_of_files_depends_on_their_content_order_and_mode_and_not_on_their_names() -> None:
    one = files()
    renamed = ImageFiles(tuple(Path("elsewhere") / path for path in one.paths), one.mode, one.sizes, one.digests)
    prints = [
        Dataset("x", examples(inputs), examples(one[:0]), examples(one[:0]), seed=0).fingerprint()
        for inputs in (
            one,
            renamed,
            files(digests=(*one.digests[:3], content_digest(b"changed"))),
            files(digests=(one.digests[1], one.digests[0], *one.digests[2:])),
            files(mode="L"),
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
