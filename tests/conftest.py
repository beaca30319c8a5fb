"""What all tests share: one Spark session for the run, and rows typed in as tables."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from coyo_labeler.config.base import SparkSettings
from coyo_labeler.demo.cluster import QUICK_JAVA_VARIABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Here, before anything starts a JVM.
for variable, options in QUICK_JAVA_VARIABLES.items():
    os.environ.setdefault(variable, options)

# No property fails because the machine is busy.
settings.register_profile(
    "patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    # Here, so that tests without Spark also run on machines that have not got it.
    from coyo_labeler.session import open_session  # noqa: PLC0415

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    conf = {
        "spark.sql.shuffle.partitions": "3",
        "spark.default.parallelism": "3",
        "spark.driver.memory": "2g",
        "spark.python.daemon.module": "tests.python_daemon",
    }
    session = open_session(SparkSettings(master="local[2]", conf=conf), "tests")
    yield session
    session.stop()
