"""Simulated audits: a table of labels, a crowd, questions drawn by chance, and the truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from coyo_labeler import DawidSkene
from coyo_labeler.audit.inputs import Answer, Answers, Judged, Lists, Population
from coyo_labeler.em.segments import offsets_of
from coyo_labeler.formats import schemas


@dataclass(frozen=True)
class Crowd:
    """How an audit is simulated.

    accuracy: of the machine, about. sharpness: its stated log-odds over the true ones. audit:
    images drawn evenly. risky: images taken by risk; their probabilities go with risk to the power
    of `spread` (0: the riskiest for sure). votes: answers per image. gold: share of questions with
    known truth. confused: how many of the mistakes, of machine and workers alike, fall on favourite
    wrong classes. verify: share of verifications. unsure: share of unsure among them.
    candidates: classes that a choice offers, beside "none of these"; 0: all.
    """

    images: int = 2000
    classes: int = 10
    accuracy: float = 0.8
    sharpness: float = 1.0
    workers: int = 10
    skill: tuple[float, float] = (0.6, 0.95)
    adversaries: float = 0.0
    audit: int = 200
    risky: int = 0
    spread: float = 0.0
    votes: float = 1.0
    gold: float = 0.0
    confused: float = 0.0
    verify: float = 0.0
    unsure: float = 0.0
    rounds: int = 1
    candidates: int = 0


@dataclass(frozen=True)
class Audit:
    """judged and truth of the machine's labels; the same of labels after a merge."""

    machine: Judged
    merged: Judged
    answers: Answers
    machine_people: Population
    merged_people: Population
    machine_accuracy: float
    merged_accuracy: float
    truth: np.ndarray
    beliefs: np.ndarray
    asked: np.ndarray


def beliefs(crowd: Crowd, random):
    """True classes (n,) and calibrated probabilities (n, C), then made sharper or flatter."""
    n, c = crowd.images, crowd.classes
    truth = random.integers(0, c, n)
    noise = random.standard_normal((n, c))
    if crowd.confused:
        partner = (truth + 1 + (random.random(n) < 0.2)) % c
        noise[np.arange(n), partner] += 2.0 * crowd.confused
    low, high = 0.0, 12.0
    for _ in range(14):
        margin = (low + high) / 2
        shifted = noise.copy()
        shifted[np.arange(n), truth] += margin
        hit = (shifted.argmax(1) == truth).mean()
        low, high = (margin, high) if hit < crowd.accuracy else (low, margin)
    logits = shifted * margin * crowd.sharpness
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    return truth, p / p.sum(1, keepdims=True)


def choose(crowd: Crowd, risk, random):
    """Inclusion probability of every image, and which were drawn."""
    n = crowd.images
    even = min(crowd.audit / n, 1.0)
    more = np.zeros(n)
    if crowd.risky:
        if crowd.spread == 0:
            more[np.argsort(-risk)[: crowd.risky]] = 1.0
        else:
            size = np.maximum(risk, 1e-6) ** crowd.spread
            more = np.minimum(size * crowd.risky / size.sum(), 1.0)
    inclusion = 1 - (1 - even) * (1 - more)
    return inclusion, random.random(n) < inclusion


def skills(crowd: Crowd, random):
    """Accuracy of each worker."""
    skill = random.uniform(*crowd.skill, crowd.workers)
    bad = random.random(crowd.workers) < crowd.adversaries
    return np.where(bad, random.uniform(0, 1 / crowd.classes, crowd.workers), skill)


def choice(crowd: Crowd, truth, accuracy, random):
    """What workers of given accuracies choose."""
    c = crowd.classes
    wrong = (truth + random.integers(1, c, len(truth))) % c
    partner = (truth + 1 + (random.random(len(truth)) < 0.2)) % c
    if c > 2:
        wrong = np.where(random.random(len(truth)) < crowd.confused, partner, wrong)
    return np.where(random.random(len(truth)) < accuracy, truth, wrong)


def simulate(crowd: Crowd, seed: int, merge: bool = True) -> Audit:  # noqa: PLR0915
    """One simulated audit."""
    random = np.random.default_rng(seed)
    truth, p = beliefs(crowd, random)
    machine = p.argmax(1)
    confidence = p.max(1)
    n = crowd.images
    inclusion = np.full(n, np.nan)
    rounds = np.zeros(n, dtype=np.int32)
    drawn = np.zeros(n, dtype=bool)
    for number in range(crowd.rounds):
        pi, taken = choose(crowd, np.where(drawn, 0, 1 - confidence), random)
        taken &= ~drawn
        inclusion[taken], rounds[taken] = pi[taken], number
        drawn |= taken
    if not drawn.any():
        drawn[0] = True
        inclusion[0] = pi[0]
    asked = np.flatnonzero(drawn)
    count = np.maximum(1, np.floor(crowd.votes + random.random(len(asked))).astype(int))
    count = np.minimum(count, crowd.workers)
    image = np.repeat(np.arange(len(asked)), count)
    order = np.argsort(random.random((len(asked), crowd.workers)), axis=1)
    rank = np.arange(len(image)) - np.repeat(np.cumsum(count) - count, count)
    worker = order[image, rank].astype(np.int32)
    skill = skills(crowd, random)
    is_gold = random.random(len(asked)) < crowd.gold
    y = truth[asked][image]
    given = choice(crowd, y, skill[worker], random)
    label = given.astype(np.int32)
    kind = np.full(len(image), int(Answer.CHOICE), dtype=np.int8)
    verify = random.random(len(image)) < crowd.verify
    question = machine[asked][image]
    yes = (question == y) == (random.random(len(image)) < np.maximum(skill[worker], 0.5))
    kind[verify] = np.where(yes, Answer.YES, Answer.NO)[verify]
    label[verify] = question[verify]
    kind[verify & (random.random(len(image)) < crowd.unsure)] = Answer.UNSURE
    offered = Lists.empty(len(image))
    if crowd.candidates:
        top = np.argsort(-p[asked], axis=1)[:, : crowd.candidates]
        lengths = np.where(verify, 0, crowd.candidates)
        offered = Lists(offsets_of(lengths), top[image[~verify]].ravel().astype(np.int32))
        inside = (top[image] == y[:, None]).any(1)
        right = random.random(len(image)) < skill[worker]
        pick = top[image, random.integers(0, crowd.candidates, len(image))]
        again = top[
            image,
            (
                random.integers(1, crowd.candidates, len(image))
                + (top[image] == y[:, None]).argmax(1)
            )
            % crowd.candidates,
        ]
        chosen = np.where(inside, np.where(right, y, again), np.where(right, -1, pick))
        label[~verify] = chosen[~verify]
        kind[~verify & (chosen < 0)] = Answer.NONE
    k = min(10, crowd.classes)
    top = np.argsort(-p[asked], axis=1)[:, :k].astype(np.int32)
    listed = Lists(
        k * np.arange(len(asked) + 1), top.ravel(), np.take_along_axis(p[asked], top, 1).ravel()
    )
    base = machine[asked].astype(np.int32)
    known = np.where(is_gold, truth[asked], -1).astype(np.int32)
    judged = Judged(
        label=base,
        base=base,
        probability=confidence[asked],
        believed=listed,
        inclusion=inclusion[asked],
        round=rounds[asked],
        truth=known,
    )
    answers = Answers(image, worker, kind, label, offered)
    people = Population(n, len(asked), float(confidence[~drawn].mean()) if (~drawn).any() else None)
    merged = base
    if merge:
        merged = merged_labels(p[asked], answers, crowd)
    after = machine.copy()
    after[asked] = merged
    judged_merged = Judged(**{**vars(judged), "label": merged.astype(np.int32)})
    return Audit(
        judged,
        judged_merged,
        answers,
        people,
        people,
        float((machine == truth).mean()),
        float((after == truth).mean()),
        truth,
        p,
        asked,
    )


def merged_labels(p, answers: Answers, crowd: Crowd):
    """Labels of the asked images after a merge by EM."""
    usable = answers.answer != Answer.NONE
    response = np.array(["", "yes", "no", "unsure"])[np.minimum(answers.answer, 3)][usable]
    votes = pd.DataFrame(
        {
            "task": answers.image[usable],
            "worker": answers.worker[usable].astype(str),
            "label": answers.label[usable],
            "response": response,
        }
    )
    k = min(10, crowd.classes)
    top = np.argsort(-p, axis=1)[:, :k]
    table = pd.DataFrame(
        {
            "task": np.arange(len(p)),
            "labels": list(top),
            "label_probs": list(np.take_along_axis(p, top, 1)),
        }
    )
    fitted = DawidSkene(crowd.classes, beliefs_are="categorical", n_iter=20).fit(votes, table)
    labels = p.argmax(1)
    found = fitted.labels_
    labels[found.index.to_numpy()] = found.to_numpy()
    return labels


def random_crowd(random, small=False) -> Crowd:
    """A crowd drawn at random. small: with fewer images and answers."""
    classes = int(random.choice([2, 3, 10, 100, 1000], p=[0.15, 0.15, 0.4, 0.2, 0.1]))
    floor = max(0.55, 1.3 / classes)
    low = random.uniform(0.55, 0.85)
    sizes = [500, 800] if small else [800, 2000, 5000]
    return Crowd(
        images=int(random.choice(sizes)) if classes < 1000 else 500 if small else 1000,
        classes=classes,
        accuracy=random.uniform(floor, 0.97),
        sharpness=float(np.exp(random.normal(0, 0.35))),
        workers=int(random.choice([2, 5, 10, 30])),
        skill=(low, min(0.99, low + random.uniform(0.05, 0.35))),
        audit=int(random.choice([30, 60, 120] if small else [50, 100, 200, 400])),
        risky=int(random.choice([0, 60] if small else [0, 100, 300])),
        spread=float(random.choice([0.0, 0.5, 1.0])),
        votes=float(random.choice([1.0, 1.3, 2.0, 3.0])),
        gold=float(random.choice([0.0, 0.0, 0.1])),
        confused=float(random.choice([0.0, 0.0, 0.5])),
        verify=float(random.choice([0.0, 0.0, 0.3, 1.0])),
        unsure=float(random.choice([0.0, 0.1])),
        rounds=int(random.choice([1, 1, 2, 3])),
        candidates=int(random.choice([0, 0, 5])) if classes >= 10 else 0,
    )


def labels_table(p):
    """All beliefs (n, C) in the schema of beliefs; ids are 10, 11, 12, …"""
    k = min(10, p.shape[1])
    top = np.argsort(-p, axis=1, kind="stable")[:, :k]
    n = len(p)
    columns = {
        "id": np.arange(n) + 10,
        "url": [f"http://127.0.0.1/{i}" for i in range(n)],
        "imagehash": ["daf5a50aae4aa54a"] * n,
        "labels": top.tolist(),
        "label_probs": np.take_along_axis(p, top, 1).tolist(),
        "width": [240] * n,
        "height": [320] * n,
    }
    return pa.table(columns, schema=schemas.BELIEFS)


def votes_table(audit: Audit):
    """The answers in the schema of collected votes."""
    answers, judged = audit.answers, audit.machine
    image = audit.asked[answers.image] + 10
    verifies = (answers.answer >= Answer.YES) & (answers.answer <= Answer.UNSURE)
    words = np.array([None, "yes", "no", "unsure", "none"], dtype=object)
    number = judged.round[answers.image] + 1
    suffix = [f":{c}" if v else "" for c, v in zip(answers.label, verifies, strict=True)]
    offered = answers.offered
    candidates = [
        offered.label[a:b].tolist() or None
        for a, b in zip(offered.offsets[:-1], offered.offsets[1:], strict=True)
    ]
    n = len(answers)
    columns = {
        "image_id": image,
        "worker_id": [f"worker {w:02d}" for w in answers.worker],
        "label": pa.array([None if c < 0 else int(c) for c in answers.label], pa.int32()),
        "response": words[answers.answer].tolist(),
        "timestamp": pa.nulls(n, pa.timestamp("us", tz="UTC")),
        "question_id": [f"{r}:{i}{s}" for r, i, s in zip(number, image, suffix, strict=True)],
        "candidates": pa.array(candidates, pa.list_(pa.int32())),
        "inclusion_probability": judged.inclusion[answers.image],
        "purpose": ["audit"] * n,
        "seconds": pa.array((np.arange(n) % 7 + 2.5).astype(np.float32)),
        "source": ["csv"] * n,
    }
    return pa.table(columns, schema=schemas.COLLECTED_VOTES)
