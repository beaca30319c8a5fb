"""A timm model and its weights: from timm, or from a checkpoint file anywhere."""

import hashlib
import io
import json
import math
import operator
import posixpath
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats.state_dicts import explain_names, fit_names, refuse_pointer, unwrap

State = dict[str, torch.Tensor]

#: Bytes of a safetensors header; the format allows no more.
_LONGEST_HEADER = 100_000_000


def load_model(
    name: str, checkpoint: str | None, pretrained: bool | None
) -> tuple[nn.Module, str, str]:
    """The model with its weights, where they are from, and their sha256.

    The sha256 is that of the checkpoint file; without one, of all tensors in the order of their
    names.

    Raises: InputError where the model is unknown, its weights cannot be had, or the checkpoint is
    not the model's.
    """
    if checkpoint is None:
        if pretrained is not False:
            model, origin = create_model(name, pretrained=True), "timm"
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # every process of a run draws the same weights
                model, origin = create_model(name), "random"
        return model, origin, _digest_of(model.state_dict())
    saved, digest = read_checkpoint(checkpoint)
    shapes = {key: tuple(tensor.shape) for key, tensor in saved.items()}
    model = create_model(name, outputs=check_shapes(name, checkpoint, shapes))
    own = model.state_dict()
    fitting = fit_names(saved, own, f"checkpoint: {checkpoint}")
    state = {key: tensor for key, tensor in fitting.items() if key in own}
    for key, tensor in state.items():
        if own[key].is_floating_point() and not tensor.is_floating_point():
            raise InputError(
                f"checkpoint: {checkpoint}: {key} is {tensor.dtype}, not of floats; give weights "
                "that are not quantised"
            )
    model.load_state_dict(state)
    return model, posixpath.basename(checkpoint), digest


def create_model(name: str, *, pretrained: bool = False, outputs: int | None = None) -> nn.Module:
    """A model by its timm name; outputs: of its head, None: as timm has it.

    Raises: InputError where timm does not know it, it has no weights, or they cannot be fetched.
    """
    more: dict[str, Any] = {} if outputs is None else {"num_classes": outputs}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **more)
    except (RuntimeError, ValueError) as error:
        if pretrained and "No pretrained weights" in str(error):
            raise _no_weights(name) from None
        if isinstance(error, ValueError):  # a name that is spelt like a path, or a source unknown
            raise InputError(f"model: {_one_line(error)}") from None
        if "Unknown model" not in str(error) and "Invalid pretrained tag" not in str(error):
            raise
        close = timm.list_models(f"*{name.partition('.')[0]}*", pretrained=True)[:5]
        raise InputError(
            f"model: timm knows no {name}; it has {', '.join(close) or 'nothing like it'}"
        ) from None
    except OSError as error:  # what huggingface_hub and requests raise derives from it
        raise InputError(
            f"model: {name} cannot be fetched ({_one_line(error)}); give checkpoint=FILE with its "
            "weights, or make the hub reachable"
        ) from None
    return model


def require_weights(model: nn.Module, name: str) -> None:
    """Raises: InputError where timm has no weights for the model, without looking for them."""
    config: Any = model.pretrained_cfg
    if not any(config.get(key) for key in ("url", "file", "hf_hub_id", "state_dict")):
        raise _no_weights(name)


def _no_weights(name: str) -> InputError:
    tagged = timm.list_models(f"*{name.partition('.')[0]}*", pretrained=True)[:5]
    return InputError(
        f"model: timm has no weights for {name}; give checkpoint=FILE"
        + (f", or a model that has some: {', '.join(tagged)}" if tagged else "")
    )


def count_outputs(model: nn.Module, name: str) -> int:
    """Outputs of a model's head.

    Raises: InputError where it has none, or more than one.
    """
    head: Any = model.get_classifier()  # type: ignore[operator]
    if not isinstance(getattr(head, "weight", None), torch.Tensor):
        has = f"{len(head)} heads" if isinstance(head, tuple) else "no head"
        raise InputError(
            f"model: {name} has {has}, and labels come of one; give a model with a classifier"
        )
    return int(head.weight.shape[0])


def check_shapes(
    name: str, checkpoint: str | None, shapes: Mapping[str, tuple[int, ...]]
) -> int | None:
    """See that a checkpoint is of a model, whatever the number of its classes.

    shapes: of the checkpoint's tensors. Returns the outputs of its head; None where there is no
    checkpoint: as many as timm has it.

    Raises: InputError that says how names or shapes differ.
    """
    if checkpoint is None:
        return None
    source = f"checkpoint: {checkpoint}"
    with torch.device("meta"):
        model: Any = create_model(name)
        own = model.state_dict()
        fitting = fit_names(shapes, own, source)
        difference = explain_names(fitting, own)
        if difference is not None:
            raise InputError(
                f"{source} is not of the model {name}: {difference}; give the model that it was "
                "saved from"
            )
        head = fitting.get(f"{model.pretrained_cfg.get('classifier')}.weight")
        outputs = int(head[0]) if head else None
        wanted = own if outputs is None else create_model(name, outputs=outputs).state_dict()
    for key, shape in fitting.items():
        if key in wanted and tuple(wanted[key].shape) != shape:
            raise InputError(
                f"{source} is not of the model {name}: {key} has the shape {list(shape)}, in the "
                f"model it has {list(wanted[key].shape)}; give the model that it was saved from"
            )
    return outputs


def read_checkpoint(url: str) -> tuple[State, str]:
    """The tensors of a .safetensors or .pth file by name, and the sha256 of the file.

    Never unpickles code: .pth is read with `weights_only=True`. A state dict in a wrapper is found,
    plain weights before averaged ones.

    Raises: InputError where it is neither.
    """
    fs, path = storage.resolve(url)
    data: bytes = fs.cat_file(path)
    refuse_pointer("checkpoint", url, data)
    digest = hashlib.sha256(data).hexdigest()
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load  # noqa: PLC0415

            return load(data), digest
        state = unwrap(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # each format has errors of its own, all mean the same here
        raise InputError(
            f"checkpoint: {url} holds no plain tensors ({_one_line(error)}); save the state_dict "
            "as .safetensors"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise InputError(f"checkpoint: {url} holds no state_dict; save one as .safetensors")
    return state, digest


def read_shapes(url: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors; of a .safetensors only the header is read.

    Raises: InputError as `read_checkpoint` does.
    """
    fs, path = storage.resolve(url)
    if not path.endswith(".safetensors"):
        return {name: tuple(tensor.shape) for name, tensor in read_checkpoint(url)[0].items()}
    size = int(fs.size(path) or 0)
    with fs.open(path, "rb") as file:
        start = file.read(64)
        refuse_pointer("checkpoint", url, start)
        length = int.from_bytes(start[:8], "little")
        try:
            if not 8 + length <= size or length > _LONGEST_HEADER:
                raise ValueError("the header is longer than the file")
            file.seek(8)
            header = json.loads(file.read(length))
            return {
                name: _shape_of(entry, size - 8 - length)
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f"checkpoint: {url} is no safetensors file ({_one_line(error)}); save the "
                "state_dict as .safetensors"
            ) from None


def _shape_of(entry: Any, data_bytes: int) -> tuple[int, ...]:
    """The shape of a tensor. Raises: ValueError where its data, of the file's, cannot have it."""
    shape, (start, end) = tuple(map(operator.index, entry["shape"])), entry["data_offsets"]
    # The smallest type has four bits.
    if (
        not 0 <= start <= end <= data_bytes
        or math.prod(shape) > 2 * (end - start)
        or min(shape, default=0) < 0
    ):
        raise ValueError("a tensor's shape or place does not fit the file")
    return shape


def _digest_of(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(
            state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
        )
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return one_line(error, 160)
