"""How the outputs of a model's head become labels of a label space."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coyo_labeler.errors import InputError
from coyo_labeler.label_spaces import SIZES, LabelSpace, load_label_space

#: Sizes of the heads known by name: the label spaces, and the list of Google's ImageNet-21k.
HEAD_SIZES = {**SIZES, "imagenet21k_goog": 21_843}


@dataclass(frozen=True)
class Head:
    """What the outputs of a model stand for.

    order: (classes,) int64, the output that is class 0, 1, …; None where outputs are classes.
    """

    name: str
    order: npt.NDArray[np.int64] | None


def match_head(outputs: int, space: LabelSpace, model_label_space: str | None = None) -> Head:
    """What a head of so many outputs means in a label space.

    Raises: InputError where the head fits no list that leads to the space, with what would fit.
    """
    if model_label_space is None:
        if outputs == space.size:
            return Head(space.name, None)
        if outputs == HEAD_SIZES["imagenet21k_goog"] and space.name == "imagenet21k":
            return Head("imagenet21k_goog", goog_order())
        fits = [f"{name} ({size:,})" for name, size in HEAD_SIZES.items() if leads(name, space)]
        raise InputError(
            f"label_space: the model has {outputs:,} outputs, which is no head for "
            f"{space.name} ({space.size:,} classes); that takes a head of "
            f"{' or '.join(fits) or f'{space.size:,} outputs'}"
            f"{_spaces_of(outputs)}"
        )
    size = HEAD_SIZES.get(model_label_space) or load_label_space(model_label_space).size
    if size != outputs:
        raise InputError(
            f"model_label_space: {model_label_space} has {size:,} classes, but the model has "
            f"{outputs:,} outputs{_spaces_of(outputs)}"
        )
    if model_label_space == "imagenet21k_goog" and space.name == "imagenet21k":
        return Head("imagenet21k_goog", goog_order())
    if size != space.size or (model_label_space in HEAD_SIZES and model_label_space != space.name):
        raise InputError(
            f"model_label_space: there is no map from {model_label_space} ({size:,} classes) to "
            f"{space.name} ({space.size:,}); give label_space={model_label_space}, or a model "
            f"trained on {space.name}"
        )
    return Head(model_label_space, None)


def leads(head: str, space: LabelSpace) -> bool:
    """Whether there is a way from a head of that name to the space."""
    return head == space.name or (head, space.name) == ("imagenet21k_goog", "imagenet21k")


def _spaces_of(outputs: int) -> str:
    known = [name for name, size in HEAD_SIZES.items() if size == outputs]
    if not known:
        return "; for a head of your own give label_space=FILE, one class a line"
    offered = "imagenet21k" if known[0] == "imagenet21k_goog" else known[0]
    return f"; a head of {outputs:,} fits label_space={offered}"


def goog_order() -> npt.NDArray[np.int64]:
    """(21841,) the output of an `imagenet21k_goog` head for each class of imagenet21k.

    From timm's own list; two outputs (n03931044, n09859684) are in no class.
    """
    from importlib.resources import files  # noqa: PLC0415

    text = files("timm.data").joinpath("_info/imagenet21k_goog_to_22k_indices.txt").read_text()
    return np.array(text.split(), dtype=np.int64)


__all__ = ["HEAD_SIZES", "Head", "LabelSpace", "goog_order", "load_label_space", "match_head"]
