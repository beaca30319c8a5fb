"""All that comes before EM: inputs are read, checked and partitioned, once, into the state."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.exact_sum import count_unit
from coyo_labeler.em.inputs import concatenate_inputs
from coyo_labeler.em.model import Model
from coyo_labeler.em.model_choice import (
    MOST_VOTES,
    Choice,
    choose_model,
    named_model,
    with_calibration,
)
from coyo_labeler.em.passes import load_numba
from coyo_labeler.em.segments import I64
from coyo_labeler.em.tallies import accuracy_on_gold, most_votes
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Executor
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.manifest import Counts
from coyo_labeler.merge.assemble import (
    AssemblyRules,
    BuiltSummary,
    PartitionSummary,
    assemble_partitions,
    build_partitions,
    duplicates_name,
)
from coyo_labeler.merge.cell_shards import Shards, plan_shards
from coyo_labeler.merge.implied import hierarchy_of, nodes_of
from coyo_labeler.merge.read import VotesSummary, partition_votes, reject_name
from coyo_labeler.merge.settings import ROWS_PER_SPLIT, Plan, enough_to_calibrate
from coyo_labeler.merge.sharded import gather_shards
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.voted_filter import VotedFilter, filter_voted
from coyo_labeler.votes import read as votes_files
from coyo_labeler.votes.checks import Reason

logger = logging.getLogger(__name__)

#: Votes of a partition, and votes times the classes of their images, at most; both are guesses.
_VOTES_PER_PARTITION = 1_000_000
_PAIRS_PER_PARTITION = 12_000_000
#: Cells of a shard, about.
_CELLS_PER_SHARD = 3_000_000
#: Votes on about so many images show how far workers agree.
_VOTES_SAMPLED = 20_000
#: What merge writes in more than one file.
_TABLES = ("posterior", "rejects", "confusions", "skills")
#: Bytes of one number.
_NUMBER = 8


@dataclass(frozen=True)
class Prepared:
    """What the prepared partitions hold.

    model: complete. workers: all, sorted. tally: (J, 5) and sample: (n, 3) as `em.tallies.Tallies`
    has them. votes: in, used and rejected. rejects: the files of votes that are not used, below the
    output. unbelieved: voted images without a belief. shards: where skills are too many to
    broadcast. choice: what the model was chosen by, `em.model_choice.Choice`.
    """

    partitions: int
    model: Model
    workers: list[str]
    tally: NDArray[np.int64]
    sample: I64
    voted: VotedFilter
    votes: Counts
    rejects: list[str]
    unbelieved: int
    shards: Shards | None
    choice: Mapping[str, Any] = field(default_factory=dict)


def prepare(
    executor: Executor,
    state: StateFolder,
    model: Model,
    plan: Plan,
    space: LabelSpace,
    check_owner: Callable[[], None],
) -> Prepared:
    """What an unfinished run with these settings has prepared, or all of it anew.

    model: as far as the settings tell, see `make_model`. check_owner: raises where another run has
    taken over the output.

    Raises: InputError naming the row, image or value that cannot be used.
    """
    prepared = _load(state)
    if prepared is None:
        check_owner()
        _clear(state)
        try:
            prepared = _prepare_anew(executor, state, model, plan, space, check_owner)
        except Exception:
            # Nothing of it would be used again, and it would hold the output against a setting or
            # an input that is corrected.
            check_owner()
            _clear(state)
            raise
        check_owner()
        _save(prepared, state)
    return prepared


def _clear(state: StateFolder) -> None:
    """Remove what a killed run left before all was prepared: there may be another number of
    partitions now, which would not write over all of its files."""
    state.remove()
    for table in _TABLES:
        storage.clear(storage.join(state.output, table))


def _prepare_anew(
    executor: Executor,
    state: StateFolder,
    model: Model,
    plan: Plan,
    space: LabelSpace,
    check_owner: Callable[[], None],
) -> Prepared:
    votes_splits = votes_files.plan(plan.votes, ROWS_PER_SPLIT)
    expected = sum(split.rows for split in votes_splits)
    partitions = plan.partitions or _partitions(executor, expected, plan.beliefs)
    with executor.watch("merge: reading votes"), ThreadPoolExecutor(1, "numba") as beside:
        loaded = beside.submit(load_numba)
        summaries = partition_votes(
            executor,
            state,
            votes_splits,
            space,
            partitions,
            plan.reject_bad_votes,
            nodes_of(plan.tree, model.truth),
        )
        _stop_at_bad_votes(summaries)
        voted = _filter_voted(executor, state, partitions, expected, plan)
        loaded.result()
    workers = sorted({name for summary in summaries for name in summary.workers})
    if plan.add_to is not None:
        workers = plan.add_to.with_workers(workers)
    model = _model_of(workers, model, plan)
    used = max(sum(summary.used for summary in summaries), 1)
    share = min(MOST_VOTES / used, 1.0) if plan.wanted.any() else 0.0
    rules = AssemblyRules(workers, model, plan.duplicate_votes, _VOTES_SAMPLED / used, share)
    check_owner()
    with executor.watch("merge: joining votes and beliefs"):
        parts = assemble_partitions(
            executor, state, partitions, plan.gold, plan.beliefs, space, voted, rules
        )
        state.remove_votes(partitions)
        choice = _choose(parts, plan, model, share)
        built = build_partitions(executor, state, partitions, choice.model, plan.tree)
    tally = np.sum([part.tallies.tally for part in parts], axis=0)
    if plan.add_to is not None:
        tally = plan.add_to.add_tally(workers, tally)
    model = _complete_model(choice.model, plan, built, tally)
    duplicates = sum(part.duplicates for part in parts)
    prepared = Prepared(
        partitions=partitions,
        model=model,
        workers=workers,
        tally=tally,
        sample=np.concatenate([part.tallies.sample for part in parts]),
        voted=voted,
        votes=_count_votes(summaries, duplicates),
        rejects=[
            *(reject_name(n) for n, summary in enumerate(summaries) if summary.rejected),
            *(duplicates_name(n) for n, part in enumerate(parts) if part.duplicates),
        ],
        unbelieved=sum(part.unbelieved for part in parts),
        shards=_plan_shards(executor, plan, model, built),
        choice=choice.document,
    )
    if prepared.shards is not None:
        with executor.watch("merge: sharding skills"):
            gather_shards(executor, state, partitions, prepared.shards, model)
    return prepared


def _model_of(workers: Sequence[str], model: Model, plan: Plan) -> Model:
    """The model with what the plan and an earlier merge settle; votes settle the rest."""
    model = replace(model, workers=len(workers))
    if plan.worker_model != "auto":
        model = named_model(model, plan.worker_model)
    if plan.add_to is not None and plan.class_prior_as_earlier:
        model = replace(model, estimate_class_prior=plan.add_to.estimated_class_prior)
    return model


def _partitions(executor: Executor, votes: int, beliefs: Sequence[Split]) -> int:
    """As many as there are cores, and more where there is much."""
    rows = sum(split.rows for split in beliefs)
    width = sum(split.values for split in beliefs) / rows if rows else 0
    pairs = votes * (3 + width)
    return max(
        executor.cores,
        -(-votes // _VOTES_PER_PARTITION),
        int(-(-pairs // _PAIRS_PER_PARTITION)),
    )


def _stop_at_bad_votes(summaries: Sequence[VotesSummary]) -> None:
    """Raises: InputError about the first bad vote, or where there is none to use."""
    for summary in summaries:
        if summary.error is not None:
            raise InputError(summary.error)
    if not any(summary.used for summary in summaries):
        raise InputError(
            "votes: there is not one vote to use; give votes, or use the beliefs as is"
        )


def _filter_voted(
    executor: Executor, state: StateFolder, partitions: int, votes: int, plan: Plan
) -> VotedFilter:
    """votes: how many to expect."""
    if not plan.beliefs:  # then nobody asks which images are voted on
        return VotedFilter.empty(0)
    gold_rows, rows = (sum(split.rows for split in splits) for splits in (plan.gold, plan.beliefs))
    images = min(votes + gold_rows, rows)
    return filter_voted(executor, state, partitions, plan.gold, images, plan.incremental)


def _choose(parts: Sequence[PartitionSummary], plan: Plan, model: Model, share: float) -> Choice:
    """What the votes of the sampled images support; share: of the images that are sampled."""
    if plan.accuracy_on_gold:
        on_gold = np.sum([part.tallies.gold for part in parts], axis=0)
        model = replace(model, prior_accuracy=accuracy_on_gold(on_gold))
    sample = concatenate_inputs([part.sample for part in parts])
    return choose_model(
        sample,
        model,
        plan.wanted,
        plan.calibration,
        plan.min_calibration_votes * share,
        hierarchy_of(plan.tree, model.truth),
    )


def _complete_model(
    model: Model, plan: Plan, built: Sequence[BuiltSummary], tally: NDArray[np.int64]
) -> Model:
    """The model with what all of the votes tell."""
    evidence = np.sum([part.calibration for part in built], axis=0)
    model = replace(
        model,
        fit_calibration=enough_to_calibrate(
            model.fit_calibration, evidence, plan.min_calibration_votes
        ),
        count_unit=count_unit(most_votes(tally)),
    )
    coverage = reduce(add, [part.coverage for part in built])
    return with_calibration(model, coverage, curved=bool(model.knots))


def _count_votes(summaries: Sequence[VotesSummary], duplicates: int) -> Counts:
    rejected: dict[str, int] = {}
    for summary in summaries:
        for reason, rows in summary.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + rows
    if duplicates:
        rejected[str(Reason.DUPLICATE)] = duplicates
    rows, used = (sum(getattr(summary, name) for summary in summaries) for name in ("rows", "used"))
    return Counts(rows, used - duplicates, rejected)


def _plan_shards(
    executor: Executor, plan: Plan, model: Model, parts: Sequence[BuiltSummary]
) -> Shards | None:
    """Shards where the skills are too many to go to every task; in one process nothing goes.

    An increment is small: its skills are broadcast with those of the merge that it adds to.
    """
    if executor.shares_memory or plan.incremental:
        return None
    cells = sum(part.cells for part in parts)
    # One accuracy per worker, or a few numbers, always fit.
    if model.worker_model != "confusion" or cells * _NUMBER <= plan.broadcast_bytes:
        return None
    count = max(executor.cores, -(-cells // _CELLS_PER_SHARD))
    samples = [part.sampled_cells for part in parts]
    return plan_shards(samples, [part.cells for part in parts], CellSpace(model), count)


def _save(prepared: Prepared, state: StateFolder) -> None:
    state.write_array("voted.npy", prepared.voted.bits)
    state.write_array("tally.npy", prepared.tally)
    state.write_array("sample.npy", prepared.sample)
    if prepared.shards is not None:
        state.write_array("bounds.npy", prepared.shards.bounds)
    state.write_prepared(
        {
            "partitions": prepared.partitions,
            "model": asdict(prepared.model),
            "workers": prepared.workers,
            "id_files": prepared.voted.id_files,
            "votes": prepared.votes.to_json(),
            "rejects": prepared.rejects,
            "unbelieved": prepared.unbelieved,
            "choice": prepared.choice,
            "sharded": prepared.shards is not None,
        }
    )


def _load(state: StateFolder) -> Prepared | None:
    """What an unfinished run with these settings has prepared, or None."""
    document: Mapping[str, Any] | None = state.read_prepared()
    if document is None:
        return None
    return Prepared(
        partitions=document["partitions"],
        model=Model.from_json(document["model"]),
        workers=document["workers"],
        tally=state.read_array("tally.npy"),
        sample=state.read_array("sample.npy"),
        voted=VotedFilter(state.read_array("voted.npy"), document["id_files"]),
        votes=Counts.from_json(document["votes"]),
        rejects=document["rejects"],
        unbelieved=document["unbelieved"],
        choice=document["choice"],
        shards=Shards(state.read_array("bounds.npy")) if document["sharded"] else None,
    )
