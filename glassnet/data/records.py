"""The preprocessing record of either kind, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from glassnet._errors import WorkError
from glassnet.data.examples import ExampleSet, Framing
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.standardisation import Standardisation, make_standardisation

InputRecord = Preprocessing | Standardisation
"""What is done to an input: `Preprocessing` for images, `Standardisation` for numbers."""

KINDS: dict[str, type[Preprocessing] | type[Standardisation]] = {"image": Preprocessing, "numbers": Standardisation}


def make_record(examples: ExampleSet, size: tuple[int, int] | None, framing: Framing) -> InputRecord:
    """Make the record for training on `examples`: of images at `size` `(H, W)`, None for their own, or of numbers."""
    if examples.is_image:
        height, width = examples.input_shape[1:]
        return make_preprocessing(examples, size or (height, width), framing)
    return make_standardisation(examples, framing.is_standardised)


def record_to_json(record: InputRecord) -> str:
    """Return the record as JSON text; `record_from_json` gives an equal one back."""
    kind = next(name for name, known in KINDS.items() if isinstance(record, known))
    return json.dumps({"kind": kind, **asdict(record)}, indent=2, ensure_ascii=False) + "\n"


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
    if set(values) != names:
        raise WorkError(
            f"Expected preprocessing with the fields {', '.join(sorted(names))}; "
            f"missing: {', '.join(sorted(names - set(values))) or 'none'}; "
            f"unknown: {', '.join(sorted(set(values) - names)) or 'none'}."
        )
    try:
        return KINDS[kind](**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise WorkError(f"The stored preprocessing does not hold together: {error}") from None
