"""The stages by name, and how one is run: settings, claim, session, work, manifest."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from coyo_labeler.config.base import StageSettings
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.manifest import Manifest, Outcome, Run
from coyo_labeler.session import open_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """Where a stage's settings and work are found; both are imported only when it runs.

    work: `module:function`, called as function(spark, settings, run) -> Outcome;
    spark is None where `settings.uses_spark` is false. A stage whose settings reopen a finished
    output may return None there: nothing was left to do.
    """

    name: str
    summary: str
    settings: str
    work: str

    def settings_class(self) -> type[StageSettings]:
        """The class that its settings are read into."""
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
        ),
        Stage(
            "merge",
            "machine beliefs and human votes to posterior labels, by EM",
            "coyo_labeler.config.merge:MergeSettings",
            "coyo_labeler.merge.stage:merge",
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
    """Run a stage, or find that it has been run; returns its manifest and whether work was done.

    spark: a session to use; left out, one is opened when there is work.

    Raises: InputError for what the user can mend, WorkError where the work failed.
    """
    run = Run.begin(stage.name, settings)
    if run.done is not None and not settings.reopens:
        return run.done, False
    if run.resumed and run.done is None:
        logger.info("%s: going on with the unfinished run in %s", stage.name, run.output)
    if spark is None and settings.uses_spark:
        spark = open_session(settings.spark, stage.name)
    outcome: Outcome | None = _load(stage.work)(spark, settings, run)
    if outcome is None:  # looked into a finished output and found nothing left to do
        assert run.done is not None
        return run.done, False
    return run.finish(outcome), True
