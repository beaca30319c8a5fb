"""How the outputs of a model's head become labels of a label space."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import SIZES, LabelSpace, load_label_space, read_synsets

#: Outputs of the heads known by name: the label spaces, and two lists that lead to imagenet21k:
#: Google's (timm's tf_efficientnetv2_*.in21k) and Microsoft's (timm's *.ms_in22k).
HEAD_SIZES = {**SIZES, "imagenet21k_goog": 21_843, "imagenet22k_ms": 21_842}


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
        for name, size in HEAD_SIZES.items():
            if outputs == size and name != space.name and leads(name, space):
                return Head(name, order_of(name))
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
    if model_label_space not in HEAD_SIZES or space.given is not None:
        return _match_by_class(model_label_space, space)
    if model_label_space == space.name:
        return Head(space.name, None)
    if leads(model_label_space, space):
        return Head(model_label_space, order_of(model_label_space))
    raise InputError(
        f"model_label_space: there is no map from {model_label_space} ({size:,} classes) to "
        f"{space.name} ({space.size:,}); give label_space={model_label_space}, or a model "
        f"trained on {space.name}"
    )


def _match_by_class(model_label_space: str, space: LabelSpace) -> Head:
    """A head and a space, of which one is a text file at least: by the names of the classes.

    Raises: InputError where a class of the space is not found among the head's, or found twice.
    """
    known = model_label_space in HEAD_SIZES
    head = None if known else load_label_space(model_label_space)
    name = model_label_space if head is None else head.name
    theirs = read_synsets(model_label_space) if head is None else head.given or ()
    ours = space.given or read_synsets(space.name)
    if theirs == ours:
        return Head(name, None)
    place = {line: output for output, line in enumerate(theirs)}
    missing = [line for line in ours if line not in place]
    if missing:
        raise InputError(
            f"model_label_space: {model_label_space} has no class '{missing[0]}' of {space.name} "
            f"({len(missing):,} of {space.size:,} are missing); outputs are led to labels by equal "
            "lines, and an ImageNet class is called by its synset there, such as n04380533"
        )
    if len(place) < len(theirs) or len(set(ours)) < len(ours):
        raise InputError(
            f"model_label_space: {model_label_space} is in another order than {space.name}, and "
            "names of classes stand there more than once, so that outputs cannot be told apart; "
            "make every line of both differ"
        )
    return Head(name, np.array([place[line] for line in ours], dtype=np.int64))


def leads(head: str, space: LabelSpace) -> bool:
    """Whether there is a way from a head of that name to the space."""
    if space.given is not None:
        return False
    to_imagenet21k = head in HEAD_SIZES and head not in SIZES and space.name == "imagenet21k"
    return head == space.name or to_imagenet21k


def _spaces_of(outputs: int) -> str:
    known = [name for name, size in HEAD_SIZES.items() if size == outputs]
    if not known:
        return "; for a head of your own give label_space=FILE, one class a line"
    offered = known[0] if known[0] in SIZES else "imagenet21k"
    return f"; a head of {outputs:,} fits label_space={offered}"


def order_of(head: str) -> npt.NDArray[np.int64]:
    """(21841,) the output of a head known by name that is class 0, 1, … of imagenet21k.

    Outputs that are no class of it are left out: n03931044 and n09859684 of Google's list,
    n04399382 of Microsoft's.
    """
    place = {synset: output for output, synset in enumerate(read_synsets(head))}
    return np.array([place[synset] for synset in read_synsets("imagenet21k")], dtype=np.int64)
