"""What a run keeps of its inputs: what is written is read back equal, and what was written before still opens."""

from __future__ import annotations

import json

import pytest

from glassnet import WorkError
from glassnet.data.columns import ColumnEncoding, TableEncoding
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import record_from_json, record_to_json
from glassnet.data.standardisation import Standardisation

COLUMNS = (
    ColumnEncoding(name="größe", kind="numeric", fill=0.1 + 0.2),
    ColumnEncoding(name="c", kind="categorical", categories=("a", "missing")),
)
ENCODED = Standardisation(
    class_names=("x", "y"),
    input_shape=(3,),
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 2.0, 1 / 3),
    encoding=TableEncoding(columns=COLUMNS, target="y"),
)
NUMBERS = Standardisation(class_names=(), input_shape=(1,), mean=(0.0,), std=(1.0,))
IMAGES = Preprocessing(class_names=("x",), mode="L", size=(4, 4), mean=(0.5,), std=(0.5,), array_scale=255)


@pytest.mark.parametrize("record", [ENCODED, NUMBERS, IMAGES], ids=["table", "numbers", "images"])
def test_a_record_comes_back_equal(record: Preprocessing | Standardisation) -> None:
    assert record_from_json(record_to_json(record)) == record


def test_a_record_written_before_there_were_encodings_opens() -> None:
    text = '{"kind": "numbers", "class_names": [], "input_shape": [1], "mean": [0.0], "std": [1.0]}'
    assert record_from_json(text) == NUMBERS
    assert json.loads(record_to_json(NUMBERS)) == json.loads(text), "nothing is written where there is nothing to say"


@pytest.mark.parametrize(
    "encoding",
    [
        {"columns": [{"name": "x", "kind": "numeric", "fill": 1.0}]},
        {"columns": []},
        {"columns": [{"name": "x", "kind": "numeric", "fill": "one"}]},
        [],
        "x",
        {},
    ],
)
def test_an_encoding_that_does_not_fit_is_refused(encoding: object) -> None:
    values = {**json.loads(record_to_json(ENCODED)), "encoding": encoding}
    with pytest.raises(WorkError, match="stored preprocessing does not hold together"):
        record_from_json(json.dumps(values))


def test_a_factor_to_levels_that_is_none_is_refused() -> None:
    values = {**json.loads(record_to_json(IMAGES)), "array_scale": 7}
    with pytest.raises(WorkError, match="array_scale must be 1 or 255"):
        record_from_json(json.dumps(values))
