"""Where labels come from, according to the manifests and files of the stages before."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coyo_labeler import storage
from coyo_labeler.manifest import Manifest, read_manifest

#: The setting of each stage that names the output of the stage before.
_BEFORE = {"merge": "beliefs", "label": "images", "fetch": "catalog"}

#: Settings of merge that shape its posterior, in the order of the card.
_EM = (
    "truth",
    "beliefs_are",
    "calibration",
    "worker_model",
    "pooling",
    "pooling_strength",
    "counts",
    "prior_strength",
    "prior_accuracy",
    "prior_floor",
    "class_prior",
    "support",
    "support_mass",
    "max_iterations",
    "tolerance",
)


@dataclass(frozen=True)
class Provenance:
    """What is known of the origin of labels; everything is empty where they came from elsewhere.

    stages: manifests, the first stage first. teacher: its description, from the beliefs' files.
    """

    stages: tuple[Manifest, ...] = ()
    teacher: Mapping[str, str] = field(default_factory=dict)

    def stage(self, name: str) -> Manifest | None:
        """The manifest of a stage, where it is known."""
        return next((manifest for manifest in self.stages if manifest.stage == name), None)

    def merged(self) -> Mapping[str, Any] | None:
        """Votes, EM settings and outcome of a merge, None where there was none."""
        manifest = self.stage("merge")
        if manifest is None:
            return None
        settings = {key: manifest.config[key] for key in _EM if key in manifest.config}
        if "worker_model" in manifest.details:  # the model that `auto` chose
            settings["worker_model"] = manifest.details["worker_model"]
        votes = manifest.tables.get("votes")
        return {
            **manifest.details,
            "settings": settings,
            "votes": votes.to_json() if votes else None,
        }


def read_provenance(labels: str) -> Provenance:
    """Follow the manifests back from a labels folder, as far as their inputs still exist.

    A manifest may be a stranger's: each stage counts once, and no other store is asked.
    """
    stages: list[Manifest] = []
    teacher: Mapping[str, str] = {}
    url: object = labels
    left = {*_BEFORE, "ingest"}
    while isinstance(url, str) and _store_of(url) == _store_of(labels) and storage.exists(url):
        teacher = teacher or _teacher(url)
        manifest = read_manifest(url)
        if manifest is None or manifest.stage not in left:
            break
        stages.append(manifest)
        left.remove(manifest.stage)
        url = manifest.config.get(_BEFORE.get(manifest.stage, ""))
    return Provenance(tuple(reversed(stages)), teacher)


def _store_of(url: str) -> str:
    """The protocol of a URL; "" for a path of this machine."""
    return "" if storage.local_path(url) is not None else url.partition("://")[0]


def _teacher(url: str) -> Mapping[str, str]:
    """The `teacher.` entries in the metadata of the first Parquet file of a folder."""
    files = storage.files_of(storage.locate(url, "posterior"))
    if not files:
        return {}
    with storage.open_parquet("export: labels", min(files)) as file:
        metadata = file.schema_arrow.metadata or {}
    return {
        key.removeprefix(b"teacher.").decode(errors="replace"): value.decode(errors="replace")
        for key, value in metadata.items()
        if key.startswith(b"teacher.")
    }
