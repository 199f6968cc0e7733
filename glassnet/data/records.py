"""The preprocessing record of either kind, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from glassnet._errors import UsageError, WorkError
from glassnet.data.arrays import ArrayReading
from glassnet.data.columns import TableEncoding
from glassnet.data.examples import ExampleSet, Framing
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.standardisation import Standardisation, make_standardisation

InputRecord = Preprocessing | Standardisation
"""What is done to an input: `Preprocessing` for images, `Standardisation` for numbers."""
LATER_FIELDS = {"encoding", "array_scale"}
"""Fields that records written by earlier versions lack; they are written where they hold something."""

KINDS: dict[str, type[Preprocessing] | type[Standardisation]] = {"image": Preprocessing, "numbers": Standardisation}


def make_record(examples: ExampleSet, size: tuple[int, int] | None, framing: Framing) -> InputRecord:
    """Make the record for training on `examples`: of images at `size` `(H, W)`, None for their own, or of numbers."""
    if examples.is_image:
        height, width = examples.input_shape[1:]
        return make_preprocessing(examples, size or (height, width), framing)
    return make_standardisation(examples, framing.is_standardised, framing.encoding)


def record_to_json(record: InputRecord) -> str:
    """Return the record as JSON text; `record_from_json` gives an equal one back."""
    kind = next(name for name, known in KINDS.items() if isinstance(record, known))
    values = {name: part for name, part in asdict(record).items() if part is not None or name not in LATER_FIELDS}
    return json.dumps({"kind": kind, **values}, indent=2, ensure_ascii=False) + "\n"


def record_from_json(text: str) -> InputRecord:
    """Read what `record_to_json` wrote. Raises `WorkError` that names what is missing or foreign."""
    try:
        values: Any = json.loads(text)
    except ValueError as error:
        raise WorkError(f"Expected preprocessing as JSON; it does not parse: {error}.") from None
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise WorkError(f"Expected preprocessing of the kind {' or '.join(KINDS)}; got {kind!r}.")
    names = {field.name for field in fields(KINDS[kind])}
    if not names - LATER_FIELDS <= set(values) <= names:
        raise WorkError(
            f"Expected preprocessing with the fields {', '.join(sorted(names - LATER_FIELDS))}; "
            f"missing: {', '.join(sorted(names - LATER_FIELDS - set(values))) or 'none'}; "
            f"unknown: {', '.join(sorted(set(values) - names)) or 'none'}."
        )
    try:
        if values.get("encoding") is not None:
            values["encoding"] = TableEncoding.from_dict(values["encoding"])
        return KINDS[kind](**values)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise WorkError(f"The stored preprocessing does not hold together: {error}") from None


def stored_encoding(record: InputRecord, source: object) -> TableEncoding:
    """Return how the record encodes rows of a table, such as `source`. Raises `UsageError` where it stores nothing."""
    if isinstance(record, Standardisation) and record.encoding is not None:
        return record.encoding
    what = f"numbers of shape {record.input_shape}" if isinstance(record, Standardisation) else "images"
    raise UsageError(
        f"Expected {what}, which this network was trained on; got rows of a table, {source}, and no encoding of one is "
        "stored with the run. Pass an array of encoded rows, or train again on the table."
    )


def reading_of(record: InputRecord) -> ArrayReading:
    """Return how arrays in a file are read for a network with this record."""
    if isinstance(record, Standardisation):
        return ArrayReading(is_image=False)
    return ArrayReading(is_image=True, scale=record.array_scale)
