"""The stage: beliefs and votes to posterior labels, by EM on Spark or in this process."""

from typing import TYPE_CHECKING

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.executor import executor_of
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.merge.earlier import read_earlier
from coyo_labeler.merge.iterate import iterate, make_e_step
from coyo_labeler.merge.prepare import prepare
from coyo_labeler.merge.reports import write_reports
from coyo_labeler.merge.settings import make_model, make_plan
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.write import write_posterior

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def merge(spark: "SparkSession | None", settings: MergeSettings, run: Run) -> Outcome:
    """Merge machine beliefs with human votes by EM; without a session, in threads right here.

    Reads `settings.beliefs` (schemas.BELIEFS), `settings.votes` (schemas.VOTES) and `settings.gold`
    (schemas.GOLD), perhaps an earlier merge; writes posterior/, workers/, tally/, confusions/,
    skills/, classes/, rejects/, history.json and worker_report.json.

    Raises: InputError naming the file, row, column or value at fault.
    """
    space = load_label_space(settings.label_space)
    earlier = read_earlier(settings.warm_start, settings.worker_model)
    model = make_model(settings, space)
    plan = make_plan(settings, space, earlier)
    executor = executor_of(None if settings.engine == "local" else spark)
    state = StateFolder.open(run.output, run.fingerprint, run.token)

    prepared = prepare(executor, state, model, plan, space, run.check_owner)
    e_step = make_e_step(executor, state, prepared, plan)
    fitted = iterate(e_step, prepared, plan, state, run.check_owner)
    rows = write_posterior(executor, state, e_step, fitted, prepared, plan)
    details = write_reports(run.output, e_step, fitted, prepared, space)

    run.check_owner()  # what follows would take the state from another run
    executor.map(range(executor.cores), state.release)  # on every machine that has tasks
    state.remove()
    images = sum(split.rows for split in plan.beliefs) + prepared.unbelieved
    return Outcome(Counts(images, rows), {"votes": prepared.votes}, details)
