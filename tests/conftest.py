"""What all tests share: one Spark session for the run, and rows typed in as tables."""

import os
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from coyo_labeler.config.base import SparkSettings
from coyo_labeler.session import open_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    conf = {
        "spark.sql.shuffle.partitions": "3",
        "spark.default.parallelism": "3",
        "spark.driver.memory": "2g",
    }
    session = open_session(SparkSettings(master="local[2]", conf=conf), "tests")
    yield session
    session.stop()
