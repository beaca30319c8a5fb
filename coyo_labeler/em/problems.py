"""The voted images as flat arrays: what EM iterates over, built once and never moved again."""

from dataclasses import dataclass

from coyo_labeler.em.segments import F64, I32, I64, Bool

#: The label of the state that lumps all classes outside the support, and of "false".
OUTSIDE = -1


@dataclass(frozen=True)
class Problems:
    """Problems (voted images; in `truth: multi` questions image × class) and their votes.

    Problem i has the entries (states) [offsets[i], offsets[i + 1]), by class, `OUTSIDE` last.

    image: (n,) id of the image. n_votes: (n,). others: (n,) classes lumped in OUTSIDE.
    belief_size: (n,) classes of the belief; 0: none. gold: (n,) whether the truth is given.
    label: (nnz,) class of the entry. belief: (nnz,) logit (sigmoid) or log (categorical) of the
    machine's probability, NaN where the belief does not have the class. start: (nnz,) the votes'
    shares, NaN where there is a belief or nothing was named. allowed: (nnz,) false where gold
    rules the entry out.
    pair_entry, pair_cell: (pairs,) for each vote and each entry of its problem, that entry and the
    cell that says how probable the vote is in that state. cells: (cells,) the keys (`cells.py`)
    that occur here, sorted.
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
    pair_entry: I32
    pair_cell: I32
    cells: I64

    def __len__(self) -> int:
        return len(self.image)
