"""Simulated annotators: 25 of different skill, who answer the questions in Label Studio's files.

No people are involved: the answers are drawn from the true classes and the skill of an annotator.
They have the form of Label Studio's export, so that `collect` reads them as it reads real ones.
"""

import json
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from coyo_labeler import storage

ANNOTATORS = 25
CLASSES = 10

#: The digit that each digit is most easily mistaken for.
LOOKS_LIKE = (6, 7, 3, 8, 9, 3, 0, 1, 3, 4)

#: How often an annotator says "I am not sure", and how often one skips a question.
UNSURE, SKIPPED = 0.03, 0.02

#: The answers per question that a round can ask for.
MOST_PER_ROUND = 4

#: The first answer of the first round. A fixed time: the tables are the same in every run.
_BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)

#: `send` writes the number of answers per question into the names of its files.
_OVERLAP = re.compile(r"tasks-(\d+)x-")


def skills() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The probability that each annotator is right, (25,), from 0.55 to 0.98."""
    return np.linspace(0.55, 0.98, ANNOTATORS)


def write_users(url: str) -> None:
    """Write the annotators to a JSON file, as Label Studio's `GET /api/users` lists its users."""
    users = [{"id": worker + 1, "username": name_of(worker)} for worker in range(ANNOTATORS)]
    storage.write_bytes(url, json.dumps(users, indent=1).encode())


def name_of(worker: int) -> str:
    """The name of an annotator, by number."""
    return f"annotator-{worker:02d}"


def write_answers(sent: str, url: str, truth: Mapping[int, int], number: int, seed: int) -> None:
    """Answer the questions in the files of `send`; write the answers as Label Studio exports them.

    sent: output of `send to=label_studio_files`. url: JSON file to write. truth: class of every
    image, by id. number: of the round, from 1.

    Each image has its annotators in a random order, of which each round takes the next ones. So
    nobody sees an image twice. An answer depends on the seed, the image and the annotator alone.
    """
    tasks: list[dict[str, Any]] = []
    time = _BEGIN + timedelta(days=number - 1)
    answers = 0
    for file in sorted(storage.files_of(sent, ".json")):
        overlap = _overlap(file)
        for task in json.loads(storage.read_text(file)):
            data = task["data"]
            image = int(data["image_id"])
            order = np.random.default_rng((seed, image)).permutation(ANNOTATORS)
            first = (number - 1) * MOST_PER_ROUND
            annotations = []
            for worker in order[first : first + overlap].tolist():
                random = np.random.default_rng((seed, image, worker))
                offered = [choice["value"] for choice in data["choices"]]
                answers += 1
                time += timedelta(seconds=10)
                annotations.append(
                    {
                        "id": number * 1_000_000 + answers,
                        "completed_by": worker + 1,
                        **_result(answer(random, truth[image], skills()[worker], offered)),
                        "ground_truth": False,
                        "created_at": time.isoformat(),
                        "updated_at": time.isoformat(),
                        "lead_time": round(float(random.lognormal(1.4, 0.4)), 2),
                    }
                )
            tasks.append({"id": len(tasks) + 1, "data": data, "annotations": annotations})
    storage.write_bytes(url, json.dumps(tasks).encode())


def answer(
    random: np.random.Generator, truth: int, accuracy: float, offered: list[str]
) -> str | None:
    """What an annotator of this accuracy answers to a choice; None: the question is skipped.

    Who errs takes the digit for its look-alike two times in three, else for any other digit. Who
    sees a digit that is not offered answers `none`.
    """
    mood = random.random()
    if mood < SKIPPED:
        return None
    if mood < SKIPPED + UNSURE:
        return "unsure"
    seen = str(_seen(random, truth, accuracy))
    return seen if seen in offered else "none"


def _seen(random: np.random.Generator, truth: int, accuracy: float) -> int:
    if random.random() < accuracy:
        return truth
    if random.random() < 2 / 3:
        return LOOKS_LIKE[truth]
    return int(random.choice([label for label in range(CLASSES) if label != truth]))


def _result(value: str | None) -> dict[str, Any]:
    """The fields of an annotation that hold its answer."""
    if value is None:
        return {"was_cancelled": True, "result": []}
    control = {"from_name": "answer", "to_name": "image", "type": "choices"}
    return {"was_cancelled": False, "result": [{**control, "value": {"choices": [value]}}]}


def _overlap(file: str) -> int:
    """How many answers each question of a file is to get."""
    match = _OVERLAP.match(posixpath.basename(file))
    return int(match[1]) if match else 1
