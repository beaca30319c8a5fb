"""The stages by name, and how one is run: settings, claim, session, work, manifest."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from coyo_labeler import engines, extras, storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import Manifest, Outcome, Run
from coyo_labeler.session import open_session
from coyo_labeler.spark_versions import require_rdds

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

    extra: the extra that installs what the stage imports. imports: modules of the package that
    `work` imports only when it runs, given the settings and the session. group: `module:function`
    that runs the stage's command, its argument, in each of the processes that torchrun starts; "":
    the stage runs in one process. instead: the stage that does this work, by name, and its
    settings; None: this one. refuse: `module:function` that looks at what the settings name, and
    raises InputError, before the output is claimed; "": none.
    """

    name: str
    summary: str
    settings: str
    work: str
    extra: str
    uses_spark: Callable[[Any], bool] = engines.always
    imports: Callable[[Any, Any], Sequence[str]] = engines.no_imports
    group: str = ""
    instead: Callable[[Any], tuple[str, Mapping[str, Any]] | None] = engines.no_other
    refuse: str = ""

    def settings_class(self) -> type[StageSettings]:
        """The class that defines, documents and checks its settings."""
        cls: type[StageSettings] = load(self.settings)
        return cls


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            "source rows (URL, pHash) to a deduplicated, sharded catalog",
            "coyo_labeler.config.ingest:IngestSettings",
            "coyo_labeler.ingest.stage:ingest",
            "spark",
        ),
        Stage(
            "fetch",
            "catalog to webdataset tars of downloaded, pHash-checked images",
            "coyo_labeler.config.fetch:FetchSettings",
            "coyo_labeler.fetch.stage:fetch",
            "spark",
        ),
        Stage(
            "label",
            "image tars to a teacher's top-k labels and probabilities",
            "coyo_labeler.config.label:LabelSettings",
            "coyo_labeler.label.stage:label",
            "teacher",
            engines.label_on_spark,
            engines.label_imports,
        ),
        Stage(
            "merge",
            "machine beliefs and human votes to posterior labels, by EM",
            "coyo_labeler.config.merge:MergeSettings",
            "coyo_labeler.merge.stage:merge",
            "em",
            engines.merge_on_spark,
            refuse="coyo_labeler.merge.settings:require_tree",
        ),
        Stage(
            "select",
            "labels to the questions of one round: which images to ask people about",
            "coyo_labeler.config.select:SelectSettings",
            "coyo_labeler.select.stage:select",
            "em",
            engines.select_on_spark,
            refuse="coyo_labeler.select.plan:require_tree",
        ),
        Stage(
            "learn",
            "features and posteriors to beliefs of a learner, for the next merge",
            "coyo_labeler.config.learn:LearnSettings",
            "coyo_labeler.learn.stage:learn",
            "learn",
            engines.learn_on_spark,
        ),
        Stage(
            "simulate",
            "policies of asking people, tried on images whose truth is known",
            "coyo_labeler.config.simulate:SimulateSettings",
            "coyo_labeler.simulate.stage:simulate",
            "simulate",
            engines.never,
        ),
        Stage(
            "report",
            "any labels folder to statistics, accuracy against gold, one HTML page",
            "coyo_labeler.config.report:ReportSettings",
            "coyo_labeler.report.stage:report",
            "spark",
        ),
        Stage(
            "compare",
            "two annotations of the same images, COCO instances or labels, side by side",
            "coyo_labeler.config.compare:CompareSettings",
            "coyo_labeler.compare.stage:compare",
            "compare",
            engines.never,
            instead=engines.report_instead,
        ),
        Stage(
            "export",
            "a labels folder to a consumer's copy: Parquet, webdataset, TFRecord or Hugging Face",
            "coyo_labeler.config.export:ExportSettings",
            "coyo_labeler.export.stage:export",
            "spark",
        ),
        Stage(
            "send",
            "questions to Label Studio, CVAT, or files for these and for MTurk",
            "coyo_labeler.config.send:SendSettings",
            "coyo_labeler.send.stage:send",
            "ask",
            engines.never,
            engines.send_imports,
        ),
        Stage(
            "collect",
            "the answers of an annotation tool, or an export of them, to votes",
            "coyo_labeler.config.collect:CollectSettings",
            "coyo_labeler.collect.stage:collect",
            "ask",
            engines.never,
            engines.collect_imports,
        ),
        Stage(
            "pretrain_vit",
            "labelled images to a pretrained Vision Transformer",
            "coyo_labeler.config.pretrain_vit:PretrainVitSettings",
            "coyo_labeler.pretrain.stage:pretrain_vit",
            "train",
            engines.never,
            engines.pretrain_imports,
            "coyo_labeler.pretrain.stage:in_group",
        ),
    )
}


def load(path: str) -> Any:
    """What `module:name` means."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def in_processes(stage: Stage, command: Callable[[], None]) -> None:
    """Run a stage's command, in a group where torchrun started several processes.

    Whatever sets torchrun's variables counts, such as an operator of Kubernetes.

    Raises: InputError for a stage that runs in one process, and where variables are missing.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count in {"", "1"}:
        command()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if not stage.group:
        if "RANK" in missing:  # not torchrun: a variable that somebody left behind
            command()
            return
        raise InputError(
            f"{stage.name}: torchrun started {count} processes, but the stage runs in one; start "
            "it without torchrun"
        )
    if missing or not count.isdecimal():
        raise InputError(
            f"{stage.name}: the environment has WORLD_SIZE={count}"
            + (f", but no {' and no '.join(missing)}" if missing else "")
            + "; start several processes with torchrun, or one without WORLD_SIZE"
        )
    with extras.needed(stage.name, stage.extra):
        run_in_group = load(stage.group)
        run_in_group(command)


def read_stage_settings(
    stage: Stage, overrides: Iterable[str], config: str | None = None
) -> StageSettings:
    """Settings of a stage from its YAML file (default: the package's) and overrides."""
    config = config or default_config(stage.name)
    return read_settings(stage.settings_class(), stage.name, config, overrides)


def _with_absolute_paths(settings: StageSettings) -> StageSettings:
    """Inputs and output so that every process finds them: workers have other working folders."""
    urls = {key: getattr(settings, key) for key in ("output", *settings.inputs, *settings.paths)}
    known = {key: storage.absolute(url) for key, url in urls.items() if url is not None}
    return settings.model_copy(update=known)


def _words(name: str, values: Mapping[str, Any]) -> str:
    """The command that runs a stage, for messages."""
    given = {key: values[key] for key in ("labels", "compare", "output") if key in values}
    return " ".join(["coyo-labeler", name, *(f"{key}={value}" for key, value in given.items())])


def run_stage(
    stage: Stage,
    settings: StageSettings,
    spark: "SparkSession | None" = None,
    whole_process: bool = False,
) -> tuple[Manifest, bool]:
    """Run a stage unless it is complete; returns its manifest and whether work was done.

    spark: a session to use; without one, a session is opened when there is work that needs it. What
    the work imports is imported, and the session is open, before the output is claimed.
    whole_process: the process does nothing else.

    Raises: InputError for what the user can fix, WorkError where the work failed.
    """
    settings = _with_absolute_paths(settings)
    if other := stage.instead(settings):
        name, values = other
        logger.info("%s: %s does this: %s", stage.name, name, _words(name, values))
        settings_class = STAGES[name].settings_class()
        return run_stage(STAGES[name], settings_class.model_validate(values), spark, whole_process)
    settings.check()

    @cache
    def prepare() -> "tuple[Any, SparkSession | None]":
        session = spark
        if session is None and stage.uses_spark(settings):
            session = open_session(settings.spark, stage.name)
        elif session is None and whole_process:
            extras.do_without_pandas()
        if session is not None and stage.uses_spark(settings):
            require_rdds(session, stage.name)
        with extras.needed(stage.name, stage.extra):
            for module in stage.imports(settings, session):
                import_module(module)
            if stage.refuse:
                load(stage.refuse)(settings)
            return load(stage.work), session

    run = Run.begin(stage.name, settings, prepare)
    if run.done is not None and not settings.reopens:
        return run.done, False
    if run.resumed and run.done is None:
        logger.info("%s: resuming the unfinished run in %s", stage.name, run.output)
    work, session = prepare()
    try:
        with extras.needed(stage.name, stage.extra):
            outcome: Outcome | None = work(session, settings, run)
    except Exception:
        if run.done is None:
            run.check_owner()  # where another run has taken over, that is why
        raise
    if outcome is None:  # a finished output was reopened, and nothing was left to do
        assert run.done is not None
        return run.done, False
    return run.finish(outcome), True
