"""What the classes of a label space are called."""

from collections.abc import Sequence
from dataclasses import dataclass

from coyo_labeler import storage
from coyo_labeler.errors import InputError

#: Label spaces known by name: timm's list, and its number of classes.
_KNOWN = {"imagenet21k": ("imagenet22k", 21_841), "imagenet1k": ("imagenet1k", 1_000)}


@dataclass(frozen=True)
class LabelNames:
    """A label space: `size` classes 0 … size − 1, and their names where they are known."""

    label_space: str
    size: int
    names: Sequence[str] | None = None

    def __getitem__(self, label: int) -> str:
        return self.names[label] if self.names is not None else f"class {label}"


def read_names(label_space: str) -> LabelNames:
    """The classes of `imagenet21k`, `imagenet1k`, or of a text file with one name a line.

    The names of the ImageNets come from timm; without timm the classes go by number.

    Raises: InputError where the file is missing or empty.
    """
    if label_space in _KNOWN:
        listed, size = _KNOWN[label_space]
        return LabelNames(label_space, size, _imagenet_names(listed, size))
    if not storage.exists(label_space):
        raise InputError(
            f"report: label_space: no file {label_space}; give {', '.join(_KNOWN)} or a text file "
            "with one class a line"
        )
    names = [line.strip() for line in storage.read_text(label_space).splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"report: label_space: {label_space} is empty; name one class a line")
    return LabelNames(label_space, len(names), names)


def _imagenet_names(listed: str, size: int) -> list[str] | None:
    try:
        from timm.data.imagenet_info import ImageNetInfo  # noqa: PLC0415
    except ImportError:
        return None
    info = ImageNetInfo(listed)
    return [info.index_to_description(label) for label in range(size)]
