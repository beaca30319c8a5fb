"""What the classes of a label space are called, for pages and cards that people read."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from coyo_labeler.label_spaces import load_label_space

#: timm's files of the synsets of the spaces that are known by name.
_LISTED = {"imagenet21k": "imagenet22k_synsets.txt", "imagenet1k": "imagenet_synsets.txt"}


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
    names = _imagenet_names(listed) if listed else space.names
    return LabelNames(label_space, space.size, names)


def _imagenet_names(synsets: str) -> list[str] | None:
    """What timm's lists call the classes, read as files: importing timm would load PyTorch."""
    timm = find_spec("timm")
    if timm is None or timm.origin is None:
        return None
    folder = Path(timm.origin).parent / "data" / "_info"
    lemmas = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8")
    names = dict(line.split("\t", 1) for line in lemmas.splitlines())
    return [names[synset] for synset in (folder / synsets).read_text().split()]
