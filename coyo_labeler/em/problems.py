"""Problems as flat arrays: what EM iterates over."""

from dataclasses import dataclass

from coyo_labeler.em.segments import F64, I32, I64, Bool

#: The label of the state that lumps all classes outside the support, and of the state "false".
OUTSIDE = -1


@dataclass(frozen=True)
class Problems:
    """The inference problems of some images, and their votes.

    A problem is the unknown class of one image; in `truth: multi` it is whether one class is there,
    and an image has a problem per class. Problem i has the entries (states)
    [offsets[i], offsets[i + 1]), ordered by class, `OUTSIDE` last.

    Of problems: image: (n,) id. n_votes: (n,). others: (n,) how many classes OUTSIDE lumps.
    belief_size: (n,) classes of the belief, 0 without one. gold: (n,) whether the truth is given.
    offsets: (n + 1,).

    Of entries: label: (nnz,) class. belief: (nnz,) logit (sigmoid) or log (categorical) of the
    machine's probability, NaN where the belief does not have the class. start: (nnz,) share of the
    votes, NaN where there is a belief or no vote names a class. allowed: (nnz,) false where gold
    rules the entry out.

    Of pairs of a vote and an entry of its problem, in the order of problems, then of votes, then of
    entries: pair_cell: (pairs,) index in `cells` of the cell that has the probability of the vote
    in that state. cells: (cells,) keys that occur here, sorted (`cells.CellSpace`).
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

    def __len__(self) -> int:
        return len(self.image)
