"""The teacher: a timm model with its weights, its head in the order of the label space."""

import hashlib
import io
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.label.label_space import LabelSpace, load_label_space, match_head
from coyo_labeler.label.preprocess import Preset, preset, timm_preset

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

#: timm's ports of 2021-05-14, before the checkpoints were trained anew with a sigmoid loss.
SOFTMAX_21K = ("tf_efficientnetv2_s", "tf_efficientnetv2_m", "tf_efficientnetv2_l")


@dataclass(frozen=True)
class TeacherSpec:
    """All that decides what a teacher answers; the keys of `label` of the same names."""

    model: str
    checkpoint: str | None = None
    pretrained: bool | None = None
    model_label_space: str | None = None
    label_space: str = "imagenet21k"
    activation: str = "auto"
    preprocess: str = "automl_512"
    exif_orientation: bool = False
    top_k: int = 50
    batch_size: int = 64
    precision: str = "bfloat16"
    label_probs_dtype: str = "float16"


@dataclass(frozen=True)
class TopK:
    """Of a batch: labels (n, k) int32 and probabilities (n, k) float32, by probability descending,
    ties by label ascending; finite (n,) bool, false where the network put out NaN or infinity.
    """

    labels: npt.NDArray[np.int32]
    probs: npt.NDArray[np.float32]
    finite: npt.NDArray[np.bool_]


class Teacher:
    """A model on a device that turns batches of prepared images into labels."""

    def __init__(self, spec: TeacherSpec, device: torch.device) -> None:
        """Build the model and load its weights.

        Raises: InputError naming the key, where the model is unknown, the checkpoint unreadable or
        not the model's, or the head not one for the label space.
        """
        self.spec, self.device = spec, device
        self.space: LabelSpace = load_label_space(spec.label_space)
        model, weights, digest = _load(spec, self.space)
        head = match_head(_outputs(model), self.space, spec.model_label_space)
        if head.order is not None:
            _reorder(model, head.order)
        self.activation = choose_activation(spec, self.space)
        self.preset: Preset = (
            timm_preset(resolve_model_data_config(model))
            if spec.preprocess == "timm"
            else preset(spec.preprocess)
        )
        self.k = min(spec.top_k, self.space.size)
        self._dtype = DTYPES[spec.precision]
        self._model = model.eval().to(device, memory_format=torch.channels_last)
        self.fingerprint = {
            "teacher.model": spec.model,
            "teacher.weights": weights,
            "teacher.weights_sha256": digest,
            "teacher.activation": self.activation,
            "teacher.label_space": self.space.name,
            "teacher.model_label_space": head.name,
            "teacher.preprocess": self.preset.describe(),
            "teacher.exif_orientation": str(spec.exif_orientation).lower(),
            "teacher.precision": spec.precision,
            "teacher.label_probs_dtype": spec.label_probs_dtype,
            "teacher.top_k": str(self.k),
            "teacher.timm": timm.__version__,
            "coyo_labeler.version": version("coyo-labeler"),
        }

    @torch.inference_mode()
    def label(self, images: torch.Tensor) -> TopK:
        """The top k of each image of a batch.

        images: (n, 3, size, size) float32 on any device, n at most the batch size; fewer are
        padded, so that the network always sees the same shape.
        """
        n = len(images)
        batch = images.to(self.device, non_blocking=True)
        if n < self.spec.batch_size:
            padding = batch.new_zeros((self.spec.batch_size - n, *batch.shape[1:]))
            batch = torch.cat([batch, padding])
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32
        ):
            logits = self._model(batch)
        return self._top(logits[:n].float())

    def _top(self, logits: torch.Tensor) -> TopK:
        finite = torch.isfinite(logits).all(dim=1)
        logits = torch.where(finite[:, None], logits, 0.0)
        probs = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=1)
        probs = probs.to(DTYPES[self.spec.label_probs_dtype]).float()
        # A stable sort keeps the lower label first among equals; torch.topk promises no order.
        values, labels = torch.sort(probs, dim=1, descending=True, stable=True)
        return TopK(
            labels[:, : self.k].to(torch.int32).cpu().numpy(),
            values[:, : self.k].cpu().numpy(),
            finite.cpu().numpy(),
        )


def choose_activation(spec: TeacherSpec, space: LabelSpace) -> str:
    """The activation to use; `auto` goes by what is known of how the head was trained."""
    if spec.activation != "auto":
        return spec.activation
    if space.name != "imagenet21k":
        return "softmax"
    architecture, _, tag = spec.model.partition(".")
    softmax_port = architecture in SOFTMAX_21K and tag == "in21k" and spec.checkpoint is None
    return "softmax" if softmax_port else "sigmoid"


def _load(spec: TeacherSpec, space: LabelSpace) -> tuple[nn.Module, str, str]:
    """The model, where its weights are from, and their sha256."""
    if spec.checkpoint is None:
        pretrained = spec.pretrained is not False
        model = _create(spec.model, pretrained, None)
        return model, "timm" if pretrained else "random", _digest_of(model.state_dict())
    state, digest = read_checkpoint(spec.checkpoint)
    model = _create(spec.model, False, _head_of(state, spec.model))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        wrong = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(
            f"checkpoint: {spec.checkpoint} is not of the model {spec.model}: "
            f"{(wrong or [str(error)])[0][:200]}; give the model that it was saved from"
        ) from None
    return model, spec.checkpoint, digest


def _create(name: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    head = {} if num_classes is None else {"num_classes": num_classes}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **head)
    except RuntimeError as error:
        close = timm.list_models(f"*{name.partition('.')[0]}*", pretrained=True)[:5]
        raise InputError(
            f"model: {' '.join(str(error).split())[:200]}; timm has {', '.join(close) or 'no like'}"
        ) from None
    return model


def _outputs(model: nn.Module) -> int:
    return int(model.get_classifier().weight.shape[0])  # type: ignore[operator,union-attr]


def _head_of(state: dict[str, torch.Tensor], name: str) -> int | None:
    """Outputs of the head in a checkpoint, by the name that timm gives the head's weights."""
    with torch.device("meta"):
        empty = timm.create_model(name)
    classifier = empty.pretrained_cfg.get("classifier")
    weight = state.get(f"{classifier}.weight")
    return None if weight is None else int(weight.shape[0])


def _reorder(model: nn.Module, order: npt.NDArray[np.int64]) -> None:
    """Put the head's rows into the order of the label space; outputs of no class fall away."""
    head: Any = model.get_classifier()  # type: ignore[operator]
    rows = torch.from_numpy(order)
    with torch.no_grad():
        head.weight = nn.Parameter(head.weight[rows].clone(), requires_grad=False)
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias[rows].clone(), requires_grad=False)
    head.out_features = len(order)


def read_checkpoint(url: str) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a .safetensors or .pth file by name, and the sha256 of the file.

    Never unpickles code: .pth is read with `weights_only=True`.

    Raises: InputError where it is neither.
    """
    fs, path = storage.resolve(url)
    data = fs.cat_file(path)
    digest = hashlib.sha256(data).hexdigest()
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load  # noqa: PLC0415

            return load(data), digest
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own, all mean the same here
        raise InputError(
            f"checkpoint: {url} holds no plain tensors ({' '.join(str(error).split())[:160]}); "
            "save the state_dict as .safetensors"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}, digest


def _digest_of(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def spec_of(settings: Any) -> TeacherSpec:
    """The part of the stage's settings that decides what the teacher answers."""
    names = asdict(TeacherSpec("")).keys()
    return TeacherSpec(**{name: getattr(settings, name) for name in names})
