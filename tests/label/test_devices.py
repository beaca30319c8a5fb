"""Batches go to a GPU and back; where there is none, a CPU plays one."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coyo_labeler.errors import WorkError
from coyo_labeler.label import devices, model
from coyo_labeler.label.devices import CpuDevice, CudaDevice
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.predict import label_shards
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import TeacherSpec
from tests.label.tars import crops, jpeg, write_tar

PICTURES = crops(7, seed=3, small=40, large=90)
HAS_GPU = torch.cuda.is_available()


@pytest.fixture
def make_teacher(small_spec):
    def make(device="cpu", **changes):
        return Teacher(TeacherSpec(**{**small_spec, **changes}), torch.device(device))

    return make


@pytest.fixture
def played(monkeypatch):
    """What CudaDevice asks of CUDA, done by the CPU at once."""
    event = SimpleNamespace(
        record=lambda *_: None, synchronize=lambda: None, elapsed_time=lambda _: 1.0
    )
    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, value in {
        "set_device": lambda _: None,
        "synchronize": lambda *_: None,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: contextlib.nullcontext(),
        "Event": lambda **_: event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None, raising=False)
    monkeypatch.setattr(devices, "_pinned", lambda count: torch.empty(count, dtype=torch.uint8))


def answers_of(device, batches):
    """Of batches of pictures, all submitted before the first is waited for."""
    with contextlib.closing(device):
        promises = [device.submit([device.shrink(picture) for picture in b]) for b in batches]
        return [promise().answers for promise in promises]


def assert_same(ours, theirs, **tolerance):
    for actual, expected in zip(ours, theirs, strict=True):
        assert np.array_equal(actual.labels[:, 0], expected.labels[:, 0])
        assert np.allclose(actual.probs, expected.probs, **{"atol": 1e-3, **tolerance})
        assert actual.finite.all()


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("preprocess", ["automl_64", "timm"])
def test_batches_come_back_in_order_with_the_answers_of_a_cpu(make_teacher, preprocess):
    """Also where a picture is resized before it is sent, and a buffer is used anew."""
    teacher = make_teacher(preprocess=preprocess)
    large = np.tile(PICTURES[0], (40, 40, 1))
    assert large.shape[0] * large.shape[1] > devices.MAX_SENT_PIXELS
    batches = [PICTURES[:4], PICTURES[4:], [large, PICTURES[1]], PICTURES[2:5]]
    ours = answers_of(CudaDevice(teacher, 2), batches)
    assert [len(answers.labels) for answers in ours] == [4, 3, 2, 3]
    assert_same(ours, answers_of(CpuDevice(teacher, 1), batches))


@pytest.mark.usefixtures("played")
def test_pictures_are_copied_on_one_thread_while_others_decode(make_teacher, monkeypatch):
    used, send = [], devices._Staging.send

    def counting(*arguments):
        used.append(torch.get_num_threads())
        return send(*arguments)

    monkeypatch.setattr(devices._Staging, "send", counting)
    torch.set_num_threads(3)
    try:
        answers_of(CudaDevice(make_teacher(), 2), [PICTURES[:4]])
        assert used == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def only_few(work, count_of):
    """`work`, which has the memory for two images."""

    def limited(*arguments):
        if count_of(*arguments) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return work(*arguments)

    return limited


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize("allocation", ["copy", "inputs", "layers", "answers"])
@pytest.mark.parametrize("embeddings", [False, True])
def test_out_of_memory_anywhere_halves_the_batch_and_loses_no_image(
    make_teacher, monkeypatch, caplog, allocation, embeddings
):
    teacher = make_teacher(embeddings=embeddings)
    batches = [PICTURES[:4], PICTURES[4:]]
    expected = answers_of(CudaDevice(teacher, 2), batches)
    if allocation == "copy":
        send = only_few(devices._Staging.send, lambda _, images, __: len(images))
        monkeypatch.setattr(devices._Staging, "send", send)
    elif allocation == "inputs":
        limited = only_few(devices.prepare_in_a_row, lambda _, offsets, *__: len(offsets))
        monkeypatch.setattr(devices, "prepare_in_a_row", limited)
    elif allocation == "layers":
        teacher.network = only_few(teacher.network, len)
    else:
        limited = only_few(model.top_k, lambda logits, *_: len(logits))
        monkeypatch.setattr(model, "top_k", limited)
    ours = answers_of(CudaDevice(teacher, 2), batches)
    assert_same(ours, expected)
    if embeddings:
        for one, other in zip(ours, expected, strict=True):
            assert np.allclose(one.embeddings, other.embeddings, atol=1e-2)
    assert caplog.text.count("out of memory") == 1
    assert "with 2 at a time" in caplog.text


def test_out_of_memory_continues_from_the_image_at_which_it_came(make_teacher):
    teacher = make_teacher(batch_size=8)
    teacher._fitting = 4
    started = []

    def work(images):
        started.append((images[0], len(images)))
        if images[0] >= 4 and len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(images)

    parts = teacher.in_parts(work, list(range(7)))
    assert [image for part in parts for image in part] == list(range(7))
    assert started == [(0, 4), (4, 3), (4, 2), (4, 1), (5, 1), (6, 1)]


def test_out_of_memory_with_one_image_names_the_way_out(make_teacher):
    def never(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(WorkError, match=r"memory for one image of 64 px.*smaller model"):
        make_teacher().in_parts(never, [1, 2, 3])


def test_what_is_compiled_sees_one_shape_and_channels_last(make_teacher, monkeypatch):
    asked, seen = [], []

    def compile_(network, **options):
        asked.append(options)

        def compiled(batch):
            seen.append((len(batch), batch.is_contiguous(memory_format=torch.channels_last)))
            return network(batch)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    teacher, plain = make_teacher(compile=True), make_teacher()
    batches = [PICTURES[:4], PICTURES[4:]]
    assert_same(*(answers_of(CpuDevice(one, 1), batches) for one in (teacher, plain)))
    assert asked == [{"dynamic": False}]
    assert set(seen) == {(4, True)}
    kernels = [weight for weight in plain.network.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_gives_the_answers_of_a_cpu(make_teacher, tmp_path, compiled):
    for shard in range(3):
        write_tar(tmp_path, shard, map(jpeg, PICTURES))
    shards = find_shards(str(tmp_path))
    ours, theirs = (
        list(label_shards(make_teacher(device, compile=compile_), shards, cores=2))
        for device, compile_ in (("cuda:0", compiled), ("cpu", False))
    )
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.beliefs["id"] == expected.beliefs["id"]
        for name in ("labels", "label_probs"):
            a, b = (
                np.array(table[name].to_pylist()) for table in (actual.beliefs, expected.beliefs)
            )
            assert np.allclose(a[:, :1], b[:, :1], atol=2e-3)
