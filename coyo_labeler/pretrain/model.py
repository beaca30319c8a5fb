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
from coyo_labeler.formats.state_dicts import fit_names, refuse_pointer


def build_model(
    name: str, num_classes: int, image_size: int, model_args: Mapping[str, Any]
) -> nn.Module:
    """A freshly initialised timm model.

    Raises: InputError if timm has no such model, or the model does not take these arguments.
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
    """The classifier.

    Raises: InputError if it is not a linear layer.
    """
    head = model.get_classifier()  # type: ignore[operator]  # every timm model has it
    if not isinstance(head, nn.Linear):
        raise InputError(
            "pretrain_vit: model: its head is not a linear layer; choose a plain Vision Transformer"
        )
    return head


def start_head(model: nn.Module, bias: float) -> None:
    """Set the weights to 0 and all biases to `bias`; at −10 every class has probability 0.00005.

    With 21,841 mostly absent classes the loss then starts near its value for a network that knows
    only how rare they are, not at 21,841 · log 2. (coyo-vit configures −10 but passes the weights'
    initialiser instead.)
    """
    head = head_of(model)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, bias)


def load_weights(model: nn.Module, url: str) -> None:
    """Load the weights of a safetensors file, except for a head of another number of classes.

    Raises: InputError if the file is not readable, or belongs to another model.
    """
    own = model.state_dict()
    given = fit_names(read_safetensors(url), own, f"pretrain_vit: initial_weights: {url}")
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
    """The tensors of a safetensors file.

    Raises: InputError if it is missing or not readable.
    """
    fs, path = storage.resolve(url)
    try:
        data = fs.cat_file(path)
        refuse_pointer("pretrain_vit", url, data)
        return load(data)
    except FileNotFoundError:
        raise InputError(f"pretrain_vit: no weights at {url}; give a safetensors file") from None
    except SafetensorError as error:
        raise InputError(
            f"pretrain_vit: {url} is not a readable safetensors file ({error}); give weights that "
            "were saved as .safetensors"
        ) from None


def write_safetensors(url: str, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write the weights of a model atomically, as safetensors."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    storage.write_bytes(url, save(tensors, dict(metadata)))


def device_of(setting: str) -> torch.device:
    """The device that a setting (auto, cpu, cuda, mps) names on this machine.

    Raises: InputError if there is no such device.
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
