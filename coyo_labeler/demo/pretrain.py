"""What merged labels are worth to a network that trains on them: the demo's tiny pretraining.

The same Vision Transformer is trained twice from nothing, by the stage pretrain_vit with the same
settings and seed: on the machine's labels alone, and on the labels that EM merged with the votes.
Both are tested on the same images: those of gold that neither training saw (and that the stand-in
teacher did not learn from: gold holds none of those).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coyo_labeler import storage
from coyo_labeler.manifest import Manifest, read_manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

#: conf/pretrain_vit_tiny.yaml of a source checkout is this file.
SETTINGS = str(Path(__file__).with_name("pretrain_vit_tiny.yaml"))

#: The name of each training in the summary, and the folder of the demo that holds its labels.
LABELS = {"machine": "beliefs", "merged": "merged"}


def words(out: str, name: str) -> list[str]:
    """The words of `coyo-labeler pretrain_vit --config conf/pretrain_vit_tiny.yaml`.

    out: the demo's folder. name: one of `LABELS`; it is trained into `out/pretrain/{name}`.
    """
    return [
        f"labels={storage.join(out, LABELS[name])}",
        f"images={storage.join(out, 'images')}",
        f"gold={storage.join(out, 'gold')}",
        f"output={storage.join(out, 'pretrain', name)}",
    ]


def pretrain(out: str) -> dict[str, Any]:
    """Run both trainings, or what is missing of them, and return what they reached.

    out: the demo's folder, with beliefs/, merged/, images/ and gold/ as their jobs wrote them.

    Returns what belongs into summary.json: `accuracy` (top-1 on held-out gold, by the names of
    `LABELS`), `mAP` likewise, `held_out` and `trained_on` (images), `seconds`.

    Raises: InputError, WorkError as pretrain_vit does.
    """
    stage = STAGES["pretrain_vit"]
    for name in LABELS:
        run_stage(stage, read_stage_settings(stage, words(out, name), SETTINGS))
    found = {name: read_manifest(storage.join(out, "pretrain", name)) for name in LABELS}
    return _summary({name: manifest for name, manifest in found.items() if manifest is not None})


def _summary(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    measured = {name: manifest.details["held_out"] for name, manifest in manifests.items()}
    return {
        "accuracy": {name: round(each["top1"], 4) for name, each in measured.items()},
        "mAP": {name: round(each["mAP"], 4) for name, each in measured.items()},
        "held_out": measured["merged"]["images"],
        "trained_on": {name: each.details["images"] for name, each in manifests.items()},
        "seconds": {name: each.seconds for name, each in manifests.items()},
    }
