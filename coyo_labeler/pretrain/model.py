"""The network: a timm Vision Transformer with coyo-vit's head."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from coyo_labeler import storage
from coyo_labeler.errors import InputError


def build_model(
    name: str, num_classes: int, image_size: int, model_args: Mapping[str, Any]
) -> nn.Module:
    """A freshly initialised timm model.

    Raises: InputError where timm has no such model, or it takes no such arguments.
    """
    if not timm.is_model(name):
        raise InputError(
            f"pretrain_vit: model: timm has no '{name}'; timm.list_models('vit_*') lists them"
        )
    arguments = {"img_size": image_size, **model_args}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=num_classes, **arguments
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"pretrain_vit: model_args: {name} cannot be made with {arguments}: {error}"
        ) from None
    return model


def head_of(model: nn.Module) -> nn.Linear:
    """The classifier. Raises: InputError where it is no linear layer."""
    head = model.get_classifier()  # type: ignore[operator]  # every timm model has it
    if not isinstance(head, nn.Linear):
        raise InputError(
            "pretrain_vit: model: its head is no linear layer; take a plain Vision Transformer"
        )
    return head


def start_head(model: nn.Module, bias: float) -> None:
    """Weights 0 and one bias for all: at −10 every class begins at a probability of 0.00005.

    So the loss begins near what it costs to know nothing of 21,841 mostly absent classes, rather
    than at 21,841 · log 2. (coyo-vit configures −10 but passes the weights' initialiser instead.)
    """
    head = head_of(model)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, bias)


def load_weights(model: nn.Module, url: str) -> None:
    """Weights of a safetensors file; a head of another number of classes is left as it is.

    Raises: InputError where the file is none, or its other weights are of another model.
    """
    own = model.state_dict()
    given = read_safetensors(url)
    head = {name for name, module in model.named_modules() if module is head_of(model)}
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
    }
    wrong = sorted(
        name
        for name in own.keys() ^ fitting.keys() | given.keys() - fitting.keys()
        if name.rpartition(".")[0] not in head
    )
    if wrong:
        raise InputError(
            f"pretrain_vit: initial_weights: {url} is of another model ({wrong[0]} is missing or "
            "of another shape); give the model, image_size and model_args that it was trained with"
        )
    model.load_state_dict(fitting, strict=False)


def read_safetensors(url: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises: InputError where it is none."""
    fs, path = storage.resolve(url)
    try:
        return load(fs.cat_file(path))
    except FileNotFoundError:
        raise InputError(f"pretrain_vit: no weights at {url}; give a safetensors file") from None
    except SafetensorError as error:
        raise InputError(
            f"pretrain_vit: {url} is not a readable safetensors file ({error})"
        ) from None


def write_safetensors(url: str, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a model's weights atomically."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    storage.write_bytes(url, save(tensors, dict(metadata)))


def device_of(setting: str) -> torch.device:
    """The device of this process's place in torchrun.

    Raises: InputError where there is no such device.
    """
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(setting)
    except RuntimeError:
        raise InputError(
            f"pretrain_vit: device: there is no '{setting}'; give auto, cpu, cuda or mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("pretrain_vit: device: PyTorch sees no CUDA GPU; give device=cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("pretrain_vit: device: PyTorch sees no Apple GPU; give device=cpu")
    return device
