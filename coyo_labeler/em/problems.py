"""Problems as flat arrays: what EM iterates over."""

from dataclasses import dataclass, field

import numpy as np

from coyo_labeler.em.segments import F64, I32, I64, Bool, spread
from coyo_labeler.em.tails import Tails

#: The label of the state that lumps all classes outside the support, and of the state "false".
OUTSIDE = -1
#: The first label of states that lump the classes of a region (`sets`): −2, −3, … in each problem.
FIRST_GROUP = -2


def _no_integers() -> I64:
    return np.zeros(0, dtype=np.int64)


def _no_offsets() -> I64:
    return np.zeros(1, dtype=np.int64)


@dataclass(frozen=True)
class Groups:
    """States that lump some classes, the unlisted ones of a region (`truth: single`).

    entry: (groups,) index of each group's entry. size: (groups,) how many classes it lumps. region:
    (groups,) index of its region below; −1 where the image has a belief. region_offsets, label: the
    classes of each region, sorted, the listed ones too.
    """

    entry: I64 = field(default_factory=_no_integers)
    size: I64 = field(default_factory=_no_integers)
    region: I64 = field(default_factory=_no_integers)
    region_offsets: I64 = field(default_factory=_no_offsets)
    label: I64 = field(default_factory=_no_integers)


@dataclass(frozen=True)
class Joints:
    """Questions that answers about sets of classes tie together (`truth: multi`).

    A region is some questions of an image; in a state each region of a component is on (one of its
    questions is true) or off (none is), and every combination is a state.

    region_offsets: (regions + 1,), question: the problems of each region; each is in one region.
    state_offsets: (components + 1,) the states of each component. pair_state, pair_region, pair_on:
    (pairs,) every state with every region of its component, and whether that is on.
    """

    region_offsets: I64 = field(default_factory=_no_offsets)
    question: I64 = field(default_factory=_no_integers)
    state_offsets: I64 = field(default_factory=_no_offsets)
    pair_state: I64 = field(default_factory=_no_integers)
    pair_region: I64 = field(default_factory=_no_integers)
    pair_on: Bool = field(default_factory=lambda: np.zeros(0, dtype=bool))


@dataclass(frozen=True)
class Ancestry:
    """How the listed classes of images lie below one another (`truth: multi`, `hierarchy`).

    question: (m,) the problems of classes with a listed class above or below them, from the top
    down. level_offsets: (levels + 1,) how many listed classes stand above them. parent: (m,) the
    nearest class above each, an index of `question`; −1 at the top. below, above: (k,) problems:
    what else lies below what.
    """

    question: I64 = field(default_factory=_no_integers)
    parent: I64 = field(default_factory=_no_integers)
    level_offsets: I64 = field(default_factory=_no_offsets)
    below: I64 = field(default_factory=_no_integers)
    above: I64 = field(default_factory=_no_integers)


@dataclass(frozen=True)
class Problems:
    """The inference problems of some images, and their votes.

    A problem is the unknown class of one image; in `truth: multi` it is whether one class is there,
    and an image has a problem per class. Problem i has the entries (states)
    [offsets[i], offsets[i + 1]), ordered by class, `OUTSIDE` last.

    Of problems: image: (n,) id. n_votes: (n,). others: (n,) how many classes OUTSIDE lumps,
    without those of groups.
    belief_size: (n,) states that are classes of the belief, 0 without one. gold: (n,) whether the
    truth is given. offsets: (n + 1,).

    Of entries: label: (nnz,) class. belief: (nnz,) logit (sigmoid) or log (categorical) of the
    machine's probability, NaN where the belief does not have the class. start: (nnz,) share of the
    votes, NaN where there is a belief or no vote names a class. allowed: (nnz,) false where gold
    rules the entry out. mistakes: what choices say of it beyond even mistakes, natural log; empty
    where mistakes are even (`choices`).

    Of pairs of a vote and an entry of its problem, in the order of problems, then of votes, then of
    entries: pair_cell: (pairs,) index in `cells` of the cell that has the probability of the vote
    in that state. cells: (cells,) keys that occur here, sorted (`cells.CellSpace`).

    Of answers about sets of classes, apart from the votes above: n_set_votes: (n,) how many, in
    `truth: multi` with one question of each set. set_entry: (set pairs,) index of an entry, in
    `truth: multi` of a state of `joints`; set_cell: (set pairs,) as pair_cell. groups, joints: what
    such questions need besides. ancestry: of the classes, where one implies those above it.

    inverse_inclusion: (n,) 1 / the probability that people were asked about the image; NaN where it
    is not known. tails: what categorical beliefs say of classes that are no states of their own.
    """

    image: I64
    n_votes: I32
    others: I64
    belief_size: I32
    gold: Bool
    offsets: I64
    label: I32
    belief: F64
    start: F64
    allowed: Bool
    pair_cell: I32
    cells: I64
    n_set_votes: I32
    inverse_inclusion: F64
    tails: Tails
    set_entry: I64 = field(default_factory=_no_integers)
    set_cell: I64 = field(default_factory=_no_integers)
    groups: Groups = field(default_factory=Groups)
    joints: Joints = field(default_factory=Joints)
    ancestry: Ancestry = field(default_factory=Ancestry)
    mistakes: F64 = field(default_factory=lambda: np.zeros(0))

    def multiplicity(self) -> I64:
        """How many classes each entry has: 1, or as many as it lumps, (nnz,)."""
        lumped = np.where(self.label == OUTSIDE, spread(self.others, self.offsets), 1)
        lumped[self.groups.entry] = self.groups.size
        return np.asarray(lumped, dtype=np.int64)

    def asked(self) -> Bool:
        """Which problems a vote is about, alone or as part of a set, (n,)."""
        asked = (self.n_votes > 0) | (self.n_set_votes > 0)
        asked[self.joints.question] = True
        return asked

    def __len__(self) -> int:
        return len(self.image)
