"""The demo's tiny pretraining: whether merged labels train a better network.

The stage pretrain_vit trains the same Vision Transformer twice from scratch, with the same settings
and seed: on the machine's labels alone, and on the labels that EM merged with the votes. Both are
tested on the same held-out images of gold. The stand-in teacher has seen none of these either.
"""

from collections.abc import Mapping
from typing import Any

from coyo_labeler import storage
from coyo_labeler.manifest import Manifest, read_manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

#: The preset of these trainings.
PRESET = "pretrain_vit_tiny"

#: The trainings: {name in the summary: folder of the demo that holds the labels}.
LABELS = {"machine": "beliefs", "merged": "merged"}


def words(out: str, name: str) -> list[str]:
    """The arguments of `coyo-labeler pretrain_vit --config pretrain_vit_tiny`.

    out: the demo's folder. name: one of `LABELS`; the output is `out/pretrain/{name}`.
    """
    return [
        f"labels={storage.join(out, LABELS[name])}",
        f"images={storage.join(out, 'images')}",
        f"gold={storage.join(out, 'gold')}",
        f"output={storage.join(out, 'pretrain', name)}",
    ]


def pretrain(out: str) -> dict[str, Any]:
    """Run both trainings, or what is missing of them, and return their results.

    out: the demo's folder, with beliefs/, merged/, images/ and gold/.

    Returns, for summary.json, `accuracy` (top-1 on held-out gold, by the names of
    `LABELS`), `mAP` likewise, `held_out` and `trained_on` (images), `seconds`.

    Raises: InputError, WorkError as pretrain_vit does.
    """
    stage = STAGES["pretrain_vit"]
    for name in LABELS:
        run_stage(stage, read_stage_settings(stage, words(out, name), PRESET))
    read = {name: read_manifest(storage.join(out, "pretrain", name)) for name in LABELS}
    return _summary({name: manifest for name, manifest in read.items() if manifest is not None})


def _summary(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    measured = {name: manifest.details["held_out"] for name, manifest in manifests.items()}
    return {
        "accuracy": {name: round(each["top1"], 4) for name, each in measured.items()},
        "mAP": {name: round(each["mAP"], 4) for name, each in measured.items()},
        "held_out": measured["merged"]["images"],
        "trained_on": {name: each.details["images"] for name, each in manifests.items()},
        "seconds": {name: each.seconds for name, each in manifests.items()},
    }
