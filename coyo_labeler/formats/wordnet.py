"""WordNet 3.0 as far as ImageNet needs it: the file wordnet.tsv.gz of this package.

`coyo_labeler.write_wordnet` makes the file. WordNet's licence, which allows this copy, is in
wordnet_notice.txt and at the top of the file itself.
"""

import gzip
from functools import cache
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).with_name("wordnet.tsv.gz")
NOTICE = Path(__file__).with_name("wordnet_notice.txt")

#: The columns of the file. Those named after a label space hold the class of a synset in it.
COLUMNS = ("synset", "imagenet21k", "imagenet1k", "hypernyms", "lemmas", "definition")


class Node(NamedTuple):
    """A synset. hypernyms: the ids of those right above it. lemmas: its words, comma-separated."""

    synset: str
    hypernyms: tuple[str, ...]
    lemmas: str
    definition: str


@cache
def read_nodes() -> dict[str, Node]:
    """The classes of ImageNet and every synset above them, by id, sorted by id."""
    return {
        fields[0]: Node(fields[0], tuple(fields[3].split()), fields[4], fields[5])
        for fields in _rows()
    }


@cache
def read_classes(label_space: str) -> tuple[str, ...]:
    """The synset of each class of imagenet21k or imagenet1k, in their order."""
    column = COLUMNS.index(label_space)
    listed = [(int(fields[column]), fields[0]) for fields in _rows() if fields[column]]
    return tuple(synset for _, synset in sorted(listed))


def _rows() -> list[list[str]]:
    lines = gzip.decompress(DATA.read_bytes()).decode().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")][1:]
