"""What all tests share: one Spark session for the run, and rows typed in as tables."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from coyo_labeler.config.base import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Of Java's two compilers the quick one alone: the jobs of tests are so short that the other one
#: costs two fifths of their processor time. Users' jobs have both.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
for variable in ("SPARK_SUBMIT_OPTS", "SPARK_DAEMON_JAVA_OPTS", "SPARK_LAUNCHER_OPTS"):
    os.environ.setdefault(variable, JAVA_OPTIONS)


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    # Here, so that tests without Spark also run on machines that have not got it.
    from coyo_labeler.session import open_session  # noqa: PLC0415

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    conf = {
        "spark.sql.shuffle.partitions": "3",
        "spark.default.parallelism": "3",
        "spark.driver.memory": "2g",
    }
    session = open_session(SparkSettings(master="local[2]", conf=conf), "tests")
    yield session
    session.stop()
