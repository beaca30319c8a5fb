import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.label.model import Teacher, check_teacher, choose_activation, port_of, top_k
from coyo_labeler.label.preprocess import automl_preset, prepare
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.label.weights import create_model
from tests.label.tars import crops
from tests.label.teachers import MODEL

CPU = torch.device("cpu")


def teacher(spec, **changes):
    return Teacher(TeacherSpec(**{**spec, **changes}), CPU)


def images(count, size=64):
    preset = automl_preset(f"automl_{size}")
    return torch.stack([prepare(pixels, preset) for pixels in crops(count, seed=1)])


def test_labels_of_equal_probability_come_in_order():
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0001, -1.0, 1.0]])
    labels, probs, finite = top_k(logits, 5, "sigmoid", torch.float16)
    assert labels.tolist() == [[1, 2, 3, 5, 0]]  # 1.0001 is 1.0 after rounding to float16
    assert probs[0, 0] == torch.tensor(1.0).sigmoid().half().float()
    assert finite.all()


def test_top_k_is_the_sorted_list_of_rounded_probabilities():
    logits = torch.randn(20, 3000, generator=torch.Generator().manual_seed(1)) * 4 - 5
    for activation in ("sigmoid", "softmax"):
        for dtype in (torch.float16, torch.float32):
            labels, probs, _ = top_k(logits, 50, activation, dtype)
            every = logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)
            every = every.to(dtype).float().numpy()
            order = np.array([np.lexsort((np.arange(3000), -row))[:50] for row in every])
            assert np.array_equal(labels, order)
            assert np.array_equal(probs, np.take_along_axis(every, order, 1))


def test_fewer_classes_than_top_k_give_all_of_them(small_spec):
    labels, _, _ = teacher(small_spec).answer(images(2))
    assert labels.shape == (2, 10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_told_and_the_others_stand(bad):
    logits = torch.randn(3, 10)
    expected = top_k(logits, 5, "softmax", torch.float32)
    logits = logits.clone()
    logits[1, 4] = bad
    labels, probs, finite = top_k(logits, 5, "softmax", torch.float32)
    assert finite.tolist() == [True, False, True]
    assert torch.equal(labels[::2], expected[0][::2])
    assert torch.equal(probs[::2], expected[1][::2])


def test_out_of_memory_halves_the_batch_and_goes_on_with_the_same_images(small_spec, caplog):
    whole = teacher(small_spec, batch_size=16)
    short = teacher(small_spec, batch_size=16)
    network, sizes = short.network, []

    def limited(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return network(batch)

    short.network = limited
    batch = images(13)
    labels, probs, _ = short.answer(batch)
    expected_labels, expected_probs, _ = whole.answer(batch)
    assert sizes == [13, 8, 4, 2, 2, 2, 2, 2, 2, 1]
    assert torch.allclose(probs, expected_probs, atol=1e-3)
    assert torch.equal(labels[:, 0], expected_labels[:, 0])
    sizes.clear()
    short.answer(batch)
    assert sizes == [2, 2, 2, 2, 2, 2, 1]  # it does not run into the wall again
    assert "with 8 at a time" in caplog.text
    assert "with 2 at a time" in caplog.text


def test_out_of_memory_with_one_image_says_what_to_do(small_spec):
    teacher_ = teacher(small_spec)

    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    teacher_.network = never
    with pytest.raises(WorkError, match="one image of 64 px"):
        teacher_.answer(images(4))


def test_where_shapes_must_be_static_they_are_and_padding_changes_nothing(small_spec):
    padded, plain = teacher(small_spec), teacher(small_spec)
    padded._pads = True
    network, sizes = padded.network, set()

    def watched(batch):
        sizes.add(len(batch))
        return network(batch)

    padded.network = watched
    for count in (4, 3, 1):
        batch = images(count)
        for ours, theirs in zip(padded.answer(batch), plain.answer(batch), strict=True):
            assert len(ours) == count
            assert torch.allclose(ours.float(), theirs.float(), atol=1e-3)
    assert sizes == {4}


@pytest.mark.parametrize(
    ("model", "space", "checkpoint", "expected"),
    [
        ("tf_efficientnetv2_xl.in21k", "imagenet21k", None, "sigmoid"),
        ("tf_efficientnetv2_s.in21k", "imagenet21k", None, "softmax"),
        ("tf_efficientnetv2_m.in21k", "imagenet21k", None, "softmax"),
        ("tf_efficientnetv2_l.in21k", "imagenet21k", None, "softmax"),
        ("tf_efficientnetv2_l.in21k", "imagenet21k", "own.pth", "sigmoid"),
        ("tf_efficientnetv2_l.in21k_ft_in1k", "imagenet1k", None, "softmax"),
        ("vit_base_patch16_224", "imagenet21k", "own.pth", "sigmoid"),
    ],
)
def test_auto_goes_by_how_the_head_was_trained(model, space, checkpoint, expected):
    spec = TeacherSpec(model, checkpoint=checkpoint, label_space=space)
    assert choose_activation(spec, load_label_space(space), port(model)) == expected


def port(model):
    with torch.device("meta"):
        return port_of(create_model(model))


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnetv2_s.in21k",
        "tf_efficientnetv2_s_in21k",
        "hf-hub:timm/tf_efficientnetv2_s.in21k",
        "hf_hub:mirror/tf_efficientnetv2_s.in21k",
    ],
)
@pytest.mark.filterwarnings("ignore:Mapping deprecated")
def test_auto_knows_a_port_under_all_its_names(name, monkeypatch):
    at_the_hub = {"tag": "in21k", "source": "hf-hub", "num_classes": 21_843}
    monkeypatch.setattr(
        "timm.models._factory.load_model_config_from_hf",
        lambda *_, **__: (at_the_hub, "tf_efficientnetv2_s", {}),
    )
    space = load_label_space("imagenet21k")
    assert choose_activation(TeacherSpec(name), space, port(name)) == "softmax"


def test_another_activation_than_the_known_one_is_warned_of(caplog):
    spec = TeacherSpec("tf_efficientnetv2_xl.in21k", activation="softmax")
    space = load_label_space("imagenet21k")
    assert choose_activation(spec, space, "tf_efficientnetv2_xl.in21k") == "softmax"
    assert "trained for sigmoid" in caplog.text


@pytest.mark.parametrize("model", [MODEL, "vit_tiny_patch16_224", "convnext_atto"])
def test_embeddings_are_the_features_that_the_head_saw(model):
    keys = {"model": model, "pretrained": False, "label_space": "imagenet1k", "batch_size": 2}
    spec = {**keys, "preprocess": "automl_224", "precision": "float32"}
    torch.manual_seed(0)
    plain = Teacher(TeacherSpec(**spec), CPU)
    torch.manual_seed(0)
    both = Teacher(TeacherSpec(**spec, embeddings=True), CPU)
    batch = images(2, 224)
    labels, probs, finite, embeddings = both.answer(batch)
    assert embeddings.dtype == torch.float16
    assert embeddings.shape == (2, both.network.model.num_features)
    for ours, theirs in zip((labels, probs, finite), plain.answer(batch), strict=True):
        assert torch.allclose(ours.float(), theirs.float())


def test_a_pth_file_gives_the_answers_of_the_safetensors_file(small_spec, tmp_path):
    state = load_file(small_spec["checkpoint"])
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "m.pth")
    other = teacher(small_spec, checkpoint=str(tmp_path / "m.pth"))
    ours = teacher(small_spec)
    assert torch.equal(other.answer(images(2))[1], ours.answer(images(2))[1])
    digests = [t.fingerprint["teacher.weights_sha256"] for t in (ours, other)]
    assert digests[0] != digests[1]


def test_a_model_without_weights_is_the_same_in_every_process():
    keys = {"model": MODEL, "pretrained": False, "label_space": "imagenet1k"}
    spec = {**keys, "preprocess": "automl_64", "precision": "float32"}
    first, state = teacher(spec), torch.random.get_rng_state()
    assert teacher(spec).fingerprint == first.fingerprint
    assert first.fingerprint["teacher.weights"] == "random"
    assert torch.equal(torch.random.get_rng_state(), state)


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_is_never_run(small_spec, tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds no plain tensors"):
        teacher(small_spec, checkpoint=str(tmp_path / "evil.pth"))
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"model": "tf_efficientnetv2_xxl"}, {"model": "resnet10t"}])
def test_a_model_that_is_not_there_or_not_the_checkpoints_is_one_line(small_spec, changes):
    with pytest.raises(InputError, match=r"timm knows no|is not of the model") as caught:
        teacher(small_spec, **changes)
    assert "\n" not in str(caught.value)


def test_what_would_stop_every_worker_is_found_before_they_start(small_spec, tmp_path):
    check_teacher(TeacherSpec(**small_spec))
    with pytest.raises(InputError, match="has 10 outputs"):
        check_teacher(TeacherSpec(**{**small_spec, "label_space": "imagenet21k"}))
    (tmp_path / "bad.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0 none")
    with pytest.raises(InputError, match="no safetensors file"):
        check_teacher(
            TeacherSpec(**{**small_spec, "checkpoint": str(tmp_path / "bad.safetensors")})
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "efficientnetv2_s"}, r"no weights for efficientnetv2_s.*checkpoint=FILE"),
        ({"model": "timm/resnet10t"}, r"model: .*hf-hub:timm/resnet10t"),
        ({"model": "vit_small_patch14_dinov2"}, "has no head"),
        ({"model": "deit_tiny_distilled_patch16_224"}, "has 2 heads"),
        (
            {"model": "vit_tiny_patch16_224", "pretrained": False},
            r"does not take images of 512 px \(.*\); give preprocess=automl_224, or",
        ),
    ],
)
def test_a_model_that_cannot_work_is_one_line_before_anything_is_loaded(changes, says):
    with pytest.raises(InputError, match=says) as caught:
        check_teacher(TeacherSpec(**{"label_space": "imagenet1k", **changes}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "beit_base_patch16_224", "resnet10t"])
def test_a_model_that_takes_the_preset_is_not_refused(model):
    keys = {"pretrained": False, "label_space": "imagenet1k", "preprocess": "automl_224"}
    check_teacher(TeacherSpec(model, **keys))


def test_weights_that_are_not_there_are_one_line_in_a_worker_too():
    with pytest.raises(InputError, match="no weights for efficientnetv2_s"):
        teacher({"model": "efficientnetv2_s", "label_space": "imagenet1k"})


def test_float16_stays_near_float32_and_nearer_than_bfloat16(small_spec):
    batch = images(8)
    answers = {
        precision: by_label(
            teacher(
                small_spec, precision=precision, label_probs_dtype="float32", batch_size=8
            ).answer(batch)
        )
        for precision in ("float32", "float16", "bfloat16")
    }
    exact = answers.pop("float32")
    error = {
        precision: max(
            abs(ours[label] - theirs[label])
            for ours, theirs in zip(rounded, exact, strict=True)
            for label in theirs
        )
        for precision, rounded in answers.items()
    }
    assert 0 < error["float16"] < error["bfloat16"] < 0.6
    assert error["float16"] < 0.1


def by_label(answer):
    labels, probs, _ = (tensor.tolist() for tensor in answer)
    return [dict(zip(*row, strict=True)) for row in zip(labels, probs, strict=True)]


def test_the_fingerprint_has_all_that_determines_the_answers(small_spec, tmp_path):
    fingerprint = teacher(small_spec).fingerprint
    assert fingerprint["teacher.preprocess"].startswith("automl_64: central 0.666667")
    assert fingerprint["teacher.activation"] == "sigmoid"
    assert len(fingerprint["teacher.weights_sha256"]) == 64
    names = tmp_path / "labels.txt"
    names.write_text("\n".join("ABCDEFGHIJ"))
    other = teacher(small_spec, label_space=str(names)).fingerprint
    changed = {key for key in fingerprint if fingerprint[key] != other[key]}
    assert changed == {"teacher.label_space_sha256"}
    save_file(timm.create_model(MODEL, num_classes=10).state_dict(), tmp_path / "m.safetensors")
    other = teacher(small_spec, checkpoint=str(tmp_path / "m.safetensors")).fingerprint
    assert other["teacher.weights_sha256"] != fingerprint["teacher.weights_sha256"]
