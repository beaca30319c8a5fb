"""Exports one shard with images: reads its tar once, and writes it with labels in a new format."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.export import tfrecord
from coyo_labeler.export.choose import Choice, Reason, choose, rejects_of
from coyo_labeler.export.parquet import Written
from coyo_labeler.export.tars import Tar
from coyo_labeler.formats import tars
from coyo_labeler.formats.faults import Fault, ImageError
from coyo_labeler.formats.image_shards import Failure, Sample, read_samples

#: Columns that are added to `{key}.json`; everything else there stays unchanged.
_INTO_JSON = ("labels", "label_probs", "n_votes", "risk", "entropy")


def write_webdataset(url: str, tar: Tar, rows: pa.Table, choice: Choice) -> Written:
    """Copy the tar with labels in each `{key}.json`, without the images that have none.

    Pictures stay unchanged.

    rows: `key` and the columns of the labels, for the images of this tar.

    Raises: InputError naming the tar or image at fault.
    """
    written = Written()
    with storage.open_atomic(url) as file:
        tars.write(file, _labelled(tar, rows, choice, written))
    return written


def _labelled(
    tar: Tar, rows: pa.Table, choice: Choice, written: Written
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    for sample, row in _chosen(tar, rows, choice, written):
        known = {} if sample.document.get("id") is not None else {"id": sample.id}
        labels = {name: row[name] for name in _INTO_JSON if name in row}
        document = {**sample.document, **known, **labels}
        # Halves of surrogate pairs stay escaped, as in JSON.
        data = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")
        written.rows_out += 1
        written.labels += len(row["labels"])
        yield sample.name, {sample.ending: sample.image, "json": data}


def write_tfrecord(url: str, tar: Tar, rows: pa.Table, choice: Choice) -> Written:
    """Write the labelled images of a tar as Examples. See `write_webdataset`."""
    written = Written()
    with storage.open_atomic(url) as file:
        for sample, row in _chosen(tar, rows, choice, written):
            try:
                image, re_encoded = tfrecord.decodable(sample.image)
            except ImageError as error:
                detail = f"{sample.name}.{sample.ending}: {error}"
                ids = pa.array([row["id"]])
                written.rejects.append(rejects_of(ids, Reason.UNREADABLE_IMAGE, [detail]))
                continue
            record = tfrecord.example(image, row["labels"], row["label_probs"])
            file.write(tfrecord.frame(record))
            written.rows_out += 1
            written.labels += len(row["labels"])
            written.re_encoded += re_encoded
    return written


def _chosen(
    tar: Tar, rows: pa.Table, choice: Choice, written: Written
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """The samples of the tar that keep labels, with their rows."""
    chosen, rejects = choose(rows, choice)
    written.rows_in = rows.num_rows
    written.rejects.append(rejects)
    labelled = {row["id"]: row for row in chosen.to_pylist()}
    keys = rows["key"].to_pylist()
    missing = dict(zip(rows["id"].to_pylist(), keys, strict=True))
    if len(missing) < len(keys):
        repeated, _ = Counter(keys).most_common(1)[0]
        raise InputError(
            f"export: labels: the image {repeated} of {tar.url} has more than one row of labels; a "
            "labels folder holds each id once"
        )
    id_of = {key: image_id for image_id, key in missing.items()}
    known = frozenset(missing)
    for sample in read_samples(tar.shard):
        written.images += 1
        if isinstance(sample, Failure):
            image_id = sample.id if sample.id in missing else id_of.get(sample.name)
            if image_id is None or image_id not in missing:
                written.faults[str(sample.fault)] += 1
                continue
            del missing[image_id]
            if labelled.pop(image_id, None) is not None:
                written.rejects.append(_reject(image_id, sample))
            continue
        written.unlabelled += sample.id not in known
        missing.pop(sample.id, None)
        if sample.id in labelled:
            yield sample, labelled[sample.id]
    if missing:
        raise InputError(
            f"export: images: {tar.url} lacks {len(missing):,} of the images in the table beside "
            f"it, first {min(missing.values())}; fetch it again"
        )


def _reject(image_id: int, failure: Failure) -> pa.Table:
    """The reject of a row of labels whose sample cannot be used."""
    is_large = failure.fault is Fault.TOO_LARGE
    reason = Reason.UNREADABLE_IMAGE if is_large else Reason.NO_IMAGE
    detail = f"{failure.name}: {failure.fault}: {failure.detail}"
    return rejects_of(pa.array([image_id]), reason, [detail])
