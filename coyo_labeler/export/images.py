"""One shard that holds images: a tar read once, and written with its labels in a new form."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from PIL import Image

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.export import tfrecord
from coyo_labeler.export.choose import Choice, Reason, choose, rejected
from coyo_labeler.export.parquet import Written
from coyo_labeler.export.tars import Sample, Tar, read_samples
from coyo_labeler.formats import tars

#: What Pillow raises of a picture that does not decode.
_UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

#: Columns that go into `{key}.json`; all else there is as it was.
_INTO_JSON = ("labels", "label_probs", "n_votes", "risk", "entropy")


def write_webdataset(url: str, tar: Tar, rows: pa.Table, choice: Choice) -> Written:
    """Write the tar again with labels in each `{key}.json`, without the images that have none.

    Pictures stay as they were.

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
        document = {**sample.facts, **{name: row[name] for name in _INTO_JSON if name in row}}
        data = json.dumps(document, ensure_ascii=False).encode()
        written.rows_out += 1
        written.labels += len(row["labels"])
        yield sample.key, {sample.ending: sample.image, "json": data}


def write_tfrecord(url: str, tar: Tar, rows: pa.Table, choice: Choice) -> Written:
    """Write the labelled images of a tar as Examples. See `write_webdataset`."""
    written = Written()
    with storage.open_atomic(url) as file:
        for sample, row in _chosen(tar, rows, choice, written):
            try:
                image, again = tfrecord.decodable(sample.image)
            except _UNDECODABLE as error:
                told = f"{sample.key}.{sample.ending}: {type(error).__name__}"
                ids = pa.array([row["id"]])
                written.rejects.append(rejected(ids, Reason.UNREADABLE_IMAGE, [told]))
                continue
            record = tfrecord.example(image, row["labels"], row["label_probs"])
            file.write(tfrecord.frame(record))
            written.rows_out += 1
            written.labels += len(row["labels"])
            written.re_encoded += again
    return written


def _chosen(
    tar: Tar, rows: pa.Table, choice: Choice, written: Written
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """The samples of the tar that keep labels, with their rows."""
    kept, rejects = choose(rows, choice)
    written.rows_in = rows.num_rows
    written.rejects.append(rejects)
    labelled = {row["key"]: row for row in kept.to_pylist()}
    keys = rows["key"].to_pylist()
    known = frozenset(keys)
    if len(known) < len(keys):
        twice, _ = Counter(keys).most_common(1)[0]
        raise InputError(
            f"export: labels: the image {twice} of {tar.url} has more than one row of labels; a "
            "labels folder holds each id once"
        )
    unseen = set(known)
    for sample in read_samples(tar):
        written.images += 1
        written.unlabelled += sample.key not in known
        unseen.discard(sample.key)
        if sample.key in labelled:
            yield sample, labelled[sample.key]
    if unseen:
        raise InputError(
            f"export: images: {tar.url} lacks {len(unseen):,} of the images in the table beside "
            f"it, first {min(unseen)}; fetch it again"
        )
