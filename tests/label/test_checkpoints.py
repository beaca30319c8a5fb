"""Checkpoints as training programs leave them: in wrappers, under prefixes, of other models."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from coyo_labeler.errors import InputError
from coyo_labeler.label.model import TeacherSpec, check_teacher
from coyo_labeler.label.weights import load_model

MODEL = "test_vit.r160_in1k"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> State:
    torch.manual_seed(0)
    state: State = timm.create_model(MODEL, num_classes=3).state_dict()
    return state


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module._orig_mod.",
    "model_ema.module.",
    "net.",
    "state_dict.module.",
]


def assert_loaded(path: Path, weights: State, atol: float = 0.0) -> None:
    check(path)
    model, origin, _ = load_model(MODEL, str(path), None)
    assert origin == path.name
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == weights[name].dtype
        assert torch.allclose(tensor, weights[name], atol=atol), name


def check(path: Path) -> None:
    space = path.with_name("space.txt")
    space.write_text("cat\ndog\nfish\n")
    check_teacher(
        TeacherSpec(model=MODEL, checkpoint=str(path), label_space=str(space), preprocess="timm")
    )


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_prefixes_before_every_key_are_stripped(
    tmp_path: Path, weights: State, prefix: str, ending: str
) -> None:
    path = tmp_path / f"w.{ending}"
    state = under(prefix)(weights)
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    assert_loaded(path, weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {}}},
        lambda s: {"model": {"state_dict": under("module.")(s)}},
        lambda s: {"model_ema": under("module.")(s)},
        lambda s: {"ema": s},
        lambda s: {"net": under("_orig_mod.")(s), "acc": 93.1},
        lambda s: {"n_averaged": torch.tensor(7), **under("module.")(s)},
        # Plain weights come before averaged ones.
        lambda s: {"model_ema": {k: t * 0 for k, t in s.items()}, "state_dict": s},
    ],
)
def test_a_state_dict_is_found_in_its_wrappers(
    tmp_path: Path, weights: State, wrap: Callable[[State], object]
) -> None:
    torch.save(wrap(weights), tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", weights)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_other_precision_are_loaded(
    tmp_path: Path, weights: State, kind: torch.dtype, ending: str
) -> None:
    path = tmp_path / f"w.{ending}"
    state = {"module." + name: tensor.to(kind) for name, tensor in weights.items()}
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    assert_loaded(path, weights, atol=0.02)


def renamed(state: State) -> State:
    return {"encoder." + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            renamed,
            r"not of the model test_vit.r160_in1k: \d+ \([\w.]+, .*, …\) of \d+ keys missing and "
            r"\d+ \(encoder\.[\w.]+, .*, …\) keys unexpected; give the model that it was saved",
        ),
        (
            lambda s: {k: t for k, t in s.items() if not k.startswith("head.")},
            r"2 \(head.weight, head.bias\) of \d+ keys missing; give",
        ),
        (
            lambda s: {**under("module.")(s), "module.a": s["head.bias"]},
            r": 1 \(module.a\) keys un",
        ),
        (
            lambda s: {**s, "norm.weight": torch.ones(5)},
            r"norm.weight has the shape \[5\], in the model it has \[64\]",
        ),
        (
            lambda s: {**under("model.")(s), **under("ema.")(s)},
            r"has '\S+' twice, as '(model|ema)\.\S+' and '(ema|model)\.\S+'; save the",
        ),
    ],
    ids=["other names", "no head", "one more", "other shape", "two models"],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_other_keys_are_named_and_not_the_label_space(
    tmp_path: Path, weights: State, change: Callable[[State], State], message: str, ending: str
) -> None:
    path = tmp_path / f"w.{ending}"
    state = {name: tensor.clone() for name, tensor in change(weights).items()}
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    for act in (check, lambda path: load_model(MODEL, str(path), None)):
        with pytest.raises(InputError, match=rf"^checkpoint: .*w\.{ending}.*{message}"):
            act(path)


def test_quantised_weights_are_refused(tmp_path: Path, weights: State) -> None:
    state = {name: tensor.to(torch.int8) for name, tensor in weights.items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"is torch.int8, not of floats; give weights"):
        load_model(MODEL, str(tmp_path / "w.safetensors"), None)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    for act in (check, lambda path: load_model(MODEL, str(path), None)):
        with pytest.raises(InputError, match=r"is a pointer of Git LFS.*'git lfs pull'"):
            act(path)


def lying(shape: object, offsets: object, length: int | None = None) -> bytes:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"head.weight": entry}).encode()
    return (length or len(header)).to_bytes(8, "little") + header + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234",
        lying([4, 4], [0, 64], length=2**40),
        lying([4, 4], [0, 64], length=2**63),
        lying([2**80, 4], [0, 64]),
        lying([2**20, 2**20], [0, 64]),
        lying([-4, -4], [0, 64]),
        lying([4, 4], [0, 2**40]),
        lying([4, 4], [64, 0]),
        lying([1.5], [0, 64]),
        lying("44", [0, 64]),
        lying([4, 4], None),
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"\xff\xfe",
    ],
)
def test_a_safetensors_file_that_lies_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^checkpoint: .*w.safetensors is no safetensors file"):
        check(path)
    with pytest.raises(InputError, match=r"^checkpoint: .*w.safetensors holds no plain tensors"):
        load_model(MODEL, str(path), None)
