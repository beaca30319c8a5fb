"""Everything read, checked and dealt out once, and kept for a killed run to go on from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.exact_sum import count_unit
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import I64
from coyo_labeler.em.tallies import accuracy_on_gold, most_votes
from coyo_labeler.em.worker_model import resolve_worker_model
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.manifest import Counts
from coyo_labeler.merge.broadcast import BroadcastPasses, StagePasses
from coyo_labeler.merge.cell_shards import Shards, plan_shards
from coyo_labeler.merge.earlier import read_earlier
from coyo_labeler.merge.executor import SparkTasks, Tasks
from coyo_labeler.merge.increment import add_tally, workers_with_earlier
from coyo_labeler.merge.partition import Assembly, Recipe, deal_out
from coyo_labeler.merge.read import VotedFilter, VotesSummary
from coyo_labeler.merge.settings import enough_to_calibrate, make_model
from coyo_labeler.merge.sharded import JoinedPasses
from coyo_labeler.merge.state import LAYOUT, Store
from coyo_labeler.votes.checks import Reason
from coyo_labeler.votes.read import plan as plan_votes

logger = logging.getLogger(__name__)

#: Rows that one task reads.
ROWS_PER_SPLIT = 500_000
#: Votes of a partition, and votes times the classes of their images, at most; both are guesses.
_VOTES_PER_PARTITION = 1_000_000
_PAIRS_PER_PARTITION = 12_000_000
#: Cells of a shard, about.
_CELLS_PER_SHARD = 3_000_000
#: Votes on about so many images show how far workers agree.
_VOTES_SAMPLED = 20_000
#: What merge writes in more files than one.
_TABLES = ("posterior", "rejects", "confusions", "skills")
#: Bytes of one number.
_NUMBER = 8


@dataclass(frozen=True)
class Layout:
    """What the assembled partitions hold.

    votes: in, used and rejected. unbelieved: voted images without a belief. tally: (J, 5) and
    sample: (n, 3) as `evidence.Tallies` has them. shards: where skills are too many to broadcast.
    """

    partitions: int
    workers: list[str]
    tally: NDArray[np.int64]
    sample: I64
    voted: VotedFilter
    votes: Counts
    unbelieved: int
    model: Model
    shards: Shards | None


def lay_out(
    tasks: Tasks,
    settings: MergeSettings,
    space: LabelSpace,
    store: Store,
    beliefs: Sequence[Split],
    gold: Sequence[Split],
) -> tuple[Layout, StagePasses]:
    """The layout that an earlier run with these settings has left, or a new one; and its passes.

    Raises: InputError naming the row, image or value that cannot be used.
    """
    layout = _load(store)
    fresh = layout is None
    if layout is None:
        _begin_anew(store)
        layout = _lay_out_anew(tasks, settings, space, store, beliefs, gold)
    passes = _passes(tasks, settings, store, layout)
    if fresh:
        if isinstance(passes, JoinedPasses):
            with tasks.watch("merge: dealing out skills"):
                passes.prepare()
        _save(layout, store)
    return layout, passes


def _begin_anew(store: Store) -> None:
    """Remove what a killed run left that kept no layout: another number of partitions may follow,
    and would not write over all of it."""
    store.clear()
    for table in _TABLES:
        storage.clear(storage.join(store.output, table))


def _passes(tasks: Tasks, settings: MergeSettings, store: Store, layout: Layout) -> StagePasses:
    if layout.shards is None:
        base = None
        if settings.incremental:
            earlier = read_earlier(str(settings.warm_start), settings.worker_model)
            base = earlier, layout.workers
        return BroadcastPasses(tasks, store, layout.partitions, layout.model, base)
    if not isinstance(tasks, SparkTasks):
        raise InputError(
            f"output: the unfinished run in {store.output} keeps its skills in shards, which takes "
            "Spark: go on with engine=spark, or start over with overwrite=true"
        )
    logger.info("merge: skills are joined, in %d shards", len(layout.shards))
    return JoinedPasses(tasks, store, layout.partitions, layout.shards, layout.model)


def _lay_out_anew(
    tasks: Tasks,
    settings: MergeSettings,
    space: LabelSpace,
    store: Store,
    beliefs: Sequence[Split],
    gold: Sequence[Split],
) -> Layout:
    splits = plan_votes(settings.votes, ROWS_PER_SPLIT)
    expected = sum(split.rows for split in splits)
    partitions = settings.partitions or _partitions(tasks, expected, beliefs)
    rejects = None if settings.on_bad_vote == "stop" else storage.join(store.output, "rejects")
    dealt = deal_out(tasks, splits, space, partitions, rejects)
    with tasks.watch("merge: reading votes"):
        summaries = dealt.summaries()
        _stop_at_the_first_complaint(summaries)
        # Without beliefs nobody asks which images are voted on.
        known = sum(split.rows for split in gold)
        most = min(expected + known, sum(split.rows for split in beliefs))
        exact = store if settings.incremental else None
        voted = dealt.voted_filter(gold, most, exact) if beliefs else VotedFilter.empty(0)
    workers = sorted({name for summary in summaries for name in summary.workers})
    earlier = settings.warm_start if settings.incremental else None
    if earlier is not None:
        workers = workers_with_earlier(earlier, workers)
    used = sum(summary.used for summary in summaries)
    worker_model = resolve_worker_model(
        settings.worker_model, settings.truth, [summary.crowd for summary in summaries]
    )
    model = make_model(settings, space, worker_model, len(workers))
    with tasks.watch("merge: joining votes and beliefs"):
        sample = _VOTES_SAMPLED / max(used, 1)
        recipe = Recipe(workers, model, settings.duplicate_votes, sample, store)
        parts = dealt.assemble(beliefs, gold, voted, recipe)
    dealt.close()
    if settings.prior_accuracy == "gold":
        model = replace(model, prior_accuracy=_accuracy_on_gold(parts))
    found = np.sum([part.calibration for part in parts], axis=0)
    fitted = enough_to_calibrate(model.fit_calibration, found, settings.min_calibration_votes)
    model = replace(model, fit_calibration=fitted)
    tally = np.sum([part.evidence.tally for part in parts], axis=0)
    if earlier is not None:
        tally = add_tally(earlier, workers, tally)
    model = replace(model, count_unit=count_unit(most_votes(tally)))
    duplicates = sum(part.duplicates for part in parts)
    rejected = _add_up(summaries, duplicates)
    return Layout(
        partitions=partitions,
        workers=workers,
        tally=tally,
        sample=np.concatenate([part.evidence.sample for part in parts]),
        voted=voted,
        votes=Counts(sum(summary.rows for summary in summaries), used - duplicates, rejected),
        unbelieved=sum(part.unbelieved for part in parts),
        model=model,
        shards=_shards(parts, settings, model, tasks),
    )


def _partitions(tasks: Tasks, votes: int, beliefs: Sequence[Split]) -> int:
    """As many as there are cores, and more where there is much."""
    rows = sum(split.rows for split in beliefs)
    width = sum(split.values for split in beliefs) / rows if rows else 0
    pairs = votes * (3 + width)
    return max(
        tasks.cores,
        -(-votes // _VOTES_PER_PARTITION),
        int(-(-pairs // _PAIRS_PER_PARTITION)),
    )


def _shards(
    parts: Sequence[Assembly], settings: MergeSettings, model: Model, tasks: Tasks
) -> Shards | None:
    """Shards where the skills are too many to go to every task; in one process nothing goes.

    An increment is small: its skills are broadcast with those of the merge that it adds to.
    """
    if not isinstance(tasks, SparkTasks) or settings.incremental:
        return None
    cells = sum(part.cells for part in parts)
    # One accuracy per worker, or a few numbers, always fit.
    if model.worker_model != "confusion" or cells * _NUMBER <= settings.max_broadcast_mb * 1e6:
        return None
    count = max(tasks.cores, -(-cells // _CELLS_PER_SHARD))
    samples = [part.samples for part in parts]
    return plan_shards(samples, [part.cells for part in parts], CellSpace(model), count)


def _accuracy_on_gold(parts: Sequence[Assembly]) -> float:
    return accuracy_on_gold(np.sum([part.evidence.gold for part in parts], axis=0))


def _add_up(summaries: Sequence[VotesSummary], duplicates: int) -> dict[str, int]:
    """Rejected votes by reason."""
    rejected: dict[str, int] = {}
    for summary in summaries:
        for reason, n in summary.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + n
    if duplicates:
        rejected[str(Reason.DUPLICATE)] = duplicates
    return rejected


def _stop_at_the_first_complaint(summaries: Sequence[VotesSummary]) -> None:
    complaints = [summary for summary in summaries if summary.complaint]
    if complaints:
        raise InputError(min(complaints, key=lambda summary: summary.file).complaint)
    if not any(summary.used for summary in summaries):
        raise InputError(
            "votes: there is not one vote to use; give votes, or use the beliefs as is"
        )


def _save(layout: Layout, store: Store) -> None:
    store.write_array("voted.npy", layout.voted.bits)
    store.write_array("tally.npy", layout.tally)
    store.write_array("sample.npy", layout.sample)
    if layout.shards is not None:
        store.write_array("bounds.npy", layout.shards.bounds)
    storage.write_json(
        store.url(LAYOUT),
        {
            "run": store.run,
            "partitions": layout.partitions,
            "joined": layout.shards is not None,
            "id_files": layout.voted.id_files,
            "workers": layout.workers,
            "votes": layout.votes.to_json(),
            "unbelieved": layout.unbelieved,
            "model": layout.model.__dict__,
        },
    )


def _load(store: Store) -> Layout | None:
    """What an earlier run with these settings has laid out, or None."""
    kept: Any = storage.read_json(store.url(LAYOUT))
    if kept is None:
        return None
    return Layout(
        partitions=kept["partitions"],
        workers=kept["workers"],
        tally=store.read_array("tally.npy"),
        sample=store.read_array("sample.npy"),
        voted=VotedFilter(store.read_array("voted.npy"), kept["id_files"]),
        votes=Counts.from_json(kept["votes"]),
        unbelieved=kept["unbelieved"],
        model=Model(**kept["model"]),
        shards=Shards(store.read_array("bounds.npy")) if kept["joined"] else None,
    )
