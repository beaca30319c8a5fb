"""What Spark's errors mean: the program, module or path at fault, and the remedy.

Spark reports a fault as text, in which the cause of a failed task stands somewhere between stacks
of Java and of Python. The table below is searched in order.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from coyo_labeler import extras
from coyo_labeler.errors import InputError, WorkError

#: Ends the message where a rerun finishes the work.
RESUME = "What was finished is kept: run the same command again to resume"

_CONNECTORS = {
    "s3": "hadoop-aws",
    "s3a": "hadoop-aws",
    "gs": "the connector of Google Cloud Storage, gcs-connector",
    "abfs": "hadoop-azure",
    "abfss": "hadoop-azure",
    "wasb": "hadoop-azure",
}


@dataclass(frozen=True)
class Fault:
    """A fault by its traces in the text of an error.

    message: with the groups of `pattern` in braces, or made from the match.
    """

    pattern: str
    message: str | Callable[[re.Match[str]], str]
    kind: type[Exception] = InputError

    def find(self, text: str) -> Exception | None:
        """The fault as an error of ours, where the text shows it."""
        match = re.search(self.pattern, text)
        if match is None:
            return None
        if callable(self.message):
            return self.kind(self.message(match))
        return self.kind(self.message.format(*(group or "" for group in match.groups())))


def _module(match: re.Match[str]) -> str:
    module = match[1].partition(".")[0]
    # Of the extras with PyTorch, the one that machines with tasks need: the teacher runs in tasks.
    command = extras.remedy(module, "teacher" if module in extras.EXTRAS_OF else "")
    what = "coyo-labeler" if module == "coyo_labeler" else f"it ({command})"
    return (
        f"the Python that runs Spark's tasks has no module {module}: install {what} on every "
        "machine, or send an environment that has it with spark.archives; PYSPARK_PYTHON names "
        "that Python"
    )


def _program(match: re.Match[str]) -> str:
    program, reason = match[1], match[2]
    if "python" in program.rpartition("/")[2]:
        remedy = "set PYSPARK_PYTHON to a Python that is at the same path on every machine"
    else:
        remedy = "install it on every machine, or correct the setting that names it"
    return f"Spark cannot run the program {program} ({reason}): {remedy}"


def _connector(match: re.Match[str]) -> str:
    scheme = match[1] or match[2]
    connector = _CONNECTORS.get(scheme, "the Hadoop connector of that filesystem")
    version = " at the version of Spark's Hadoop" if connector.startswith("hadoop-") else ""
    return (
        f"Spark cannot read {scheme}:// paths: {connector} is missing; give it to spark-submit "
        f"with --packages or --jars{version}"
    )


_SAME_SPARK = (
    "the Spark of the cluster and the PySpark of this driver are of different versions ({0}): "
    "install the version of PySpark that the cluster runs, and point SPARK_HOME at it or unset it"
)
_MORE_MEMORY = (
    "give it more with spark.driver.memory, spark.executor.memory or "
    "spark.executor.memoryOverhead. " + RESUME
)
_PATH = r"['\"]?((?:[a-z0-9]+:)?/[^'\"\n]*?)['\"]?"

FAULTS = (
    Fault(r"ModuleNotFoundError: No module named '([\w.]+)'", _module),
    Fault(
        r"\n(?:Caused by )?ImportError: ([^\n]+)",
        "the Python that runs Spark's tasks cannot import a module ({0}): install what it lacks on "
        "every machine; PYSPARK_PYTHON names that Python",
    ),
    Fault(r'Cannot run program "([^"]+)".*?(?:error=\d+, )?([^,:\n]+)\n', _program),
    Fault(
        r"PYTHON_VERSION_MISMATCH\][^\n]*?version: ([\d.]+\d)[^\n]*?driver: ([\d.]+\d)",
        "Spark's tasks run on Python {0} and the driver on {1}: set PYSPARK_PYTHON and "
        "PYSPARK_DRIVER_PYTHON to Pythons of one version",
    ),
    Fault(
        r"JAVA_GATEWAY_EXITED",
        "Java did not start; what it said is above. JAVA_HOME must be a Java 17 or newer, and "
        "spark.driver.memory must fit the machine",
    ),
    Fault(
        r"UnsupportedClassVersionError: ([^\n]+)",
        "Java is too old for this Spark ({0}): point JAVA_HOME at Java 17 or newer on every "
        "machine",
    ),
    Fault(r"InvalidClassException: ([^\n]+)", _SAME_SPARK),
    Fault(r"(?:Py4JError: )?(\S+ does not exist in the JVM)", _SAME_SPARK),
    Fault(
        r"No(?:SuchMethod|ClassDefFound)Error: '?([^\n']*org[./]apache[./]spark[^\n']*)",
        _SAME_SPARK,
    ),
    Fault(
        r"Could not parse Master URL: '?([^'\s]+)",
        "spark.master: {0} is no address of a Spark master; give spark://HOST:PORT, yarn, "
        "k8s://HOST:PORT or local[*]",
    ),
    Fault(
        r"All masters are unresponsive",
        "no Spark master answers at the address given: start it, or correct spark.master, and run "
        "the same command again",
        WorkError,
    ),
    Fault(
        r'No FileSystem for scheme:? "?(\w+)|Class org\.apache\.hadoop\.fs\.(\w+)[\w.]* not found',
        _connector,
    ),
    Fault(
        r"Class (com\.google\.cloud\.hadoop\.[\w.]+) not found",
        "Spark cannot read gs:// paths: gcs-connector is missing; give it to spark-submit with "
        "--jars",
    ),
    Fault(
        rf"\[PATH_NOT_FOUND\] Path does not exist: {_PATH}\.?(?: SQLSTATE[^\n]*)?(?:\n|$)",
        "there is nothing at {0}, as Spark sees it: give a path that every machine can read",
    ),
    Fault(
        rf"FileNotFoundException: (?:File )?{_PATH} (?:does not exist|\(No such file)",
        "there is no file at {0} on the machine that ran the task: give a path that every machine "
        "can read, and leave inputs as they are while a stage runs",
    ),
    Fault(
        r"FileNotFoundError: \[Errno 2\] [^\n]*?: '([^'\n]+)'",
        "there is no file at {0} on the machine that ran the task: give a path that every machine "
        "can read, and leave inputs as they are while a stage runs",
    ),
    Fault(
        rf"(?:Mkdirs failed to create|AccessDeniedException:|AccessControlException: Permission "
        rf"denied[^\n]*?inode=) ?{_PATH}(?:/_temporary[^\s:(]*)?(?:[\s:(]|$)",
        "Spark may not read or write {0}: allow it to the user that runs the tasks, or give "
        "another path that every machine can use",
    ),
    Fault(
        r"PermissionError: \[Errno 13\] [^\n]*?: '([^'\n]+)'",
        "a task may not read or write {0}: allow it to the user that runs the tasks, or give "
        "another path",
    ),
    Fault(
        rf"{_PATH}:? \(?(Permission denied|Read-only file system|Not a directory)",
        "Spark cannot write {0} ({1}): choose another output, or let the user that runs the tasks "
        "create files there",
    ),
    Fault(
        rf"{_PATH} is not a Parquet file",
        "{0} is not a Parquet file, or it was cut: put a whole one in its place, or remove it",
    ),
    Fault(
        r"botocore\.exceptions\.\w*(?:Connect|HTTPClient|IncompleteRead|Proxy|SSL|Stream|Timeout)"
        r"\w*: ([^\n]+)",
        "a task cannot reach the store ({0}). " + RESUME,
        WorkError,
    ),
    Fault(
        r"botocore\.exceptions\.\w+: ([^\n]+)",
        "a task cannot use the object store ({0}): correct the path, or the store's credentials "
        "and address in the environment of every machine",
    ),
    Fault(
        r"UnknownHostException: (\S+)",
        "there is no host {0}: correct the address in the path or setting that names it",
    ),
    Fault(
        r"(No space left on device|File too large|[Dd]isk quota exceeded)",
        "a disk is full ({0}): make room on it (of the output, or of spark.local.dir, which can be "
        "on a larger one). " + RESUME,
        WorkError,
    ),
    Fault(
        r"java\.lang\.OutOfMemoryError: ([^\n]+)",
        "Spark ran out of memory ({0}): " + _MORE_MEMORY,
        WorkError,
    ),
    Fault(
        r"(exit(?:ed)?(?: with)? (?:code|status) 137|SIGKILL|killed by YARN for exceeding|"
        r"OOMKilled)",
        "an executor was killed ({0}), most likely for want of memory: " + _MORE_MEMORY,
        WorkError,
    ),
    Fault(
        r"(spark\.driver\.maxResultSize)",
        "results are larger than {0} allows: raise it. " + RESUME,
        WorkError,
    ),
)

#: What passes: machines and connections that were lost.
_PASSING = re.compile(
    r"ExecutorLostFailure|Lost executor|FetchFailed|[Hh]eartbeat|Connection (?:refused|reset)|"
    r"Broken pipe|EOFException|Timeout|timed out|SparkContext was shut down|stopped SparkContext|"
    r"cancelled|Py4JNetworkError|Answer from Java side is empty|SlowDown|Status Code: 50\d"
)

_JAVA = re.compile(r"^(?:Caused by: |: )?([\w.$]+(?:Error|Exception|Failure)): (.+)$", re.MULTILINE)
_PYTHON = re.compile(
    r"^(?:Caused by )?Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)$", re.MULTILINE
)


def find_fault(text: str) -> Exception:
    """The fault that the text of a Spark error reports, as an InputError or WorkError.

    One that no entry of `FAULTS` knows is a WorkError with its causes, and a rerun is advised only
    where the cause passes.
    """
    for fault in FAULTS:
        if (found := fault.find(text + "\n")) is not None:
            return found
    causes = " caused by ".join(_causes(text)) or text.strip().partition("\n")[0]
    if _PASSING.search(text):
        return WorkError(f"Spark stopped: {causes}. {RESUME}")
    return WorkError(
        f"Spark stopped: {causes}. What was finished is kept, but a rerun stops here again until "
        "the cause is removed"
    )


def _causes(text: str) -> list[str]:
    """The last two causes without their stacks, the outer one first.

    Of a failed task Spark gives the whole chain twice; what another one repeats is left out.
    """
    python = [match[1].strip() for match in _PYTHON.finditer(text)]
    java = [f"{kind}: {message}".strip() for kind, message in _JAVA.findall(text)]
    causes = [cause for cause in python[-1:] or java if "Job aborted" not in cause]
    chain = list(dict.fromkeys(reversed(causes)))[::-1]
    return [
        cause
        for cause in chain
        if not any(cause.partition(": ")[2] in other for other in chain if other != cause)
    ][-2:]
