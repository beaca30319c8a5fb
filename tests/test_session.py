"""Properties of the Spark session."""

import pytest
from pyspark.sql import SparkSession

from coyo_labeler.session import sql_conf

ZONE = "spark.sql.session.timeZone"
UNSET = "spark.sql.execution.arrow.maxBytesPerBatch"


def test_properties_are_as_before_even_after_an_error(spark: SparkSession) -> None:
    before = {key: spark.conf.get(key, None) for key in (ZONE, UNSET)}
    with pytest.raises(ValueError), sql_conf(spark, {ZONE: "Asia/Tokyo", UNSET: "1000"}):
        assert spark.conf.get(ZONE) == "Asia/Tokyo"
        assert spark.conf.get(UNSET) == "1000"
        raise ValueError
    assert {key: spark.conf.get(key, None) for key in (ZONE, UNSET)} == before
