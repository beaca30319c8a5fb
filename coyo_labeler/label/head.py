"""Maps the outputs of a model's head to the classes of a label space."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import SIZES, LabelSpace, load_label_space, read_synsets

#: Number of outputs of each head known by name: the label spaces, and two lists that map to
#: imagenet21k: Google's (timm's tf_efficientnetv2_*.in21k) and Microsoft's (timm's *.ms_in22k).
HEAD_SIZES = {**SIZES, "imagenet21k_goog": 21_843, "imagenet22k_ms": 21_842}


@dataclass(frozen=True)
class Head:
    """The meaning of a model's outputs.

    order: (classes,) int64, the output of class 0, 1, …; None if output i is class i.
    """

    name: str
    order: npt.NDArray[np.int64] | None


def match_head(outputs: int, space: LabelSpace, model_label_space: str | None = None) -> Head:
    """The meaning of a head with so many outputs in a label space.

    Raises: InputError where the head fits no list that maps to the space; it names what would fit.
    """
    if model_label_space is None:
        if outputs == space.size:
            return Head(space.name, None)
        for name, size in HEAD_SIZES.items():
            if outputs == size and name != space.name and maps_to(name, space):
                return Head(name, order_of(name))
        fits = [f"{name} ({size:,})" for name, size in HEAD_SIZES.items() if maps_to(name, space)]
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
    if maps_to(model_label_space, space):
        return Head(model_label_space, order_of(model_label_space))
    raise InputError(
        f"model_label_space: there is no map from {model_label_space} ({size:,} classes) to "
        f"{space.name} ({space.size:,}); give label_space={model_label_space}, or a model "
        f"trained on {space.name}"
    )


def _match_by_class(model_label_space: str, space: LabelSpace) -> Head:
    """Match a head and a space by their class names; at least one of them is a text file.

    Raises: InputError where a class of the space is missing among the head's, or occurs twice.
    """
    known = model_label_space in HEAD_SIZES
    head = None if known else load_label_space(model_label_space)
    name = model_label_space if head is None else head.name
    head_classes = read_synsets(model_label_space) if head is None else head.given or ()
    classes = space.given or read_synsets(space.name)
    if head_classes == classes:
        return Head(name, None)
    output_of = {line: output for output, line in enumerate(head_classes)}
    missing = [line for line in classes if line not in output_of]
    if missing:
        raise InputError(
            f"model_label_space: {model_label_space} has no class '{missing[0]}' of {space.name} "
            f"({len(missing):,} of {space.size:,} are missing); outputs are matched to labels "
            "by equal lines, with the synset for an ImageNet class, such as n04380533"
        )
    if len(output_of) < len(head_classes) or len(set(classes)) < len(classes):
        raise InputError(
            f"model_label_space: {model_label_space} is in another order than {space.name}, and "
            "names of classes occur more than once, so that outputs are ambiguous; make all lines "
            "of each list differ"
        )
    return Head(name, np.array([output_of[line] for line in classes], dtype=np.int64))


def maps_to(head: str, space: LabelSpace) -> bool:
    """Whether the outputs of the head of that name are known to map to classes of the space."""
    if space.given is not None:
        return False
    to_imagenet21k = head in HEAD_SIZES and head not in SIZES and space.name == "imagenet21k"
    return head == space.name or to_imagenet21k


def _spaces_of(outputs: int) -> str:
    known = [name for name, size in HEAD_SIZES.items() if size == outputs]
    if not known:
        return "; for a head of your own give label_space=FILE, one class per line"
    offered = known[0] if known[0] in SIZES else "imagenet21k"
    return f"; a head of {outputs:,} fits label_space={offered}"


def order_of(head: str) -> npt.NDArray[np.int64]:
    """(21841,) the output of class 0, 1, … of imagenet21k in a head known by name.

    Outputs that are no class of it are left out: n03931044 and n09859684 of Google's list,
    n04399382 of Microsoft's.
    """
    output_of = {synset: output for output, synset in enumerate(read_synsets(head))}
    return np.array([output_of[synset] for synset in read_synsets("imagenet21k")], dtype=np.int64)
