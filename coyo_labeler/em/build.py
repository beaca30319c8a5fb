"""Builds problems from the votes and beliefs of some images: their states, and every vote's cell.

The states of an image are the classes of its belief and of its votes (its support), and one state
that lumps all other classes. No array is as long as images times classes.
"""

from dataclasses import replace

import numpy as np

from coyo_labeler.em.build_sets import (
    answer_cells,
    group_states,
    image_pairs,
    image_regions,
    listed_keys,
    make_components,
    make_groups,
    order_questions,
)
from coyo_labeler.em.candidates import (
    Candidates,
    candidates_of,
    gold_keys,
    limit_pairs,
    names_label,
)
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.choices import is_uneven, log_uneven
from coyo_labeler.em.hierarchy import Hierarchy, make_ancestry, with_ancestors
from coyo_labeler.em.inputs import Beliefs, Gold, Inclusion, Inputs, SetVotes, Votes
from coyo_labeler.em.model import Model
from coyo_labeler.em.priors import belief_value
from coyo_labeler.em.problems import FIRST_GROUP, OUTSIDE, Problems
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import (
    F64,
    I32,
    I64,
    Bool,
    bin_sum,
    distinct,
    find,
    offsets_of,
    segment_sum,
    spread,
    unique_inverse,
)
from coyo_labeler.em.sets import MOST_JOINT_REGIONS, find_regions
from coyo_labeler.em.tails import Tails


def build_problems(
    votes: Votes,
    beliefs: Beliefs,
    gold: Gold,
    model: Model,
    set_votes: SetVotes | None = None,
    inclusion: Inclusion | None = None,
    hierarchy: Hierarchy | None = None,
) -> Problems:
    """The problems of all images that have a vote, or gold and a belief.

    set_votes: answers about sets of classes. inclusion: with what probability people were asked
    about images, where it is known. hierarchy: which classes imply which (`truth: multi`).

    Raises: InputError where a belief names a class twice.
    """
    set_votes = SetVotes.none() if set_votes is None else set_votes
    known = beliefs.image[find(distinct(gold.image), beliefs.image)[1]]
    images = distinct(np.concatenate([distinct(votes.image), set_votes.image, known]))
    if model.truth == "multi":
        problems = _build_questions(images, votes, set_votes, beliefs, gold, model, hierarchy)
    else:
        problems = _build_images(images, votes, set_votes, beliefs, gold, model)
        if is_uneven(votes, model):
            problems = replace(problems, mistakes=log_uneven(problems, votes, model))
    if inclusion is None:
        return problems
    index, is_known = find(inclusion.image, problems.image)
    if is_known.any():
        problems.inverse_inclusion[is_known] = 1.0 / inclusion.probability[index[is_known]]
    return problems


def problems_of(inputs: Inputs, model: Model, hierarchy: Hierarchy | None = None) -> Problems:
    """`build_problems` of inputs."""
    votes, beliefs, gold = inputs.votes, inputs.beliefs, inputs.gold
    return build_problems(
        votes, beliefs, gold, model, inputs.set_votes, inputs.inclusion, hierarchy
    )


def _build_images(
    images: I64, votes: Votes, set_votes: SetVotes, beliefs: Beliefs, gold: Gold, model: Model
) -> Problems:
    """One problem per image; entries: its candidate classes, groups, then all others lumped."""
    n, c, space = len(images), model.classes, CellSpace(model)
    vote_image, set_image = find(images, votes.image)[0], find(images, set_votes.image)[0]
    n_votes, n_set_votes = (np.bincount(index, minlength=n) for index in (vote_image, set_image))
    gold_key = gold_keys(images, gold, c)
    set_keys = listed_keys(images, set_votes, c)
    mass = model.support_mass
    candidates = candidates_of(images, votes, set_keys, beliefs, gold, model, mass)
    candidates = limit_pairs(candidates, n_votes + n_set_votes, vote_image, votes, gold_key, model)
    image = candidates.key // c
    regions = find_regions(set_votes, c)
    region_rows = image_regions(regions, images, candidates.key, c)
    groups = group_states(region_rows)
    named = np.bincount(image, minlength=n)
    grouped = np.bincount(groups.image, minlength=n)
    others = c - named - bin_sum(groups.image, groups.size, n).astype(np.int64)
    # OUTSIDE is the last entry of every image that leaves a class out.
    offsets = offsets_of(named + grouped + (others > 0))
    before = offsets[:-1] - offsets_of(named)[:-1]
    entry = np.arange(len(image)) + before[image]
    first_group = offsets_of(grouped)[:-1]
    number = np.arange(len(groups.image)) - first_group[groups.image]
    group_entry = offsets[groups.image] + named[groups.image] + number
    label = np.full(offsets[-1], OUTSIDE, dtype=np.int32)
    label[entry] = candidates.key % c
    label[group_entry] = FIRST_GROUP - number
    belief = np.full(offsets[-1], np.nan)
    belief[entry] = candidates.belief
    believed = bin_sum(image, ~np.isnan(candidates.belief), n).astype(np.int32)

    index, listed = find(candidates.key, vote_image * c + votes.label)
    voted_entry = np.where(listed, entry[index], offsets[vote_image + 1] - 1)
    named_entry = voted_entry[names_label(votes)]
    start = np.bincount(named_entry, minlength=offsets[-1]).astype(np.float64)
    start = _shares(start, offsets, believed == 0)

    has_gold = np.zeros(n, dtype=bool)
    has_gold[gold_key // c] = True
    allowed = ~spread(has_gold, offsets)
    allowed[entry[find(candidates.key, gold_key)[0]]] = True

    pair_vote, pair_entry = _pairs(vote_image, offsets)
    keys = _image_keys(space, votes, pair_vote, label[pair_entry])
    region = np.full(offsets[-1], -1, dtype=np.int64)
    inside = region_rows.listed >= 0
    region[entry[inside]] = region_rows.region[region_rows.listed[inside]]
    region[group_entry] = groups.region
    set_vote, set_entry, true = image_pairs(set_votes, set_image, offsets, region, regions)
    set_keys = answer_cells(space, set_votes, set_vote, true)
    cells, pair_cell = unique_inverse(_joined(keys, set_keys), space.size)
    return Problems(
        image=images,
        n_votes=n_votes.astype(np.int32),
        n_set_votes=n_set_votes.astype(np.int32),
        others=others.astype(np.int64),
        belief_size=believed,
        gold=has_gold,
        offsets=offsets,
        label=label,
        belief=belief,
        start=start,
        allowed=allowed,
        pair_cell=pair_cell[: len(keys)],
        cells=cells,
        inverse_inclusion=np.full(n, np.nan),
        tails=_tails(candidates, n, model),
        set_entry=set_entry,
        set_cell=pair_cell[len(keys) :].astype(np.int64),
        groups=make_groups(groups, group_entry, regions, believed, c),
    )


def _tails(candidates: Candidates, images: int, model: Model) -> Tails:
    """Only categorical beliefs need them: what sigmoids leave over is in the rest already."""
    if model.beliefs_are != "categorical":
        return Tails.none(images)
    return Tails.of(images, candidates.left_out // model.classes, candidates.left_out_belief)


def _shares(counts: F64, offsets: I64, without_belief: Bool) -> F64:
    """Counts as shares of their segment; NaN where nothing is counted or there is a belief."""
    total = segment_sum(counts, offsets)
    usable = without_belief & (total > 0)
    return np.where(
        spread(usable, offsets), counts / spread(np.where(usable, total, 1.0), offsets), np.nan
    )


def _pairs(vote_problem: I64, offsets: I64) -> tuple[I64, I64]:
    """Every vote with every entry of its problem: (vote, entry), each (pairs,).

    vote_problem: (votes,) index of each vote's problem. The pairs are in the order of problems,
    then of votes, then of entries.
    """
    votes = np.argsort(vote_problem, kind="stable")
    lengths = np.diff(offsets)[vote_problem[votes]]
    pair_offsets = offsets_of(lengths)
    first = offsets[vote_problem[votes]] - pair_offsets[:-1]
    return np.repeat(votes, lengths), np.arange(pair_offsets[-1]) + np.repeat(first, lengths)


def _joined(keys: I64, set_keys: I64) -> I64:
    return np.concatenate([keys, set_keys]) if len(set_keys) else keys


def _image_keys(space: CellSpace, votes: Votes, pair_vote: I64, truth: I32) -> I64:
    """The cell keys of pairs of a vote and a true class, (pairs,)."""
    worker, voted = votes.worker[pair_vote], votes.label[pair_vote]
    response = votes.response[pair_vote]
    choice = response == Response.CHOICE
    keys = space.choice_keys(truth, worker, voted)
    if choice.all():
        return keys
    answers = space.answer_keys(truth == voted, worker, np.where(choice, Response.YES, response))
    return np.where(choice, keys, answers)


def _build_questions(
    images: I64,
    votes: Votes,
    set_votes: SetVotes,
    beliefs: Beliefs,
    gold: Gold,
    model: Model,
    hierarchy: Hierarchy | None,
) -> Problems:
    """One problem per image and candidate class; entries: true, false. A choice is a yes.

    The classes of a set that are no candidates are questions too: "is any of these there?".
    """
    c, space = model.classes, CellSpace(model)
    no_keys = np.zeros(0, dtype=np.int64)
    candidates = candidates_of(images, votes, no_keys, beliefs, gold, model, 1.0)
    regions = find_regions(set_votes, c, MOST_JOINT_REGIONS)
    rows = image_regions(regions, images, candidates.key, c)
    lumped = np.flatnonzero(rows.unlisted > 0)
    question = order_questions(candidates.key, rows.image[lumped], c)
    image, number, is_class = question.image, question.number, question.number >= 0
    n = len(image)
    vote_key = find(images, votes.image)[0] * c + votes.label
    vote_question = question.of_candidate[find(candidates.key, vote_key)[0]]
    response = np.where(votes.response == Response.CHOICE, Response.YES, votes.response)
    response = response.astype(np.int8)

    # The gold rows of an image are all of its labels: every other class is false.
    gold_key = gold_keys(images, gold, c)
    image_has_gold = np.zeros(len(images), dtype=bool)
    image_has_gold[gold_key // c] = True
    has_gold = image_has_gold[image]
    true = np.zeros(n, dtype=bool)
    true_key = distinct(with_ancestors(gold_key, hierarchy, c))
    true[question.of_candidate] = find(true_key, candidates.key)[1]
    allowed = np.ones((n, 2), dtype=bool)
    allowed[has_gold & ~true, 0] = False
    allowed[has_gold & true, 1] = False

    inferred = ~image_has_gold[candidates.key // c]  # gold says which classes are there
    offsets = 2 * np.arange(n + 1, dtype=np.int64)
    start = np.zeros((n, 2))
    np.add.at(start, (vote_question[response == Response.YES], 0), 1.0)
    np.add.at(start, (vote_question[response == Response.NO], 1), 1.0)
    label = np.full((n, 2), OUTSIDE, dtype=np.int32)
    label[:, 0] = np.where(is_class, number, FIRST_GROUP - (-1 - number))
    # The unlisted classes of an image with a belief have the least probability that there is.
    has_belief = np.zeros(len(images), dtype=bool)
    has_belief[candidates.key[~np.isnan(candidates.belief)] // c] = True
    floor = belief_value(np.array([model.prior_floor]), model)[0]
    belief = np.full((n, 2), np.nan)
    belief[~is_class & has_belief[image], 0] = floor
    belief[question.of_candidate, 0] = candidates.belief

    row_of_question = np.full(n, -1, dtype=np.int64)
    row_of_question[question.of_candidate] = rows.listed
    row_of_question[question.of_lumped] = lumped
    tied = make_components(set_votes, rows, row_of_question, regions, images)
    asked_first = np.where(
        tied.first >= 0, tied.first, np.searchsorted(image, find(images, set_votes.image)[0])
    )

    pair_vote, pair_entry = _pairs(vote_question, offsets)
    keys = space.answer_keys(pair_entry % 2 == 0, votes.worker[pair_vote], response[pair_vote])
    set_keys = answer_cells(space, set_votes, tied.vote, tied.true)
    cells, pair_cell = unique_inverse(_joined(keys, set_keys), space.size)
    believed = ~np.isnan(belief[:, 0])
    return Problems(
        image=images[image],
        n_votes=np.bincount(vote_question, minlength=n).astype(np.int32),
        n_set_votes=np.bincount(asked_first, minlength=n).astype(np.int32),
        others=np.zeros(n, dtype=np.int64),
        belief_size=believed.astype(np.int32),
        gold=has_gold,
        offsets=offsets,
        label=label.ravel(),
        belief=belief.ravel(),
        start=_shares(start.ravel(), offsets, ~believed),
        allowed=allowed.ravel(),
        pair_cell=pair_cell[: len(keys)],
        cells=cells,
        inverse_inclusion=np.full(n, np.nan),
        tails=Tails.none(n),
        set_entry=tied.state,
        set_cell=pair_cell[len(keys) :].astype(np.int64),
        joints=tied.joints,
        ancestry=make_ancestry(
            candidates.key[inferred], question.of_candidate[inferred], hierarchy, c
        ),
    )
