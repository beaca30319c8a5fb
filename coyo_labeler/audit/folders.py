"""The estimate from folders, without Spark: votes of collect, and a labels folder of any size.

The labels are read row group by row group; only rows of images that were asked about are kept.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.audit.estimate import Estimate, estimate
from coyo_labeler.audit.inputs import NO_CLASS, Population
from coyo_labeler.audit.nodes import about_sets, tree_of
from coyo_labeler.audit.tables import (
    TOP_LABELS,
    Crowd,
    LabelRows,
    judge,
    read_crowd,
    single_truths,
)
from coyo_labeler.em.segments import I32, I64, find
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.collected import COLUMNS, plan_collected, read_collected
from coyo_labeler.formats.columns import cast_table
from coyo_labeler.formats.label_lists import read_label_lists
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.pairs import plan_pairs, read_pairs
from coyo_labeler.formats.parquet_splits import plan_splits, read_split
from coyo_labeler.manifest import read_manifest

_ROWS_PER_SPLIT = 500_000
_BATCH_ROWS = 65_536
#: Merges of merges that are followed back to their beliefs.
_GENERATIONS = 100
_LISTS = pa.schema([schemas.BELIEFS.field(name) for name in ("id", "labels", "label_probs")])


@dataclass(frozen=True)
class Scanned:
    """A labels folder. rows: of images that were asked about. images: in all. asked: how many were
    asked about. confidence: mean first probability of the others; None if there are none.
    """

    rows: LabelRows
    images: int
    asked: int
    confidence: float | None


def estimate_folders(
    votes: str,
    labels: str,
    space: LabelSpace,
    *,
    gold: str | None = None,
    gold_key: str | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The accuracy of a labels folder by a folder of votes (see `estimate`).

    votes: output of collect, or votes with inclusion_probability. labels: output of label, learn or
    merge. gold, gold_key: true classes of some images, as `report` takes them.

    Raises: InputError naming the key, column or value at fault, or why nothing can be estimated.
    """
    tables = [
        table
        for part in plan_collected("votes", votes, _ROWS_PER_SPLIT)
        for table in read_collected(part, space)
    ]
    collected = pa.concat_tables(tables) if tables else COLUMNS.empty_table()
    crowd = read_crowd(collected, space.size)
    crowd = replace(crowd, answers=about_sets(crowd.answers, tree_of(labels, space)))
    own = scan("labels", storage.locate(labels, "posterior"), crowd.image, space)
    is_own = not _is_merged(labels)
    before: Scanned | None = own if is_own else None
    if not is_own:
        beliefs = beliefs_of(labels)
        if beliefs is not None and storage.exists(beliefs):
            folder = storage.locate(beliefs, "posterior")
            before = scan("labels", folder, crowd.image, space)
    inside = find(own.rows.image, crowd.image)[1]
    if not inside.any():
        raise InputError(
            f"votes: none of the images of {votes} is in {labels}; give the labels that the "
            "questions were made from, or a merge of them"
        )
    truth = _truth(crowd, gold, gold_key, space)
    rows = before.rows if before is not None else None
    judged, answers = judge(crowd, inside, own.rows, rows, truth, None, space.size)
    same = before is not None and (is_own or before.images == own.images)
    confidence = before.confidence if before is not None and same else None
    people = Population(own.images, own.asked, confidence)
    return estimate(judged, answers, people, space.size, len(crowd.workers), draws=draws, seed=seed)


def scan(key: str, url: str, asked: I64, space: LabelSpace) -> Scanned:
    """Read a labels folder for the images that were asked about, (n,) ids, rising.

    Raises: InputError naming the file, column or row at fault.
    """
    images = of_asked = 0
    total = 0.0
    kept: list[pa.Table] = []
    for split in plan_splits(key, url, _LISTS, _ROWS_PER_SPLIT):
        for table in read_split(split, batch_rows=_BATCH_ROWS):
            lists = read_label_lists(table, f"{key}: {split.url}")
            is_asked = find(asked, lists.image)[1]
            some = lists.lengths > 0
            first = np.zeros(len(lists.image))
            first[some] = lists.probability[lists.offsets[:-1][some]]
            images += len(first)
            of_asked += int(is_asked.sum())
            total += float(first[~is_asked].sum())
            if is_asked.any():
                kept.append(_shortened(table.filter(pa.array(is_asked))))
    rows = pa.concat_tables(kept) if kept else _LISTS.empty_table()
    confidence = total / (images - of_asked) if images > of_asked else None
    return Scanned(LabelRows.read(rows, key, space.size), images, of_asked, confidence)


def _shortened(table: pa.Table) -> pa.Table:
    """The first `TOP_LABELS` of each list."""
    columns = [table["id"]]
    columns += [pc.list_slice(table[n], 0, TOP_LABELS) for n in ("labels", "label_probs")]
    return cast_table(pa.table(columns, names=_LISTS.names), _LISTS, "labels")


def _is_merged(labels: str) -> bool:
    """Whether votes have changed these labels: they then count them."""
    files = sorted(storage.files_of(storage.locate(labels, "posterior")))
    with storage.open_parquet("labels", files[0]) as parquet:
        return "n_votes" in parquet.schema_arrow.names


def beliefs_of(url: str) -> str | None:
    """Where the beliefs of a merge are, of the first one where it merged an earlier merge."""
    for _ in range(_GENERATIONS):
        manifest = read_manifest(url)
        if manifest is None or manifest.stage != "merge":
            return url
        beliefs = manifest.config.get("beliefs") or manifest.config.get("warm_start")
        if not isinstance(beliefs, str):
            return None
        url = beliefs
    return None


def _truth(crowd: Crowd, gold: str | None, gold_key: str | None, space: LabelSpace) -> I32:
    """The true class of each image, where exactly one is known."""
    tables = []
    for key, url in (("gold", gold), ("gold_key", gold_key)):
        if url is None:
            continue
        folder = storage.locate(url, "gold_key")
        for part in plan_pairs(key, folder, schemas.GOLD, _ROWS_PER_SPLIT):
            tables += list(read_pairs(key, part, schemas.GOLD, space))
    if not tables:
        return np.full(len(crowd.image), NO_CLASS, dtype=np.int32)
    known = pa.concat_tables(tables)
    return single_truths(known["image_id"].to_numpy(), known["label"].to_numpy(), crowd.image)
