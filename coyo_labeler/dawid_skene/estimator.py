"""`DawidSkene` for people in a notebook: scikit-learn's shape, on pandas, Arrow or Spark tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.dawid_skene.settings import stage_settings
from coyo_labeler.dawid_skene.tables import Encoded, encode, is_spark, to_arrow
from coyo_labeler.dawid_skene.votes import sort_out_votes
from coyo_labeler.em.build import build_problems
from coyo_labeler.em.calibration import calibration_evidence, expected_calibration_error
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.exact_sum import count_unit
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Model
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.tallies import accuracy_on_gold, count_on_gold, most_votes, tally_votes
from coyo_labeler.em.worker_model import ChoiceSummary, resolve_worker_model
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.merge.posterior import believed_rows
from coyo_labeler.merge.settings import enough_to_calibrate, given_calibration, make_model
from coyo_labeler.merge.workers import right_votes, workers_table
from coyo_labeler.votes.questions import Duplicates

Table = Any  # pandas.DataFrame, pyarrow.Table or pyspark.sql.DataFrame

#: Numbers up to which `probas_` is made as a dense table tasks × labels.
_DENSE_NUMBERS = 50_000_000


class DawidSkene:
    """Votes, and machine beliefs where there are any, to posterior labels and workers' skills.

    The model is that of docs/merge.md: Dawid & Skene (1979) with workers shrunk towards what all of
    them do, and machine beliefs as priors (Liao, Kar & Fidler, CVPR 2021). `DawidSkene.classic()`
    is the model of 1979 with nothing added, as crowd-kit's class of this name computes it.

    labels: the label space: how many classes (labels are 0 to n − 1), or their names; left out: the
    labels that occur. workdir: folder for Spark's tables, a URL that all executors reach (default:
    a temporary one, for local sessions). n_iter and tol are the stage's max_iterations and
    tolerance; the other parameters are those of its keys that have their names, read and checked by
    the same code (calibration may be numbers: a, b, or one temperature of categorical beliefs).

    After `fit`: `labels_` (Series by task), `probas_` (DataFrame task × label), `posterior_` (Arrow
    table task, label, probability: only what is in the support; of Spark DataFrames, the stage's
    table as one), `workers_` (DataFrame), `loss_history_` (the objective by iteration),
    `calibration_` (a, b), `priors_` (Series by label, of tasks without a belief), `rejects_` (the
    votes that on_bad_vote='reject' left out; of Spark DataFrames, duplicates too), `classes_`,
    `worker_model_` (what `auto` came to).

    >>> votes = pd.DataFrame({"task": ["t1", "t1", "t2"], "worker": ["a", "b", "a"],
    ...                       "label": ["cat", "cat", "dog"]})
    >>> DawidSkene().fit_predict(votes).to_dict()
    {'t1': 'cat', 't2': 'dog'}
    """

    posterior_: Any
    _labels: pd.Series[Any] | None = None

    def __init__(
        self,
        labels: int | Sequence[Any] | None = None,
        *,
        n_iter: int = 100,
        tol: float = 1e-6,
        worker_model: Literal["auto", "confusion", "one_coin", "perfect"] = "auto",
        truth: Literal["single", "multi"] = "single",
        beliefs_are: Literal["sigmoid", "categorical"] = "sigmoid",
        calibration: Literal["votes", "gold", "none"] | float | tuple[float, ...] = "votes",
        pooling: Literal["global", "none"] = "global",
        counts: Literal["soft", "hard"] = "soft",
        prior_strength: float = 10.0,
        pooling_strength: float = 10.0,
        prior_accuracy: float | Literal["gold"] = 0.8,
        prior_floor: float = 1e-4,
        class_prior: Literal["uniform", "estimated"] = "estimated",
        support: Literal["candidates", "all"] = "candidates",
        support_mass: float = 0.9999,
        duplicate_votes: Duplicates = "last",
        on_bad_vote: Literal["stop", "reject"] = "stop",
        min_calibration_votes: int = 200,
        start: Literal["labels", "skills"] = "labels",
        workdir: str | None = None,
    ) -> None:
        self.labels = labels
        self.n_iter, self.tol = n_iter, tol
        self.worker_model, self.truth, self.beliefs_are = worker_model, truth, beliefs_are
        self.calibration, self.pooling, self.counts = calibration, pooling, counts
        self.prior_strength, self.pooling_strength = prior_strength, pooling_strength
        self.prior_accuracy, self.prior_floor = prior_accuracy, prior_floor
        self.class_prior, self.support, self.support_mass = class_prior, support, support_mass
        self.duplicate_votes, self.on_bad_vote = duplicate_votes, on_bad_vote
        self.min_calibration_votes = min_calibration_votes
        self.start, self.workdir = start, workdir

    @classmethod
    def classic(cls, **changes: Any) -> DawidSkene:
        """Dawid & Skene 1979: no shrinkage, class prior estimated, every class possible."""
        kept: dict[str, Any] = {
            "worker_model": "confusion",
            "prior_strength": 0.0,
            "pooling": "none",
            "class_prior": "estimated",
            "support": "all",
        }
        return cls(**(kept | changes))

    def fit(self, votes: Table, beliefs: Table = None, gold: Table = None) -> DawidSkene:
        """Fit to votes.

        votes: columns `task, worker, label` (or `image_id, worker_id, label`), perhaps `response`
        (yes, no, unsure) and `timestamp` (the worker's last vote on a task counts). beliefs: `task`
        (or `id`), `labels`, `label_probs` (lists). gold: `task`, `label`. Spark DataFrames are
        fitted on Spark (`posterior_` is one then), all else here.

        Raises: InputError where a column is missing or a value is not usable.
        """
        self._forget()
        if is_spark(votes):
            from coyo_labeler.dawid_skene.on_spark import fit_on_spark  # noqa: PLC0415

            self.__dict__.update(fit_on_spark(self, votes, beliefs, gold))
            return self
        tables = {"votes": votes, "beliefs": beliefs, "gold": gold}
        given = {name: name for name, table in tables.items() if table is not None}
        settings = stage_settings(self, **given, output="output")  # names for tables, not URLs
        usable, rejects = sort_out_votes(to_arrow(votes), self.labels, settings.on_bad_vote)
        encoded = encode(
            usable,
            None if beliefs is None else to_arrow(beliefs),
            None if gold is None else to_arrow(gold),
            self.labels,
            self.duplicate_votes,
            self.truth,
        )
        model = self._model(encoded, settings)
        problems = build_problems(encoded.votes, encoded.beliefs, encoded.gold, model)
        fitted = enough_to_calibrate(
            model.fit_calibration, calibration_evidence(problems), self.min_calibration_votes
        )
        model = replace(model, fit_calibration=fitted)
        e_step = PartitionedEStep(InMemory([problems]), model)
        start = given_calibration(settings)
        state = fit(
            e_step,
            model,
            StoppingRule(self.n_iter, self.tol),
            State(calibration=start),
            lambda _: None,
        )
        self._keep(encoded, problems, e_step, state)
        self.rejects_ = rejects
        return self

    def fit_predict(
        self, votes: Table, beliefs: Table = None, gold: Table = None
    ) -> pd.Series[Any]:
        """`fit`, and the most probable label of each task."""
        return self.fit(votes, beliefs, gold).labels_

    def fit_predict_proba(
        self, votes: Table, beliefs: Table = None, gold: Table = None
    ) -> pd.DataFrame:
        """`fit`, and the probability of each label for each task."""
        return self.fit(votes, beliefs, gold).predict_proba()

    def predict_proba(self) -> pd.DataFrame:
        """The probability of each label (columns) for each task that was fitted (rows).

        Raises: InputError before `fit`, and where the table would be too large: `posterior_` has
        the same numbers without the zeros.
        """
        if not hasattr(self, "posterior_"):
            raise InputError("DawidSkene: call fit first")
        if len(self.labels_) * len(self.classes_) > _DENSE_NUMBERS:
            raise InputError(
                f"DawidSkene: {len(self.labels_):,} tasks × {len(self.classes_):,} labels are too "
                "many for a dense table; use posterior_"
            )
        posterior = self.posterior_
        if not isinstance(posterior, pa.Table):
            from coyo_labeler.dawid_skene.on_spark import collect_posterior  # noqa: PLC0415

            posterior = collect_posterior(posterior, self.classes_)
        dense = np.zeros((len(self.labels_), len(self.classes_)))
        row = self.labels_.index.get_indexer(posterior["task"].to_pandas())
        column = self.classes_.get_indexer(posterior["label"].to_pandas())
        dense[row, column] = posterior["probability"].to_numpy()
        return pd.DataFrame(dense, index=self.labels_.index, columns=self.classes_.rename("label"))

    @property
    def probas_(self) -> pd.DataFrame:
        """`predict_proba()`."""
        return self.predict_proba()

    @property
    def labels_(self) -> pd.Series[Any]:
        """The most probable label of each task, by task.

        On Spark they are collected when they are first asked for. Raises: InputError where these
        are too many.
        """
        if not hasattr(self, "posterior_"):
            raise AttributeError("DawidSkene: call fit first")
        if self._labels is None:
            from coyo_labeler.dawid_skene.on_spark import collect_labels  # noqa: PLC0415

            self._labels = collect_labels(self.posterior_, self.classes_)
        return self._labels

    def _forget(self) -> None:
        """Drop what an earlier fit found, so that nothing of it is taken for what this one does."""
        self._labels = None
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _model(self, encoded: Encoded, settings: MergeSettings) -> Model:
        """The stage's model of these settings; what it learns from the votes is learnt here too."""
        votes, workers = encoded.votes, len(encoded.workers)
        crowd = ChoiceSummary.of(votes.image, votes.label, votes.response)
        worker_model = resolve_worker_model(settings.worker_model, settings.truth, [crowd])
        space = LabelSpace("labels", len(encoded.classes))
        model = make_model(settings, space)
        model = replace(model, worker_model=worker_model, workers=workers)
        if settings.prior_accuracy == "gold":
            accuracy = accuracy_on_gold(count_on_gold(votes, encoded.gold))
            model = replace(model, prior_accuracy=accuracy)
        return replace(model, count_unit=count_unit(most_votes(tally_votes(votes, workers))))

    def _keep(
        self, encoded: Encoded, problems: Problems, e_step: PartitionedEStep, state: State
    ) -> None:
        """Set the attributes that end in an underscore."""
        model = e_step.model
        parameters, _ = e_step.parameters_of(state)
        posterior = posterior_of(problems, parameters, model)
        listed = problems.label >= 0
        problem = np.repeat(np.arange(len(problems)), np.diff(problems.offsets))
        image, label = problems.image[problem][listed], problems.label[listed]
        probability = posterior[listed]
        unvoted = encoded.unvoted(np.unique(problems.image))
        if unvoted.num_rows:
            passed = believed_rows(unvoted, state.calibration, model)
            lengths = np.diff(passed["labels"].combine_chunks().offsets.to_numpy())
            image = np.concatenate([image, np.repeat(passed["id"].to_numpy(), lengths)])
            label = np.concatenate([label, passed["labels"].combine_chunks().flatten().to_numpy()])
            flat = passed["label_probs"].combine_chunks().flatten().to_numpy()
            probability = np.concatenate([probability, flat.astype(np.float64)])
        order = np.lexsort((label, -probability, image))
        image, label, probability = image[order], label[order], probability[order]
        first = np.ones(len(image), dtype=bool)
        first[1:] = image[1:] != image[:-1]
        self.classes_ = encoded.classes
        tasks = encoded.tasks.take(image)
        self._labels = pd.Series(
            encoded.classes.take(label[first]), index=tasks[first].rename("task"), name="agg_label"
        )
        self.posterior_ = pa.table(
            {
                "task": pa.array(tasks.to_numpy()),
                "label": pa.array(encoded.classes.take(label).to_numpy()),
                "probability": probability,
            }
        )
        counts = e_step.run(parameters, reliability=True)
        tally = tally_votes(encoded.votes, len(encoded.workers))
        names = [str(name) for name in encoded.workers]
        right = right_votes(e_step.table, counts.counts, len(names))
        self.workers_ = (
            workers_table(names, tally, right, model)
            .to_pandas()
            .rename(columns={"worker_id": "worker"})
            .assign(worker=encoded.workers)
            .set_index("worker")
        )
        shares = np.full(model.classes, 1 / model.classes)
        if state.log_class_prior is not None:
            shares = np.exp(state.log_class_prior)
        self.priors_ = pd.Series(shares, index=self.classes_.rename("label"), name="prior")
        self.loss_history_ = [entry["objective"] for entry in state.history]
        self.calibration_ = (state.calibration.a, state.calibration.b)
        self.expected_calibration_error_ = tuple(
            expected_calibration_error(bins) for bins in counts.reliability
        )
        self.n_iter_ = len(state.history)
        self.worker_model_ = model.worker_model
