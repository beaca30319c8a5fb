"""What answers about sets of classes add to the problems: states, and pairs with these states."""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.inputs import SetVotes
from coyo_labeler.em.problems import Groups, Joints
from coyo_labeler.em.segments import I32, I64, distinct, find, offsets_of, spread
from coyo_labeler.em.sets import Regions

#: Classes of a set up to this size are states of their own, those of a larger one are lumped.
LISTED_SET = 32
#: Most groups of one image. The classes of further ones, the smallest, count as in no set.
MOST_GROUPS = 64


def listed_keys(images: I64, votes: SetVotes, classes: int) -> I64:
    """Index of the image · C + class of the classes of small sets, (n,), sorted and distinct."""
    lengths = np.diff(votes.offsets)
    small = np.flatnonzero(lengths <= LISTED_SET)
    offsets = offsets_of(lengths[small])
    entry = np.arange(offsets[-1]) + spread(votes.offsets[small] - offsets[:-1], offsets)
    image = spread(find(images, votes.image[small])[0], offsets)
    return distinct(np.sort(image * classes + votes.label[entry]))


def every_vote_and_entry(vote_problem: I64, offsets: I64) -> tuple[I64, I64]:
    """Every vote with every entry of its problem: (vote, entry), each (pairs,).

    vote_problem: (votes,) index of each vote's problem. offsets: (n + 1,) entries of problems.
    """
    lengths = np.diff(offsets)[vote_problem]
    pair_offsets = offsets_of(lengths)
    pair_vote = np.repeat(np.arange(len(vote_problem)), lengths)
    first = offsets[vote_problem] - pair_offsets[:-1]
    return pair_vote, np.arange(pair_offsets[-1]) + first[pair_vote]


@dataclass(frozen=True)
class ImageRegions:
    """Every region of every image that was asked about sets, (m,), by image and region.

    image: (m,) index among all images. region: (m,) of `Regions`. unlisted: (m,) how many of its
    classes the image does not list. listed: (listed keys,) the index of each listed class's row
    here, −1 where it is in no set.
    """

    image: I64
    region: I64
    unlisted: I64
    listed: I64


def image_regions(regions: Regions, images: I64, listed_key: I64, classes: int) -> ImageRegions:
    """listed_key: (n,) index of the image · C + class of all listed classes."""
    first, last = regions.region_offsets[:-1], regions.region_offsets[1:]
    start, stop = first[regions.combination], last[regions.combination]
    offsets = offsets_of(stop - start)
    region = np.arange(offsets[-1]) + spread(start - offsets[:-1], offsets)
    image = spread(find(images, regions.image)[0], offsets)

    listed_image = listed_key // classes
    number, asked = find(regions.image, images[listed_image])
    row = np.full(len(listed_key), -1, dtype=np.int64)
    if len(regions.image):
        label = (listed_key % classes).astype(np.int32)
        of_class = regions.of_class(regions.combination[number], label, classes)
        inside = asked & (of_class >= 0)
        row[inside] = (of_class - start[number] + offsets[number])[inside]
    listed = np.bincount(row[row >= 0], minlength=len(region))
    return ImageRegions(image, region, regions.size[region] - listed, row)


@dataclass(frozen=True)
class GroupStates:
    """The groups of images, by image: image (g,), size (g,), region (g,) of `Regions`."""

    image: I64
    size: I64
    region: I64


def group_states(rows: ImageRegions) -> GroupStates:
    """The regions that have unlisted classes, of each image the `MOST_GROUPS` largest."""
    kept = np.flatnonzero(rows.unlisted > 0)
    order = np.lexsort((rows.region[kept], -rows.unlisted[kept], rows.image[kept]))
    image = rows.image[kept][order]
    new_image = np.append(True, image[1:] != image[:-1])[: len(image)]
    first = np.maximum.accumulate(np.where(new_image, np.arange(len(image)), 0))
    chosen = np.sort(kept[order[np.arange(len(image)) - first < MOST_GROUPS]])
    return GroupStates(rows.image[chosen], rows.unlisted[chosen], rows.region[chosen])


def make_groups(
    states: GroupStates, entry: I64, regions: Regions, believed: I32, classes: int
) -> Groups:
    """entry: (g,) of each group. believed: (n,) classes of each image's belief."""
    needed = believed[states.image] == 0  # a belief says nothing of single classes of a group
    of_needed = distinct(np.sort(states.region[needed]))
    offsets, label = regions.labels_of(of_needed, classes)
    region = np.where(needed, find(of_needed, states.region)[0], -1)
    return Groups(entry, states.size, region, offsets, label.astype(np.int64))


def image_pairs(
    votes: SetVotes, vote_problem: I64, offsets: I64, entry_region: I64, regions: Regions
) -> tuple[I64, I64, I64]:
    """Every answer with every entry of its image: vote, entry, and whether it is true there.

    entry_region: (nnz,) of `Regions`, −1 for entries in no set. Each result is (pairs,).
    """
    pair_vote, pair_entry = every_vote_and_entry(vote_problem, offsets)
    true = regions.is_inside(entry_region[pair_entry], pair_vote)
    return pair_vote, pair_entry, true.astype(np.int64)


@dataclass(frozen=True)
class Components:
    """The questions of images that answers about sets tie together, as `joints`.

    vote, state: (pairs,) every answer that is used with every state of its component; true:
    (pairs,) whether its question is true there. first: (votes,) a question that each answer is
    about, −1 where it is not used.
    """

    joints: Joints
    vote: I64
    state: I64
    true: I64
    first: I64


def make_components(
    votes: SetVotes, rows: ImageRegions, row_of_question: I64, regions: Regions, images: I64
) -> Components:
    """row_of_question: (questions,) the row of `rows` that each is part of, −1 for none."""
    component_key = rows.image * max(len(regions.size), 1) + regions.component[rows.region]
    order = np.lexsort((rows.region, component_key))  # the rows of a component side by side
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    _, first, width = np.unique(component_key[order], return_index=True, return_counts=True)
    component = np.repeat(np.arange(len(width)), width)  # of rows in order
    bit = np.arange(len(order)) - first[component]
    state_offsets = offsets_of(1 << width)

    tied = np.flatnonzero(row_of_question >= 0)
    tied_row = position[row_of_question[tied]]
    by_row = np.argsort(tied_row, kind="stable")
    region_offsets = offsets_of(np.bincount(tied_row, minlength=len(order)))
    question = tied[by_row]

    sizes = (1 << width) * width
    pair_offsets = offsets_of(sizes)
    pair_component = np.repeat(np.arange(len(width)), sizes)
    local = np.arange(pair_offsets[-1]) - pair_offsets[pair_component]
    local_state, local_bit = np.divmod(local, width[pair_component])
    joints = Joints(
        region_offsets=region_offsets,
        question=question,
        state_offsets=state_offsets,
        pair_state=state_offsets[pair_component] + local_state,
        pair_region=first[pair_component] + local_bit,
        pair_on=(local_state >> local_bit) & 1 == 1,
    )

    # Each answer with the rows of its image that are part of its set: these make up a mask of bits.
    of_image = offsets_of(np.bincount(rows.image, minlength=len(images)))
    vote, row = every_vote_and_entry(find(images, votes.image)[0], of_image)
    inside = regions.is_inside(rows.region[row], vote) & regions.used[vote]
    vote, at = vote[inside], position[row[inside]]
    mask = np.zeros(len(votes), dtype=np.int64)
    np.add.at(mask, vote, 1 << bit[at])
    of_vote = np.full(len(votes), -1, dtype=np.int64)
    of_vote[vote] = component[at]
    question_of_vote = np.full(len(votes), -1, dtype=np.int64)
    question_of_vote[vote] = question[region_offsets[at]]
    used = np.flatnonzero(of_vote >= 0)
    pair, state = every_vote_and_entry(of_vote[used], state_offsets)
    local_state = state - state_offsets[of_vote[used][pair]]
    true = (local_state & mask[used][pair]) != 0
    return Components(joints, used[pair], state, true.astype(np.int64), question_of_vote)


def answer_cells(space: CellSpace, votes: SetVotes, vote: I64, true: I64) -> I64:
    """The cell keys of pairs of an answer and whether its question is true, (pairs,)."""
    return space.answer_keys(true == 1, votes.worker[vote], votes.response[vote])


@dataclass(frozen=True)
class Questions:
    """The questions of images, by image: candidate classes in order, then lumped ones.

    image: (n,) index. number: (n,) class, or −1, −2, … for the first, second … lumped question of
    an image. of_candidate, of_lumped: the index of each of those among all.
    """

    image: I64
    number: I64
    of_candidate: I64
    of_lumped: I64


def order_questions(candidate_key: I64, lumped_image: I64, classes: int) -> Questions:
    """candidate_key: (k,) index of the image · C + class, sorted. lumped_image: (m,) index of the
    image of each lumped question, sorted.
    """
    first = np.searchsorted(lumped_image, lumped_image)
    lumped_number = first - 1 - np.arange(len(lumped_image))
    image = np.concatenate([candidate_key // classes, lumped_image])
    number = np.concatenate([candidate_key % classes, lumped_number])
    order = np.lexsort((np.where(number >= 0, number, classes - number), image))
    index = np.empty(len(order), dtype=np.int64)
    index[order] = np.arange(len(order))
    known = len(candidate_key)
    return Questions(image[order], number[order], index[:known], index[known:])
