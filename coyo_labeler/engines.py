"""Whether a stage runs on Spark: by its settings, what is installed, and the size of its inputs."""

import importlib.util
from typing import TYPE_CHECKING

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.session import names_cluster, require_java

if TYPE_CHECKING:
    from coyo_labeler.config.base import StageSettings
    from coyo_labeler.config.label import LabelSettings
    from coyo_labeler.config.merge import MergeSettings

#: Bytes of votes and of beliefs up to which local threads finish before Spark could gain on them:
#: about 15 million votes in Parquet, and the beliefs of a million images.
_LOCAL_VOTES, _LOCAL_BELIEFS = 64 * 2**20, 256 * 2**20


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
    if importlib.util.find_spec("pyspark") is None:
        return False
    try:
        require_java()
    except InputError:
        return False
    return True


def merge_on_spark(settings: "MergeSettings") -> bool:
    """`engine`; auto: Spark where a cluster is named or the inputs are large.

    Raises: FileNotFoundError where an input does not exist.
    """
    if settings.engine != "auto":
        return settings.engine == "spark"
    return (
        names_cluster(settings.spark)
        or _bytes_of(settings.votes) > _LOCAL_VOTES
        or (settings.beliefs is not None and _bytes_of(settings.beliefs) > _LOCAL_BELIEFS)
    )


def _bytes_of(url: str) -> int:
    return sum(info["size"] for info in storage.files_of(url, suffix="").values())
