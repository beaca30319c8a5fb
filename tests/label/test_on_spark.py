"""How Spark's GPUs and cores become slots."""

import os
from types import SimpleNamespace

import pytest

from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.label import on_spark
from coyo_labeler.label.local import slots_of
from coyo_labeler.label.spec import TeacherSpec


def resources(*addresses):
    return {"gpu": SimpleNamespace(addresses=list(addresses))}


@pytest.fixture(autouse=True)
def no_gpu_yet(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_gpu_of_a_task_is_the_only_one_that_cuda_sees():
    assert on_spark.claim_gpu(resources("3"), torch_is_loaded=False) == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_worker_keeps_its_gpu_from_task_to_task(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert on_spark.claim_gpu(resources("3"), torch_is_loaded=True) == "3"


def test_a_worker_that_has_started_torch_takes_no_other_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RuntimeError, match=r"holds GPU 3.*given GPU 1.*fresh worker"):
        on_spark.claim_gpu(resources("1"), torch_is_loaded=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_task_without_gpus_leaves_cuda_alone():
    assert on_spark.claim_gpu({}, torch_is_loaded=True) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_gpu_that_torch_does_not_see_is_said_and_not_worked_around():
    context = SimpleNamespace(
        cpus=lambda: 2, stageId=lambda: 4, partitionId=lambda: 5, attemptNumber=lambda: 0
    )
    with pytest.raises(WorkError, match=r"Spark gave the task GPU 1.*device=cpu"):
        on_spark._slot(context, "auto", "1")
    facts = on_spark._slot(context, "cpu", "1").facts
    assert (facts["gpu"], facts["task"]) == ("1", "4.5.0")
    assert on_spark._slot(context, "auto", None).cores == 2


def test_a_worker_keeps_its_model_until_the_content_of_its_files_is_another(small_spec):
    spec = TeacherSpec(**small_spec)
    teacher = on_spark._teacher(spec, "cpu", "run")
    assert on_spark._teacher(spec, "cpu", "run") is teacher
    assert on_spark._teacher(spec, "cpu", "another run") is not teacher


@pytest.mark.parametrize(
    ("conf", "asked"),
    [
        ({}, None),
        ({"spark.executor.cores": "4"}, {"cpus": 4}),
        ({"spark.executor.cores": "8", "spark.executor.resource.gpu.amount": "2"}, {"cpus": 4}),
        ({"spark.executor.resource.gpu.amount": "1"}, {}),
    ],
)
def test_a_task_asks_for_one_gpu_and_its_share_of_the_cores(spark, conf, asked):
    profile = on_spark.profile_of(conf, "auto")
    if asked is None:
        assert profile is None
        return
    amounts = {name: request.amount for name, request in profile.taskResources.items()}
    gpus = {"gpu": 1} if "spark.executor.resource.gpu.amount" in conf else {}
    assert amounts == {**asked, **gpus}


def test_dynamic_allocation_is_refused_where_it_would_end_executors_at_work():
    with pytest.raises(InputError, match=r"dynamicAllocation.*false"):
        on_spark.profile_of({"spark.dynamicAllocation.enabled": "true"}, "auto")


def test_gpus_that_spark_was_not_told_of_are_not_all_given_to_the_first_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    context = SimpleNamespace(
        cpus=lambda: 2, stageId=lambda: 4, partitionId=lambda: 5, attemptNumber=lambda: 0
    )
    says = r"not told of GPUs.*executor\.resource\.gpu.*task\.resource\.gpu.*device=cpu"
    for device in ("auto", "cuda", "cuda:3"):
        with pytest.raises(InputError, match=says):
            on_spark._slot(context, device, None)
    with pytest.raises(InputError, match=says):
        on_spark.profile_of({"spark.executor.cores": "4"}, "cuda")
    assert on_spark._slot(context, "cpu", None).device == "cpu"
    assert on_spark._slot(context, "auto", "3").device == "cuda:0"


def test_on_one_machine_each_device_has_one_task(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert [slot.device for slot in slots_of("auto")] == [f"cuda:{index}" for index in range(8)]
