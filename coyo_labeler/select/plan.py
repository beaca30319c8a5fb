"""Settings, as a user writes them, become what the tasks of select need to know."""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.config.select import SelectSettings
from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_shards import Shard, find_shards
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.label_tree import read_label_tree
from coyo_labeler.formats.pairs import plan_pairs
from coyo_labeler.formats.parquet_splits import Split, parquet_files, plan_splits, read_footers
from coyo_labeler.manifest import read_manifest
from coyo_labeler.select import hashes
from coyo_labeler.select.nodes import NodeRule
from coyo_labeler.votes import read as votes_files
from coyo_labeler.votes.read import VotesSplit

#: Rows that one task reads.
ROWS_PER_SPLIT = 500_000

#: Columns that are read where the labels have them.
_OPTIONAL = ("url", "imagehash", "n_votes", "risk", "entropy")


@dataclass(frozen=True)
class Plan:
    """What is read, and how images are chosen.

    labels, votes, gold, images: the parts to read. columns: of the labels, for the index. has_…:
    whether the labels have that column. reads_…: whether the index needs the risk column, the lists
    of probabilities, their classes. node_rule: for kind=tree. The other fields are the settings of
    these names.
    """

    labels: tuple[Split, ...]
    votes: tuple[VotesSplit, ...]
    gold: tuple[Split | str, ...]
    images: tuple[Shard, ...]
    space: LabelSpace
    strategy: Literal["risk", "entropy", "margin", "random"]
    kind: Literal["choice", "verify", "tree"]
    node_rule: NodeRule | None
    candidates: int
    max_per_class: int | None
    max_per_pair: int | None
    round: int
    audit: float
    gold_share: float
    overlap: int
    max_votes: int
    repeat_risk: float
    seed: int

    def _has(self, name: str) -> bool:
        return name in self.labels[0].schema.names

    @property
    def has_url(self) -> bool:
        """See Plan."""
        return self._has("url")

    @property
    def has_hashes(self) -> bool:
        """See Plan."""
        return self._has("imagehash")

    @property
    def has_votes(self) -> bool:
        """See Plan; then the labels are those of a merge, and risk is that after votes."""
        return self._has("n_votes")

    @property
    def has_risk(self) -> bool:
        """See Plan."""
        return self._has("risk")

    @property
    def has_entropy(self) -> bool:
        """See Plan."""
        return self._has("entropy")

    @property
    def reads_risk(self) -> bool:
        """See Plan: to choose by it, or to see what votes left open."""
        return self.has_risk and (self.strategy == "risk" or bool(self.votes))

    @property
    def reads_labels(self) -> bool:
        """See Plan."""
        capped = self.max_per_class is not None or self.max_per_pair is not None
        return self.kind != "choice" or capped

    @property
    def reads_lists(self) -> bool:
        """See Plan."""
        from_lists = {
            "risk": not self.has_risk,
            "entropy": not self.has_entropy,
            "margin": True,
            "random": False,
        }
        return self.reads_labels or from_lists[self.strategy]

    @property
    def columns(self) -> list[str]:
        """See Plan."""
        wanted = {
            "id": True,
            "imagehash": self.has_hashes,
            "labels": self.reads_labels,
            "label_probs": self.reads_lists,
            "n_votes": self.has_votes,
            "risk": self.reads_risk,
            "entropy": self.has_entropy and self.strategy == "entropy",
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def salt(self, stream: str) -> int:
        """The salt of a stream of numbers in this round, see `hashes.draw`."""
        return hashes.salt(stream, self.seed, self.round)


def require_tree(settings: SelectSettings) -> None:
    """Raises: InputError where questions are about nodes of the tree, and the classes have none."""
    if settings.kind == "tree":
        read_label_tree(load_label_space(settings.label_space))


def make_plan(settings: SelectSettings) -> Plan:
    """The plan. Raises: InputError where an input cannot be read, or a tree is missing."""
    space = load_label_space(settings.label_space)
    url = storage.locate(settings.labels, "posterior")
    labels = tuple(plan_splits("labels", url, _schema_of(url), ROWS_PER_SPLIT))
    votes = settings.votes
    if votes is not None:
        votes = storage.locate(votes, "votes")
    return Plan(
        labels=labels,
        votes=tuple(votes_files.plan(votes, ROWS_PER_SPLIT)) if votes is not None else (),
        gold=_plan_gold(settings.gold),
        images=_plan_images(settings),
        space=space,
        strategy=settings.strategy,
        kind=settings.kind,
        node_rule=_node_rule(settings, space),
        candidates=settings.candidates,
        max_per_class=settings.max_per_class,
        max_per_pair=settings.max_per_pair,
        round=settings.round,
        audit=settings.audit,
        gold_share=settings.gold_share,
        overlap=settings.overlap,
        max_votes=settings.max_votes,
        repeat_risk=settings.repeat_risk,
        seed=settings.seed,
    )


def _node_rule(settings: SelectSettings, space: LabelSpace) -> NodeRule | None:
    if settings.kind != "tree":
        return None
    merged = read_manifest(settings.labels)
    is_multi = merged is not None and merged.config.get("truth") == "multi"
    return NodeRule(space, "max" if is_multi else "sum", settings.max_node_classes)


def _plan_images(settings: SelectSettings) -> tuple[Shard, ...]:
    if settings.images is None:
        return ()
    return tuple(find_shards(settings.images, settings.ids))


def _plan_gold(url: str | None) -> tuple[Any, ...]:
    return () if url is None else tuple(plan_pairs("gold", url, schemas.GOLD, ROWS_PER_SPLIT))


def _schema_of(url: str) -> pa.Schema:
    """The columns of the labels that can be used, by the first file: all files have the same.

    Raises: InputError where there is none.
    """
    files = parquet_files("labels", url, "give what label or merge wrote")
    (footer,) = read_footers("labels", files[:1])
    present = footer.schema.to_arrow_schema().names
    required = [schemas.POSTERIOR.field(name) for name in ("id", "labels", "label_probs")]
    optional = [schemas.POSTERIOR.field(name) for name in _OPTIONAL if name in present]
    return pa.schema([*required, *optional])
