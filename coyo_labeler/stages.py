"""The stages by name, and how one is run: settings, claim, session, work, manifest."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from coyo_labeler import engines
from coyo_labeler.config.base import StageSettings
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.manifest import Manifest, Outcome, Run
from coyo_labeler.session import open_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """Where the settings and the work of a stage are defined; both are imported when they are used.

    settings: `module:class`. work: `module:function`, called as
    function(spark, settings, run) -> Outcome. uses_spark: whether the work needs a Spark session,
    given the settings and what lies at their inputs; spark is None where it does not. A stage whose
    settings reopen a finished output may return None instead of an Outcome: nothing was left to do.
    """

    name: str
    summary: str
    settings: str
    work: str
    uses_spark: Callable[[Any], bool] = engines.always

    def settings_class(self) -> type[StageSettings]:
        """The class that defines, documents and checks its settings."""
        cls: type[StageSettings] = _load(self.settings)
        return cls


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            "source rows (URL, pHash) to a deduplicated, sharded catalog",
            "coyo_labeler.config.ingest:IngestSettings",
            "coyo_labeler.ingest.stage:ingest",
        ),
        Stage(
            "fetch",
            "catalog to webdataset tars of downloaded, pHash-checked images",
            "coyo_labeler.config.fetch:FetchSettings",
            "coyo_labeler.fetch.stage:fetch",
        ),
        Stage(
            "label",
            "image tars to a teacher's top-k labels and probabilities",
            "coyo_labeler.config.label:LabelSettings",
            "coyo_labeler.label.stage:label",
            engines.label_on_spark,
        ),
        Stage(
            "merge",
            "machine beliefs and human votes to posterior labels, by EM",
            "coyo_labeler.config.merge:MergeSettings",
            "coyo_labeler.merge.stage:merge",
            engines.merge_on_spark,
        ),
        Stage(
            "report",
            "any labels folder to statistics, accuracy against gold, one HTML page",
            "coyo_labeler.config.report:ReportSettings",
            "coyo_labeler.report.stage:report",
        ),
        Stage(
            "export",
            "a labels folder to a consumer's copy: Parquet, webdataset, TFRecord or Hugging Face",
            "coyo_labeler.config.export:ExportSettings",
            "coyo_labeler.export.stage:export",
        ),
        Stage(
            "pretrain_vit",
            "labelled images to a pretrained Vision Transformer",
            "coyo_labeler.config.pretrain_vit:PretrainVitSettings",
            "coyo_labeler.pretrain.stage:pretrain_vit",
            engines.never,
        ),
    )
}


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def read_stage_settings(
    stage: Stage, overrides: Iterable[str], config: str | None = None
) -> StageSettings:
    """Settings of a stage from its YAML file (default: `conf/<stage>.yaml`) and overrides."""
    config = config or default_config(stage.name)
    return read_settings(stage.settings_class(), stage.name, config, overrides)


def run_stage(
    stage: Stage, settings: StageSettings, spark: "SparkSession | None" = None
) -> tuple[Manifest, bool]:
    """Run a stage unless it is complete; returns its manifest and whether work was done.

    spark: a session to use; without one, a session is opened when there is work that needs it.

    Raises: InputError for what the user can fix, WorkError where the work failed.
    """
    run = Run.begin(stage.name, settings)
    if run.done is not None and not settings.reopens:
        return run.done, False
    if run.resumed and run.done is None:
        logger.info("%s: resuming the unfinished run in %s", stage.name, run.output)
    if spark is None and stage.uses_spark(settings):
        spark = open_session(settings.spark, stage.name)
    outcome: Outcome | None = _load(stage.work)(spark, settings, run)
    if outcome is None:  # a finished output was reopened, and nothing was left to do
        assert run.done is not None
        return run.done, False
    return run.finish(outcome), True
