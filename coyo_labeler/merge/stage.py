"""Beliefs and votes to posterior labels, by EM on Spark (docs/merge.md)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from coyo_labeler import schemas, storage
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.errors import InputError
from coyo_labeler.label_spaces import LabelSpace, load_label_space
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.merge.calibrate import expected_calibration_error
from coyo_labeler.merge.cells import CellSpace, CellTable, describe_cells
from coyo_labeler.merge.distribute import Dealt, SparkPasses, write_posterior
from coyo_labeler.merge.fit import Control, State, fit, parameters_of
from coyo_labeler.merge.intake import BeliefPiece, VotedFilter, VotesSummary, plan_parquet
from coyo_labeler.merge.model import Calibration, Model, Sums
from coyo_labeler.merge.store import Store
from coyo_labeler.merge.workers import confusions_table, workers_table
from coyo_labeler.progress import Progress, watch_spark
from coyo_labeler.votes.checks import Reason
from coyo_labeler.votes.read import plan as plan_votes

logger = logging.getLogger(__name__)

_VOTES_PER_PARTITION = 1_000_000
_ROWS_PER_PIECE = 500_000
_LARGEST_FULL_SUPPORT = 2_000


@dataclass(frozen=True)
class Layout:
    """What the assembled partitions hold, as it is kept in the state.

    votes: in, used and rejected. believed: rows of beliefs. unbelieved: voted images without one.
    """

    workers: list[str]
    tally: np.ndarray[Any, np.dtype[np.int64]]
    places: list[np.ndarray[Any, np.dtype[np.int64]]]
    cells: np.ndarray[Any, np.dtype[np.int64]]
    voted: VotedFilter
    votes: Counts
    unbelieved: int
    model: Model


def merge(spark: SparkSession, settings: MergeSettings, run: Run) -> Outcome:
    """Merge machine beliefs with human votes by EM.

    Reads `settings.beliefs` (schemas.BELIEFS), `settings.votes` (schemas.VOTES) and `settings.gold`
    (schemas.GOLD); writes posterior/, workers/, confusions/, rejects/ and history.json.

    Raises: InputError naming the file, row, column or value at fault.
    """
    space = load_label_space(settings.label_space)
    store = Store(run.output, f"{run.fingerprint}-{int(run.started * 1000)}")
    beliefs = _plan(settings.beliefs, "beliefs", schemas.BELIEFS)
    gold = _plan(settings.gold, "gold", schemas.GOLD)
    layout = _load_layout(store, settings)
    if layout is None:
        layout = _lay_out(spark, settings, space, store, beliefs, gold)
    model, table = layout.model, describe_cells(CellSpace(layout.model), layout.cells)
    passes = SparkPasses(spark, store, layout.places, len(layout.cells), model)
    state = _iterate(passes, table, model, settings, store)
    parameters, _ = parameters_of(state, table, model)
    last = passes.run(parameters, last=True)
    with watch_spark(spark, "merge: writing posterior"):
        rows = write_posterior(
            spark, store, len(layout.places), beliefs, layout.voted, parameters, model
        )
    details = _write_results(run.output, layout, table, state, last)
    store.clear()
    images = sum(piece.rows for piece in beliefs) + layout.unbelieved
    return Outcome(Counts(images, rows), {"votes": layout.votes}, details)


def _plan(url: str | None, key: str, schema: pa.Schema) -> list[BeliefPiece]:
    return [] if url is None else plan_parquet(key, url, schema, _ROWS_PER_PIECE)


def _lay_out(
    spark: SparkSession,
    settings: MergeSettings,
    space: LabelSpace,
    store: Store,
    beliefs: Sequence[BeliefPiece],
    gold: Sequence[BeliefPiece],
) -> Layout:
    """Read, check and deal out everything once; what comes of it is kept in the state."""
    pieces = plan_votes(settings.votes, _ROWS_PER_PIECE)
    expected = sum(piece.rows for piece in pieces)
    partitions = settings.partitions or max(
        spark.sparkContext.defaultParallelism, -(-expected // _VOTES_PER_PARTITION)
    )
    rejects = None if settings.on_bad_vote == "stop" else storage.join(store.output, "rejects")
    dealt = Dealt(spark, pieces, space, partitions, rejects)
    with watch_spark(spark, "merge: reading votes"):
        summaries = dealt.summaries()
        _stop_at_the_first_complaint(summaries)
        voted = dealt.voted_filter(gold, expected)
    workers = sorted({name for summary in summaries for name in summary.workers})
    used = sum(summary.used for summary in summaries)
    model = make_model(settings, space, len(workers), used)
    with watch_spark(spark, "merge: joining votes and beliefs"):
        parts = dealt.assemble(
            beliefs, gold, voted, workers, model, settings.duplicate_votes, store
        )
    dealt.close()
    cells = np.unique(np.concatenate([part.cells for part in parts]))
    rejected: dict[str, int] = {}
    for summary in summaries:
        for reason, n in summary.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + n
    duplicates = sum(part.duplicates for part in parts)
    if duplicates:
        rejected[str(Reason.DUPLICATE)] = duplicates
    layout = Layout(
        workers=workers,
        tally=np.sum([part.tally for part in parts], axis=0),
        places=[np.searchsorted(cells, part.cells) for part in parts],
        cells=cells,
        voted=voted,
        votes=Counts(sum(summary.rows for summary in summaries), used - duplicates, rejected),
        unbelieved=sum(part.unbelieved for part in parts),
        model=model,
    )
    _save_layout(layout, store)
    return layout


def _stop_at_the_first_complaint(summaries: Sequence[VotesSummary]) -> None:
    complaints = [summary for summary in summaries if summary.complaint]
    if complaints:
        raise InputError(min(complaints, key=lambda summary: summary.file).complaint)
    if not any(summary.used for summary in summaries):
        raise InputError(
            "votes: there is not one vote to use; give votes, or use the beliefs as is"
        )


def make_model(settings: MergeSettings, space: LabelSpace, workers: int, votes: int) -> Model:
    """What EM is to compute.

    Raises: InputError where the settings do not fit the label space.
    """
    if settings.support == "all" and space.size > _LARGEST_FULL_SUPPORT:
        raise InputError(
            f"support: all keeps {space.size:,} classes for every image; use candidates, which is "
            f"made for more than {_LARGEST_FULL_SUPPORT:,}"
        )
    fitted: Any = settings.calibration if settings.calibration in ("votes", "gold") else "none"
    if settings.beliefs is None:
        fitted = "none"
    if fitted == "gold" and settings.gold is None:
        raise InputError("calibration: gold needs gold=PATH; or use calibration=votes or none")
    if fitted == "votes" and votes < settings.min_calibration_votes:
        logger.warning(
            "merge: %d votes are too few to calibrate on (%d are needed): calibration none",
            votes,
            settings.min_calibration_votes,
        )
        fitted = "none"
    accuracy = settings.prior_accuracy
    return Model(
        classes=space.size,
        workers=workers,
        truth=settings.truth,
        beliefs_are=settings.beliefs_are,
        worker_model=settings.worker_model,
        prior_strength=settings.prior_strength,
        pooling_strength=None if settings.pooling == "none" else settings.pooling_strength,
        prior_accuracy=0.8 if isinstance(accuracy, str) else accuracy,
        prior_floor=settings.prior_floor,
        hard_counts=settings.counts == "hard",
        estimate_class_prior=settings.class_prior == "estimated",
        support_all=settings.support == "all",
        support_mass=settings.support_mass,
        fit_calibration=fitted,
    )


def _save_layout(layout: Layout, store: Store) -> None:
    store.write_array("cells.npy", layout.cells)
    store.write_array("voted.npy", layout.voted.bits)
    store.write_array("tally.npy", layout.tally)
    for partition, places in enumerate(layout.places):
        store.write_array("places.npy", places, partition)
    storage.write_json(
        store.url("layout.json"),
        {
            "partitions": len(layout.places),
            "workers": layout.workers,
            "votes": layout.votes.to_json(),
            "unbelieved": layout.unbelieved,
            "model": layout.model.__dict__,
        },
    )


def _load_layout(store: Store, settings: MergeSettings) -> Layout | None:
    """What an earlier run with these settings has laid out, or None."""
    kept = storage.read_json(store.url("layout.json"))
    if kept is None:
        return None
    return Layout(
        workers=kept["workers"],
        tally=store.read_array("tally.npy"),
        places=[store.read_array("places.npy", part) for part in range(kept["partitions"])],
        cells=store.read_array("cells.npy"),
        voted=VotedFilter(store.read_array("voted.npy")),
        votes=Counts.from_json(kept["votes"]),
        unbelieved=kept["unbelieved"],
        model=Model(**kept["model"]),
    )


def _iterate(
    passes: SparkPasses, table: CellTable, model: Model, settings: MergeSettings, store: Store
) -> State:
    control = Control(settings.max_iterations, settings.tolerance, settings.criterion)
    calibration = given_calibration(settings)
    state = store.load_state() or State(calibration=calibration, before=calibration)
    done = len(state.history)
    if done:
        logger.info("merge: going on after iteration %d", done)
    with Progress("merge: EM", settings.max_iterations, "iterations", done=done) as progress:

        def save(state: State) -> None:
            store.save_state(state)
            if state.history:
                latest = state.history[-1]
                progress.update(len(state.history), objective=f"{latest['objective']:.6g}")

        return fit(passes, table, model, control, state, save)


def given_calibration(settings: MergeSettings) -> Calibration:
    """The calibration to start from: the one given, or none."""
    if settings.calibration in ("votes", "gold", "none"):
        return Calibration()
    numbers = [float(part) for part in settings.calibration.split(",")]
    if settings.beliefs_are == "categorical":
        if len(numbers) > 1:
            raise InputError(
                "calibration: categorical beliefs have one number, a temperature: calibration=T"
            )
        return Calibration(1.0 / numbers[0], 0.0)
    return Calibration(numbers[0], numbers[1] if len(numbers) > 1 else 0.0)


def _write_results(
    output: str, layout: Layout, table: CellTable, state: State, last: Sums
) -> Mapping[str, Any]:
    """The small tables, and what the manifest tells."""
    model = layout.model
    workers = workers_table(layout.workers, layout.tally, table, last.counts, model)
    confusions = confusions_table(layout.workers, table, last.counts)
    storage.write_parquet(storage.join(output, "workers", "part-00000.parquet"), workers)
    storage.write_parquet(storage.join(output, "confusions", "part-00000.parquet"), confusions)
    if not storage.exists(storage.join(output, "rejects")):
        empty = schemas.VOTES_REJECTS.empty_table()
        storage.write_parquet(storage.join(output, "rejects", "part-00000.parquet"), empty)
    before, after = (expected_calibration_error(bins) for bins in last.reliability)
    calibration = {
        "fitted_on": model.fit_calibration,
        "a": state.calibration.a,
        "b": state.calibration.b,
        "expected_calibration_error": {"before": before, "after": after},
    }
    if model.beliefs_are == "categorical":
        calibration["temperature"] = 1.0 / state.calibration.a
    details = {
        "iterations": len(state.history),
        "stopped": state.stopped,
        "objective": state.history[-1]["objective"],
        "workers": len(layout.workers),
        "calibration": calibration,
    }
    storage.write_json(
        storage.join(output, "history.json"),
        {
            "iterations": list(state.history),
            "stopped": state.stopped,
            "calibration": calibration,
            "reliability": {
                name: [[float(x) for x in row] for row in bins]
                for name, bins in zip(("before", "after"), last.reliability, strict=True)
            },
        },
    )
    return details
