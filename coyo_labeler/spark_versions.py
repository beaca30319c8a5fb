"""What differs between the versions of Spark that the package runs on (3.5, 4.0, and 4.1 or newer).

Each function does on every version what the newest one has a method for.
"""

import inspect
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coyo_labeler.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: The oldest version that the tests run on.
OLDEST = (3, 5)

NO_RDDS = (
    "this is a session of Spark Connect or of a serverless service, which has no RDDs; use "
    "spark-submit or spark.master=spark://…, yarn, k8s://… or local[*]. Without Spark run: label "
    "engine=local, merge engine=local, select engine=local, pretrain_vit"
)


def require_spark() -> None:
    """Check that the installed PySpark is new enough. Raises: InputError naming its version."""
    import pyspark  # noqa: PLC0415 - most commands run without it

    if _version(pyspark.__version__) < OLDEST:
        raise InputError(
            f"PySpark {pyspark.__version__} is too old: Spark {OLDEST[0]}.{OLDEST[1]} or newer is "
            "needed; install a newer PySpark, at the version of your cluster"
        )


def require_rdds(spark: "SparkSession", stage: str) -> None:
    """Check that a session has RDDs, which every stage needs that runs on Spark.

    Raises: InputError for a session of Spark Connect.
    """
    if not hasattr(spark, "sparkContext"):
        raise InputError(f"{stage}: {NO_RDDS}")


def repartition_by_id(frame: "DataFrame", partitions: int, column: str) -> "DataFrame":
    """Move each row to the partition whose number `column` holds, in [0, partitions).

    `DataFrame.repartitionById` of Spark 4.1. Before it, rows can only be moved by the hash of a
    column, so that a key is needed for each number that hashes to it. The keys are found by hashing
    enough integers.
    """
    if hasattr(frame, "repartitionById"):
        return frame.repartitionById(partitions, column)
    return by_hashed_keys(frame, partitions, column)


def by_hashed_keys(frame: "DataFrame", partitions: int, column: str) -> "DataFrame":
    """`repartition_by_id` before Spark 4.1."""
    from pyspark.sql import functions as F  # noqa: PLC0415

    # Collecting all of n coupons takes n (ln n + t) draws, but for a probability of e^−t.
    draws = math.ceil(partitions * (math.log(partitions) + 30))
    target = F.pmod(F.hash("id"), F.lit(partitions)).cast("int")
    keys = frame.sparkSession.range(draws).groupBy(target.alias("_partition"))
    keyed = frame.join(
        F.broadcast(keys.agg(F.min("id").alias("_key"))), F.col(column) == F.col("_partition")
    )
    return keyed.repartition(partitions, "_key").drop("_partition", "_key")


def to_arrow(frame: "DataFrame") -> pa.Table:
    """The rows of a small DataFrame. `DataFrame.toArrow` of Spark 4.0."""
    if hasattr(frame, "toArrow"):
        table: pa.Table = frame.toArrow()
        return table
    batches = frame._collect_as_arrow()  # type: ignore[operator] # a method that stubs do not know
    return pa.Table.from_batches(batches, schema=arrow_schema(frame))


def arrow_schema(frame: "DataFrame") -> pa.Schema:
    """The Arrow schema of a DataFrame's rows; instants are in UTC.

    `to_arrow_schema` wants a time zone for them in newer versions, and takes none in older ones.
    """
    from pyspark.sql.pandas.types import to_arrow_schema  # noqa: PLC0415

    wanted: dict[str, Any] = {"timezone": "UTC"}
    known = inspect.signature(to_arrow_schema).parameters
    schema: pa.Schema = to_arrow_schema(
        frame.schema, **{name: value for name, value in wanted.items() if name in known}
    )
    return schema


def from_arrow(spark: "SparkSession", table: pa.Table) -> "DataFrame":
    """A DataFrame of a small table of numbers and strings.

    `createDataFrame` takes an Arrow table from Spark 4.0 on.
    """
    if _version(spark.version) >= (4, 0):
        return spark.createDataFrame(table)
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415

    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return spark.createDataFrame(rows, from_arrow_schema(table.schema))


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
