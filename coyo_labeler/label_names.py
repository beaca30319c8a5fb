"""What the classes of a label space are called, for pages and cards that people read."""

from collections.abc import Sequence
from dataclasses import dataclass

from coyo_labeler.label_spaces import load_label_space

#: What timm calls the spaces that are known by name.
_LISTED = {"imagenet21k": "imagenet22k", "imagenet1k": "imagenet1k"}


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

    Raises: InputError where the file is missing or names fewer than two classes.
    """
    space = load_label_space(label_space)
    listed = _LISTED.get(label_space)
    names = _imagenet_names(listed, space.size) if listed else space.names
    return LabelNames(label_space, space.size, names)


def _imagenet_names(listed: str, size: int) -> list[str] | None:
    try:
        from timm.data.imagenet_info import ImageNetInfo  # noqa: PLC0415
    except ImportError:
        return None
    info = ImageNetInfo(listed)
    return [info.index_to_description(label) for label in range(size)]
