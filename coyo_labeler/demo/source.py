"""The demo's source: image files, a COYO-700M-shaped table of their URLs, and gold labels.

The table has what crawls have: duplicates, dead links, images that changed since, truncated files,
pages in place of images, hosts that are slow or busy, and rows that the filters reject.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pyarrow import csv

from coyo_labeler import storage
from coyo_labeler.demo import digits
from coyo_labeler.formats import schemas

#: Scans that the stand-in teacher learns from. Gold holds only the others.
TEACHER_SCANS = 300
COPIES = 60
ROWS_PER_PARTITION = 500
DEAD, SLOW, BUSY, CHANGED, CUT, PAGE = 14, 4, 8, 3, 3, 2

SOURCE = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("text", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image_phash", pa.string()),
        pa.field("watermark_score", pa.float32()),
        pa.field("aesthetic_score_laion_v2", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One row of the source table."""

    id: int | None
    url: str
    width: int
    height: int
    image_phash: str
    watermark_score: float = 0.1


@dataclass(frozen=True)
class Scan:
    """The image file of a digit, its class and its row of the source table."""

    number: int
    label: int
    name: str
    row: Row

    @property
    def for_teacher(self) -> bool:
        """Whether the stand-in teacher learns from this scan."""
        return self.number < TEACHER_SCANS


def coyo_id(number: int) -> int:
    """An id like COYO's, by Spark's monotonically_increasing_id: partition << 33 | row."""
    return (number // ROWS_PER_PARTITION << 33) | number % ROWS_PER_PARTITION


def write_scans(folder: str, port: int) -> list[Scan]:
    """Write `images/{number:04d}.jpg` for every digit, in a shuffled but fixed order."""
    ink, labels = digits.load()
    order = _shuffled(len(ink))
    images = Path(folder, "images")
    images.mkdir(parents=True, exist_ok=True)
    scans = []
    for number, index in enumerate(order):
        name = f"{number:04d}.jpg"
        data = digits.jpeg(digits.photograph(ink[index], seed=number))
        (images / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        row = Row(
            coyo_id(number),
            f"http://127.0.0.1:{port}/image/{name}",
            image.width,
            image.height,
            str(imagehash.phash(image)),
            round(0.05 + 0.4 * (number % 17) / 17, 3),
        )
        scans.append(Scan(number, int(labels[index]), name, row))
    return scans


def source_rows(scans: list[Scan], port: int) -> Iterator[Row]:
    """Every row of the source table: each scan once, with its faults, then copies and bad rows.

    The teacher's scans have no faults. The first dead links have a copy that works.
    """
    kinds = {"gone": DEAD, "slow": SLOW, "busy": BUSY, "changed": CHANGED, "cut": CUT, "page": PAGE}
    faults = [kind for kind, count in kinds.items() for _ in range(count)]
    spread = {TEACHER_SCANS + 23 * number: kind for number, kind in enumerate(faults)}
    for scan in scans:
        yield _with_fault(scan, scans, spread.get(scan.number), port)
    copied = [TEACHER_SCANS + 23 * number for number in range(DEAD // 2)]
    copied += range(len(scans) - COPIES + len(copied), len(scans))
    for index, number in enumerate(copied):
        row = scans[number].row
        url = row.url.replace("/image/", "/image/copy-of/")
        yield replace(row, id=coyo_id(len(scans) + index), url=url)
    yield from _rejected_rows(scans, port)


def _with_fault(scan: Scan, scans: list[Scan], kind: str | None, port: int) -> Row:
    if kind is None:
        return scan.row
    if kind == "changed":  # the URL serves another picture now
        return replace(scan.row, url=scans[scan.number - 1].row.url + "?changed")
    host = "localhost" if kind == "slow" else "127.0.0.1"
    return replace(scan.row, url=f"http://{host}:{port}/{kind}/{scan.name}")


def _rejected_rows(scans: list[Scan], port: int) -> Iterator[Row]:
    base = len(scans) + COPIES
    good = replace(scans[0].row, image_phash="")

    def new(offset: int, **changes: object) -> Row:
        number = base + offset
        fresh = {
            "id": coyo_id(number),
            "url": f"http://127.0.0.1:{port}/image/extra-{number}.jpg",
            "image_phash": f"{0x8000000000000000 | number * 0x9E3779B97F4A7C15 % 2**63:016x}",
        }
        return replace(good, **{**fresh, **changes})  # type: ignore[arg-type]

    for offset in range(5):
        yield new(offset, width=120, height=90)
    for offset in range(5, 9):
        yield new(offset, width=1200, height=230)
    for offset in range(9, 15):
        yield new(offset, watermark_score=0.9)
    for offset, url in enumerate(("ftp://127.0.0.1/a.jpg", "no address", "", "file:///etc/passwd")):
        yield new(15 + offset, url=url)
    for offset, image_phash in enumerate(("", "not a hash", "12345678901234567890")):
        yield new(19 + offset, image_phash=image_phash)
    yield new(22, id=None)
    yield new(23, id=scans[5].row.id)


def write_source(folder: str, port: int) -> None:
    """Write the images, `part-00000.parquet` (the source table), `labels.txt`, `scans.parquet`."""
    scans = write_scans(folder, port)
    rows = list(source_rows(scans, port))
    table = pa.table(
        {
            "id": [row.id for row in rows],
            "url": [row.url for row in rows],
            "text": ["a handwritten digit"] * len(rows),
            "width": [row.width for row in rows],
            "height": [row.height for row in rows],
            "image_phash": [row.image_phash for row in rows],
            "watermark_score": [row.watermark_score for row in rows],
            "aesthetic_score_laion_v2": [5.0] * len(rows),
        },
        schema=SOURCE,
    )
    labels = "".join(f"{digit}\n" for digit in range(10))
    storage.write_bytes(storage.join(folder, "labels.txt"), labels.encode())
    teachers = pa.table(
        {
            "name": [scan.name for scan in scans if scan.for_teacher],
            "label": [scan.label for scan in scans if scan.for_teacher],
        }
    )
    with storage.open_atomic(storage.join(folder, "teacher-scans.csv")) as file:
        csv.write_csv(teachers, file)
    storage.write_parquet(storage.join(folder, "part-00000.parquet"), table)


def truth() -> dict[int, int]:
    """The class of every scan, by image id."""
    _, labels = digits.load()
    order = _shuffled(len(labels))
    return {coyo_id(number): int(labels[index]) for number, index in enumerate(order)}


def write_gold(folder: str) -> None:
    """Write `gold.parquet`: the class of every scan that the teacher did not learn from."""
    taught = _taught()
    gold = {image: label for image, label in truth().items() if image not in taught}
    storage.write_parquet(storage.join(folder, "gold.parquet"), _gold_table(gold))


def write_known(folder: str) -> None:
    """Write `known.parquet`: the class of every scan that the teacher learnt from.

    Somebody must have known these, so annotators can be examined on them. Nothing else is
    measured on them: `write_gold` has none.
    """
    taught = _taught()
    known = {image: label for image, label in truth().items() if image in taught}
    storage.write_parquet(storage.join(folder, "known.parquet"), _gold_table(known))


def _taught() -> set[int]:
    return {coyo_id(number) for number in range(TEACHER_SCANS)}


def _gold_table(classes: dict[int, int]) -> pa.Table:
    columns = {"image_id": list(classes), "label": list(classes.values())}
    return pa.table(columns, schema=schemas.GOLD)


def _shuffled(count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(count).permutation(count)
