"""The rates of devices: of thousands, in time that grows with the number of shards."""

from collections.abc import Iterator, Mapping

import pytest

from coyo_labeler.label.stage import _rates, _speed
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt

DEVICES, SHARDS = 500, 5_000


class Counted(Mapping[str, object]):
    """The details of a receipt; counts how often they are looked at."""

    looks = 0

    def __init__(self, **values: object) -> None:
        self._values = values

    def __getitem__(self, key: str) -> object:
        Counted.looks += 1
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def receipts(shards: int, devices: int) -> list[Receipt]:
    """Shards of 100 images in 10 s each, one after another on each device, half of it busy."""
    made = []
    for shard in range(shards):
        end = 10.0 * (1 + shard // devices)
        device = f"device-{shard % devices:04d}"
        details = Counted(device=device, busy_seconds=5.0, finished=end)
        made.append(Receipt(shard, "f", Counts(100, 100), 10.0, details))
    return made


def test_each_device_is_counted_by_itself() -> None:
    rates = _rates(receipts(12, 3))
    assert rates == {
        f"device-{n:04d}": {"images_per_second": 10.0, "idle_share": 0.5} for n in range(3)
    }


def test_a_receipt_is_looked_at_a_few_times_whatever_the_number_of_devices() -> None:
    """It was once for each device: 33 seconds at 2,000 of them."""
    made = receipts(SHARDS, DEVICES)
    Counted.looks = 0
    assert len(_rates(made)) == DEVICES
    assert Counted.looks <= 4 * SHARDS


@pytest.mark.parametrize("devices", [1, 16, 17, DEVICES])
def test_progress_names_some_devices_and_sums_up_all(devices: int) -> None:
    shown = _speed(set())(receipts(2 * devices, devices))
    assert shown["images"] == f"{200 * devices:,}"
    assert shown["images/s"].startswith(f"{10 * devices:,} (")
    assert shown["images/s"].count("idle") == min(devices, 16)
    assert ("more devices" in shown["images/s"]) == (devices > 16)
