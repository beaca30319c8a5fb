"""Each task of `label` on a cluster has a GPU of its own."""

import json
from pathlib import Path

import numpy as np
import pytest

from coyo_labeler.demo.cluster import start_cluster
from tests.cluster.conftest import words_of
from tests.label.tars import jpeg, write_tar

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

SHARDS = 8


def fake_gpus(folder, *addresses):
    """Properties of a worker that says it has GPUs at these addresses."""
    said = json.dumps({"name": "gpu", "addresses": list(addresses)})
    script = folder / f"gpus-{'-'.join(addresses)}.sh"
    script.write_text(f"#!/bin/sh\necho '{said}'\n")
    script.chmod(0o755)
    resource = "spark.worker.resource.gpu"
    return {
        f"{resource}.amount": str(len(addresses)),
        f"{resource}.discoveryScript": str(script),
    }


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    for shard in range(SHARDS):
        files = [jpeg(random.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(2)]
        write_tar(tmp_path / "images", shard, files)
    return str(tmp_path / "images")


@pytest.fixture
def gpu_cluster(tmp_path):
    """Two workers of two cores and two fake GPUs each."""
    gpus = [fake_gpus(tmp_path, "0", "1"), fake_gpus(tmp_path, "2", "3")]
    with start_cluster(
        tmp_path / "cluster", cores=2, memory="1g", worker_properties=gpus
    ) as running:
        yield running


def test_every_task_has_a_gpu_of_its_own(world, images, gpu_cluster, submit, tmp_path):
    """Two in an executor, too: left to itself Spark would give four tasks the first of them."""
    output = tmp_path / "beliefs"
    conf = {
        "spark.executor.cores": "2",
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": "2",
        # No task starts before all four GPUs can be assigned.
        "spark.cores.max": "4",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "600s",
    }
    words = [*words_of(world, "label", str(output), images), "preprocess=automl_64"]
    status, said = submit(gpu_cluster, "label", words, conf).wait()
    assert status == 0, said
    receipts = [json.loads(path.read_text()) for path in output.glob("_receipts/*.json")]
    assert len(receipts) == SHARDS
    assert {receipt["gpu"] for receipt in receipts} == {"0", "1", "2", "3"}
    gpus_of_task: dict[str, set[str]] = {}
    for receipt in receipts:
        gpus_of_task.setdefault(receipt["task"], set()).add(receipt["gpu"])
        assert receipt["cuda_visible_devices"] == receipt["gpu"]
        assert receipt["device"].endswith(f"gpu {receipt['gpu']}")
    assert len(gpus_of_task) == 4
    assert all(len(gpus) == 1 for gpus in gpus_of_task.values())
    assert len(list(Path(output).glob("*.parquet"))) == SHARDS
