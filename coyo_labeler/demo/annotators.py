"""Simulated annotators: 25 of different skill, who vote on the images of highest risk.

No people are involved: the answers are drawn from the true labels and the skill of an annotator.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.formats import schemas

ANNOTATORS = 25
VOTES_PER_IMAGE = 0.35  # on average over all images (Liao, Kar & Fidler 2021)
VOTES_PER_VOTED_IMAGE = 2
CLASSES = 10

#: The digit that each digit is most easily mistaken for.
LOOKS_LIKE = (6, 7, 3, 8, 9, 3, 0, 1, 3, 4)


def skills() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The probability that each annotator is right, (25,), from 0.55 to 0.98."""
    return np.linspace(0.55, 0.98, ANNOTATORS)


def write_votes(folder: str, beliefs: str, gold: dict[int, int], seed: int) -> None:
    """Write `votes.parquet`: 0.35 votes per image on average, two on each image of highest risk.

    beliefs: folder of the machine's labels. gold: true class of every image, by id. An annotator
    who errs mistakes the digit for its look-alike two times in three, else for any other digit.
    """
    random = np.random.default_rng(seed)
    table = pa.concat_tables(_read(url, ["id", "label_probs"]) for url in storage.files_of(beliefs))
    ids = table["id"].to_numpy()
    top = np.array([probabilities[0].as_py() for probabilities in table["label_probs"]])
    asked = int(VOTES_PER_IMAGE * len(ids)) // VOTES_PER_VOTED_IMAGE
    riskiest = ids[np.lexsort((ids, top))][:asked]

    accuracy = skills()
    image_ids, workers, labels = [], [], []
    for image_id in riskiest:
        truth = gold[int(image_id)]
        for worker in random.choice(ANNOTATORS, VOTES_PER_VOTED_IMAGE, replace=False):
            image_ids.append(int(image_id))
            workers.append(f"annotator-{worker:02d}")
            labels.append(_answer(random, truth, accuracy[worker]))
    votes = pa.table(
        {"image_id": image_ids, "worker_id": workers, "label": labels}, schema=schemas.VOTES
    )
    storage.write_parquet(storage.join(folder, "votes.parquet"), votes)


def _answer(random: np.random.Generator, truth: int, accuracy: float) -> int:
    if random.random() < accuracy:
        return truth
    if random.random() < 2 / 3:
        return LOOKS_LIKE[truth]
    return int(random.choice([label for label in range(CLASSES) if label != truth]))


def _read(url: str, columns: list[str]) -> pa.Table:
    fs, path = storage.resolve(url)
    return pq.read_table(path, columns=columns, filesystem=fs)
