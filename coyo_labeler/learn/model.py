"""The learner of a run, as it lies in weights.safetensors: one softmax of all, and one per fold.

It believes of each class that has a training image; of the others it has no opinion. A teacher's
belief, where there is one, is multiplied with it over the classes that both know (`pool`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from coyo_labeler import storage
from coyo_labeler.errors import WorkError
from coyo_labeler.learn.pool import Pool
from coyo_labeler.learn.softmax import Softmax

I64 = NDArray[np.int64]

WEIGHTS = "weights.safetensors"
_WHOLE = "whole"


@dataclass(frozen=True)
class Learner:
    """What scoring needs.

    classes: (C,) labels that it believes of. of_classes: of the label space. image: (n,) ids that
    it was trained on, sorted; by_fold: the softmax that has not seen a fold, by fold; whole: that
    has seen all. Features are centred (d,) first. sharpness: 1 / temperature. pool: weights of the
    teacher and of the learner. training_images: how many. metrics: for metrics.json. fingerprint:
    of the run.
    """

    classes: I64
    of_classes: int
    image: I64
    centre: NDArray[np.float32]
    whole: Softmax
    by_fold: Mapping[int, Softmax]
    folds: int
    sharpness: float
    pool: Pool
    metrics: Mapping[str, Any]
    fingerprint: str


def save_learner(output: str, learner: Learner) -> None:
    """Write the weights, atomically."""
    tensors: dict[str, NDArray[Any]] = {
        "classes": learner.classes,
        "image": learner.image,
        "centre": learner.centre,
    }
    for name, model in ((_WHOLE, learner.whole), *learner.by_fold.items()):
        tensors[f"{name}.coefficients"] = np.ascontiguousarray(model.coefficients)
        tensors[f"{name}.intercept"] = np.ascontiguousarray(model.intercept)
    facts = {
        "of_classes": learner.of_classes,
        "folds": learner.folds,
        "sharpness": learner.sharpness,
        "pool": asdict(learner.pool),
        "metrics": dict(learner.metrics),
        "fingerprint": learner.fingerprint,
    }
    data = save(tensors, metadata={"learner": json.dumps(facts)})
    storage.write_bytes(storage.join(output, WEIGHTS), data)


def load_learner(output: str, fingerprint: str) -> Learner | None:
    """The learner of a run that has trained one; None where there is none by this run.

    Raises: WorkError where the file is damaged.
    """
    url = storage.join(output, WEIGHTS)
    if not storage.exists(url):
        return None
    fs, path = storage.resolve(url)
    data: bytes = fs.cat_file(path)
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        facts = json.loads(header["__metadata__"]["learner"])
        if facts["fingerprint"] != fingerprint:
            return None
        tensors = load(data)
        names = {key.partition(".")[0] for key in tensors if key.endswith(".intercept")}
        models = {
            name: Softmax(tensors[f"{name}.coefficients"], tensors[f"{name}.intercept"])
            for name in names
        }
        return Learner(
            classes=tensors["classes"],
            of_classes=facts["of_classes"],
            image=tensors["image"],
            centre=tensors["centre"],
            whole=models.pop(_WHOLE),
            by_fold={int(name): model for name, model in models.items()},
            folds=facts["folds"],
            sharpness=facts["sharpness"],
            pool=Pool(**facts["pool"]),
            metrics=facts["metrics"],
            fingerprint=fingerprint,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WorkError(
            f"learn: {url} is damaged ({error}); remove it and run the same command again"
        ) from None
