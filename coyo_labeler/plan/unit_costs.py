"""What one row costs in each stage, on one core."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coyo_labeler import storage
from coyo_labeler.errors import InputError


@dataclass(frozen=True)
class UnitCosts:
    """Core microseconds unless said otherwise; a core is one of the machine that was measured.

    machine, measured: where, and the date. ingest: per source row. fetch: per downloaded image, of
    110 kB. label: per image, decoding and preprocessing. device, model: what
    `device_images_per_second` was measured on; cpu: the device is the cores, all of them together.
    merge: per row that passes through. em: per vote and iteration. report, export: per row.
    source_bytes, catalog_bytes, belief_bytes: per row, the last for 50 labels.
    """

    machine: str
    measured: str
    ingest: float
    fetch: float
    label: float
    device: str
    model: str
    device_images_per_second: float
    merge: float
    em: float
    report: float
    export: float
    source_bytes: float
    catalog_bytes: float
    belief_bytes: float

    @classmethod
    def read(cls, url: str) -> "UnitCosts":
        """The unit costs of a file. Raises: InputError naming the entry that is wrong."""
        document = storage.read_json(url, "measure the unit costs again")
        if document is None:
            raise InputError(f"plan: unit_costs: no file at {url}; leave unit_costs out to measure")
        return cls(**_checked(document, url))

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)


def _checked(document: Mapping[str, Any], url: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(UnitCosts):
        value = document.get(field.name)
        if field.type is str or field.type == "str":
            right = isinstance(value, str)
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            right = is_number and 0 <= float(value or 0) < float("inf")
        if not right:
            what = "is missing" if field.name not in document else f"is {value!r}"
            raise InputError(
                f"plan: unit_costs: {url}: '{field.name}' {what}; it must be "
                f"{'text' if field.type in (str, 'str') else 'a number from 0'}, as plan writes it"
            )
        values[field.name] = value
    if values["device_images_per_second"] == 0:
        raise InputError(f"plan: unit_costs: {url}: 'device_images_per_second' is 0")
    return values
