"""What earlier stages left beside their tables: counts with reasons, the history of EM."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from coyo_labeler import storage
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.inputs import MANIFEST
from coyo_labeler.manifest import read_manifest
from coyo_labeler.storage_errors import parsing

#: The name of a stage's output on the page.
_SERIES = {"label": "machine", "merge": "merged"}

#: What a damaged document costs: its part of the page.
_REMEDY = "run the stage that wrote it again, or leave its folder out"

_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Document(BaseModel):
    """The form of what the page computes with: a document may come from anywhere."""

    model_config = ConfigDict(strict=True)


class _Histogram(_Document):
    edges: list[FiniteFloat] = Field(alias="from")
    rows: list[_Count]

    @model_validator(mode="after")
    def _as_long(self) -> "_Histogram":
        if len(self.edges) != len(self.rows):
            raise ValueError("there must be as many edges as counts")
        return self


class _Catalog(_Document):
    statistics: dict[str, _Histogram] = Field(default_factory=dict)


class _Download(_Document):
    bytes: _Count
    shards: _Count
    transient: _Count


class _Iteration(_Document):
    objective: FiniteFloat | None


class _CalibrationError(_Document):
    before: FiniteFloat | None
    after: FiniteFloat | None


class _Calibration(_Document):
    expected_calibration_error: _CalibrationError


class _Fit(_Document):
    iterations: list[_Iteration] = Field(default_factory=list)
    stopped: str | None = None
    calibration: _Calibration | None = None
    reliability: dict[
        str, list[Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]]
    ] = Field(default_factory=dict)


def read_series(settings: ReportSettings) -> dict[str, str]:
    """Names for `labels` (own) and `compare` (other): after their stages, if these differ."""
    names = {}
    for key, url in (("own", settings.labels), ("other", settings.compare)):
        manifest = read_manifest(url) if url is not None else None
        names[key] = _SERIES.get(manifest.stage, "") if manifest else ""
    if not names["own"] or not names["other"] or names["own"] == names["other"]:
        return {"own": "these labels", "other": "compared"}
    return names


def read_funnel(settings: ReportSettings) -> list[dict[str, Any]]:
    """Rows in, out and rejected by reason, for every stage with a manifest, in order."""
    funnel: list[dict[str, Any]] = []
    for url in (settings.catalog, settings.images, settings.compare, settings.labels):
        manifest = read_manifest(url) if url is not None else None
        if manifest is None or any(step["stage"] == manifest.stage for step in funnel):
            continue
        tables = {name: counts.to_json() for name, counts in manifest.tables.items()}
        funnel.append(
            {
                "stage": manifest.stage,
                **manifest.rows.to_json(),
                "tables": tables,
                "seconds": manifest.seconds,
            }
        )
    return funnel


def read_catalog(settings: ReportSettings) -> dict[str, Any]:
    """Histograms of the catalog, as ingest counted them: {name: {"from": edges, "rows": counts}}.

    {} if there is no catalog, or if another tool wrote it.
    """
    manifest = read_manifest(settings.catalog) if settings.catalog is not None else None
    statistics = manifest.details.get("statistics", {}) if manifest is not None else {}
    with parsing(_url(settings.catalog), _REMEDY):
        _Catalog.model_validate({"statistics": statistics})
    return dict(statistics)


def read_download(settings: ReportSettings) -> dict[str, Any]:
    """Images, bytes and transient failures of a fetch; {} if there was none."""
    manifest = read_manifest(settings.images) if settings.images is not None else None
    if manifest is None or manifest.stage != "fetch":
        return {}
    with parsing(_url(settings.images), _REMEDY):
        details = {key: manifest.details[key] for key in ("bytes", "shards", "transient")}
        _Download.model_validate(details)
    return {"images": manifest.rows.rows_out, "urls": manifest.rows.rows_in, **details}


def read_fit(labels: str) -> dict[str, Any]:
    """What a merge recorded of its EM; {} if there was no merge.

    iterations: objective, change and seconds of each. stopped: why it stopped. calibration: a, b
    and the expected calibration error before and after. reliability: [images, Σ confidence,
    Σ posterior] of the machine's first class, by bin of confidence, before and after calibration.
    """
    url = storage.join(labels, "history.json")
    document: Any = storage.read_json(url, _REMEDY) or {}
    with parsing(url, _REMEDY):
        _Fit.model_validate(document)
    iterations = [row for row in document.get("iterations", ()) if row["objective"] is not None]
    if not iterations:
        return {}
    optional = ("stopped", "calibration", "reliability")
    return {"iterations": iterations, **{k: document[k] for k in optional if k in document}}


def _url(output: str | None) -> str:
    return storage.join(output or "", MANIFEST)
