"""The stage: from labels, votes and gold to the questions of one round."""

import logging
from typing import TYPE_CHECKING

from coyo_labeler import storage
from coyo_labeler.config.select import SelectSettings
from coyo_labeler.executor import Executor, executor_of
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.select import hashes
from coyo_labeler.select.finish import Assignment, Written, finish_files
from coyo_labeler.select.gather import files_for, write_chosen
from coyo_labeler.select.index import write_index
from coyo_labeler.select.passes import Passes, find_cuts
from coyo_labeler.select.plan import Plan, make_plan
from coyo_labeler.select.summary import describe, left_over
from coyo_labeler.select.workers import read_workers
from coyo_labeler.written import check_written, refuse_strangers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Images of a partition of the index, about.
_PER_PARTITION = 1_000_000

#: The folders that it writes, below the output.
_WRITTEN = ("_state", "questions", "gold_key")


def select(spark: "SparkSession | None", settings: SelectSettings, run: Run) -> Outcome:
    """Choose images to ask about; without a session, in threads right here.

    Reads `settings.labels` (schemas.BELIEFS or POSTERIOR), and where they are given votes, gold,
    tars and workers; writes questions/ (schemas.QUESTIONS) and gold_key/ (schemas.GOLD_KEY).

    Raises: InputError naming the key, file, row, column or value at fault.
    """
    try:
        return _select(spark, settings, run)
    except Exception:
        # All is done anew, so what is there would only hold the output against other settings.
        run.check_owner()
        for folder in _WRITTEN:
            storage.clear(storage.join(run.output, folder))
        raise


def _select(spark: "SparkSession | None", settings: SelectSettings, run: Run) -> Outcome:
    plan = make_plan(settings)
    assignment = read_assignment(settings)
    executor = executor_of(None if settings.engine == "local" else spark)
    states = storage.join(run.output, "_state")
    storage.clear(states)  # what a killed run left
    state = storage.join(states, run.token)
    partitions = settings.partitions or _partitions(executor, plan)

    counted = write_index(executor, state, plan, partitions)
    salts = {stream: plan.salt(stream) for stream in hashes.STREAMS}
    passes = Passes(executor, state, partitions, salts)
    questions = affordable(settings, assignment)
    cuts = find_cuts(passes, plan, counted, questions)
    files = files_for(questions if questions < counted.kinds.sum() else int(counted.kinds.sum()))
    asked = write_chosen(passes, plan, cuts, files)
    run.check_owner()
    written = finish_files(executor, state, run.output, plan, files, assignment)

    run.check_owner()  # what follows would take the state from another run
    storage.clear(states)
    _check_files(run.output, written)
    details = describe(settings, counted, cuts, written)
    for line in details["summary"]:
        logger.info("select: %s", line)
    tables = {}
    if plan.gold:
        unknown = {"not_in_labels": counted.gold_images - counted.gold_known}
        tables["gold"] = Counts(counted.gold_images, counted.gold_known, unknown)
    if plan.votes:
        unknown = {"not_in_labels": counted.answered - counted.answered_known}
        tables["voted_images"] = Counts(counted.answered, counted.answered_known, unknown)
    return Outcome(Counts(counted.images, asked, left_over(counted, asked)), tables, details)


def read_assignment(settings: SelectSettings) -> Assignment | None:
    """Who is asked, where questions are assigned. Raises: InputError where nobody can be."""
    if settings.assign == "none":
        return None
    workers = read_workers(settings.workers, settings.labels)
    return Assignment(workers, settings.assign == "greedy", settings.max_per_worker)


def affordable(settings: SelectSettings, assignment: Assignment | None) -> int:
    """How many questions the budget and the workers' quotas allow."""
    questions = settings.budget // settings.overlap
    if assignment is not None and assignment.most is not None:
        questions = min(
            questions, assignment.most * len(assignment.workers.names) // settings.overlap
        )
    return questions


def _partitions(executor: Executor, plan: Plan) -> int:
    """As many as there are cores, and more where there are many images."""
    images = sum(split.rows for split in plan.labels)
    return max(executor.cores, -(-images // _PER_PARTITION))


def _check_files(output: str, written: Written) -> None:
    check_written("select", output, written.files)
    refuse_strangers("select", output, ["questions", "gold_key"], written.files)
