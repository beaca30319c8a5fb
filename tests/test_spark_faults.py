"""Faults of Spark by the text that Spark gives, as it came from a run."""

import asyncio
import re
import traceback

import pytest
from py4j.protocol import Py4JError

from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.session import explain

TRACEBACK = """An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "/opt/spark/python/lib/pyspark.zip/pyspark/worker.py", line 75, in read_command
    command = serializer.loads(file)
              ^^^^^^^^^^^^^^^^^^^^^^
{error}
"""
JOB = """An error occurred while calling o74.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 8 \
times, most recent failure: Lost task 0.7 in stage 0.0 (TID 7) (10.0.0.2 executor 1): {error}
\tat java.base/java.lang.ProcessBuilder.start(ProcessBuilder.java:1143)
Caused by: {cause}
\t... 28 more

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2935)
Caused by: {error}
\t... 1 more
Caused by: {cause}
\t... 28 more
"""


def job(error, cause=None):
    return JOB.format(error=error, cause=cause or error)


PERMANENT = {
    "a missing package of an extra": (
        TRACEBACK.format(error="ModuleNotFoundError: No module named 'timm.data'"),
        r"no module timm.*pip install 'coyo-labeler\[teacher\]'.*every machine",
    ),
    "a missing module that nobody declares": (
        job("SerializationError: x", "ModuleNotFoundError: No module named 'acme'"),
        r"no module acme: install it \(pip install acme\)",
    ),
    "the package itself": (
        TRACEBACK.format(error="ModuleNotFoundError: No module named 'coyo_labeler'"),
        r"no module coyo_labeler: install coyo-labeler on every machine.*spark\.archives",
    ),
    "a library that a module needs": (
        TRACEBACK.format(error="ImportError: libGL.so.1: cannot open shared object file"),
        r"cannot import a module \(libGL\.so\.1",
    ),
    "no credentials": (
        TRACEBACK.format(error="botocore.exceptions.NoCredentialsError: Unable to locate them"),
        r"cannot use the object store \(Unable to locate them\).* environment of every machine",
    ),
    "no Python": (
        job(
            'java.io.IOException: Cannot run program "/opt/env/bin/python": error=2, No such file '
            "or directory",
            "java.io.IOException: error=2, No such file or directory",
        ),
        r"/opt/env/bin/python \(No such file or directory\): set PYSPARK_PYTHON",
    ),
    "a Python that may not be run": (
        job('java.io.IOException: Cannot run program "./env/python3": error=13, Permission denied'),
        r"\./env/python3 \(Permission denied\): set PYSPARK_PYTHON",
    ),
    "another program": (
        job('java.io.IOException: Cannot run program "nvidia-smi": error=2, No such file'),
        r"program nvidia-smi .*install it on every machine",
    ),
    "another Python": (
        TRACEBACK.format(
            error="pyspark.errors.exceptions.base.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] "
            "Python in worker has different version: 3.10 than that in driver: 3.11, PySpark "
            "cannot run with different minor versions."
        ),
        r"tasks run on Python 3\.10 and the driver on 3\.11.*PYSPARK_DRIVER_PYTHON",
    ),
    "another Spark": (
        job(
            "java.io.InvalidClassException: org.apache.spark.rpc.RpcEndpointRef; local class "
            "incompatible: stream classdesc serialVersionUID = 1"
        ),
        r"different versions \(org\.apache\.spark\.rpc\.RpcEndpointRef.*version of PySpark",
    ),
    "an older JVM side": (
        "org.apache.spark.api.python.PythonSQLUtils does not exist in the JVM",
        "different versions.*SPARK_HOME",
    ),
    "an old Java": (
        job("java.lang.UnsupportedClassVersionError: org/apache/X (class file version 61.0)"),
        "Java is too old.*JAVA_HOME",
    ),
    "a Java that does not start": (
        "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number.",
        "Java did not start.*JAVA_HOME",
    ),
    "a master that is none": (
        ": org.apache.spark.SparkException: Could not parse Master URL: 'head:7077'",
        "spark.master: head:7077 is no address",
    ),
    "a path that is not there": (
        "[PATH_NOT_FOUND] Path does not exist: file:/data/my votes. SQLSTATE: 42K03",
        "nothing at file:/data/my votes, as Spark sees it",
    ),
    "a file that a machine does not see": (
        job("java.io.FileNotFoundException: File file:/home/me/a.parquet does not exist"),
        "no file at file:/home/me/a.parquet on the machine that ran the task",
    ),
    "a file that a Python task does not see": (
        TRACEBACK.format(error="FileNotFoundError: [Errno 2] No such file or directory: '/me/a'"),
        "no file at /me/a on the machine",
    ),
    "no connector": (
        ": java.lang.RuntimeException: java.lang.ClassNotFoundException: Class "
        "org.apache.hadoop.fs.s3a.S3AFileSystem not found",
        r"s3a:// paths: hadoop-aws is missing.*--packages",
    ),
    "no filesystem": (
        ': org.apache.hadoop.fs.UnsupportedFileSystemException: No FileSystem for scheme "abfs"',
        "abfs:// paths: hadoop-azure is missing",
    ),
    "a folder that may not be made": (
        job(
            "java.io.IOException: Mkdirs failed to create file:/proc/x/_temporary/0 (exists=false, "
            "cwd=file:/work)"
        ),
        r"may not read or write file:/proc/x:",
    ),
    "a store that denies": (
        job("java.nio.file.AccessDeniedException: s3a://bucket/votes: getFileStatus: 403"),
        "may not read or write s3a://bucket/votes:",
    ),
    "a file that is none": (
        job(
            "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error",
            "java.lang.RuntimeException: file:/a/b.parquet is not a Parquet file. Expected magic",
        ),
        "file:/a/b.parquet is not a Parquet file, or it was cut",
    ),
    "a host that is none": (
        job("java.net.UnknownHostException: namenode"),
        "there is no host namenode",
    ),
}
AFTER_A_REMEDY = {
    "a full disk": (job("java.io.IOException: No space left on device"), "a disk is full"),
    "memory": (job("java.lang.OutOfMemoryError: Java heap space"), "memory.*spark.executor.memory"),
    "a killed executor": (
        job(
            "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: "
            "Command exited with code 137"
        ),
        "an executor was killed.*memoryOverhead",
    ),
    "no master": (": SparkException: All masters are unresponsive! Giving up.", "no Spark master"),
}
PASSING = {
    "a store out of reach": TRACEBACK.format(
        error='botocore.exceptions.EndpointConnectionError: Could not connect to "http://x/"'
    ),
    "a slow store": TRACEBACK.format(
        error='botocore.exceptions.ReadTimeoutError: Read timeout on endpoint URL: "http://x/"'
    ),
    "a lost executor": job("ExecutorLostFailure (executor 1 exited) Reason: worker lost"),
    "a lost connection": job("java.net.SocketException: Connection reset"),
    "a stopped context": ": SparkException: Job 0 cancelled because SparkContext was shut down",
}


@pytest.mark.parametrize("name", PERMANENT)
def test_a_fault_that_stays_is_named_with_its_remedy_and_no_rerun_is_advised(name):
    text, pattern = PERMANENT[name]
    explained = explain(Py4JError(text))
    assert isinstance(explained, InputError)
    assert re.search(pattern, str(explained)), explained
    assert "\n" not in str(explained)
    assert "run the same command again" not in str(explained)


@pytest.mark.parametrize("name", AFTER_A_REMEDY)
def test_a_rerun_is_advised_after_the_remedy(name):
    text, pattern = AFTER_A_REMEDY[name]
    explained = explain(Py4JError(text))
    assert isinstance(explained, WorkError)
    assert re.search(pattern, str(explained)), explained
    assert "run the same command again" in str(explained)


@pytest.mark.parametrize("name", PASSING)
def test_a_rerun_is_advised_where_it_helps(name):
    explained = explain(Py4JError(PASSING[name]))
    assert isinstance(explained, WorkError)
    assert "run the same command again to resume" in str(explained)


def test_what_nobody_knows_keeps_its_causes_and_promises_nothing():
    text = job("com.acme.OuterException: the outer words", "com.acme.InnerException: inner words")
    explained = explain(Py4JError(text))
    assert isinstance(explained, WorkError)
    assert "the outer words caused by com.acme.InnerException: inner words" in str(explained)
    assert "run the same command again" not in str(explained)


def test_a_python_error_without_error_in_its_name_is_named():
    text = TRACEBACK.format(error="pyarrow.lib.ArrowInvalid: Integer value 300 not in range")
    assert "pyarrow.lib.ArrowInvalid: Integer value 300 not in range" in str(
        explain(Py4JError(text))
    )


def test_an_error_of_the_package_comes_back_as_its_kind():
    text = TRACEBACK.format(error="coyo_labeler.extras.MissingPackageError: label: timm is missing")
    assert isinstance(explain(Py4JError(text)), InputError)
    text = TRACEBACK.format(error="coyo_labeler.errors.WorkError: label: a process was killed")
    assert isinstance(explain(Py4JError(text)), WorkError)


def test_an_error_of_ours_among_those_of_a_group_is_that_error():
    """Tasks of fetch work side by side, and Python puts their errors into a group."""

    async def work():
        raise WorkError("fetch: shard 00001 was changed by another writer")

    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())

    with pytest.raises(ExceptionGroup) as error:
        asyncio.run(group())
    text = "".join(traceback.format_exception(error.value))
    explained = explain(Py4JError(f"An exception was thrown from the Python worker:\n{text}"))
    assert isinstance(explained, WorkError)
    assert str(explained) == "fetch: shard 00001 was changed by another writer"
