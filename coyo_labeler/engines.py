"""Whether a stage runs on Spark: by its settings, what is installed, and the size of its inputs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coyo_labeler import extras, storage
from coyo_labeler.errors import InputError
from coyo_labeler.machine import bytes_of_memory
from coyo_labeler.session import is_local, names_cluster, require_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coyo_labeler.config.base import StageSettings
    from coyo_labeler.config.collect import CollectSettings
    from coyo_labeler.config.compare import CompareSettings
    from coyo_labeler.config.label import LabelSettings
    from coyo_labeler.config.learn import LearnSettings
    from coyo_labeler.config.merge import MergeSettings
    from coyo_labeler.config.pretrain_vit import PretrainVitSettings
    from coyo_labeler.config.select import SelectSettings
    from coyo_labeler.config.send import SendSettings

#: Bytes of votes and of beliefs up to which local threads finish before Spark could gain on them:
#: about 15 million votes in Parquet, and the beliefs of ten million images.
_LOCAL_VOTES, _LOCAL_BELIEFS = 64 * 2**20, 2 * 2**30
#: With beliefs of 50 classes, confusion matrices take up to so many bytes per byte of votes: 2.3 GB
#: were measured at a million votes of 21,841 classes (4.6 MB in Parquet).
_BYTES_PER_BYTE_OF_VOTES = 500


def always(_: "StageSettings") -> bool:
    """The stage has no other engine than Spark."""
    return True


def never(_: "StageSettings") -> bool:
    """The stage does not use Spark at all."""
    return False


def label_on_spark(settings: "LabelSettings") -> bool:
    """`engine`; auto: Spark where PySpark and Java are installed."""
    if settings.engine != "auto":
        return settings.engine == "spark"
    if not extras.is_installed("pyspark"):
        return False
    try:
        require_java()
    except InputError:
        return False
    return True


def no_imports(_: "StageSettings", __: "SparkSession | None") -> Sequence[str]:
    """The module of the stage imports all that its work needs."""
    return ()


def label_imports(_: "LabelSettings", spark: "SparkSession | None") -> Sequence[str]:
    """The teacher, unless it runs on the executors of a cluster: then the driver needs none."""
    on_cluster = spark is not None and not is_local(spark)
    return () if on_cluster else ("coyo_labeler.label.local",)


def pretrain_imports(settings: "PretrainVitSettings", _: "SparkSession | None") -> Sequence[str]:
    """The trainer.

    Raises: MissingPackageError without TensorBoard, if its events are to be written.
    """
    if settings.tensorboard and not extras.is_installed("tensorboard"):
        raise extras.MissingPackageError(
            "pretrain_vit: tensorboard: it is not installed; "
            f"{extras.remedy('tensorboard')}, or set tensorboard=false"
        )
    return ("coyo_labeler.pretrain.loop",)


def send_imports(settings: "SendSettings", _: "SparkSession | None") -> Sequence[str]:
    """The client of the server, where one is asked."""
    client = {
        "label_studio": ("coyo_labeler.send.label_studio",),
        "cvat": ("coyo_labeler.send.cvat",),
        "cvat_files": ("coyo_labeler.send.cvat",),
    }
    return client.get(settings.to, ())


def collect_imports(settings: "CollectSettings", _: "SparkSession | None") -> Sequence[str]:
    """The clients of servers, where one is asked."""
    is_url = settings.source.startswith(("http://", "https://"))
    return ("coyo_labeler.collect.polling",) if is_url else ()


def merge_on_spark(settings: "MergeSettings") -> bool:
    """`engine`; auto: Spark where a cluster is named or the inputs are large.

    The skills of all workers must fit into half of the machine's memory.

    Raises: FileNotFoundError where an input does not exist.
    """
    if settings.engine != "auto":
        return settings.engine == "spark"
    votes = _bytes_of(settings.votes)
    if names_cluster(settings.spark) or votes > _LOCAL_VOTES:
        return True
    if settings.beliefs is None:
        return False
    return (
        votes * _BYTES_PER_BYTE_OF_VOTES > bytes_of_memory() / 2
        or _bytes_of(settings.beliefs) > _LOCAL_BELIEFS
    )


def select_on_spark(settings: "SelectSettings") -> bool:
    """`engine`; auto: Spark where a cluster is named or the inputs are large.

    Raises: FileNotFoundError where an input does not exist.
    """
    if settings.engine != "auto":
        return settings.engine == "spark"
    labels = storage.locate(settings.labels, "posterior")
    return (
        names_cluster(settings.spark)
        or _bytes_of(labels) > _LOCAL_BELIEFS
        or (settings.votes is not None and _bytes_of(settings.votes) > _LOCAL_VOTES)
    )


def learn_on_spark(settings: "LearnSettings") -> bool:
    """`engine`; auto: Spark where a cluster is named. One machine trains and scores by threads."""
    if settings.engine != "auto":
        return settings.engine == "spark"
    return names_cluster(settings.spark)


def no_other(_: "StageSettings") -> None:
    """The stage does its work itself."""


def report_instead(settings: "CompareSettings") -> tuple[str, Mapping[str, Any]] | None:
    """`report` and its settings where a and b are labels folders, which it compares.

    Raises: InputError where only one of them is.
    """
    labels = {key: _holds_labels(getattr(settings, key)) for key in ("a", "b")}
    if not any(labels.values()):
        return None
    if not all(labels.values()):
        one, other = ("a", "b") if labels["a"] else ("b", "a")
        raise InputError(
            f"compare: {one}: {getattr(settings, one)} is a labels folder, and {other} "
            f"({getattr(settings, other)}) is not; give two of the same kind"
        )
    values = settings.model_dump(
        include={"output", "overwrite", "log_format", "spark", "images", "label_space", "examples"}
    )
    values |= {"labels": settings.b, "compare": settings.a, "top": min(settings.top, 200)}
    if settings.title != type(settings).model_fields["title"].default:
        values["title"] = settings.title
    return "report", values


def _holds_labels(url: str) -> bool:
    """Whether there are Parquet files, or the folder of them that merge writes."""
    if not storage.exists(url):
        return False
    return bool(storage.files_of(url)) or storage.locate(url, "posterior") != url


def _bytes_of(url: str) -> int:
    return sum(info["size"] for info in storage.files_of(url, suffix="").values())
