from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glassnet import UsageError
from glassnet._errors import WorkError
from glassnet.data.arrays import ArrayData, load_array

RANDOM = np.random.default_rng(5)
LABELS = np.arange(30) % 3
LABELS_TENSOR = torch.from_numpy(LABELS)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ArrayData]:
    """Write arrays to an .npz file and load it, all examples in one split unless shares are given."""

    def write_and_load(
        arrays: dict[str, Any], seed: int = 0, validation_share: float = 0, test_share: float = 0
    ) -> ArrayData:
        np.savez(tmp_path / "set.npz", **arrays)
        return load_array(tmp_path / "set.npz", seed=seed, validation_share=validation_share, test_share=test_share)

    return write_and_load


Load = Callable[..., ArrayData]


# Inputs


def test_grey_images_get_a_channel(load: Load) -> None:
    x = pixels(30, 5, 7)
    data = load({"x": x, "y": LABELS}).dataset
    assert data.train.is_image
    assert data.train.inputs.shape == (30, 1, 5, 7)
    assert np.array_equal(data.train.inputs[:, 0], x)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.class_names == ("0", "1", "2")
    assert data.name == "set"


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_stand_last_are_moved_and_those_that_stand_first_are_not(load: Load, channels: int) -> None:
    x = pixels(30, 5, 7, channels)
    last = load({"x": x, "y": LABELS})
    first = load({"x": np.moveaxis(x, -1, 1), "y": LABELS})
    assert last.dataset.train.inputs.shape == (30, channels, 5, 7)
    assert np.array_equal(last.dataset.train.inputs, first.dataset.train.inputs)
    assert last.dataset.train.inputs[4, channels - 1, 2, 6] == x[4, 2, 6, channels - 1]
    assert any("moved from last to first" in note for note in last.notes)
    assert not any("moved" in note for note in first.notes)


def test_where_both_ends_could_be_channels_it_is_the_first(load: Load) -> None:
    x = pixels(30, 3, 9, 3)
    assert np.array_equal(load({"x": x, "y": LABELS}).dataset.train.inputs, x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_are_whole_255ths_become_the_images_they_came_from(load: Load, dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(4, 8, 8, 3)
    for divided in ((levels / 255).astype(dtype), levels.astype(dtype) * dtype(1 / 255)):
        data = load({"x": divided, "y": [0, 1, 0, 1]}).dataset
        assert data.train.is_image
        assert np.array_equal(data.train.inputs, np.moveaxis(levels, -1, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int16])
def test_whole_numbers_up_to_255_become_the_images_they_are(load: Load, dtype: type) -> None:
    x = pixels(30, 3, 4, 4)
    data = load({"x": x.astype(dtype), "y": LABELS})
    assert np.array_equal(data.dataset.train.inputs, x)
    assert data.dataset.train.is_image
    assert any("exact 8-bit levels" in note for note in data.notes)


@pytest.mark.parametrize("odd", [100.3, -1.0, 256.0])
def test_floats_that_no_8_bit_image_has_stay_numbers_to_the_last_bit(load: Load, odd: float) -> None:
    x = pixels(30, 4, 5, 3).astype(np.float32)
    x[17, 2, 2, 1] = odd
    data = load({"x": x, "y": LABELS}).dataset
    assert not data.train.is_image
    assert np.array_equal(data.train.inputs, np.moveaxis(x, -1, 1))


@pytest.mark.parametrize(
    ("shape", "expected", "word"),
    [
        ((30,), (30, 1), "rows"),
        ((30, 6), (30, 6), "rows"),
        ((30, 2, 6), (30, 2, 6), "series"),
        ((30, 5, 6, 7), (30, 5, 6, 7), "numbers"),
        ((30, 2, 3, 4, 5), (30, 2, 3, 4, 5), "volumes"),
    ],
)
def test_numbers_keep_their_shape_and_are_named_by_it(
    load: Load, shape: tuple[int, ...], expected: tuple[int, ...], word: str
) -> None:
    x = RANDOM.normal(size=shape)
    data = load({"x": x, "y": LABELS})
    assert data.dataset.train.inputs.dtype == torch.float32
    assert np.array_equal(data.dataset.train.inputs, x.astype(np.float32).reshape(expected))
    assert any(f"read as {word} (" in note for note in data.notes)


def test_a_video_with_channels_last_is_moved_to_channels_first(load: Load) -> None:
    x = pixels(30, 4, 6, 5, 3)
    inputs = load({"x": x, "y": LABELS}).dataset.train.inputs
    assert inputs.shape == (30, 3, 4, 6, 5)
    assert inputs[7, 2, 1, 3, 4] == x[7, 1, 3, 4, 2]


def test_floats_with_three_axes_are_series_and_the_note_tells_how_to_make_them_images(load: Load) -> None:
    data = load({"x": (pixels(30, 8, 8) / 255).astype(np.float32), "y": LABELS})
    assert data.dataset.train.input_shape == (8, 8)
    assert any("series" in note and "save them as uint8, or as (N, 1, H, W)" in note for note in data.notes)


def test_an_alpha_channel_is_refused_with_the_remedy(load: Load) -> None:
    with pytest.raises(UsageError, match=r"1 or 3 channels; got \(30, 8, 8, 4\)\. Drop an alpha channel"):
        load({"x": pixels(30, 8, 8, 4), "y": LABELS})


def test_values_that_are_not_finite_are_counted_and_the_first_is_named(load: Load) -> None:
    x = RANDOM.normal(size=(30, 4))
    x[3, 1], x[9, 0], x[20, 2] = np.inf, np.nan, 1e300  # the last is beyond float32
    with pytest.raises(
        UsageError, match=r"3 of 120 inputs of the train split are nan or infinite, the first at \[3, 1"
    ):
        load({"x": x, "y": LABELS})
    with pytest.raises(UsageError, match=r"1 of 30 labels of the train split are nan.*first at \[2\]"):
        load({"x": np.ones((30, 4)), "y": np.where(np.arange(30) == 2, np.nan, 0.5)})


@pytest.mark.parametrize("x", [np.array(["a"] * 30), np.ones(30, dtype=complex), np.ones((30, 1, 1, 1, 1, 1))])
def test_inputs_that_are_no_numbers_or_have_six_axes_are_refused(load: Load, x: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="real numbers with 1 to 5 axes; got"):
        load({"x": x, "y": LABELS})


# Labels


def test_texts_are_classes_in_their_order(load: Load) -> None:
    words = np.array(["bee", "ant", "cow"])
    for texts in (words, words.astype("S")):
        data = load({"x": pixels(30, 4, 4), "labels": texts[LABELS]}).dataset
        assert data.class_names == ("ant", "bee", "cow")
        assert [data.class_names[label] for label in data.train.labels] == words[LABELS].tolist()


def test_whole_numbers_are_named_by_themselves_and_sorted_by_value(load: Load) -> None:
    data = load({"x": pixels(30, 4, 4), "y": np.array([10, 9, 2])[LABELS]}).dataset
    assert data.class_names == ("2", "9", "10")
    assert data.train.labels[:3].tolist() == [2, 1, 0]


def test_class_names_are_what_whole_numbers_count_in(load: Load) -> None:
    data = load({"x": pixels(30, 4, 4), "y": LABELS[:, None], "class_names": ["zoo", "ant", "cow", "dog"]}).dataset
    assert data.class_names == ("zoo", "ant", "cow", "dog")
    assert data.train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.bool_])
def test_one_hot_rows_are_classes_also_one_that_never_occurs(load: Load, dtype: type) -> None:
    data = load({"x": pixels(30, 4, 4), "y": np.eye(4, dtype=dtype)[LABELS]})
    assert data.dataset.class_names == ("0", "1", "2", "3")
    assert data.dataset.train.labels.tolist() == LABELS.tolist()
    assert any("one-hot" in note for note in data.notes)


def test_truth_values_are_two_classes(load: Load) -> None:
    data = load({"x": pixels(30, 4, 4), "y": LABELS > 0}).dataset
    assert data.class_names == ("false", "true")
    assert data.train.labels.tolist() == (LABELS > 0).astype(int).tolist()


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 2)])
def test_floats_are_values_to_predict(load: Load, shape: tuple[int, ...]) -> None:
    y = RANDOM.normal(size=shape)
    data = load({"x": pixels(30, 4, 4), "y": y}).dataset
    assert data.train.is_regression
    assert np.array_equal(data.train.labels, y.astype(np.float32).squeeze())


def test_whole_floats_are_values_too_and_the_note_tells_how_to_make_them_classes(load: Load) -> None:
    data = load({"x": pixels(30, 4, 4), "y": LABELS.astype(float)})
    assert data.dataset.train.is_regression
    assert any("if they are classes, save integers" in note for note in data.notes)


@pytest.mark.parametrize(
    ("labels", "names", "told"),
    [
        (LABELS, ["a", "b"], r"in 0\.\.1, as there are 2 class names; label 2 of the train split is 2 \(10 such"),
        (LABELS - 1, None, r"Labels must be 0 or more; label 0 of the train split is -1 \(10 such"),
        (LABELS * 0, None, "two classes at least; all training labels are the same"),
        (np.eye(3)[LABELS], ["a", "b"], "a name for each of the 3 columns of one-hot labels; got 2 names"),
        (np.ones((30, 2), dtype=int), None, r"one-hot rows \(N, K\).*got int64 \(30, 2\)"),
        (LABELS * 0.5, ["a", "b"], r"without class_names, values as floats.*got float64 \(30,\) with class_names"),
        (np.array(["a", "b", "z"])[LABELS], ["a", "b"], "Unknown class 'z'.*10 examples have this label"),
        (LABELS.astype(complex), None, r"got complex128 \(30,\)"),
        (LABELS, [0, 1, 2], "class_names as a row of texts; got int64"),
        (np.array([b"\xff", b"b", b"c"])[LABELS], None, "labels as UTF-8"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_numbers(
    load: Load, labels: NDArray[Any], names: list[Any] | None, told: str
) -> None:
    arrays = {"x": pixels(30, 4, 4), "y": labels}
    with pytest.raises(UsageError, match=told):
        load(arrays if names is None else {**arrays, "class_names": names})


def test_inputs_and_labels_of_other_lengths_or_none_are_refused(load: Load) -> None:
    with pytest.raises(UsageError, match=r"set\.npz: Expected a label for each input; got 30 inputs and 29 labels"):
        load({"x": pixels(30, 4, 4), "y": LABELS[1:]})
    for shape in ((0, 4, 4), (30, 0, 4)):
        with pytest.raises(UsageError, match=rf"one example at least; got shapes {re.escape(str(shape))}"):
            load({"x": pixels(*shape), "y": LABELS[: shape[0]]})


# Names and splits


@pytest.mark.parametrize(("inputs", "labels"), [("X", "Y"), ("images", "labels"), ("data", "targets"), ("inputs", "y")])
def test_arrays_are_found_by_their_usual_names(load: Load, inputs: str, labels: str) -> None:
    assert len(load({inputs: pixels(30, 4, 4), labels: LABELS}).dataset.train) == 30


def test_an_array_of_another_name_is_told_not_to_be_used(load: Load) -> None:
    assert "'ids' is not used" in load({"x": pixels(30, 4, 4), "y": LABELS, "ids": LABELS}).notes


def test_names_that_are_not_known_are_listed(load: Load) -> None:
    with pytest.raises(UsageError, match="Expected inputs .*; got y, features. Rename the arrays"):
        load({"features": pixels(30, 4, 4), "y": LABELS})


@pytest.mark.parametrize(
    "names", [("x", "X", "y"), ("x", "images", "y"), ("x_val", "valid_x", "y_val"), ("y", "labels", "x")]
)
def test_two_arrays_of_one_meaning_are_refused(load: Load, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"'{names[0]}' and '{names[1]}' could both be the (inputs|labels)"):
        load(dict.fromkeys(names, LABELS))


@pytest.mark.parametrize(
    "names", [("x", "y_train"), ("x_train", "y_train", "x_test"), ("x_test", "y_test"), ("x", "y", "x_test", "y_test")]
)
def test_splits_that_are_half_there_are_refused(load: Load, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="or x_train and y_train, and so on for each split; got x"):
        load(dict.fromkeys(names, LABELS))


@pytest.mark.parametrize("pattern", ["{part}_{split}", "{split}_{part}"])
def test_given_splits_are_kept_and_only_the_absent_one_is_cut(load: Load, pattern: str) -> None:
    arrays = {}
    for split, count in (("train", 30), ("test", 12)):
        arrays[pattern.format(part="x", split=split)] = pixels(count, 4, 4)
        arrays[pattern.format(part="y", split=split)] = np.arange(count) % 3
    data = load(arrays, validation_share=0.1, test_share=0.2)
    assert [len(split) for split in (data.dataset.train, data.dataset.validation, data.dataset.test)] == [27, 3, 12]
    assert data.dataset.validation.class_counts() == [1, 1, 1]
    assert "validation cut from the training examples by seed 0" in data.notes


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_with_all_splits_given_nothing_is_cut(load: Load, word: str) -> None:
    arrays = {}
    for split, count in (("train", 30), (word, 9), ("test", 12)):
        arrays |= {f"x_{split}": pixels(count, 4, 4), f"y_{split}": np.arange(count) % 3}
    data = load(arrays, validation_share=0.1, test_share=0.2)
    assert np.array_equal(data.dataset.train.inputs[:, 0], arrays["x_train"])
    assert np.array_equal(data.dataset.validation.inputs[:, 0], arrays[f"x_{word}"])
    assert not any("cut" in note for note in data.notes)


def test_classes_are_matched_by_name_over_the_splits(load: Load) -> None:
    arrays = {"x_train": pixels(30, 4, 4), "y_train": np.array([5, 7, 9])[LABELS]}
    fits = {"x_test": pixels(4, 4, 4), "y_test": np.array([9, 5, 9, 9])}
    assert load(arrays | fits).dataset.test.labels.tolist() == [2, 0, 2, 2]
    with pytest.raises(UsageError, match=r"Unknown class '6'.*1 examples have this label"):
        load(arrays | fits | {"y_test": np.array([9, 6, 9, 9])})


def test_splits_of_another_type_or_shape_are_refused(load: Load) -> None:
    arrays = {"x_train": pixels(30, 4, 4), "y_train": LABELS, "y_test": LABELS}
    for x in (pixels(30, 4, 5), pixels(30, 4, 4) / 255):
        with pytest.raises(
            UsageError, match=r"All splits must have inputs of one type and shape; got uint8 \(30, 4, 4"
        ):
            load({**arrays, "x_test": x})
    with pytest.raises(UsageError, match=r"labels of one type and shape; got int64 \(30,\) \(train\), float64"):
        load({**arrays, "x_test": pixels(30, 4, 4), "y_test": LABELS * 0.5})


def test_a_cut_depends_on_the_seed_and_parts_the_examples(load: Load) -> None:
    arrays = {"x": np.arange(100.0), "y": np.arange(100) % 4}

    def places(seed: int) -> list[list[float]]:
        data = load(arrays, seed=seed, validation_share=0.1, test_share=0.2).dataset
        return [split.inputs[:, 0].tolist() for split in (data.train, data.validation, data.test)]

    train, validation, test = places(1)
    assert sorted(train + validation + test) == list(range(100))
    assert [len(train), len(validation), len(test)] == [72, 8, 20]  # round(25 * 0.2) = 5, round(20 * 0.125) = 2 a class
    assert places(1) == [train, validation, test]
    assert places(2)[2] != test


# Files


def test_an_npy_file_takes_its_labels_from_beside_it(tmp_path: Path) -> None:
    x = pixels(30, 4, 4)
    np.save(tmp_path / "train.npy", x)
    with pytest.raises(UsageError, match=r"expected their labels beside it as train_labels\.npy or y\.npy.*np\.savez"):
        load_array(tmp_path / "train.npy", seed=0)
    np.save(tmp_path / "y.npy", np.roll(LABELS, 1))
    data = load_array(tmp_path / "train.npy", seed=0, validation_share=0, test_share=0).dataset
    assert np.array_equal(data.train.inputs[:, 0], x)
    assert data.train.labels.tolist() == np.roll(LABELS, 1).tolist()
    np.save(tmp_path / "train_labels.npy", LABELS)
    assert load_array(tmp_path / "train.npy", seed=0, test_share=0, validation_share=0).dataset.train.labels[0] == 0


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("is_pair", [True, False])
def test_tensors_load_as_the_same_arrays_do(tmp_path: Path, load: Load, suffix: str, is_pair: bool) -> None:
    x, y = torch.from_numpy(pixels(30, 3, 4, 4)), LABELS_TENSOR
    torch.save(
        (x, y) if is_pair else {"images": x, "labels": y, "class_names": ["a", "b", "c"]}, tmp_path / f"a{suffix}"
    )
    data = load_array(tmp_path / f"a{suffix}", seed=2).dataset
    same = load({"x": x, "y": y}, seed=2, validation_share=0.1, test_share=0.2).dataset
    assert torch.equal(data.test.inputs, same.test.inputs)
    assert torch.equal(data.test.labels, same.test.labels)
    assert data.class_names == (("0", "1", "2") if is_pair else ("a", "b", "c"))


def test_tensors_in_bfloat16_and_with_gradients_are_read(tmp_path: Path) -> None:
    x = torch.randn(30, 2, 6).bfloat16().requires_grad_()
    torch.save((x, LABELS_TENSOR), tmp_path / "a.pt")
    data = load_array(tmp_path / "a.pt", seed=0, validation_share=0, test_share=0).dataset
    assert torch.equal(data.train.inputs, x.detach().float())
    assert not data.train.inputs.requires_grad


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(2)] * 3, "a dict of tensors with the keys x and y, or a pair.*; got list"),
        (torch.ones(2), "got Tensor"),
        ({"x": [1, 2], "y": torch.ones(2)}, "'x': expected a plain, dense tensor; got list. Bring all to one shape"),
        ({"x": [torch.ones(2, 2), torch.ones(3, 3)], "y": torch.ones(2)}, "got list of tensors of 2 shapes. Bring"),
        ({"x": torch.eye(3).to_sparse(), "y": torch.ones(3)}, "'x': expected a plain, dense tensor"),
    ],
)
def test_another_content_of_a_torch_file_is_refused(tmp_path: Path, content: object, told: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=told):
        load_array(tmp_path / "a.pt", seed=0)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_the_hostile_object_of_these_tests_acts_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


def hostile_array(path: Path) -> NDArray[Any]:
    array = np.empty(30, dtype=object)
    array[:] = [Hostile(path)] * 30
    return array


@pytest.mark.parametrize("key", ["x", "y", "class_names"])
def test_an_object_array_in_an_archive_is_refused_and_nothing_runs(tmp_path: Path, key: str) -> None:
    arrays = {"x": pixels(30, 4, 4), "y": LABELS, "class_names": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "a.npz", **{**arrays, key: hostile_array(tmp_path / "ran")})
    with pytest.raises(WorkError, match=rf"a\.npz, '{key}': expected an array of numbers; got one of Python objects"):
        load_array(tmp_path / "a.npz", seed=0)
    assert not (tmp_path / "ran").exists()


def test_an_object_array_that_is_not_used_stops_nothing_and_does_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=pixels(30, 4, 4), y=LABELS, notes=hostile_array(tmp_path / "ran"))
    assert len(load_array(tmp_path / "a.npz", seed=0).dataset.train) == 21
    assert not (tmp_path / "ran").exists()


def test_images_of_mixed_sizes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    images = np.empty(30, dtype=object)
    images[:] = [pixels(4 + index % 2, 4) for index in range(30)]
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(WorkError, match="images of mixed sizes.*Bring all to one size and save a plain array"):
        load_array(tmp_path / "x.npy", seed=0)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_a_pickle_under_another_name_is_refused_and_nothing_runs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pickle.dumps({"x": Hostile(tmp_path / "ran")}))
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(WorkError, match=r"a\.\w+: expected .*; got pickled Python objects.*nothing in them was run"):
        load_array(path, seed=0)
    assert not (tmp_path / "ran").exists()


def test_a_torch_file_with_an_object_is_refused_by_the_objects_name_and_nothing_runs(tmp_path: Path) -> None:
    torch.save({"x": Hostile(tmp_path / "ran"), "y": LABELS_TENSOR}, tmp_path / "a.pt")
    with pytest.raises(WorkError, match=r"got pickled Python objects \((posix|nt|os)\.mkdir\)\. They are refused"):
        load_array(tmp_path / "a.pt", seed=0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
def test_a_file_cut_anywhere_is_refused_by_its_path(tmp_path: Path, suffix: str) -> None:
    path, x = tmp_path / f"a{suffix}", torch.from_numpy(pixels(30, 2, 2))
    np.save(tmp_path / "y.npy", LABELS)
    if suffix == ".npz":
        np.savez(path, x=x, y=LABELS)
    elif suffix == ".npy":
        np.save(path, x)
    else:
        torch.save((x, LABELS_TENSOR), path)
    whole = path.read_bytes()
    for length in [0, 1, 5, 9, *range(11, len(whole), len(whole) // 25)]:
        path.write_bytes(whole[:length])
        with pytest.raises(WorkError, match=re.escape(str(path))):
            load_array(path, seed=0)


def test_a_header_that_promises_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000000, 4), }".ljust(117) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"1234")
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(WorkError, match=r"x\.npy: expected a whole \.npy array; it is damaged or cut short"):
        load_array(tmp_path / "x.npy", seed=0)


def test_a_file_that_is_absent_or_a_folder_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="expected a file of arrays; got no such file"):
        load_array(tmp_path / "none.npz", seed=0)
    with pytest.raises(WorkError, match="expected a file of arrays; got a folder"):
        load_array(tmp_path, seed=0)
    (tmp_path / "a.mat").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"ends in \.npz, \.npy, \.pt, \.pth; got '\.mat'"):
        load_array(tmp_path / "a.mat", seed=0)


def test_arrays_in_column_order_or_of_another_byte_order_read_the_same(load: Load) -> None:
    x = RANDOM.normal(size=(30, 3, 5)).astype(np.float32)
    plain = load({"x": x, "y": LABELS}).dataset.fingerprint()
    assert load({"x": np.asfortranarray(x), "y": LABELS}).dataset.fingerprint() == plain
    assert load({"x": x.astype(">f4"), "y": LABELS.astype(">i8")}).dataset.fingerprint() == plain


def test_floats_that_could_be_images_are_numbers_and_it_is_said_how_to_save_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, shape in (("first", (40, 3, 8, 8)), ("last", (40, 8, 8, 3)), ("other", (40, 5, 8, 8))):
        np.savez(tmp_path / f"{name}.npz", x=generator.random(shape, dtype=np.float32), y=np.arange(40) % 2)
        data = load_array(tmp_path / f"{name}.npz", seed=0)
        assert not data.dataset.train.is_image
        assert ("if they are images, save them as uint8" in data.notes[0]) == (name != "other")


def test_text_under_the_name_of_a_torch_file_is_damaged_and_no_number_is_given_as_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("hi")
    with pytest.raises(WorkError, match=r"it is damaged or cut short \([A-Za-z]{3,}.*\)\. Copy it again"):
        load_array(tmp_path / "x.pt", seed=0)
