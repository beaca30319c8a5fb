"""The fit of `DawidSkene` in this process: build the problems, run EM, name the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.dawid_skene.results import Results
from coyo_labeler.dawid_skene.tables import Encoded, encode
from coyo_labeler.dawid_skene.votes import check_votes
from coyo_labeler.em.build import problems_of
from coyo_labeler.em.calibration import calibration_evidence, expected_calibration_error
from coyo_labeler.em.coverage import gather_coverage
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.exact_sum import count_unit
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.model_choice import (
    MOST_VOTES,
    choose_model,
    first_calibration,
    is_sampled,
    name_of,
    with_calibration,
)
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I64
from coyo_labeler.em.tallies import accuracy_on_gold, count_on_gold, most_votes, tally_votes
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.merge.posterior import believed_rows
from coyo_labeler.merge.settings import (
    enough_to_calibrate,
    given_calibration,
    make_model,
    wanted_choices,
)
from coyo_labeler.merge.workers import right_votes, workers_table


def fit_locally(
    settings: MergeSettings,
    labels: int | Sequence[Any] | None,
    votes: pa.Table,
    beliefs: pa.Table | None,
    gold: pa.Table | None,
) -> Results:
    """Fit to tables in memory. labels: as of `DawidSkene`; tables: as of `DawidSkene.fit`.

    Raises: InputError where a column is missing or a value is not usable.
    """
    usable, rejects = check_votes(votes, labels, settings.on_bad_vote)
    encoded = encode(usable, beliefs, gold, labels, settings.duplicate_votes, settings.truth)
    begin = given_calibration(settings)
    model = _model(encoded, settings, begin)
    problems = problems_of(encoded.inputs, model)
    fit_calibration = enough_to_calibrate(
        model.fit_calibration, calibration_evidence(problems), settings.min_calibration_votes
    )
    model = replace(model, fit_calibration=fit_calibration)
    model = with_calibration(model, gather_coverage(problems, model), curved=bool(model.knots))
    e_step = PartitionedEStep(InMemory([problems]), model)
    state = fit(
        e_step,
        model,
        StoppingRule(settings.max_iterations, settings.tolerance, settings.criterion),
        State(calibration=first_calibration(model, begin)),
        lambda _: None,
    )
    parameters, _ = e_step.parameters_of(state)
    posterior = posterior_of(problems, parameters, model)
    image, label, probability = _posterior_rows(encoded, problems, posterior, state, model)
    first = np.ones(len(image), dtype=bool)
    first[1:] = image[1:] != image[:-1]
    tasks = encoded.tasks.take(image)
    sums = e_step.run(parameters, reliability=True)
    right = right_votes(e_step.table, sums.counts, len(encoded.workers))
    return Results(
        classes=encoded.classes,
        labels=pd.Series(
            encoded.classes.take(label[first]), index=tasks[first].rename("task"), name="agg_label"
        ),
        posterior=pa.table(
            {
                "task": pa.array(tasks.to_numpy()),
                "label": pa.array(encoded.classes.take(label).to_numpy()),
                "probability": probability,
            }
        ),
        workers=_workers(encoded, right, model),
        rejects=rejects,
        priors=_priors(encoded.classes, state.log_class_prior),
        loss_history=[entry["objective"] for entry in state.history],
        calibration=(state.calibration.a, state.calibration.b),
        expected_calibration_error=tuple(
            expected_calibration_error(bins) for bins in sums.reliability
        ),
        n_iter=len(state.history),
        worker_model=name_of(model),
    )


def _model(encoded: Encoded, settings: MergeSettings, begin: Calibration) -> Model:
    """The stage's model of these settings; what the stage estimates from the votes is, too."""
    votes, workers = encoded.votes, len(encoded.workers)
    space = LabelSpace("labels", len(encoded.classes))
    model = make_model(settings, space)
    model = replace(model, workers=workers)
    if settings.prior_accuracy == "gold":
        accuracy = accuracy_on_gold(count_on_gold(votes, encoded.gold))
        model = replace(model, prior_accuracy=accuracy)
    model = replace(model, count_unit=count_unit(most_votes(tally_votes(votes, workers))))
    share = min(MOST_VOTES / max(len(votes.image), 1), 1.0)
    sample = encoded.inputs.where(partial(is_sampled, share=share))
    wanted = wanted_choices(settings, settings.worker_model)
    least = settings.min_calibration_votes * share
    return choose_model(sample, model, wanted, begin, least).model


def _posterior_rows(
    encoded: Encoded, problems: Problems, posterior: F64, state: State, model: Model
) -> tuple[I64, NDArray[np.integer[Any]], F64]:
    """Task, label and probability of every entry, (n,), by task and falling probability."""
    in_support = problems.label >= 0  # −1 is the rest of the classes, lumped together
    problem = np.repeat(np.arange(len(problems)), np.diff(problems.offsets))
    image, label = problems.image[problem][in_support], problems.label[in_support]
    probability = posterior[in_support]
    unvoted = encoded.unvoted(np.unique(problems.image))
    if unvoted.num_rows:
        rows = believed_rows(unvoted, state.calibration, model).combine_chunks()
        labels = rows["labels"].combine_chunks()
        probabilities = rows["label_probs"].combine_chunks().flatten().to_numpy()
        lengths = np.diff(labels.offsets.to_numpy())
        image = np.concatenate([image, np.repeat(rows["id"].to_numpy(), lengths)])
        label = np.concatenate([label, labels.flatten().to_numpy()])
        probability = np.concatenate([probability, probabilities.astype(np.float64)])
    order = np.lexsort((label, -probability, image))
    return image[order], label[order], probability[order]


def _workers(encoded: Encoded, right: F64, model: Model) -> pd.DataFrame:
    """The stage's table of workers, by worker. right: expected right votes of each, (workers,)."""
    names = [str(name) for name in encoded.workers]
    table = workers_table(names, tally_votes(encoded.votes, len(names)), right, model)
    frame: pd.DataFrame = table.to_pandas().drop(columns="worker_id")
    return frame.set_index(encoded.workers.rename("worker"))


def _priors(classes: pd.Index[Any], log_class_prior: F64 | None) -> pd.Series[Any]:
    """The share of each class, uniform where it was not estimated."""
    if log_class_prior is None:
        shares = np.full(len(classes), 1 / len(classes))
    else:
        shares = np.exp(log_class_prior)
    return pd.Series(shares, index=classes.rename("label"), name="prior")
