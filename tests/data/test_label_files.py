"""A CSV of labels: every row is used, repeated, or named with what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassnet._errors import UsageError, WorkError
from glassnet.data.label_files import (
    LabelledFiles,
    counted,
    find_label_file,
    is_label_file,
    listed,
    printable,
    read_label_file,
)

NAMES = ("a.png", "b.png", "c.png", "sub/d.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")  # labels are read without opening an image
    return tmp_path


def read(folder: Path, text: str | bytes, name: str = "labels.csv") -> LabelledFiles:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_label_file(path, sorted(folder.rglob("*.png")))


def told(found: LabelledFiles, folder: Path) -> dict[str, str]:
    return {file.path.relative_to(folder).as_posix(): file.label for file in found.files}


def reasons(found: LabelledFiles) -> dict[str, str]:
    return {item.source: item.reason for item in found.set_aside}


ALL = {"a.png": "x", "b.png": "y", "c.png": "x", "sub/d.png": "y"}


@pytest.mark.parametrize(
    "text",
    [
        "filename,label\na.png,x\nb.png,y\nc.png,x\nsub/d.png,y\n",
        "\ufeffFile;Class\r\na.png;x\r\nb.png;y\r\nc.png;x\r\nsub/d.png;y",
        "id\tTARGET\timage\n1\tx\ta.png\n2\ty\tb.png\n3\tx\tc.png\n4\ty\tsub/d.png\n",
        '\n\nlabel, Path \n x , a.png \n"y","b.png"\n\nx,./c.png\ny,sub\\d.png\n,\n',
    ],
    ids=["comma", "semicolon with byte order mark", "tab", "blanks, quotes and backslashes"],
)
def test_a_label_file_is_understood_as_people_write_it(folder: Path, text: str) -> None:
    found = read(folder, text)
    assert told(found, folder) == ALL
    assert found.set_aside == ()
    assert found.notes == ()
    assert {file.split for file in found.files} == {""}
    assert found.layout == "images labelled by labels.csv"


def test_splits_are_taken_from_their_column_by_any_of_their_names(folder: Path) -> None:
    found = read(folder, "split,file,label\nTrain,a.png,x\nval,b.png,y\nvalid,c.png,x\n test ,sub/d.png,y\n")
    assert [file.split for file in found.files] == ["train", "validation", "validation", "test"]
    assert found.layout == "images labelled by labels.csv, which gives the splits"


@pytest.mark.parametrize(
    ("word", "text"),
    [("trian", r"Unknown split 'trian'\. Did you mean 'train'.*line 3 of .*labels.csv, for b\.png"), ("", "split ''")],
)
def test_an_unknown_split_is_an_error_with_its_line(folder: Path, word: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read(folder, f"file,label,split\na.png,x,train\nb.png,y,{word}\n")


def test_missing_files_are_set_aside_by_name(folder: Path) -> None:
    found = read(folder, "file,label\na.png,x\ngone.png,y\nsub,y\nb.png,y\n")
    assert told(found, folder) == {"a.png": "x", "b.png": "y"}
    assert reasons(found) == {
        "gone.png": "named in labels.csv, but there is no such file",
        "sub": "named in labels.csv, but it is no file",
    }


def test_a_file_in_a_folder_below_is_found_by_its_name_where_it_is_the_only_one(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "e.png").write_bytes(b"")
    (folder / "sub" / "e.png").write_bytes(b"")
    found = read(folder, "file,label\nd.png,x\ne.png,y\n")
    assert told(found, folder) == {"sub/d.png": "x"}
    assert reasons(found) == {
        "e.png": "named in labels.csv, but 2 files have that name in folders below: name the folder too"
    }
    assert found.notes[0] == "1 row of labels.csv: the file was found by its name in a folder below."


def test_an_absolute_path_is_used_as_it_is(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "z.png"
    elsewhere.write_bytes(b"")
    found = read(folder, f"path,label\n{elsewhere},x\n")
    assert [file.path for file in found.files] == [elsewhere]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("gone.png,x", r"none of its 1 row leads to one \('gone.png': .*no such file\)\. Put"),
        ("a,x", "There is 'a.png'"),
    ],
)
def test_a_label_file_none_of_whose_files_is_there_is_an_error(folder: Path, row: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read(folder, f"file,label\n{row}\n")


def test_a_repeated_row_counts_once_and_is_said(folder: Path) -> None:
    found = read(folder, "file,label\na.png,x\na.png,x\n./a.png,x\nb.png,y\n")
    assert told(found, folder) == {"a.png": "x", "b.png": "y"}
    assert found.notes[0] == "labels.csv gives 1 file the same label more than once; each counts once: 'a.png'."


def test_a_file_with_contradicting_labels_is_set_aside_with_the_lines(folder: Path) -> None:
    found = read(folder, "file,label\na.png,x\nb.png,y\na.png,x\nsub/../a.png,y\n")
    assert told(found, folder) == {"b.png": "y"}
    assert reasons(found) == {"a.png": "contradicting labels: 'x' in line 2, 'y' in line 5"}


def test_a_file_in_two_splits_is_set_aside(folder: Path) -> None:
    found = read(folder, "file,label,split\na.png,x,train\na.png,x,test\nb.png,y,train\n")
    assert reasons(found) == {"a.png": "contradicting labels: 'x' in train in line 2, 'x' in test in line 3"}


def test_rows_that_say_too_little_are_set_aside_by_line(folder: Path) -> None:
    found = read(folder, "file,label\na.png\nb.png, \n,x\nc.png,x\n")
    assert told(found, folder) == {"c.png": "x"}
    assert reasons(found) == {
        "labels.csv, line 2": "expected at least 2 cells, got 1",
        "b.png": "no label in labels.csv",
        "labels.csv, line 4": "no file name",
    }


def test_images_that_are_not_named_are_said(folder: Path) -> None:
    found = read(folder, "file,label\na.png,x\nb.png,y\n")
    assert found.notes == ("Not used, because labels.csv does not name them: 2 images, 'c.png', 'sub/d.png'.",)


def test_labels_are_compared_with_accents_composed(folder: Path) -> None:
    found = read(folder, "file,label\na.png,caf\u00e9\nb.png,cafe\u0301\n")
    assert {file.label for file in found.files} == {"caf\u00e9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,x\nb.png,y\n", r"names a column for files \(filename, file.*got 'a.png', 'x'\..*Add or rename"),
        ("filenames,labels\na.png,x\n", r"got 'filenames', 'labels'\. Did you mean 'filename', 'label'\?"),
        ("", r"got nothing\. Add"),
        ("file,label\n", r"a row for each image in .*labels\.csv; it has none below its header"),
    ],
)
def test_a_file_that_labels_nothing_is_refused_with_what_it_has(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(folder, text)


def test_a_label_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*absent\.csv"):
        read_label_file(folder / "absent.csv", [])


def test_a_label_file_in_another_encoding_is_refused_with_the_byte(folder: Path) -> None:
    with pytest.raises(WorkError, match=r"UTF-8 text; got byte 0xe9 .*Save it again as 'CSV UTF-8'"):
        read(folder, "file,label\na.png,caf\u00e9\n".encode("latin-1"))


def test_a_label_file_that_may_not_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(WorkError, match=r"labels\.csv may not be read \(permission denied\)\. Change"):
        read(folder, "file,label\na.png,x\n")


def test_a_cell_beyond_all_bounds_is_refused(folder: Path) -> None:
    with pytest.raises(WorkError, match=r"labels\.csv cannot be read: field larger than field limit"):
        read(folder, 'file,label\na.png,"' + "x" * 200_000 + '"\n')


def test_only_a_csv_with_both_columns_is_a_label_file(folder: Path) -> None:
    texts = {"a.csv": "file,label\n", "b.CSV": "path,other,class\n", "c.tsv": "image\ttarget\n"}
    others = {"d.csv": "height,width\n", "e.txt": "file,label\n", "f.csv": "file,split\n", "g.csv": "\0\xff"}
    for name, text in {**texts, **others}.items():
        (folder / name).write_text(text)
    assert [name for name in {**texts, **others} if is_label_file(folder / name)] == list(texts)
    assert find_label_file([folder / name for name in others]) is None
    assert find_label_file([folder / "a.csv", folder / "d.csv"]) == folder / "a.csv"
    with pytest.raises(UsageError, match=r"one CSV .*; got 2: 'a.csv', 'b.CSV'\. Name the one to use"):
        find_label_file([folder / "a.csv", folder / "b.CSV"])


def test_names_are_listed_and_counted_in_words() -> None:
    assert listed("abc") == "'a', 'b', 'c'"
    assert listed(map(str, range(1007))) == "'0', '1', '2', '3', '4' and 1,002 more"
    assert [counted(number, "class", "classes") for number in (0, 1, 1200)] == ["0 classes", "1 class", "1,200 classes"]
    assert printable("a\nb\udc80é日") == "a\ufffdb\ufffdé日"
