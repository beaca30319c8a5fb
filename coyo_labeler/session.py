"""The Spark session, and what its errors mean to the person who started the job."""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coyo_labeler import extras, storage
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.spark_faults import find_fault
from coyo_labeler.spark_versions import NO_RDDS, require_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coyo_labeler.config.base import SparkSettings

JAVA_MISSING = (
    "Java 17 or newer is not installed: 'apt-get install openjdk-17-jre-headless' (Debian, "
    "Ubuntu), 'dnf install java-17-openjdk-headless' (Fedora, RHEL) or 'brew install openjdk@17' "
    "(macOS), or point JAVA_HOME at one"
)

#: The tables and the determinism of the stages depend on these. Not for users to change.
_FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.compression.codec": "zstd",
    # A flipped bit in a page is an error instead of another value.
    "spark.hadoop.parquet.page.write-checksum.enabled": "true",
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    # What the web pages and event logs of Spark show of properties and plans.
    "spark.redaction.regex": "(?i)secret|token|passw|passphrase|credential|signature|access.?key",
    "spark.redaction.string.regex": r"(?<=://)[^\s/@]*:[^\s/@]*(?=@)",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # An Arrow batch of rows with long lists stays small; bytes never travel in rows.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    # On a cluster of spot machines a task may lose its executor many times.
    "spark.task.maxFailures": "8",
    # Two copies of a download or of a GPU's work cost more than a slow one.
    "spark.speculation": "false",
}

#: Defaults that suit `local[*]`; a cluster's own configuration stands.
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": str(max(8, 2 * (os.cpu_count() or 4))),
    "spark.default.parallelism": str(os.cpu_count() or 4),
    "spark.driver.memory": "4g",
}


def require_java() -> None:
    """Check that Java is installed. Raises: InputError that says how to install it."""
    home = os.environ.get("JAVA_HOME")
    if home and not Path(home, "bin", "java").exists():
        raise InputError(f"JAVA_HOME is {home}, which has no bin/java. {JAVA_MISSING}")
    if not home and not shutil.which("java"):
        raise InputError(JAVA_MISSING)


def _require_programs(here: bool) -> None:
    """Check the programs that the environment names. here: whether tasks run on this machine."""
    home = os.environ.get("SPARK_HOME")
    if home and not Path(home, "bin", "spark-submit").exists():
        raise InputError(
            f"SPARK_HOME is {home}, which has no bin/spark-submit; point it at a Spark, or unset "
            "it to use PySpark's own"
        )
    program = os.environ.get("PYSPARK_PYTHON", sys.executable)
    if here and shutil.which(program) is None:
        raise InputError(
            f"PYSPARK_PYTHON is {program}, which is no program on this machine; give the path of a "
            "Python, or unset it"
        )


def names_cluster(settings: "SparkSettings") -> bool:
    """Whether spark-submit, a setting or the environment says where Spark runs."""
    return bool(settings.master or "PYSPARK_GATEWAY_PORT" in os.environ or os.environ.get("MASTER"))


def is_local(spark: "SparkSession") -> bool:
    """Whether Spark runs in this process and not on a cluster."""
    return re.fullmatch(r"local(\[.*\])?", spark.sparkContext.master or "") is not None


def open_session(settings: "SparkSettings", name: str) -> "SparkSession":
    """The session that spark-submit started, or a new one. name: of the stage.

    Raises: InputError where Java, PySpark or a program that the environment names is missing, where
    PySpark is too old, and for Spark Connect.
    """
    extras.require(name, "pyspark")
    if (settings.master or "").startswith("sc://") or "SPARK_REMOTE" in os.environ:
        raise InputError(f"{name}: {NO_RDDS}")
    require_java()
    with extras.needed(name):
        require_spark()
        from pyspark.sql import SparkSession  # noqa: PLC0415

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit has started the JVM
    builder = SparkSession.builder.appName(f"coyo-labeler {name}")
    properties = dict(_FIXED)
    master = settings.master or (None if submitted else os.environ.get("MASTER", "local[*]"))
    _require_programs(here=bool(master and master.startswith("local")))
    if master:
        builder = builder.master(master)
        if master.startswith("local"):
            properties |= _LOCAL
    if not submitted:
        log4j = Path(__file__).with_name("log4j2.properties").as_uri()
        properties["spark.driver.extraJavaOptions"] = f"-Dlog4j2.configurationFile={log4j}"
        # The executors of this machine run the interpreter, and so the packages, of the driver.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for key, value in (properties | settings.conf).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    if submitted:
        spark.sparkContext.setLogLevel("ERROR")
    return spark


@contextmanager
def sql_conf(spark: "SparkSession", values: Mapping[str, str]) -> Iterator[None]:
    """Set properties of Spark SQL inside the `with` block; restore or unset them after it."""
    before = {key: spark.conf.get(key, None) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, earlier in before.items():
            if earlier is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, earlier)


def spark_path(url: str) -> str:
    """The path by which Hadoop reads or writes what fsspec knows as `url`.

    Hadoop takes a path as it is: nothing in it is percent-encoded, and `%20` in it is three
    characters of a name. Where Spark looks for patterns, see `formats.spark_tables.paths_to_read`.

    Raises: InputError for a filesystem that Spark cannot read.
    """
    path = storage.local_path(url)
    if path is not None:
        return f"file://{path}"
    protocol, _, rest = url.partition("://")
    if protocol == "memory":
        raise InputError(f"{url}: memory:// lives in one process; Spark cannot reach it")
    hadoop = {"s3": "s3a", "gcs": "gs", "az": "abfs"}
    return f"{hadoop.get(protocol, protocol)}://{rest}"


def explain(error: Exception) -> Exception | None:
    """What a Spark error means, as an error of ours, or None for an error that is not Spark's.

    An InputError or WorkError that was raised in a Python worker is returned as such; of other
    faults `spark_faults` knows what is at fault and what helps.
    """
    if isinstance(error, TypeError) and "'JavaPackage' object is not callable" in str(error):
        return find_fault("a class of PySpark does not exist in the JVM")
    if not type(error).__module__.startswith(("py4j", "pyspark")):
        return None
    text = str(error)
    # Behind bars it stands in the traceback of a group of tasks.
    ours = re.findall(r"^[ |]*coyo_labeler\.[\w.]*?(\w+): (.+)$", text, flags=re.MULTILINE)
    if not ours:
        return find_fault(text)
    kind, message = ours[-1]
    is_input = kind in {InputError.__name__, extras.MissingPackageError.__name__}
    return InputError(message) if is_input else WorkError(message)
