"""PySpark's daemon of Python workers, in which many small tasks are quick.

PySpark ends every task with a garbage collection, which takes 0.1 s where NumPy, Arrow and numba
are imported: nine tenths of the time of a stage on ten rows. Here, what is left after one is not
looked at by the next.
"""

import gc
from types import SimpleNamespace

import pyspark.daemon


def collect() -> None:
    gc.collect()
    gc.freeze()


pyspark.daemon.gc = SimpleNamespace(collect=collect)

if __name__ == "__main__":
    pyspark.daemon.manager()
