"""Workers that have not got the package run it from the archive of `make archive`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.demo.cluster import start_cluster
from coyo_labeler.formats import schemas
from tests.cluster.conftest import words_of
from tests.label.tars import jpeg, write_tar

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]

#: PyTorch and what it imports are on the machines, as on most that have GPUs: an archive with them
#: has several GB.
ON_THE_MACHINES = (
    *("cuda", "functorch", "nvidia", "torch", "torchgen", "torchvision", "torchvision.libs"),
    *("triton", "filelock", "mpmath", "networkx", "sympy", "typing_extensions.py"),
)

#: Says where a task's Python is and has the package from, and runs stages: in one application, for
#: each unpacks the gigabyte of the archive, on the driver and on the executor.
SCRIPT = """
import json, sys
from pyspark.sql import SparkSession
from coyo_labeler.cli import main

def origin(_):
    import sys, coyo_labeler
    return sys.executable, coyo_labeler.__file__

context = SparkSession.builder.getOrCreate().sparkContext
print("ORIGIN", context.parallelize([0], 1).map(origin).first())
for words in json.loads(sys.argv[1]):
    status = main(words)
    if status:
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive with everything but PyTorch."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "overrides.txt").write_text(
        "torch; sys_platform == 'none'\ntorchvision; sys_platform == 'none'\n"
    )
    made = subprocess.run(
        [
            *("make", "-s", "archive", "EXTRAS=spark,teacher", f"PYTHON={sys.executable}"),
            *(f"ARCHIVE={folder}/build", f"DIST={folder}"),
            f"UV_ARGS=--overrides {folder}/overrides.txt",
            "PACK_ARGS=--compress-level 0",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    shutil.rmtree(folder / "build")  # a gigabyte that is in the archive now
    [packed] = folder.glob("coyo-labeler-*.tar.gz")
    return packed


@pytest.fixture
def bare_cluster(tmp_path, monkeypatch):
    """A worker whose Python is given by the job."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with start_cluster(tmp_path / "cluster", workers=1, cores=2, memory="1g") as running:
        running.environment["PYSPARK_PYTHON"] = "./environment/bin/python"
        running.environment["PYTHONPATH"] = str(ROOT)  # of the driver
        yield running


def test_ingest_label_and_merge_run_from_the_archive(
    world, archive, bare_cluster, submit, tmp_path
):
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    installed = Path(np.__file__).parents[1]
    for name in ON_THE_MACHINES:
        if (installed / name).exists():
            (libraries / name).symlink_to(installed / name)
    conf = {
        "spark.archives": f"{archive}#environment",
        "spark.executorEnv.PYTHONPATH": str(libraries),
        "spark.executor.memory": "512m",
    }
    catalog, beliefs, merged = (str(tmp_path / name) for name in ("catalog", "beliefs", "merged"))
    random = np.random.default_rng(0)
    for shard in range(3):
        pictures = [jpeg(random.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(2)]
        write_tar(tmp_path / "images", shard, pictures)
    votes = [
        {"image_id": 100 * shard, "worker_id": f"w{worker}", "label": worker % 2}
        for shard in range(3)
        for worker in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(votes, schema=schemas.VOTES), tmp_path / "votes.parquet")
    stages = [
        ["ingest", *words_of(world, "ingest", catalog, "")],
        ["label", *words_of(world, "label", beliefs, str(tmp_path / "images"))],
        ["merge", *words_of(world, "merge", merged, beliefs), f"votes={tmp_path}/votes.parquet"],
    ]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # Executors that cannot unpack the archive, on a full disk say, are started anew until it ends.
    status, said = submit(bare_cluster, "", [json.dumps(stages)], conf, script).wait()
    assert status == 0, said
    [origin] = [line for line in said.splitlines() if line.startswith("ORIGIN")]
    assert origin.count("/environment/") == 2, origin
    assert "/environment/lib/python" in origin
    assert str(ROOT) not in origin
    assert pq.read_table(f"{catalog}/catalog").num_rows == 60
    posterior = pq.read_table(f"{merged}/posterior")
    assert sorted(posterior["id"].to_pylist()) == [0, 1, 100, 101, 200, 201]
    assert sum(posterior["n_votes"].to_pylist()) == len(votes)
