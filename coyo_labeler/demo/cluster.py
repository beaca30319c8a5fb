"""A standalone Spark cluster of processes on 127.0.0.1: a master and a few workers.

For the demo and for the tests; a real cluster is started by its own scripts.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coyo_labeler.errors import WorkError
from coyo_labeler.session import require_java

#: Seconds that a busy machine may take to start a Java process; one that ends is noticed at once.
START_SECONDS = 600.0
_DEPLOY = "org.apache.spark.deploy"

#: Java without the slower of its two compilers and with the plainest collector: for jobs of a few
#: seconds it needs three fifths of the processor time. Long jobs want neither.
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
#: The same for the JVMs that Spark's scripts start, as environment variables.
QUICK_JAVA_VARIABLES = dict.fromkeys(
    ("SPARK_SUBMIT_OPTS", "SPARK_DAEMON_JAVA_OPTS", "SPARK_LAUNCHER_OPTS"), QUICK_JAVA
)


@dataclass
class Daemon:
    """A process of the cluster, started through a tether. pid: of the Java process itself."""

    tether: "subprocess.Popen[str]"
    pid: int
    log: Path

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self.tether.stdin:
            self.tether.stdin.close()
        self.tether.wait(timeout=120)


@dataclass
class Cluster:
    """A running cluster, and a context manager that ends it. url: of its master."""

    url: str
    folder: Path
    master: Daemon
    workers: list[Daemon]
    environment: dict[str, str] = field(repr=False)

    def spark_submit(
        self, script: str | Path, arguments: Sequence[str], conf: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command that submits a job to this cluster; run it with `environment`."""
        properties = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.executor.extraJavaOptions": QUICK_JAVA,
            **(conf or {}),
        }
        log4j = Path(__file__).parents[1].joinpath("log4j2.properties").as_uri()
        properties.setdefault(
            "spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={log4j}"
        )
        flags = [word for key, value in properties.items() for word in ("--conf", f"{key}={value}")]
        submit = Path(self.environment["SPARK_HOME"], "bin", "spark-submit")
        return [str(submit), "--master", self.url, *flags, str(script), *arguments]

    def add_worker(
        self, cores: int, memory: str, properties: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start another worker. properties: its Java system properties.

        The caller waits for it with `wait_for_worker`, so that several can start at the same time.
        """
        number = len(list(self.folder.glob("worker-*.log")))
        options = " ".join(f"-D{key}={value}" for key, value in (properties or {}).items())
        command = [*_spark_class(self.environment, "worker.Worker"), "--host", "127.0.0.1"]
        command += ["--webui-port", "0", "--cores", str(cores), "--memory", memory]
        command += ["--work-dir", str(self.folder / f"work-{number}"), self.url]
        environment = {**self.environment, "SPARK_WORKER_OPTS": options}
        worker = _start(command, environment, self.folder / f"worker-{number}.log")
        self.workers.append(worker)
        return worker

    def wait_for_worker(self, worker: Daemon) -> None:
        """Wait until the worker has registered with the master.

        Raises: WorkError if it does not; the cluster is ended then.
        """
        _wait_for(worker, r"(Successfully registered with master)", self)

    def stop(self) -> None:
        """End every process of the cluster."""
        for daemon in [*self.workers, self.master]:
            daemon.stop()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_cluster(
    folder: Path,
    workers: int = 2,
    cores: int = 2,
    memory: str = "2g",
    worker_properties: Sequence[Mapping[str, str]] = (),
) -> Cluster:
    """Start a master and `workers` workers on free ports of 127.0.0.1; logs go below `folder`.

    cores, memory: of each worker. worker_properties: Java system properties, one mapping per worker
    (`spark.worker.resource.gpu.discoveryScript`, say); if given, it determines the number of
    workers.

    Raises: InputError without Java, WorkError if a process does not start.
    """
    require_java()
    import pyspark  # noqa: PLC0415  # only a cluster needs it

    home = str(Path(pyspark.__file__).parent)
    environment = {
        # What a killed process leaves behind lies with the rest of the cluster's files.
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        **QUICK_JAVA_VARIABLES,
        **os.environ,
        "SPARK_HOME": home,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
    folder.mkdir(parents=True, exist_ok=True)
    command = [*_spark_class(environment, "master.Master"), "--host", "127.0.0.1", "--port", "0"]
    master = _start([*command, "--webui-port", "0"], environment, folder / "master.log")
    url = _wait_for(master, r"Starting Spark master at (spark://\S+)")
    cluster = Cluster(url, folder, master, [], environment)
    for properties in worker_properties or [{}] * workers:
        cluster.add_worker(cores, memory, properties)
    for worker in cluster.workers:
        cluster.wait_for_worker(worker)
    return cluster


def _spark_class(environment: Mapping[str, str], name: str) -> list[str]:
    return [str(Path(environment["SPARK_HOME"], "bin", "spark-class")), f"{_DEPLOY}.{name}"]


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Daemon:
    with log.open("w") as file:
        tether = subprocess.Popen(
            [sys.executable, "-m", "coyo_labeler.demo.tether", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert tether.stdout is not None
    return Daemon(tether, int(tether.stdout.readline().split()[1]), log)


def _wait_for(daemon: Daemon, pattern: str, cluster: Cluster | None = None) -> str:
    """The first group of `pattern` in the daemon's log, as soon as it appears there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and daemon.tether.poll() is None:
        if match := re.search(pattern, daemon.log.read_text(errors="replace")):
            return match[1]
        time.sleep(0.1)
    (cluster.stop if cluster else daemon.stop)()
    tail = " | ".join(daemon.log.read_text(errors="replace").splitlines()[-3:])
    raise WorkError(f"a process of the cluster did not start; its log {daemon.log} ends in: {tail}")
