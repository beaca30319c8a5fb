"""What a task does with all parcels of its partition: votes, gold and beliefs become problems."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.inputs import Gold, Votes
from coyo_labeler.em.model import Model, Truth
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import distinct
from coyo_labeler.em.tallies import Tallies, gather_tallies
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import check_unique_images
from coyo_labeler.merge.belief_table import to_beliefs
from coyo_labeler.merge.read import BELIEFS, GOLD, VOTES, Parcel
from coyo_labeler.votes.checks import DUPLICATE_DETAIL, Reason, response_words
from coyo_labeler.votes.questions import NO_TIME, Duplicates, as_answers, order_votes, superseded


@dataclass(frozen=True)
class Assembled:
    """A partition, ready for EM.

    passengers: id and what travels along, of images with problems and a belief, sorted by id.
    bystanders: beliefs, as they came, that came along without a vote or gold.
    evidence: of the votes that count. duplicates: schemas.VOTES_REJECTS.
    unbelieved: voted images without a belief.
    """

    problems: Problems
    passengers: pa.Table
    bystanders: pa.Table
    evidence: Tallies
    duplicates: pa.Table
    unbelieved: int


def assemble(
    parcels: Sequence[Parcel],
    workers: pa.Array,
    model: Model,
    duplicate_votes: Duplicates,
    sample: float,
) -> Assembled:
    """Sort everything by image and build the problems.

    workers: all worker ids, sorted; a worker's number is its place. sample: the share of images
    whose votes are kept to see how far workers agree.

    Raises: InputError where an image has two beliefs or two gold classes, or a worker has two votes
    and duplicate_votes is error.
    """
    tables = {VOTES: schemas.VOTES_CHECKED, GOLD: schemas.GOLD, BELIEFS: schemas.BELIEFS}
    read = {
        kind: pa.concat_tables(
            [p.table() for p in parcels if p.kind == kind] or [schema.empty_table()]
        ).combine_chunks()
        for kind, schema in tables.items()
    }
    votes, duplicates = _arrange_votes(read[VOTES], workers, duplicate_votes, model.truth)
    beliefs_table = read[BELIEFS].take(pc.sort_indices(read[BELIEFS]["id"]))
    beliefs = to_beliefs(beliefs_table)
    check_unique_images(beliefs.image, "beliefs")
    gold = _arrange_gold(read[GOLD], model)
    problems = build_problems(votes, beliefs, gold, model)
    taking_part = pa.array(np.isin(beliefs.image, problems.image))
    return Assembled(
        problems=problems,
        passengers=beliefs_table.filter(taking_part).drop_columns(["labels", "label_probs"]),
        bystanders=beliefs_table.filter(pc.invert(taking_part)),
        evidence=gather_tallies(votes, beliefs, gold, len(workers), sample),
        duplicates=duplicates,
        unbelieved=int((~np.isin(distinct(votes.image), beliefs.image)).sum()),
    )


def _arrange_votes(
    table: pa.Table, workers: pa.Array, duplicate_votes: Duplicates, truth: Truth
) -> tuple[Votes, pa.Table]:
    """Votes that count, in the order of all sums, and those that another one stands for."""
    image = table["image_id"].to_numpy()
    worker = pc.index_in(table["worker_id"], value_set=workers).to_numpy().astype(np.int32)
    label = table["label"].to_numpy()
    response = as_answers(table["response"].to_numpy(), truth)
    moment = pc.fill_null(table["timestamp"], NO_TIME).to_numpy()
    file, row = table["file"].to_numpy(), table["row"].to_numpy()
    order = order_votes(image, worker, label, response, moment, file, row)
    image, worker = image[order], worker[order]
    label, response = label[order], response[order]
    out = superseded(image, worker, label, response, duplicate_votes)
    if duplicate_votes == "error" and out.any():
        first = int(np.flatnonzero(out)[0])
        raise InputError(
            f"votes: worker {workers[int(worker[first])].as_py()} voted twice on image "
            f"{image[first]} (row {row[order][first - 1]} and row {row[order][first]}); drop one, "
            "or set duplicate_votes to last or first"
        )
    duplicates = _duplicates(table.take(pa.array(order[out])))
    return Votes(image[~out], worker[~out], label[~out], response[~out]), duplicates


def _duplicates(table: pa.Table) -> pa.Table:
    n = table.num_rows
    detail = DUPLICATE_DETAIL
    return pa.table(
        [
            table["row"],
            table["image_id"].cast(pa.string()),
            table["worker_id"],
            table["label"].cast(pa.string()),
            response_words(table["response"]),
            pa.array([str(Reason.DUPLICATE)] * n, pa.string()),
            pa.array([detail] * n, pa.string()),
        ],
        schema=schemas.VOTES_REJECTS,
    )


def _arrange_gold(table: pa.Table, model: Model) -> Gold:
    image, label = table["image_id"].to_numpy(), table["label"].to_numpy()
    order = np.lexsort((label, image))
    image, label = image[order], label[order]
    fresh = np.ones(len(image), dtype=bool)
    fresh[1:] = (image[1:] != image[:-1]) | (label[1:] != label[:-1])
    image, label = image[fresh], label[fresh]
    twice = np.flatnonzero(image[1:] == image[:-1])
    if model.truth == "single" and len(twice):
        raise InputError(
            f"gold: image {image[twice[0]]} has two classes; drop one, or set truth=multi"
        )
    return Gold(image, label)
