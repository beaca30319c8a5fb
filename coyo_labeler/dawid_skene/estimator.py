"""`DawidSkene` for people in a notebook: scikit-learn's shape, on pandas, Arrow or Spark tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from coyo_labeler import extras
from coyo_labeler.dawid_skene.settings import merge_settings
from coyo_labeler.errors import InputError
from coyo_labeler.votes.questions import Duplicates

if TYPE_CHECKING:  # so that the class can be imported, and found missing, without pandas
    import pandas as pd

    from coyo_labeler.dawid_skene.results import Results

Table = Any  # pandas.DataFrame, pyarrow.Table or pyspark.sql.DataFrame

#: Largest dense table of tasks × labels that `predict_proba` makes, in numbers.
_DENSE_NUMBERS = 50_000_000


class DawidSkene:
    """Infers labels and workers' skills from votes, and from machine beliefs where there are any.

    The model is that of docs/model.md: Dawid & Skene (1979) with workers shrunk towards the skill
    of all workers, and machine beliefs as priors (Liao, Kar & Fidler, CVPR 2021).
    `DawidSkene.classic()` is the model of 1979 with nothing added, as crowd-kit's class of this
    name computes it.

    labels: the label space, as the number of classes (labels are 0 to n − 1) or as their names;
    None: the labels that occur. workdir: folder for Spark's tables, a URL that all executors reach;
    None: a temporary folder, for local sessions. n_iter and tol are the stage's max_iterations and
    tolerance. The other parameters are the stage's keys of the same names; `coyo-labeler merge
    --help` explains them. They have the same defaults and are checked by the same code. calibration
    may also be numbers: a, b, or one temperature of categorical beliefs. Nothing is read from
    conf/merge.yaml.

    After `fit`:

    - `labels_`: most probable label, Series by task
    - `probas_`: DataFrame task × label
    - `posterior_`: Arrow table task, label, probability of what is in the support; of Spark
      DataFrames the stage's posterior, a DataFrame
    - `workers_`: DataFrame by worker
    - `loss_history_`: the objective by iteration; `n_iter_`: their number
    - `calibration_`: (a, b); `expected_calibration_error_`: before and after it
    - `priors_`: share of each label among tasks without a belief, Series
    - `rejects_`: the votes that on_bad_vote='reject' set aside; of Spark DataFrames duplicates too
    - `classes_`: the labels; `worker_model_`: the one that was used, where 'auto' was given

    >>> votes = pd.DataFrame({"task": ["t1", "t1", "t2"], "worker": ["a", "b", "a"],
    ...                       "label": ["cat", "cat", "dog"]})
    >>> DawidSkene().fit_predict(votes).to_dict()
    {'t1': 'cat', 't2': 'dog'}
    """

    _labels: pd.Series[Any] | None = None

    def __init__(
        self,
        labels: int | Sequence[Any] | None = None,
        *,
        n_iter: int = 100,
        tol: float = 1e-6,
        worker_model: Literal[
            "auto", "confusion", "pooled", "one_coin", "shared_mistakes", "perfect"
        ] = "auto",
        truth: Literal["single", "multi"] = "single",
        beliefs_are: Literal["sigmoid", "categorical"] = "sigmoid",
        calibration: Literal["votes", "gold", "none"] | float | tuple[float, ...] = "votes",
        pooling: Literal["global", "none"] = "global",
        counts: Literal["soft", "hard"] = "soft",
        prior_strength: float = 10.0,
        pooling_strength: float = 10.0,
        prior_accuracy: float | Literal["gold"] = 0.8,
        prior_floor: float = 1e-4,
        class_prior: Literal["auto", "uniform", "estimated"] = "auto",
        support: Literal["candidates", "all"] = "candidates",
        support_mass: float = 0.9999,
        duplicate_votes: Duplicates = "last",
        on_bad_vote: Literal["stop", "reject"] = "stop",
        min_calibration_votes: int = 200,
        start: Literal["labels", "skills"] = "labels",
        workdir: str | None = None,
    ) -> None:
        """Keep the parameters; `fit` checks them.

        Raises: MissingPackageError where pandas or SciPy is not installed.
        """
        extras.require("DawidSkene", "pandas", "scipy", extra="em")
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
        parameters: dict[str, Any] = {
            "worker_model": "confusion",
            "prior_strength": 0.0,
            "pooling": "none",
            "class_prior": "estimated",
            "support": "all",
        }
        return cls(**(parameters | changes))

    def fit(self, votes: Table, beliefs: Table = None, gold: Table = None) -> DawidSkene:
        """Fit to votes.

        votes: columns `task, worker, label` (or `image_id, worker_id, label`), and optionally
        `response` (yes, no, unsure) and `timestamp` (a worker's last vote on a task counts).
        beliefs: `task` (or `id`), `labels`, `label_probs` (lists). gold: `task`, `label`. Spark
        DataFrames are fitted on Spark, all else in this process.

        Raises: InputError where a column is missing or a value is not usable.
        """
        from coyo_labeler.dawid_skene.columns import is_spark, to_arrow  # noqa: PLC0415
        from coyo_labeler.dawid_skene.local import fit_locally  # noqa: PLC0415

        self._clear()
        if is_spark(votes):
            from coyo_labeler.dawid_skene.on_spark import fit_on_spark  # noqa: PLC0415

            self._set(fit_on_spark(self, votes, beliefs, gold))
            return self
        tables = {"votes": votes, "beliefs": beliefs, "gold": gold}
        urls = {name: name for name, table in tables.items() if table is not None}  # as if at URLs
        settings = merge_settings(self, **urls, output="output")
        self._set(
            fit_locally(
                settings,
                self.labels,
                to_arrow(votes, "votes"),
                None if beliefs is None else to_arrow(beliefs, "beliefs"),
                None if gold is None else to_arrow(gold, "gold"),
            )
        )
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
        """The probability of each label (columns) for each fitted task (rows).

        Raises: InputError before `fit`, and where the table would be too large; `posterior_` has
        the same numbers without the zeros.
        """
        if not hasattr(self, "posterior_"):
            raise InputError("DawidSkene: call fit first")
        if len(self.labels_) * len(self.classes_) > _DENSE_NUMBERS:
            raise InputError(
                f"DawidSkene: {len(self.labels_):,} tasks × {len(self.classes_):,} labels are too "
                "many for a dense table; use posterior_"
            )
        import pandas as pd  # noqa: PLC0415

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

        On Spark they are collected at the first access.

        Raises: AttributeError before `fit`, InputError where there are too many to collect.
        """
        if not hasattr(self, "posterior_"):
            raise AttributeError("DawidSkene: call fit first")
        if self._labels is None:
            from coyo_labeler.dawid_skene.on_spark import collect_labels  # noqa: PLC0415

            self._labels = collect_labels(self.posterior_, self.classes_)
        return self._labels

    def _clear(self) -> None:
        """Remove the results of an earlier fit, so that none outlives a fit that fails."""
        self._labels = None
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _set(self, results: Results) -> None:
        self._labels = results.labels
        self.classes_ = results.classes
        self.posterior_ = results.posterior
        self.workers_ = results.workers
        self.rejects_ = results.rejects
        self.priors_ = results.priors
        self.loss_history_ = results.loss_history
        self.calibration_ = results.calibration
        self.expected_calibration_error_ = results.expected_calibration_error
        self.n_iter_ = results.n_iter
        self.worker_model_ = results.worker_model
