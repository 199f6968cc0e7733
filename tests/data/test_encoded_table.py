"""A table for a network that was trained on another: the stored record encodes it, whatever it holds itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glassnet import UsageError, WorkError
from glassnet.data.columns import ColumnEncoding, TableEncoding
from glassnet.data.encoded_table import encode_file, encode_mappings, load_encoded_table

ENCODING = TableEncoding(
    columns=(
        ColumnEncoding(name="height", kind="numeric", fill=2.5),
        ColumnEncoding(name="colour", kind="categorical", categories=("red", "white")),
    ),
    target="kind",
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_text(text: str) -> Path:
        (tmp_path / "new.csv").write_text(text)
        return tmp_path / "new.csv"

    return write_text


def test_rows_are_encoded_as_worked_out_by_hand(write: Callable[[str], Path]) -> None:
    path = write("height,colour\n1.5,red\n,white\n4,blue\n")
    rows = encode_file(path, ENCODING)
    assert rows.inputs.tolist() == [[1.5, 1, 0], [2.5, 0, 1], [4, 0, 0]]
    assert rows.inputs.dtype == torch.float32
    assert rows.sources == tuple(f"{path}, line {line}" for line in (2, 3, 4))
    assert rows.notes == (f"{path}: column 'colour': categories that no training row has become zeros: 'blue' (1)",)
    assert rows.set_aside == ()


@pytest.mark.parametrize(
    "text",
    [
        "colour,height\nred,1.5\nwhite,3\n",
        "id;kind;height;colour\n7;rose;1.5;red\n8;;3;white\n",
        "x\theight\tx\tcolour\n1\t1.5\t2\tred\n3\t3\t4\twhite\n",
    ],
    ids=["another order", "the target and a count", "columns of no use, twice"],
)
def test_order_and_further_columns_make_no_difference(write: Callable[[str], Path], text: str) -> None:
    assert encode_file(write(text), ENCODING).inputs.tolist() == [[1.5, 1, 0], [3, 0, 1]]


def test_a_table_of_one_column_is_one(write: Callable[[str], Path]) -> None:
    encoding = TableEncoding(columns=ENCODING.columns[:1])
    assert encode_file(write("height\n1\n2\n"), encoding).inputs.tolist() == [[1], [2]]


def test_rows_that_cannot_be_used_are_named_and_the_others_answered(write: Callable[[str], Path]) -> None:
    path = write("height,colour\ntall,red\n1e39,red\ninf,red\n1\n1,red,2\nnan,red\n7,white\n")
    rows = encode_file(path, ENCODING)
    assert rows.inputs.tolist() == [[2.5, 1, 0], [7, 0, 1]]
    assert [(item.source.removeprefix(f"{path}, "), item.reason) for item in rows.set_aside] == [
        ("line 2", "column 'height': expected a number, got 'tall'"),
        ("line 3", "column 'height': expected a number, got '1e39'"),
        ("line 4", "column 'height': expected a number, got 'inf'"),
        ("line 5", "expected 2 cells, as in the header; got 1"),
        ("line 6", "expected 2 cells, as in the header; got 3"),
    ]


def test_where_no_row_can_be_used_there_are_no_inputs(write: Callable[[str], Path]) -> None:
    rows = encode_file(write("height,colour\ntall,red\n"), ENCODING)
    assert rows.inputs.shape == (0, 3)
    assert rows.sources == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "new.csv: Expected a table with a header; the file is empty"),
        ("height,colour\n", "Expected rows of 2 cells, as in the header; got none"),
        ("height,color\n1,red\n", "Expected the column 'colour', which the network was trained on.*mean 'color'"),
        ("a,b\n1,red\n", "Expected the columns 'height', 'colour'.*got a header of 'a', 'b'. Add or rename it"),
        ("1.5,red\n2,white\n", "got a header of '1.5', 'red'"),
        ("height,colour,height\n1,red,2\n", "'height' stands twice"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(write: Callable[[str], Path], text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        encode_file(write(text), ENCODING)


def test_a_file_that_is_absent_or_binary_is_refused(write: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="No such file"):
        encode_file(tmp_path / "absent.csv", ENCODING)
    with pytest.raises(WorkError, match="got binary data"):
        encode_file(write("height,colour\n\0,red\n"), ENCODING)


def test_rows_given_in_python_are_encoded_like_cells() -> None:
    rows = encode_mappings(
        [
            {"height": 1.5, "colour": "red", "more": 3},
            {"height": None, "colour": "blue"},
            {"height": float("nan"), "colour": "white"},
            {"height": 3},
            {"height": "tall", "colour": "green"},
        ],
        ENCODING,
    )
    assert rows.inputs.tolist() == [[1.5, 1, 0], [2.5, 0, 0], [2.5, 0, 1]]
    assert rows.sources == ("row 0", "row 1", "row 2")
    assert [item.source for item in rows.set_aside] == ["row 3", "row 4"]
    assert rows.notes == ("column 'colour': categories that no training row has become zeros: 'blue' (1)",)


def test_another_table_is_judged_whole_by_the_record_with_its_classes_by_name(write: Callable[[str], Path]) -> None:
    path = write("kind,colour,height\nrose,red,\nlily,blue,900\nfern,red,1\n,red,1\n")
    table = load_encoded_table(path, ENCODING, ("lily", "rose"))
    assert table.dataset.test.inputs.tolist() == [[2.5, 1, 0], [900, 0, 0], [1, 1, 0]]
    assert table.dataset.test.class_names == ("lily", "rose", "fern")
    assert table.dataset.test.labels.tolist() == [1, 0, 2]
    assert (len(table.dataset.train), len(table.dataset.validation)) == (0, 0)
    assert [(item.source, item.reason) for item in table.set_aside] == [
        ("line 5", "no value in the target column 'kind'")
    ]


def test_a_split_column_is_honoured_and_a_missing_target_named(write: Callable[[str], Path]) -> None:
    path = write("height,colour,kind,split\n1,red,a,train\n2,red,b,test\n3,red,b,no\n")
    table = load_encoded_table(path, ENCODING, ("a", "b"))
    assert table.dataset.train.inputs[:, 0].tolist() == [1]
    assert table.dataset.test.inputs[:, 0].tolist() == [2]
    assert [item.source for item in table.set_aside] == ["line 4"]
    with pytest.raises(UsageError, match="Expected the column 'kind'"):
        load_encoded_table(write("height,colour\n1,red\n"), ENCODING, ("a", "b"))


def test_classes_that_look_like_numbers_are_those_of_training(write: Callable[[str], Path]) -> None:
    """`01` is a class as it stands where training had it; `1.0` is `1` where training read numbers."""
    path = write("height,colour,kind\n1,red,01\n2,red,02\n")
    assert load_encoded_table(path, ENCODING, ("01", "02")).dataset.test.labels.tolist() == [0, 1]
    path = write("height,colour,kind\n1,red,1.0\n2,red,2\n")
    assert load_encoded_table(path, ENCODING, ("1", "2")).dataset.test.labels.tolist() == [0, 1]


def test_values_to_predict_are_read_as_numbers(write: Callable[[str], Path]) -> None:
    table = load_encoded_table(write("height,colour,kind\n1,red,1\n2,red,2\n3,red,x\n"), ENCODING, ())
    assert table.dataset.test.labels.tolist() == [1, 2]
    assert [item.source for item in table.set_aside] == ["line 4"]
