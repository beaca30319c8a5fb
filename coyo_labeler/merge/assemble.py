"""Votes, gold and beliefs of one partition, brought together, become its problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.batches import BELIEFS, GOLD, Batch, concat_batches
from coyo_labeler.em.build import problems_of
from coyo_labeler.em.calibration import calibration_evidence
from coyo_labeler.em.coverage import Coverage, gather_coverage
from coyo_labeler.em.inputs import Gold, Inclusion, Inputs, SetVotes, Votes
from coyo_labeler.em.model import Model, Truth
from coyo_labeler.em.model_choice import is_sampled
from coyo_labeler.em.segments import I64, Bool, distinct, find
from coyo_labeler.em.tallies import Tallies, gather_tallies
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Executor, Round
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import check_unique_images
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge.belief_table import to_beliefs
from coyo_labeler.merge.cell_shards import sample_cells
from coyo_labeler.merge.implied import hierarchy_of
from coyo_labeler.merge.read import is_copied_whole, read_beliefs, read_gold
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.voted_filter import VotedFilter
from coyo_labeler.votes.checks import DUPLICATE_DETAIL, Reason, response_words
from coyo_labeler.votes.questions import (
    NO_TIME,
    Duplicates,
    as_answers,
    asked_about,
    order_votes,
    superseded,
)

#: Tables of a partition in the state: what is carried along of voted images' beliefs, and the
#: beliefs of images that were taken for voted on and are not.
CARRIED, FALSE_POSITIVES = "carried", "false-positives"


@dataclass(frozen=True)
class AssemblyRules:
    """How partitions are assembled.

    workers: all worker ids, sorted; a worker's number is its index. model: as far as the settings
    tell. sample: the share of images whose votes are kept to see how far workers agree.
    choice_sample: the share of images that the choice of a model is based on.
    """

    workers: Sequence[str]
    model: Model
    duplicate_votes: Duplicates
    sample: float
    choice_sample: float


@dataclass(frozen=True)
class Assembled:
    """A partition, ready to be built.

    carried: id and the columns that EM does not read (`schemas.CARRIED`), of images with problems
    and a belief, sorted by id. false_positives: beliefs, as they were read, of images that have
    neither vote nor gold. tallies: of the votes that count. duplicates: schemas.VOTES_REJECTS.
    unbelieved: how many voted images have no belief.
    """

    inputs: Inputs
    carried: pa.Table
    false_positives: pa.Table
    tallies: Tallies
    duplicates: pa.Table
    unbelieved: int


@dataclass(frozen=True)
class PartitionSummary:
    """What the driver needs to know of an assembled partition.

    sample: the inputs of some of its images. duplicates: votes set aside. unbelieved: as
    `Assembled`.
    """

    tallies: Tallies
    sample: Inputs
    duplicates: int
    unbelieved: int


@dataclass(frozen=True)
class BuiltSummary:
    """What the driver needs to know of the problems of a partition.

    cells: how many. sampled_cells: some of their keys. calibration: (2,) as of
    `calibration_evidence`.
    """

    cells: int
    sampled_cells: I64
    calibration: I64
    coverage: Coverage


def assemble_partitions(
    executor: Executor,
    state: StateFolder,
    partitions: int,
    gold: Sequence[Split],
    beliefs: Sequence[Split],
    space: LabelSpace,
    voted: VotedFilter,
    rules: AssemblyRules,
) -> list[PartitionSummary]:
    """Bring gold and beliefs to the votes of their partition; the state then holds the inputs.

    Raises: InputError naming what cannot be used, see `assemble`, `read_gold`, `read_beliefs`.
    """
    sources = [*((GOLD, split) for split in gold), *((BELIEFS, split) for split in beliefs)]
    with executor.share(voted) as shared_voted, executor.share(rules) as shared_rules:
        send = partial(
            _send_rows,
            state=state,
            partitions=partitions,
            space=space,
            model=rules.model,
            voted=shared_voted,
        )
        work = partial(_assemble_partition, state=state, rules=shared_rules)
        return executor.exchange(sources, send, Round(partitions, work))


def _send_rows(
    source: tuple[str, Split],
    state: StateFolder,
    partitions: int,
    space: LabelSpace,
    model: Model,
    voted: Any,
) -> Iterator[tuple[int, Batch]]:
    kind, split = source
    if kind == GOLD:
        return read_gold(split, space, partitions)
    if is_copied_whole(split, voted.value, state):
        return iter(())
    return read_beliefs(split, voted.value, partitions, model)


def _assemble_partition(
    partition: int, batches: Sequence[Batch], state: StateFolder, rules: Any
) -> Iterator[PartitionSummary]:
    assembled = assemble(state.read_votes(partition), batches, rules.value)
    state.write_inputs(assembled.inputs, partition)
    state.write_table(CARRIED, assembled.carried, partition)
    state.write_table(FALSE_POSITIVES, assembled.false_positives, partition)
    if assembled.duplicates.num_rows:
        url = storage.join(state.output, duplicates_name(partition))
        storage.write_parquet(url, assembled.duplicates)
    chosen = partial(is_sampled, share=rules.value.choice_sample)
    yield PartitionSummary(
        tallies=assembled.tallies,
        sample=assembled.inputs.where(chosen),
        duplicates=assembled.duplicates.num_rows,
        unbelieved=assembled.unbelieved,
    )


def build_partitions(
    executor: Executor, state: StateFolder, partitions: int, model: Model, tree: LabelSpace | None
) -> list[BuiltSummary]:
    """Build the problems of all partitions; the state then holds them instead of the inputs.

    tree: the classes whose tree counts, or None.
    """
    build = partial(_build_partition, state=state, model=model, tree=tree)
    summaries = executor.map(range(partitions), build)
    state.remove_inputs(partitions)
    return summaries


def _build_partition(
    partition: int, state: StateFolder, model: Model, tree: LabelSpace | None
) -> BuiltSummary:
    hierarchy = hierarchy_of(tree, model.truth)
    problems = problems_of(state.read_inputs(partition), model, hierarchy)
    state.write_problems(problems, partition)
    return BuiltSummary(
        cells=len(problems.cells),
        sampled_cells=sample_cells(problems.cells),
        calibration=calibration_evidence(problems),
        coverage=gather_coverage(problems, model),
    )


def duplicates_name(partition: int) -> str:
    """The file of a partition's votes that another vote replaces, below the output."""
    return f"rejects/duplicates-{partition:05d}.parquet"


def assemble(votes_table: pa.Table, batches: Sequence[Batch], rules: AssemblyRules) -> Assembled:
    """Sort everything by image.

    votes_table: schemas.VOTES_CHECKED. batches: gold and beliefs.

    Raises: InputError where an image has two beliefs or two gold classes, or a worker has two votes
    and duplicate_votes is error.
    """
    model, workers = rules.model, pa.array(rules.workers, pa.string())
    votes, set_votes, duplicates = _arrange_votes(
        votes_table.combine_chunks(), workers, rules.duplicate_votes, model.truth
    )
    inclusion = _arrange_inclusion(votes_table)
    beliefs_table = concat_batches(batches, BELIEFS, schemas.BELIEFS)
    beliefs_table = beliefs_table.take(pc.sort_indices(beliefs_table["id"]))
    beliefs = to_beliefs(beliefs_table)
    check_unique_images(beliefs.image, "beliefs")
    gold = _arrange_gold(concat_batches(batches, GOLD, schemas.GOLD), model)
    voted = distinct(np.concatenate([votes.image, set_votes.image]))
    inferred = partial(_is_any_of, images=distinct(np.concatenate([voted, gold.image])))
    has_problem = pa.array(inferred(beliefs.image))
    return Assembled(
        inputs=Inputs(votes, set_votes, beliefs, gold, inclusion).where(inferred),
        carried=beliefs_table.filter(has_problem).drop_columns(["labels", "label_probs"]),
        false_positives=beliefs_table.filter(pc.invert(has_problem)),
        tallies=gather_tallies(votes, set_votes, beliefs, gold, len(workers), rules.sample),
        duplicates=duplicates,
        unbelieved=int((~np.isin(voted, beliefs.image)).sum()),
    )


def _arrange_votes(
    table: pa.Table, workers: pa.Array, duplicate_votes: Duplicates, truth: Truth
) -> tuple[Votes, SetVotes, pa.Table]:
    """Votes that count, in the order of all sums, and those that another vote replaces."""
    image = table["image_id"].to_numpy()
    worker = pc.index_in(table["worker_id"], value_set=workers).to_numpy().astype(np.int32)
    label = table["label"].to_numpy()
    response = as_answers(table["response"].to_numpy(), truth)
    moment = pc.fill_null(table["timestamp"], NO_TIME).to_numpy()
    file, row = table["file"].to_numpy(), table["row"].to_numpy()
    asked = asked_about(table, label)
    order = order_votes(image, worker, asked, response, moment, file, row)
    image, worker, asked = image[order], worker[order], asked[order]
    label, response = label[order], response[order]
    out = superseded(image, worker, asked, response, duplicate_votes)
    if duplicate_votes == "error" and out.any():
        first = int(np.flatnonzero(out)[0])
        raise InputError(
            f"votes: worker {workers[int(worker[first])].as_py()} voted twice on image "
            f"{image[first]} (row {row[order][first - 1]} and row {row[order][first]}); drop one, "
            "or set duplicate_votes to last or first"
        )
    duplicates = _duplicates(table.take(pa.array(order[out])))
    one = ~out & (label >= 0)
    several = np.flatnonzero(~out & (label < 0))
    lists = table["candidates"].combine_chunks().take(pa.array(order[several]))
    set_votes = SetVotes(
        image[several],
        worker[several],
        response[several],
        np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy())).astype(np.int64),
        lists.flatten().to_numpy(),
    )
    offered = table["offered"].to_numpy()[order][one]
    votes = Votes(image[one], worker[one], label[one], response[one], offered)
    return votes, set_votes, duplicates


def _is_any_of(image: I64, images: I64) -> Bool:
    return find(images, image)[1]


def _arrange_inclusion(table: pa.Table) -> Inclusion:
    """The largest inclusion probability of each image's votes, where a vote has one."""
    column = table["inclusion_probability"]
    known = np.asarray(pc.is_valid(column)).astype(bool)
    image = table["image_id"].to_numpy()[known]
    probability = column.drop_null().to_numpy()
    order = np.lexsort((probability, image))
    last = np.append(image[order][1:] != image[order][:-1], True)[: len(image)]
    return Inclusion(image[order][last], probability[order][last])


def _duplicates(table: pa.Table) -> pa.Table:
    n = table.num_rows
    return pa.table(
        [
            table["row"],
            table["image_id"].cast(pa.string()),
            table["worker_id"],
            pc.if_else(pc.less(table["label"], 0), None, table["label"]).cast(pa.string()),
            response_words(table["response"]),
            pa.array([str(Reason.DUPLICATE)] * n, pa.string()),
            pa.array([DUPLICATE_DETAIL] * n, pa.string()),
        ],
        schema=schemas.VOTES_REJECTS,
    )


def _arrange_gold(table: pa.Table, model: Model) -> Gold:
    image, label = table["image_id"].to_numpy(), table["label"].to_numpy()
    order = np.lexsort((label, image))
    image, label = image[order], label[order]
    first = np.ones(len(image), dtype=bool)
    first[1:] = (image[1:] != image[:-1]) | (label[1:] != label[:-1])
    image, label = image[first], label[first]
    twice = np.flatnonzero(image[1:] == image[:-1])
    if model.truth == "single" and len(twice):
        raise InputError(
            f"gold: image {image[twice[0]]} has two classes; drop one, or set truth=multi"
        )
    return Gold(image, label)
