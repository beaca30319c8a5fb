"""The teacher: all that determines its answers, and the pass from prepared images to top k."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from coyo_labeler import storage
from coyo_labeler.errors import InputError, WorkError, one_line
from coyo_labeler.formats.label_spaces import SIZES, LabelSpace, load_label_space, read_synsets
from coyo_labeler.label.head import match_head
from coyo_labeler.label.preprocess import Preset, automl_preset, timm_preset
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.label.weights import (
    check_shapes,
    count_outputs,
    create_model,
    load_model,
    read_shapes,
    require_weights,
)

logger = logging.getLogger(__name__)

#: A batch of images, (n, 3, size, size) or one tensor per image, and a result for it.
Images = TypeVar("Images", torch.Tensor, Sequence[torch.Tensor])
Result = TypeVar("Result")

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

#: timm's ports of 2021-05-14, before these checkpoints were trained anew with a sigmoid loss, as
#: `port_of` calls them.
SOFTMAX_PORTS = frozenset(
    {"tf_efficientnetv2_s.in21k", "tf_efficientnetv2_m.in21k", "tf_efficientnetv2_l.in21k"}
)

#: Images in one pass on a CPU: more do not fit into its caches, and are slower.
CPU_BATCH = 16


@dataclass(frozen=True)
class Answers:
    """The answers for a batch of n images.

    labels (n, k) int32, probs (n, k) float32: by probability descending, ties by label ascending.
    finite (n,) bool: false where the network returned NaN or infinity. embeddings (n, features)
    float16, if requested.
    """

    labels: npt.NDArray[np.int32]
    probs: npt.NDArray[np.float32]
    finite: npt.NDArray[np.bool_]
    embeddings: npt.NDArray[np.float16] | None = None


class Teacher:
    """A model on a device.

    batch: how many images it takes at a time. features: length of the vector that its head reads.
    fingerprint: all that determines its answers, for the metadata of every file.
    """

    def __init__(self, spec: TeacherSpec, device: torch.device) -> None:
        """Build the model and load its weights.

        Raises: InputError naming the setting at fault.
        """
        self.spec, self.device = spec, device
        self.space = load_label_space(spec.label_space)
        model, origin, digest = load_model(spec.model, spec.checkpoint, spec.pretrained)
        head = match_head(count_outputs(model, spec.model), self.space, spec.model_label_space)
        if head.order is not None:
            _reorder(model, head.order)
        self.activation = choose_activation(spec, self.space, port_of(model))
        self.preset = choose_preset(spec, model)
        self.k = min(spec.top_k, self.space.size)
        on_cpu = device.type == "cpu"
        self.batch = min(spec.batch_size, CPU_BATCH) if on_cpu else spec.batch_size
        self._fitting = self.batch  # images that fit the device's memory
        compiled = spec.compile if spec.compile is not None else device.type == "cuda"
        # Each shape is compiled, or tuned by cuDNN, at a cost: so there is only one.
        self._pads = compiled or not on_cpu
        network: nn.Module = _Network(model, spec.embeddings).eval().requires_grad_(False)
        network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: Any = torch.compile(network, dynamic=False) if compiled else network
        linear: Any = model.get_classifier()  # type: ignore[operator]
        self.features = int(linear.weight.shape[1])
        self._dtype = DTYPES[spec.precision]
        if on_cpu and spec.precision == "float16":
            logger.warning(
                "label: precision: float16 is for GPUs; on this CPU float32 is exact and several "
                "times faster"
            )
        if device.type == "cuda":
            _be_deterministic(spec.precision)
        self.fingerprint = {
            "teacher.model": spec.model,
            "teacher.weights": origin,
            "teacher.weights_sha256": digest,
            "teacher.activation": self.activation,
            "teacher.label_space": self.space.name,
            "teacher.label_space_sha256": digest_of_space(spec.label_space),
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
    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Labels, probabilities, finite, and embeddings if requested, still on the device.

        images: (n, 3, size, size) float32 on the device, n at least 1 and at most `batch`.
        """
        parts = self.in_parts(self.answer_at_once, images)
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def in_parts(self, work: Callable[[Images], Result], images: Images) -> list[Result]:
        """The results of `work` for parts of a batch that fit the device's memory, in order.

        After an OutOfMemoryError, parts are half as large from then on, and `work` is called again
        from the same image on.

        Raises: WorkError where not even one image fits.
        """
        results: list[Result] = []
        position = 0
        while position < len(images):
            part = images[position : position + self._fitting]
            fits = True
            try:
                results.append(work(part))
            except torch.OutOfMemoryError:
                fits = False
            # Outside of `except`, because the error keeps alive all that was allocated before it.
            if fits:
                position += len(part)
            else:
                self._halve()
        return results

    @torch.inference_mode()
    def answer_at_once(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `answer`, in one pass. Raises: OutOfMemoryError where the memory is not enough."""
        logits, pooled = self.forward(images)
        labels, probs, finite = top_k(
            logits.float(), self.k, self.activation, DTYPES[self.spec.label_probs_dtype]
        )
        if pooled is None:
            return labels, probs, finite
        return labels, probs, finite, pooled.to(torch.float16)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits and pooled features (or None) of images, in one pass."""
        n = len(images)
        if self._pads and n < self._fitting:
            padding = images.new_zeros((self._fitting - n, *images.shape[1:]))
            images = torch.cat([images, padding])
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32
        ):
            logits, pooled = self.network(images)
        return logits[:n], None if pooled is None else pooled[:n]

    def _halve(self) -> None:
        if self._fitting == 1:
            raise WorkError(
                f"label: {self.device} has not enough memory for one image of {self.preset.size} "
                "px; free some, or give a smaller model or preprocess. What is finished is kept: "
                "run the same command again"
            )
        self._fitting = (self._fitting + 1) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "label: %s is out of memory: continuing from the same image with %d at a time; "
            "batch_size=%d would start so",
            self.device,
            self._fitting,
            self._fitting,
        )


class _Network(nn.Module):
    """Prepared images to (logits, pooled features or None), as one module to compile."""

    def __init__(self, model: nn.Module, embeddings: bool) -> None:
        super().__init__()
        self.model = model
        self._embeddings = embeddings
        if embeddings and not isinstance(model.get_classifier(), nn.Linear):  # type: ignore[operator]
            raise InputError(
                "embeddings: the model has no linear head, and so no pooled features before "
                "it; give embeddings=false, or another model"
            )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        model: Any = self.model
        if not self._embeddings:
            return model(images), None
        pooled = model.forward_head(model.forward_features(images), pre_logits=True)
        return model.get_classifier()(pooled), pooled


def top_k(
    logits: torch.Tensor, k: int, activation: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels (n, k) int32, probabilities (n, k) float32, finite (n,) bool.

    logits: (n, classes) float32. Probabilities are rounded through `dtype` first, then sorted,
    descending, ties by label ascending. Rows that are not finite have no meaning.
    """
    finite = torch.isfinite(logits).all(dim=1)
    logits = torch.where(finite[:, None], logits, 0.0)
    probs = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=1)
    probs = probs.to(dtype).float()
    # topk promises no order among equals. The bits of floats that are not negative sort as the
    # floats do; with the label below them no two keys are equal.
    labels = torch.arange(probs.shape[1], device=probs.device)
    keys = (probs.view(torch.int32).long() << 32) | (2**31 - 1 - labels)
    best = torch.topk(keys, k, dim=1, sorted=True).values
    chosen = 2**31 - 1 - (best & (2**32 - 1))
    return chosen.to(torch.int32), probs.gather(1, chosen), finite


def port_of(model: nn.Module) -> str:
    """`architecture.tag` of a timm model, by whichever name it was created."""
    config: Any = model.pretrained_cfg
    return f"{config.get('architecture')}.{config.get('tag')}"


def choose_activation(spec: TeacherSpec, space: LabelSpace, port: str) -> str:
    """The activation to use; `auto` follows what is known about the head's training.

    port: the model's, from `port_of`.
    """
    expected = "sigmoid"
    is_21k = space.given is None and space.name == "imagenet21k"
    if not is_21k or (port in SOFTMAX_PORTS and spec.checkpoint is None):
        expected = "softmax"
    if spec.activation == "auto":
        return expected
    known = spec.checkpoint is None and spec.pretrained is not False
    if known and spec.activation != expected:
        logger.warning(
            "label: activation: %s was set, but the head of %s was trained for %s as far as is "
            "known",
            spec.activation,
            spec.model,
            expected,
        )
    return spec.activation


def choose_preset(spec: TeacherSpec, model: nn.Module) -> Preset:
    """The preset that the setting `preprocess` names."""
    if spec.preprocess == "timm":
        return timm_preset(resolve_model_data_config(model))  # type: ignore[no-untyped-call]
    return automl_preset(spec.preprocess)


def check_teacher(spec: TeacherSpec) -> None:
    """Find what would stop every task, without loading weights.

    Raises: InputError naming the setting at fault.
    """
    space = load_label_space(spec.label_space)
    shapes = {} if spec.checkpoint is None else read_shapes(spec.checkpoint)
    outputs = check_shapes(spec.model, spec.checkpoint, shapes)
    with torch.device("meta"):
        model = create_model(spec.model, outputs=outputs)
    if spec.checkpoint is None and spec.pretrained is not False:
        require_weights(model, spec.model)
    match_head(count_outputs(model, spec.model), space, spec.model_label_space)
    _check_size(spec, _Network(model, spec.embeddings).eval())


def _check_size(spec: TeacherSpec, network: "_Network") -> None:
    """Check that the model takes images of the preset's size, by a pass without computation."""
    size = choose_preset(spec, network.model).size
    own = int(resolve_model_data_config(network.model)["input_size"][-1])  # type: ignore[no-untyped-call]
    why = _refusal(network, size)
    # Where its own size fails as well, the size is not the reason: such models have no dry pass.
    if why is not None and size != own and _refusal(network, own) is None:
        raise InputError(
            f"preprocess: {spec.model} does not take images of {size} px ({why}); give "
            f"preprocess=automl_{own}, or preprocess=timm"
        )


def _refusal(network: "_Network", size: int) -> str | None:
    """Why a network cannot take an image of that size; None if it can."""
    try:
        with torch.inference_mode(), torch.device("meta"):
            network(torch.empty(1, 3, size, size))
    except Exception as error:  # models refuse with errors of any type
        return one_line(error, 120)
    return None


def digest_of_space(label_space: str) -> str:
    """sha256 of a label space: of its file, or of its synsets, one per line, if known by name."""
    if label_space in SIZES:
        return hashlib.sha256("\n".join(read_synsets(label_space)).encode()).hexdigest()
    return storage.sha256_of(label_space)


def _reorder(model: nn.Module, order: npt.NDArray[np.int64]) -> None:
    """Put the head's rows into the order of the label space; outputs of no class are removed."""
    head: Any = model.get_classifier()  # type: ignore[operator]
    rows = torch.from_numpy(order)
    head.weight = nn.Parameter(head.weight.detach()[rows].clone())
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows].clone())
    head.out_features = len(order)


def _be_deterministic(precision: str) -> None:
    """Make cuDNN choose its algorithms by rule, not by timing, and keep float32 exact."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
