"""The lists of classes that labels index: how many classes, their names and their synsets.

ImageNet's are in this package. The lists of other heads are timm's, which is read as files and
never imported, because that would load PyTorch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats.wordnet import read_classes, read_nodes

#: Classes of the spaces known by name. imagenet21k is the sorted list of COYO-Labeled-300M.
SIZES = {"imagenet21k": 21_841, "imagenet1k": 1_000}

#: What timm calls the lists of these spaces, and of the heads whose outputs lead to imagenet21k.
LISTED = {
    "imagenet21k": "imagenet22k",
    "imagenet1k": "imagenet",
    "imagenet21k_goog": "imagenet21k_goog",
    "imagenet22k_ms": "imagenet22k_ms",
}


@dataclass(frozen=True)
class LabelSpace:
    """A list of classes; a label is an index into it, 0 to size − 1.

    given: the names of the classes, where the space is a text file.
    """

    name: str
    size: int
    given: tuple[str, ...] | None = None

    @property
    def names(self) -> Sequence[str] | None:
        """The names of the classes, for ImageNet WordNet's lemmas; None if there are none."""
        return _names(self.name) if self._is_listed else self.given

    @property
    def synsets(self) -> Sequence[str] | None:
        """The WordNet ids of the classes; None for a text file."""
        return read_synsets(self.name) if self._is_listed else None

    @property
    def definitions(self) -> Sequence[str] | None:
        """WordNet's definitions of the classes; None for a text file."""
        return _definitions(self.name) if self._is_listed else None

    @property
    def _is_listed(self) -> bool:
        return self.given is None and self.name in SIZES

    def name_of(self, label: int) -> str:
        """The name of a class; its number if it has no name. For people, see `display_name`."""
        return f"class {label}" if self.names is None else self.names[label]

    def display_name(self, label: int) -> str:
        """What to call a class where people read it, so that no two classes read the same.

        A name that another class has too is followed by the synset, such as `lamp (n03636649)`; in
        a space without synsets, by the number of the class.
        """
        name = self.name_of(label)
        if self.names is None or len(self.find(name)) == 1:
            return name
        return f"{name} ({label if self.synsets is None else self.synsets[label]})"

    def find(self, name: str) -> tuple[int, ...]:
        """The classes that have this name or this synset; none where there are no names."""
        return _classes_by_name(self).get(name, ())

    def describe(self) -> str:
        """For messages: `imagenet21k (0..21840)`."""
        return f"{self.name} (0..{self.size - 1})"


def load_label_space(label_space: str) -> LabelSpace:
    """The space of a known name, or of a text file with one class per line.

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
            "class per line"
        ) from None
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if len(names) < 2:
        raise InputError(f"label_space: {label_space} names fewer than two classes, one per line")
    return LabelSpace(label_space.rsplit("/", 1)[-1], len(names), names)


@cache
def _classes_by_name(space: LabelSpace) -> dict[str, tuple[int, ...]]:
    classes: dict[str, tuple[int, ...]] = {}
    for names in (space.names or (), space.synsets or ()):
        for number, name in enumerate(names):
            classes[name] = (*classes.get(name, ()), number)
    return classes


@cache
def read_synsets(name: str) -> tuple[str, ...]:
    """The WordNet id of each class of a space or head known by name.

    Raises: ModuleNotFoundError without timm, for a head that is no space.
    """
    return read_classes(name) if name in SIZES else read_timm_synsets(name)


@cache
def read_timm_synsets(name: str) -> tuple[str, ...]:
    """The WordNet id of each class of a space or head known by name, by timm's list.

    Raises: ModuleNotFoundError without timm.
    """
    return tuple(_read(f"{LISTED[name]}_synsets.txt").split())


@cache
def _names(name: str) -> tuple[str, ...]:
    nodes = read_nodes()
    return tuple(nodes[synset].lemmas for synset in read_synsets(name))


@cache
def _definitions(name: str) -> tuple[str, ...]:
    nodes = read_nodes()
    return tuple(nodes[synset].definition for synset in read_synsets(name))


def _read(file: str) -> str:
    folder = _folder()
    if folder is None:
        message = "timm, which has the list of the head's classes, is missing"
        raise ModuleNotFoundError(message, name="timm")
    return (folder / file).read_text(encoding="utf-8")


@cache
def _folder() -> Path | None:
    """The folder of timm's lists."""
    timm = find_spec("timm")
    return None if timm is None or timm.origin is None else Path(timm.origin).parent / "data/_info"
