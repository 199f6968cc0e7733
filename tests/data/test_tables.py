from __future__ import annotations

import csv
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch

from glassnet import UsageError
from glassnet._errors import WorkError
from glassnet.data.tables import ColumnEncoding, TableData, TableEncoding, load_table

Load = Callable[..., TableData]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a text and load it, all rows to train unless shares are given."""

    def write_and_load(text: str | bytes, **options: object) -> TableData:
        path = tmp_path / "flowers.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_table(path, **{"seed": 0, "validation_share": 0, "test_share": 0, **options})  # type: ignore[arg-type]

    return write_and_load


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


FLOWERS = """height,colour,site,kind
1.5,red,north,rose
2.5,white,south,lily
,red,,rose
4,yellow,north,lily
"""


def test_a_small_table_is_encoded_as_worked_out_by_hand(load: Load) -> None:
    data = load(FLOWERS)
    assert data.encoding.feature_names == (
        *("height", "colour=red", "colour=white", "colour=yellow"),
        *("site=missing", "site=north", "site=south"),
    )
    assert data.dataset.train.inputs.tolist() == [
        [1.5, 1, 0, 0, 0, 1, 0],
        [2.5, 0, 1, 0, 0, 0, 1],
        [2.5, 1, 0, 0, 1, 0, 0],  # 2.5 is the median of 1.5, 2.5 and 4
        [4.0, 0, 0, 1, 0, 1, 0],
    ]
    assert data.dataset.class_names == ("lily", "rose")
    assert data.dataset.train.labels.tolist() == [1, 0, 1, 0]
    assert data.dataset.name == "flowers"
    assert data.set_aside == ()


def test_the_notes_say_what_was_understood(load: Load) -> None:
    data = load(FLOWERS)
    assert data.notes == (
        "4 rows of 4 columns, divided by commas",
        "the target is 'kind', the last column; another by target=",
        "classification, as the target is text: 2 classes, to train: lily (2), rose (2)",
        "column 'height': missing in 1 of 4 rows: filled with 2.5, the median to train",
        "column 'site': missing in 1 of 4 rows: a category of its own",
        "4 rows to train, 0 to validate, 0 to test, divided at random",
    )
    assert [
        (column.name, column.role, column.kind, column.num_missing, column.num_distinct) for column in data.columns
    ] == [
        ("height", "input", "numeric", 1, 3),
        ("colour", "input", "categorical", 0, 3),
        ("site", "input", "categorical", 1, 2),
        ("kind", "target", "categorical", 0, 2),
    ]


# Reading


@pytest.mark.parametrize(("delimiter", "word"), [(",", "comma"), (";", "semicolon"), ("\t", "tab")])
def test_each_delimiter_reads_the_same(load: Load, delimiter: str, word: str) -> None:
    data = load(FLOWERS.replace(",", delimiter))
    assert data.dataset.fingerprint() == load(FLOWERS).dataset.fingerprint()
    assert data.notes[0] == f"4 rows of 4 columns, divided by {word}s"


def test_a_delimiter_inside_quotes_or_text_does_not_mislead(load: Load) -> None:
    data = load('"a;b","text; with; many"\n1,"x;y;z"\n2,"u, ""v"""\n3,"x;y;z"\n4,"u, ""v"""\n')
    assert [column.name for column in data.columns] == ["a;b", "text; with; many"]
    assert data.dataset.class_names == ('u, "v"', "x;y;z")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\n\n").encode(),
        lambda text: text.replace(",", " , ").encode(),
        lambda text: text.removesuffix("\n").encode(),
        lambda text: text.replace("red", '"red"').encode(),
    ],
    ids=["BOM", "UTF-16", "CRLF", "CR", "blank lines", "spaces", "no last newline", "quotes"],
)
def test_the_same_table_written_otherwise_reads_the_same(load: Load, change: Callable[[str], bytes]) -> None:
    data = load(change(FLOWERS))
    assert data.dataset.fingerprint() == load(FLOWERS).dataset.fingerprint()
    assert data.encoding == load(FLOWERS).encoding


def test_a_cell_may_hold_a_line_break_and_lines_are_still_counted_right(load: Load) -> None:
    data = load('x,note,y\n1,"two\nlines",a\n2,one,b\nbad\n3,one,a\n4,one,b\n')
    assert len(data.dataset.train) == 4
    assert [(row.source, row.reason) for row in data.set_aside] == [
        ("line 5", "expected 3 cells, as in the header; got 1")
    ]


def test_a_quote_that_never_closes_is_told_with_the_lines_it_swallows(load: Load) -> None:
    data = load(FLOWERS + FLOWERS.split("\n", 1)[1] + '5,"red,north,rose\n6,red,north,lily\n')
    assert len(data.dataset.train) == 8
    assert [row.source for row in data.set_aside] == ["line 10"]
    assert data.set_aside[0].reason == "a quote is opened and never closed, up to line 11"


def test_text_of_another_encoding_is_refused_with_the_line(load: Load) -> None:
    with pytest.raises(WorkError, match=r"flowers\.csv: Expected text as UTF-8; got the byte 0xfc in line 2"):
        load("x,y\nGrün,b\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("x,y\n", "Expected rows of 2 cells, as in the header; got none. Correct"),
        ("x,y\n1,2,3\n", "got none: line 2: expected 2 cells, as in the header; got 3. Correct the table"),
        ("x\n1\n2\n", r"a header of two columns at least, divided by comma, semicolon, tab; got \['x'\]"),
        ("x,x,y\n1,2,a\n2,3,b\n", "names that differ; 'x' stands twice"),
    ],
)
def test_a_file_without_table_is_refused_with_what_is_absent(load: Load, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load(text)


def test_a_binary_file_a_folder_and_an_absent_file_are_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="expected a table as text; got binary data|Expected a table as text"):
        load(b"PK\x03\x04\x00\x00,\n")
    with pytest.raises(WorkError, match="Expected a table that can be read; got Is a directory"):
        load_table(tmp_path, seed=0)
    with pytest.raises(WorkError, match=r"none\.csv: Expected a table that can be read; got No such file"):
        load_table(tmp_path / "none.csv", seed=0)


@pytest.mark.parametrize(
    "text",
    [
        "5.1,3.5,setosa\n4.9,3.0,setosa\n6.2,2.9,other\n5.9,3.0,other\n",
        "0,0,0\n0,1,1\n1,0,1\n1,1,0\n",
        "39,State,?\n50,Self,12\n38,State,13\n53,Self,10\n",
        "p,x,s\ne,x,y\np,b,s\ne,x,y\np,x,y\n",
    ],
)
def test_a_table_without_header_is_recognised_and_refused_with_the_remedy(load: Load, text: str) -> None:
    with pytest.raises(UsageError, match=r"Expected a header.*looks like data: .*Put the names before it"):
        load(text)


@pytest.mark.parametrize("header", ["2019,2020,2021,kind", "0,1,2,kind", "f1,2,f3,kind", "a b,ß,x.y,kind"])
def test_a_header_of_years_or_counted_names_is_a_header(load: Load, header: str) -> None:
    assert len(load(f"{header}\n5,6,8,a\n7,7,7,b\n1,2,9,a\n").dataset.train) == 3


def test_a_hundred_thousand_rows_load_in_a_second_or_two(load: Load) -> None:
    chance = random.Random(0)
    lines = [
        f"{chance.random():.4f},{chance.random():.4f},{chance.choice('abcde')},{chance.choice('xyz')},{chance.choice('uv')}"
        for _ in range(2000)
    ]
    text = "a,b,c,d,y\n" + "\n".join(lines * 50)
    start = time.process_time()
    data = load(text)
    assert time.process_time() - start < 5, "it takes about half a second of an idle processor"
    assert data.dataset.train.inputs.shape == (100_000, 10)


# The target and the task


def table(targets: list[str]) -> str:
    return "x,y\n" + "".join(f"{index * 0.37:.2f},{target}\n" for index, target in enumerate(targets))


@pytest.mark.parametrize(
    ("targets", "named", "classes"),
    [
        ("yes no", "yes no", "no yes"),
        ("True False", "True False", "False True"),
        ("0 1 2", "0 1 2", "0 1 2"),
        ("10 9 -1", "10 9 -1", "-1 9 10"),
        ("1.0 0.0 1", "1 0 1", "0 1"),
        ("1.0e+00 2.0e+00", "1 2", "1 2"),
        ("01 02 a b", "01 02 a b", "01 02 a b"),
        (" ".join(map(str, range(20))), " ".join(map(str, range(20))), " ".join(map(str, range(20)))),
    ],
)
def test_text_and_few_whole_numbers_make_it_classification(load: Load, targets: str, named: str, classes: str) -> None:
    data = load(table(targets.split() * 2)).dataset
    assert data.class_names == tuple(classes.split())
    assert [data.class_names[label] for label in data.train.labels] == named.split() * 2


@pytest.mark.parametrize(
    "targets",
    [
        ["0.5", "1.5"] * 5,
        [str(number) for number in range(21)] * 2,
        ["100", "250", "300", "420"],
        ["1e3", "2000", "-3.5e-2"] * 3,
    ],
)
def test_other_numbers_make_it_regression(load: Load, targets: list[str]) -> None:
    data = load(table(targets))
    assert data.dataset.train.is_regression
    assert data.dataset.train.labels.dtype == torch.float32
    assert data.dataset.train.labels.tolist() == pytest.approx([float(target) for target in targets])


def test_the_note_says_which_rule_made_the_task(load: Load) -> None:
    assert "classification, as the target has 3 different whole numbers: 3 classes, to train: 0 (2), 1 (2), 2 (2)" in (
        load(table(["0", "1", "2"] * 2)).notes
    )
    told = "regression, as the target has 2 different numbers, not all whole: values from 0.5 to 1"
    assert told in load(table(["0.5", "1"] * 3)).notes


def test_the_task_can_be_asked_for(load: Load) -> None:
    whole, halves = table(["0", "1", "2"] * 3), table(["0.5", "1.5"] * 3)
    assert load(whole, task="regression").dataset.train.labels.tolist() == [0, 1, 2] * 3
    assert load(halves, task="classification").dataset.class_names == ("0.5", "1.5")
    with pytest.raises(
        UsageError, match=r"Expected numbers in the target column 'y' for regression; got text, such as 'a'"
    ):
        load(table(["a", "b"] * 3), task="regression")
    with pytest.raises(UsageError, match="Unknown task 'classify'. Did you mean 'classification'"):
        load(whole, task="classify")


def test_a_word_among_numbers_is_a_class_only_where_classes_are_asked_for(load: Load) -> None:
    text = table(["0", "1"] * 5 + ["other"])
    inferred = load(text)
    assert inferred.dataset.class_names == ("0", "1")
    assert [(row.source, row.reason) for row in inferred.set_aside] == [
        ("line 12", "column 'y': expected a number, got 'other'")
    ]
    assert load(text, task="classification").dataset.class_names == ("0", "1", "other")


def test_any_column_can_be_the_target(load: Load) -> None:
    data = load(FLOWERS, target="colour", task="classification")
    assert data.dataset.class_names == ("red", "white", "yellow")
    assert data.target == "colour"
    assert "the target is 'colour'" in data.notes
    assert [column.name for column in data.encoding.columns] == ["height", "site", "kind"]
    with pytest.raises(UsageError, match=r"flowers\.csv: Unknown column 'color'. Did you mean 'colour'"):
        load(FLOWERS, target="color")


def test_a_last_column_without_values_is_not_taken_for_the_target(load: Load) -> None:
    data = load("x,y,\n1,a,\n2,b,\n3,a,\n")
    assert data.target == "y"
    assert data.columns[2].role == "left out"
    with pytest.raises(UsageError, match="values in the column to predict; 'column 3' has none"):
        load("x,y,\n1,a,\n2,b,\n3,a,\n", target="column 3")


def test_a_target_whose_values_all_differ_names_rows_not_classes(load: Load) -> None:
    with pytest.raises(UsageError, match="Expected classes in the target column 'y'; all 5 values differ"):
        load(table(["Ann", "Bob", "Cat", "Dan", "Eve"]))
    with pytest.raises(UsageError, match="all 3 values differ; they look like numbers with decimal commas"):
        load("x;y\n1;1,5\n2;2,5\n3;3,25\n")


def test_one_class_only_is_refused(load: Load) -> None:
    with pytest.raises(UsageError, match="two classes at least in the target column 'y'.*all rows have 'a'"):
        load(table(["a"] * 5))


def test_a_constant_value_to_predict_is_told(load: Load) -> None:
    assert any("values from 0.5 to 0.5, all the same" in note for note in load(table(["0.5"] * 5)).notes)


# Columns


def test_missing_words_are_recognised_in_any_case(load: Load) -> None:
    cells = ["", "NA", "na", "NaN", "null", "NULL", "?", "N/A", "1", "3"]
    data = load("x,y\n" + "".join(f"{cell},{'ab'[index % 2]}\n" for index, cell in enumerate(cells)))
    assert data.columns[0].num_missing == 8
    assert data.dataset.train.inputs.flatten().tolist() == [2.0] * 8 + [1.0, 3.0]


def test_the_median_and_the_categories_are_those_of_the_training_rows(load: Load) -> None:
    text = "x,c,y,split\n1,a,u,train\n2,b,v,train\n9,a,u,train\n,a,v,train\n1000,z,u,test\n,b,v,test\n1000,,u,val\n"
    data = load(text)
    assert data.encoding.columns[0].fill == median([1, 2, 9])
    assert data.encoding.columns[1].categories == ("a", "b")
    assert data.dataset.test.inputs.tolist() == [[1000, 0, 0], [2, 0, 1]]
    assert data.dataset.validation.inputs.tolist() == [[1000, 0, 0]]
    assert "column 'c': categories that no training row has become zeros: 'z' (1), 'missing' (1)" in data.notes


def test_a_word_in_a_column_of_numbers_sets_its_row_aside_by_line_and_column(load: Load) -> None:
    lines = [f"{index},{'uv'[index % 2]}" for index in range(8)]
    lines[5] = "five,v"
    data = load("x,y\n" + "\n".join(lines))
    assert [(row.source, row.reason) for row in data.set_aside] == [
        ("line 7", "column 'x': expected a number, got 'five'")
    ]
    assert data.dataset.train.inputs.flatten().tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert "set aside 1 of 8 rows: line 7: column 'x': expected a number, got 'five'" in data.notes


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e39", "1_000", "1,5", "0x10", "1e999"])
def test_what_is_no_finite_number_of_32_bits_is_no_number(load: Load, cell: str) -> None:
    data = load(f'x,y\n1,a\n2,b\n3,a\n4,b\n"{cell}",a\n')
    assert [row.source for row in data.set_aside] == ["line 6"]


def test_a_column_with_one_word_in_four_is_one_of_categories(load: Load) -> None:
    data = load("x,y\n1,a\n2,b\n3,a\nlow,b\n")
    assert data.encoding.columns[0].categories == ("1", "2", "3", "low")
    assert data.set_aside == ()


def test_rows_with_other_numbers_of_cells_or_no_target_are_set_aside_and_counted(load: Load) -> None:
    data = load("x,y\n1,a\n2\n3,b,c\n4,\n5,?\n6,a\n7,b\n")
    assert [(row.source, row.reason) for row in data.set_aside] == [
        ("line 3", "expected 2 cells, as in the header; got 1"),
        ("line 4", "expected 2 cells, as in the header; got 3"),
        ("line 5", "no value in the target column 'y'"),
        ("line 6", "no value in the target column 'y'"),
    ]
    assert data.dataset.train.inputs.flatten().tolist() == [1, 6, 7]
    assert any(note.startswith("set aside 4 of 7 rows (2 without a target): line 3: ") for note in data.notes)


def test_where_no_row_is_left_the_first_reason_is_told(load: Load) -> None:
    text = "x,split,y\n" + "".join(f"{index},elsewhere,a\n" for index in range(4)) + "9,test,\n"
    with pytest.raises(WorkError, match=r"all 5 had to be set aside, such as line 2: column 'split': expected train"):
        load(text)


def test_constant_columns_are_told(load: Load) -> None:
    data = load("x,c,k,m,y\n1,red,7,7,a\n2,red,7,,b\n3,red,7,7,a\n")
    told = [column.name for column in data.columns if "constant: it tells nothing" in column.remarks]
    assert told == ["c", "k", "m"]
    assert "column 'k': constant: it tells nothing" in data.notes


def test_columns_of_no_use_are_left_out_and_told_why(load: Load) -> None:
    lines = [f"{index + 1},{index * index % 7},person {index},,{'ab'[index % 2]}" for index in range(150)]
    data = load("PassengerId,x,name,nothing,y\n" + "\n".join(lines))
    assert data.encoding.feature_names == ("x",)
    assert {column.name: column.remarks for column in data.columns if column.role == "left out"} == {
        "PassengerId": ("left out: it counts the rows",),
        "name": ("left out: it is text with 150 different values (at most 100)",),
        "nothing": ("left out: it has no values",),
    }
    with pytest.raises(UsageError, match="beside the target 'y' to predict it from; 'id': it counts the rows"):
        load("id,y\n1,a\n2,b\n3,a\n")


def test_a_column_that_counts_but_is_not_named_for_it_is_an_input(load: Load) -> None:
    assert load("time,y\n1,a\n2,b\n3,a\n").encoding.feature_names == ("time",)


def test_decimal_commas_are_told(load: Load) -> None:
    data = load("x;y\n1,5;a\n2,5;b\n3,25;a\n")
    assert "column 'x': they look like numbers with decimal commas: save them with points" in data.notes


# Splits


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Validation", "TEST")])
def test_a_split_column_is_honoured_and_is_no_input(load: Load, words: tuple[str, str, str]) -> None:
    rows = [(index, "ab"[index % 2], words[0 if index < 6 else 1 + index % 2]) for index in range(12)]
    text = "x,y,split\n" + "".join(f"{x},{y},{split}\n" for x, y, split in rows)
    data = load(text, validation_share=0.1, test_share=0.2)
    assert data.target == "y"
    assert data.dataset.train.inputs.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert data.dataset.validation.inputs.flatten().tolist() == [6, 8, 10]
    assert data.dataset.test.inputs.flatten().tolist() == [7, 9, 11]
    assert "validation has no example of b" in data.notes
    assert data.columns[2].role == "split"


def test_a_split_that_is_not_marked_is_cut_from_the_training_rows(load: Load) -> None:
    text = "x,y,split\n" + "".join(f"{x},{'ab'[x % 2]},{'train' if x < 40 else 'test'}\n" for x in range(50))
    data = load(text, validation_share=0.1, test_share=0.2).dataset
    assert [len(data.train), len(data.validation), len(data.test)] == [36, 4, 10]
    assert data.validation.class_counts() == [2, 2]
    assert float(data.validation.inputs.max()) < 40


def test_a_foreign_word_for_a_split_sets_its_row_aside(load: Load) -> None:
    data = load("x,split,y\n1,train,a\n2,train,b\n3,banana,a\n4,,a\n")
    assert [row.reason for row in data.set_aside] == [
        "column 'split': expected train, validation or test, got 'banana'",
        "column 'split': expected train, validation or test, got ''",
    ]


def test_a_column_named_split_of_other_words_is_an_input(load: Load) -> None:
    assert load("split,y\nbanana,a\ncream,b\nbanana,a\n").encoding.feature_names == ("split=banana", "split=cream")


def test_a_table_that_marks_nothing_to_train_is_refused(load: Load) -> None:
    with pytest.raises(UsageError, match="rows to train on; the column 'split' marks none with train"):
        load("x,split,y\n1,test,a\n2,test,b\n3,test,a\n")


def test_a_class_that_no_training_row_has_is_refused_by_name(load: Load) -> None:
    with pytest.raises(UsageError, match=r"Unknown class 'c'.*1 examples have this label"):
        load("x,split,y\n1,train,a\n2,train,b\n3,test,c\n4,test,a\n5,train,a\n")


def test_a_cut_takes_a_share_of_each_class_by_seed(load: Load) -> None:
    text = table(["a"] * 60 + ["b"] * 40)
    data = load(text, validation_share=0.1, test_share=0.2)
    train, validation, test = data.dataset.train, data.dataset.validation, data.dataset.test
    assert [split.class_counts() for split in (train, validation, test)] == [[42, 28], [6, 4], [12, 8]]
    every = torch.cat([split.inputs for split in (train, validation, test)]).flatten()
    assert every.sort().values.tolist() == pytest.approx([round(index * 0.37, 2) for index in range(100)])
    again, other = (load(text, validation_share=0.1, test_share=0.2, seed=seed).dataset for seed in (0, 1))
    assert again.fingerprint() == data.dataset.fingerprint() != other.fingerprint()


# The encoding


def test_new_rows_are_encoded_as_the_table_was_also_after_a_journey_through_json(load: Load) -> None:
    data = load(FLOWERS)
    encoding = TableEncoding.from_dict(json.loads(json.dumps(data.encoding.to_dict())))
    assert encoding == data.encoding
    inputs, set_aside = encoding.encode(rows_of(FLOWERS))
    assert torch.equal(inputs, data.dataset.train.inputs)
    assert inputs.dtype == torch.float32
    assert set_aside == ()


def test_new_rows_are_filled_zeroed_and_set_aside_by_the_record(load: Load) -> None:
    encoding = load(FLOWERS).encoding
    inputs, set_aside = encoding.encode(
        [
            {"height": " 3 ", "colour": "green", "site": "south", "more": "x"},
            {"height": "tall", "colour": "red", "site": "north"},
            {"height": "?", "colour": "white", "site": "NA"},
            {"height": "1", "colour": "red"},
        ]
    )
    assert inputs.tolist() == [[3, 0, 0, 0, 0, 0, 1], [2.5, 0, 1, 0, 1, 0, 0]]
    assert [(row.source, row.reason) for row in set_aside] == [
        ("row 1", "column 'height': expected a number, got 'tall'"),
        ("row 3", "expected a cell for column 'site'; the row has none"),
    ]


def test_no_rows_are_encoded_as_no_inputs(load: Load) -> None:
    assert load(FLOWERS).encoding.encode([])[0].shape == (0, 7)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"columns": [{"name": "x"}]},
        {"columns": [{"name": "x", "kind": "numeric", "fill": 1.0, "colour": "red"}]},
        {"columns": 3},
    ],
)
def test_a_stored_encoding_with_something_absent_or_foreign_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="Expected the encoding of a table, columns with name, kind"):
        TableEncoding.from_dict(values)


def test_an_encoding_that_makes_no_sense_is_refused() -> None:
    for options in (
        {"kind": "numeric"},
        {"kind": "numeric", "fill": 0.0, "categories": ("a",)},
        {"kind": "categorical"},
        {"kind": "categorical", "categories": ("a", "a")},
        {"kind": "ordinal", "categories": ("a",)},
    ):
        with pytest.raises(UsageError, match="Column 'x' must be numeric with a fill, or categorical with categories"):
            ColumnEncoding(name="x", **options)  # type: ignore[arg-type]
    numeric = ColumnEncoding(name="x", kind="numeric", fill=0.0)
    for columns in ((), (numeric, numeric)):
        with pytest.raises(UsageError, match="at least one column, each with a name of its own"):
            TableEncoding(columns=columns)


def test_a_list_of_images_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("".join(f"{row}.jpg,{'xy'[row % 2]}\n" for row in range(20)))
    with pytest.raises(UsageError, match=r"got what looks like data: 0\.jpg, x\. .*such as filename,label"):
        load_table(tmp_path / "list.csv", seed=0)


def test_a_column_that_names_images_is_pointed_out_among_the_inputs_of_a_table(tmp_path: Path) -> None:
    rows = [f"{row}.jpg,{row * 1.5},{'xy'[row % 2]}" for row in range(20)]
    (tmp_path / "rows.csv").write_text("\n".join(["photo,age,kind", *rows]))
    notes = load_table(tmp_path / "rows.csv", seed=0).notes
    assert [note for note in notes if "only the names are read" in note and note.startswith("column 'photo'")]
    assert not [note for note in notes if "only the names" in note and "photo" not in note]
