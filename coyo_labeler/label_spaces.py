"""The lists of classes that labels index: how many classes, and their names where a file has them.

Needs neither torch nor timm: the named spaces are known here by their size alone.
"""

from dataclasses import dataclass

from coyo_labeler import storage
from coyo_labeler.errors import InputError

#: Classes of the spaces known by name. imagenet21k is the sorted list of COYO-Labeled-300M.
SIZES = {"imagenet21k": 21_841, "imagenet1k": 1_000}


@dataclass(frozen=True)
class LabelSpace:
    """A list of classes; a label is an index into it, 0 to size − 1.

    names: one a class where the space is a text file, else None.
    """

    name: str
    size: int
    names: tuple[str, ...] | None = None

    def describe(self) -> str:
        """For messages: `imagenet21k (0..21840)`."""
        return f"{self.name} (0..{self.size - 1})"


def load_label_space(label_space: str) -> LabelSpace:
    """The space of a known name, or of a text file with one class a line.

    Raises: InputError where it is neither, or the file names fewer than two classes.
    """
    if label_space in SIZES:
        return LabelSpace(label_space, SIZES[label_space])
    known = ", ".join(SIZES)
    try:
        text = storage.read_text(label_space)
    except (FileNotFoundError, IsADirectoryError, ValueError):
        raise InputError(
            f"label_space: {label_space} is neither one of {known} nor a UTF-8 text file with one "
            "class a line"
        ) from None
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) < 2:
        raise InputError(f"label_space: {label_space} names fewer than two classes, one a line")
    return LabelSpace(label_space.rsplit("/", 1)[-1], len(names), names)
