"""Writes formats/wordnet.tsv.gz from WordNet 3.0: `python -m coyo_labeler.write_wordnet FOLDER`.

FOLDER holds `data.noun`, as Debian's package wordnet-base does in usr/share/wordnet. Versions other
than 3.0 number the synsets differently and are refused. timm lists the classes; see `make wordnet`.
"""

import gzip
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import read_timm_synsets
from coyo_labeler.formats.wordnet import COLUMNS, DATA, NOTICE

#: Pointers of data.noun to what a synset is a kind of, and to what it is an instance of.
HYPERNYMS = ("@", "@i")


class Synset(NamedTuple):
    """One line of data.noun: hypernyms and lemmas in WordNet's order."""

    hypernyms: tuple[str, ...]
    lemmas: str
    definition: str


def read_data_noun(lines: Iterable[str]) -> dict[str, Synset]:
    """The noun synsets by id, `n` and eight digits. The format is that of wndb(5WN).

    A gloss is a definition and, after `; "`, examples, which are left out.
    """
    synsets = {}
    for line in lines:
        if line.startswith(" "):  # the notice
            continue
        data, _, gloss = line.partition("|")
        fields = data.split()
        words = int(fields[3], 16)
        lemmas = [fields[4 + 2 * word].replace("_", " ") for word in range(words)]
        first = 5 + 2 * words
        pointers = [fields[start : start + 4] for start in range(first, len(fields) - 3, 4)]
        hypernyms = tuple(f"n{p[1]}" for p in pointers if p[0] in HYPERNYMS and p[2] == "n")
        definition = gloss.partition('; "')[0].strip().rstrip(";")
        synsets[f"n{fields[0]}"] = Synset(hypernyms, ", ".join(lemmas), definition)
    return synsets


def with_ancestors(classes: Iterable[str], synsets: Mapping[str, Synset]) -> list[str]:
    """The classes and everything above them, sorted.

    Raises: InputError where WordNet lacks a class.
    """
    nodes: set[str] = set()
    waiting = list(classes)
    while waiting:
        node = waiting.pop()
        if node not in synsets:
            raise InputError(
                f"write_wordnet: data.noun has no synset {node}; give the data.noun of WordNet 3.0"
            )
        if node not in nodes:
            nodes.add(node)
            waiting += synsets[node].hypernyms
    return sorted(nodes)


def table(synsets: Mapping[str, Synset]) -> Iterator[str]:
    """The lines of the file: the notice as comments, the names of the columns, one per node."""
    index = {
        space: {synset: str(label) for label, synset in enumerate(read_timm_synsets(space))}
        for space in ("imagenet21k", "imagenet1k")
    }
    yield from (f"# {line}".rstrip() for line in NOTICE.read_text(encoding="utf-8").splitlines())
    yield "\t".join(COLUMNS)
    for node in with_ancestors([*index["imagenet21k"], *index["imagenet1k"]], synsets):
        hypernyms, lemmas, definition = synsets[node]
        labels = [of_space.get(node, "") for of_space in index.values()]
        yield "\t".join([node, *labels, " ".join(hypernyms), lemmas, definition])


def write(folder: Path) -> None:
    """Write the package's file; the same input gives the same bytes."""
    with (folder / "data.noun").open(encoding="utf-8") as lines:
        text = "\n".join(table(read_data_noun(lines))) + "\n"
    DATA.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
