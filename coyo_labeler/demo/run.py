"""The whole pipeline on real scanned digits, stage by stage, each as its job runs it."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from coyo_labeler import extras, storage
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.demo import summary
from coyo_labeler.demo.cluster import QUICK_JAVA_VARIABLES, Cluster, start_cluster
from coyo_labeler.demo.pretrain import pretrain
from coyo_labeler.demo.rounds import GOLD_SHARE, ROUNDS, Runner, ask, counts
from coyo_labeler.demo.server import serve
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.manifest import Manifest, Run, read_manifest
from coyo_labeler.round.run import run_round
from coyo_labeler.session import require_java
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from coyo_labeler.storage_errors import parsing

logger = logging.getLogger(__name__)

#: The scripts for spark-submit.
JOBS = Path(__file__).parents[1] / "jobs"


def run_demo(settings: DemoSettings) -> str:
    """Run the demo, or what is missing of it; returns the summary as text.

    Raises: InputError, WorkError as the stages do.
    """
    extras.require("demo", "sklearn", "timm", "torch", "pyspark", "imagehash", extra="demo")
    require_java()
    out = settings.output
    before = None if settings.overwrite else storage.read_json(storage.join(out, "summary.json"))
    if before is None:
        _refuse_busy_port(settings.port)
    _claim(settings)
    with parsing(storage.join(out, "summary.json")):
        seconds = dict(before["seconds"]) if before else {}
    for variable, options in QUICK_JAVA_VARIABLES.items():
        os.environ.setdefault(variable, options)
    with ExitStack() as stack:
        run = _cluster_runner(settings, stack) if settings.cluster else _runner_here(settings)
        with _timed(seconds, "source"):
            _prepare(settings)
        for name, words in _stages(settings).items():
            if name == "label":
                with _timed(seconds, "teacher"):
                    _teach(settings)
            if name == "merge":
                with _timed(seconds, "rounds"):
                    _ask(settings, run)
            if _is_done(name, words):
                continue
            with _server(settings) if name == "fetch" else ExitStack():
                logger.info("── %s", STAGES[name.partition(":")[0]].summary)
                run(name.partition(":")[0], words)
    if read_manifest(storage.join(out, "pretrain", "merged")) is None:
        logger.info(
            "── a tiny ViT, trained twice: on the machine's labels and on the merged labels"
        )
    pretraining = pretrain(out)
    document = summary.build(
        settings, _manifests(settings), seconds, pretraining, counts(settings.output)
    )
    if document == before:
        return f"Nothing to do: {out} is complete.\n\n{summary.text(document, out)}"
    storage.write_json(storage.join(out, "summary.json"), document)
    return summary.text(document, out)


def _stages(settings: DemoSettings) -> dict[str, list[str]]:
    """Every job of the demo in order, with its arguments; `merge:votes` merges votes alone."""
    out, labels = settings.output, f"label_space={settings.output}/source/labels.txt"
    votes = f"votes={out}/votes"
    return {
        "ingest": [
            f"source={out}/source",
            f"output={out}/catalog",
            "rows_per_shard=200",
            "thresholds.watermark_score.max=0.5",
        ],
        "fetch": [
            f"catalog={out}/catalog",
            f"output={out}/images",
            "allow_private=true",
            "timeout_seconds=10",
            "connections=16",
        ],
        "label": [
            f"images={out}/images",
            f"output={out}/beliefs",
            "model=tf_efficientnetv2_b0",
            f"checkpoint={out}/teacher/model.safetensors",
            labels,
            "activation=sigmoid",
            "preprocess=automl_64",
            "precision=float32",
            "batch_size=50",
        ],
        "merge": [
            f"beliefs={out}/beliefs",
            votes,
            f"output={out}/merged",
            labels,
        ],
        # All digits are equally frequent; estimating their frequencies would only add noise here.
        "merge:votes": [votes, f"output={out}/votes_alone", labels, "class_prior=uniform"],
        "report": [
            f"labels={out}/merged",
            f"compare={out}/beliefs",
            votes,
            f"gold_key={out}/rounds/*/questions/gold_key",
            f"gold={out}/gold",
            f"images={out}/images",
            f"catalog={out}/catalog",
            labels,
            "title=Label report: scanned digits",
            f"output={out}/report",
        ],
    }


def _output(words: Sequence[str]) -> str:
    return next(word.removeprefix("output=") for word in words if word.startswith("output="))


def _is_done(name: str, words: Sequence[str]) -> bool:
    stage = STAGES[name.partition(":")[0]]
    if read_manifest(_output(words)) is None:
        return False
    return Run.begin(stage.name, read_stage_settings(stage, words)).done is not None


def _manifests(settings: DemoSettings) -> dict[str, Manifest]:
    manifests = {name: read_manifest(_output(words)) for name, words in _stages(settings).items()}
    return {name: manifest for name, manifest in manifests.items() if manifest is not None}


def _claim(settings: DemoSettings) -> None:
    """Claim the output folder.

    Raises: InputError if it holds a demo of other settings, or anything else.
    """
    marker = storage.join(settings.output, "demo.json")
    shape = {"port": settings.port, "seed": settings.seed, "rounds": ROUNDS, "gold": GOLD_SHARE}
    claimed = storage.read_json(marker)
    if settings.overwrite and claimed is not None:
        storage.clear(settings.output)
    elif claimed is None and storage.exists(settings.output):
        raise InputError(
            f"demo: output: {settings.output} was not written by the demo; choose another folder"
        )
    elif claimed is not None and claimed != shape:
        raise InputError(
            f"demo: output: {settings.output} holds a demo with {claimed}, this one has {shape}; "
            "choose another folder, or replace it with overwrite=true"
        )
    storage.write_json(marker, shape)


def _runner_here(settings: DemoSettings) -> Runner:
    """A runner that runs the stages, and the steps of the loop, in this process."""

    def run(name: str, words: Sequence[str]) -> None:
        if name == "round":
            loop = read_settings(RoundSettings, name, default_config(name), words)
            logger.info("%s", run_round(loop.model_copy(update={"spark": settings.spark})))
            return
        stage = STAGES[name]
        own = read_stage_settings(stage, words)
        run_stage(stage, own.model_copy(update={"spark": settings.spark}))

    return run


def _cluster_runner(settings: DemoSettings, stack: ExitStack) -> Runner:
    """A runner that starts the cluster when the first job needs it."""
    running: list[Cluster] = []

    def run(name: str, words: Sequence[str]) -> None:
        if not running:
            logger.info("── a standalone Spark cluster of two workers on 127.0.0.1")
            folder = Path(settings.output, "cluster")
            running.append(stack.enter_context(start_cluster(folder)))
        cluster = running[0]
        command = cluster.spark_submit(JOBS / f"{name}.py", words, settings.spark.conf)
        status = subprocess.run(
            command, env=cluster.environment, stdout=sys.stderr, check=False
        ).returncode
        if status:
            raise (InputError if status == 2 else WorkError)(
                f"demo: the job {name} ended with status {status}; its message is above; "
                "run the demo again to go on"
            )

    return run


def _prepare(settings: DemoSettings) -> None:
    """Write source/, known/ and gold/, unless they exist."""
    source, known, gold = (
        storage.join(settings.output, name) for name in ("source", "known", "gold")
    )
    if storage.exists(storage.join(gold, "gold.parquet")):
        return
    from coyo_labeler.demo.source import write_gold, write_known, write_source  # noqa: PLC0415

    logger.info("── 1,797 scanned digits as image files, and a table of their URLs")
    write_source(source, settings.port)
    write_known(known)
    write_gold(gold)


def _teach(settings: DemoSettings) -> None:
    """Train the stand-in teacher, unless its weights exist."""
    folder = storage.join(settings.output, "teacher")
    if storage.exists(storage.join(folder, "model.safetensors")):
        return
    from coyo_labeler.demo.teacher import train  # noqa: PLC0415

    logger.info("── a stand-in teacher: a small EfficientNetV2, trained on 300 of the digits")
    train(storage.join(settings.output, "source"), folder)


def _ask(settings: DemoSettings, run: Runner) -> None:
    """Run the rounds of questions and simulated answers, unless their votes exist."""
    from coyo_labeler.demo.source import truth  # noqa: PLC0415

    ask(settings, truth(), run)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Record the wall time of a part, unless its work had been done before.

    To see that it was done takes seconds too on a busy machine: they are not the part's time.
    """
    start = time.monotonic()
    yield
    seconds.setdefault(name, round(time.monotonic() - start, 1))


def _refuse_busy_port(port: int) -> None:
    """Check that the image server could start, before work begins.

    Raises: InputError if its port is taken.
    """
    try:
        serve(Path(), port).server_close()
    except OSError as error:
        raise _port_error(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None


def _port_error(what: str) -> InputError:
    return InputError(
        f"demo: port: {what}; choose another port and output: coyo-labeler demo "
        "output=out/demo-2 port=18128, or make demo OUT=out/demo-2 PORT=18128"
    )


@contextmanager
def _server(settings: DemoSettings) -> Iterator[None]:
    """Run the image server in a process that ends with this one.

    Raises: InputError if its port is taken.
    """
    images = str(Path(settings.output, "source", "images"))
    command = [sys.executable, "-m", "coyo_labeler.demo.server", images, str(settings.port)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    line = server.stdout.readline().strip()
    if not line.startswith("ready"):
        raise _port_error(line or "the image server did not start")
    try:
        yield
    finally:
        server.stdin.close()
        server.wait(timeout=120)
