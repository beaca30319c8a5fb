"""Questions about sets of classes: which classes they cannot tell apart.

The sets that one image was asked about cut the classes into regions: classes that are in the same
of these sets. Whatever the answers are, classes of one region are as probable after them, relative
to each other, as before. So a region needs one state, not one per class, and inference with it is
exact. Images that were asked about the same sets (a combination) share their regions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import SetVotes
from coyo_labeler.em.segments import I64, Bool, distinct, find, offsets_of, spread
from coyo_labeler.hashing import splitmix64

#: Steps of the hash: of a class in a set, and of a set in a combination.
_OF_CLASS, _OF_SET = 60, 61

#: Most regions that overlapping sets of one image may have in `truth: multi`, where every
#: combination of regions is a state: 2^10 of them.
MOST_JOINT_REGIONS = 10


def set_hashes(offsets: I64, label: NDArray[np.int32]) -> NDArray[np.uint64]:
    """A hash of each set of classes, (sets,); offsets, label: of `SetVotes`. No set is empty."""
    if len(offsets) == 1:
        return np.zeros(0, dtype=np.uint64)
    if len(label) > int(label.max()):  # sets of many classes: each class is hashed once
        hashes = splitmix64(np.arange(int(label.max()) + 1), _OF_CLASS)[label]
    else:
        hashes = splitmix64(label.astype(np.int64), _OF_CLASS)
    sums = np.add.reduceat(hashes, offsets[:-1])
    return splitmix64(sums.view(np.int64), _OF_SET)


def set_questions(offsets: I64, label: NDArray[np.int32]) -> I64:
    """A number above those of all classes for each set, (sets,): which question a vote answers."""
    return (set_hashes(offsets, label) >> np.uint64(2)).astype(np.int64) + (1 << 32)


@dataclass(frozen=True)
class Regions:
    """The regions of some images, and which sets they belong to.

    image: (m,) ids of the images that were asked about sets, sorted. combination: (m,) of each.
    region_offsets: (combinations + 1,) the regions of each combination. size: (regions,) how many
    classes. component: (regions,) number of the group of overlapping sets that each belongs to.
    key: (nnz,) combination · C + class, sorted, of the classes in any set; region: (nnz,) of each.
    vote_set: (votes,) number of each vote's set. inside: region · sets + set, sorted, of the sets
    that each region is part of; sets: how many there are. used: (votes,) false for votes that are
    left out because the sets of their image overlap too much.
    """

    image: I64
    combination: I64
    region_offsets: I64
    size: I64
    component: I64
    key: I64
    region: I64
    vote_set: I64
    inside: I64
    sets: int
    used: Bool

    def of_class(self, combination: I64, label: NDArray[np.int32], classes: int) -> I64:
        """The region of each class (n,) in a combination (n,); −1: in no set."""
        index, known = find(self.key, combination * classes + label)
        if len(self.key) == 0:
            return np.full(len(label), -1, dtype=np.int64)
        return np.where(known, self.region[index], -1)

    def is_inside(self, region: I64, vote: I64) -> Bool:
        """Whether each region (n,), −1 for none, is part of the set of each vote (n,)."""
        wanted = region * self.sets + self.vote_set[vote]
        return find(self.inside, wanted)[1] & (region >= 0)

    def labels_of(self, regions: I64, classes: int) -> tuple[I64, NDArray[np.int32]]:
        """The classes of some regions (n,): offsets (n + 1,) and classes, sorted in each."""
        order = np.argsort(self.region, kind="stable")
        first = np.searchsorted(self.region[order], regions)
        lengths = self.size[regions]
        offsets = offsets_of(lengths)
        index = np.arange(offsets[-1]) + spread(first - offsets[:-1], offsets)
        return offsets, (self.key[order[index]] % classes).astype(np.int32)


def find_regions(votes: SetVotes, classes: int, most_joint: int | None = None) -> Regions:
    """The regions of all images with such votes.

    most_joint: limit for the regions of overlapping sets of one image; sets with the fewest votes
    are left out until it holds. None: no limit.
    """
    hashes, vote_set = np.unique(set_hashes(votes.offsets, votes.label), return_inverse=True)
    vote_set = vote_set.astype(np.int64)
    used = np.ones(len(votes.image), dtype=bool)
    while True:
        regions = _cut(votes, vote_set, hashes, used, classes)
        if most_joint is None:
            return regions
        crowded = _crowded(regions, most_joint)
        if len(crowded) == 0:
            return regions
        used = used & ~_least_asked(votes, regions, crowded)


def _cut(
    votes: SetVotes, vote_set: I64, hashes: NDArray[np.uint64], used: Bool, classes: int
) -> Regions:
    sets = len(hashes)
    image = distinct(votes.image)
    # The distinct sets of each image, and the combination that they make.
    asked = distinct(np.sort((find(image, votes.image)[0] * sets + vote_set)[used]))
    asked_image, asked_set = asked // sets, asked % sets
    sums = np.zeros(len(image), dtype=np.uint64)
    np.add.at(sums, asked_image, hashes[asked_set])
    _, example, combination = np.unique(sums, return_index=True, return_inverse=True)
    # The classes of the sets of each combination, from an example image and an example vote.
    start, stop = np.searchsorted(asked_image, [example, example + 1])
    lengths = stop - start
    pair_offsets = offsets_of(lengths)
    pair = np.arange(pair_offsets[-1]) + spread(start - pair_offsets[:-1], pair_offsets)
    of_combination = spread(np.arange(len(example)), pair_offsets)
    set_of_pair = asked_set[pair]
    vote = np.zeros(sets, dtype=np.int64)
    vote[vote_set] = np.arange(len(vote_set))
    source = vote[set_of_pair]
    sizes = np.diff(votes.offsets)[source]
    row_offsets = offsets_of(sizes)
    row = np.arange(row_offsets[-1]) + spread(votes.offsets[source] - row_offsets[:-1], row_offsets)
    row_key = spread(of_combination, row_offsets) * classes + votes.label[row]
    row_set = spread(set_of_pair, row_offsets)
    # Classes with the same sum of the hashes of their sets are in the same sets.
    order = np.argsort(row_key, kind="stable")
    row_key, row_set = row_key[order], row_set[order]
    first = np.flatnonzero(np.append(True, row_key[1:] != row_key[:-1])[: len(row_key)])
    key = row_key[first]
    signature = (
        np.add.reduceat(hashes[row_set], first) if len(first) else np.zeros(0, dtype=np.uint64)
    )
    of_key = key // classes
    ordered = np.lexsort((signature, of_key))
    changed = np.ones(len(key), dtype=bool)
    changed[1:] = (of_key[ordered][1:] != of_key[ordered][:-1]) | (
        signature[ordered][1:] != signature[ordered][:-1]
    )
    region = np.empty(len(key), dtype=np.int64)
    region[ordered] = np.cumsum(changed) - 1
    count = int(changed.sum())
    region_combination = of_key[ordered][changed]
    row_region = np.repeat(region, np.diff(np.append(first, len(row_key))))
    inside = distinct(np.sort(row_region * sets + row_set))
    return Regions(
        image=image,
        combination=combination.astype(np.int64),
        region_offsets=offsets_of(np.bincount(region_combination, minlength=len(example))),
        size=np.bincount(region, minlength=count),
        component=_components(inside, sets, region_combination),
        key=key,
        region=region,
        vote_set=vote_set,
        inside=inside,
        sets=sets,
        used=used,
    )


def _components(inside: I64, sets: int, combination: I64) -> I64:
    """Which regions of a combination overlapping sets connect, (regions,): the least of them."""
    region, of_set = inside // max(sets, 1), inside % max(sets, 1)
    pairs, pair = np.unique(combination[region] * max(sets, 1) + of_set, return_inverse=True)
    component = np.arange(len(combination))
    while True:
        least = np.full(len(pairs), len(combination), dtype=np.int64)
        np.minimum.at(least, pair, component[region])
        joined = component.copy()
        np.minimum.at(joined, region, least[pair])
        if (joined == component).all():
            return component
        component = joined


def _crowded(regions: Regions, most_joint: int) -> I64:
    """The components (as in `Regions`) with more regions than allowed."""
    counts = np.bincount(regions.component, minlength=1)
    return np.flatnonzero(counts > most_joint)


def _least_asked(votes: SetVotes, regions: Regions, crowded: I64) -> Bool:
    """The votes on the least asked set of each image and crowded component, (votes,)."""
    region_combination = np.repeat(
        np.arange(len(regions.region_offsets) - 1), np.diff(regions.region_offsets)
    )
    region, of_set = regions.inside // regions.sets, regions.inside % regions.sets
    # The component of each set of a combination.
    pairs, first = np.unique(region_combination[region] * regions.sets + of_set, return_index=True)
    of_pair = regions.component[region[first]]
    index = find(regions.image, votes.image)[0]
    pair = find(pairs, regions.combination[index] * regions.sets + regions.vote_set)[0]
    component = of_pair[pair]
    candidates = np.flatnonzero(regions.used & np.isin(component, crowded))
    asked = index[candidates] * regions.sets + regions.vote_set[candidates]
    keys, inverse, number = np.unique(asked, return_inverse=True, return_counts=True)
    group = np.zeros(len(keys), dtype=np.int64)
    group[inverse] = component[candidates]
    order = np.lexsort((keys % regions.sets, number, group, keys // regions.sets))
    image_of, group_of = (keys // regions.sets)[order], group[order]
    leading = np.ones(len(order), dtype=bool)
    leading[1:] = (image_of[1:] != image_of[:-1]) | (group_of[1:] != group_of[:-1])
    left_out = np.zeros(len(keys), dtype=bool)
    left_out[order[leading]] = True
    result = np.zeros(len(votes.image), dtype=bool)
    result[candidates] = left_out[inverse]
    return result
