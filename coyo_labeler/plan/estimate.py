"""From unit costs and sizes to hours, terabytes and money, stage by stage.

All costs are linear in rows: the benchmarks (docs/benchmarks.md) found no stage that grows faster,
but for the sorting in ingest, n log n, which is within the error of such a plan.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from coyo_labeler.config.plan import PlanSettings
from coyo_labeler.plan.unit_costs import UnitCosts

_TB = 1e12
_MICROSECONDS_PER_HOUR = 3.6e9
#: The image size that `UnitCosts.fetch` was measured with; its bytes are read and hashed.
MEASURED_KB = 110.0
#: Labels of the belief that `UnitCosts.belief_bytes` was measured with.
MEASURED_LABELS = 50
#: Images per shard that fetch writes by default, and votes that a partition of merge holds.
_ROWS_PER_SHARD, _VOTES_PER_PARTITION = 10_000, 100_000


@dataclass(frozen=True)
class StagePlan:
    """One stage. rows: in. hours: wall time on the cluster. read, written: TB; kept: of them."""

    name: str
    rows: float
    hours: float
    core_hours: float
    gpu_hours: float
    read_tb: float
    written_tb: float
    bound: str
    settings: Mapping[str, int | str] = field(default_factory=dict)

    def price(self, settings: PlanSettings) -> float:
        """Of its cores and GPUs."""
        cores = self.core_hours * settings.price_core_hour
        return cores + self.gpu_hours * settings.price_gpu_hour


@dataclass(frozen=True)
class Plan:
    """All stages in order. votes: human answers. kept_tb: what lies on the store in the end."""

    stages: tuple[StagePlan, ...]
    images: float
    votes: float
    kept_tb: float
    machine_price: float
    storage_price: float
    vote_price: float

    @property
    def hours(self) -> float:
        """Of all stages, one after the other."""
        return sum(stage.hours for stage in self.stages)

    @property
    def price(self) -> float:
        """Machines, storage and votes."""
        return self.machine_price + self.storage_price + self.vote_price


def estimate(settings: PlanSettings, costs: UnitCosts) -> Plan:
    """The plan of a whole run."""
    catalog = settings.rows * settings.kept_share
    images = catalog * settings.downloaded_share
    votes = images * settings.votes_per_image
    sizes = _Sizes(settings, costs)
    stages = (
        _on_cores(
            settings, "ingest", settings.rows, settings.rows * costs.ingest,
            read=settings.rows * costs.source_bytes, written=catalog * costs.catalog_bytes,
            further={"rows_per_shard": _ROWS_PER_SHARD},
        ),
        _fetch(settings, costs, catalog, images),
        _label(settings, costs, images, sizes),
        *(
            _on_cores(
                settings, "merge", images,
                images * costs.merge + votes * costs.em * settings.iterations,
                read=images * sizes.beliefs, written=images * sizes.beliefs,
                further={"partitions": max(1, math.ceil(votes / _VOTES_PER_PARTITION))},
            )
            for _ in range(settings.merges)
        ),
        _on_cores(settings, "report", images, images * costs.report, read=images * sizes.beliefs),
        _on_cores(
            settings, "export", images, images * costs.export,
            read=images * sizes.beliefs, written=images * sizes.beliefs,
        ),
    )  # fmt: skip
    kept = catalog * costs.catalog_bytes + images * (sizes.image + 3 * sizes.beliefs)
    kept += images * sizes.embedding
    return Plan(
        stages,
        images,
        votes,
        kept / _TB,
        sum(stage.price(settings) for stage in stages),
        kept / _TB * settings.price_tb_month * settings.months,
        votes * settings.price_vote,
    )


class _Sizes:
    """Bytes per image: of its picture, its belief, its embedding (float16)."""

    def __init__(self, settings: PlanSettings, costs: UnitCosts) -> None:
        self.image = settings.image_kb * 1e3
        self.beliefs = costs.belief_bytes * settings.top_k / MEASURED_LABELS
        self.embedding = 2.0 * settings.embeddings


def _on_cores(
    settings: PlanSettings,
    name: str,
    rows: float,
    microseconds: float,
    read: float = 0.0,
    written: float = 0.0,
    further: Mapping[str, int | str] | None = None,
) -> StagePlan:
    core_hours = microseconds / _MICROSECONDS_PER_HOUR
    return StagePlan(
        name, rows, core_hours / settings.cores, core_hours, 0.0,
        read / _TB, written / _TB, "cores", further or {},
    )  # fmt: skip


def _fetch(settings: PlanSettings, costs: UnitCosts, rows: float, images: float) -> StagePlan:
    """Bound by the cores or by the network; the cores are paid for in either case."""
    received = images * settings.image_kb * 1e3
    on_cores = images * costs.fetch * max(settings.image_kb / MEASURED_KB, 0.1)
    core_hours = on_cores / _MICROSECONDS_PER_HOUR / settings.cores
    network_hours = received * 8 / (settings.network_gbps * 1e9) / 3600
    hours = max(core_hours, network_hours)
    shards = math.ceil(rows / _ROWS_PER_SHARD)
    return StagePlan(
        "fetch", rows, hours, hours * settings.cores, 0.0, received / _TB, received / _TB,
        "network" if network_hours > core_hours else "cores", {"shards": shards},
    )  # fmt: skip


def _label(settings: PlanSettings, costs: UnitCosts, images: float, sizes: _Sizes) -> StagePlan:
    """Bound by the teacher, or by the cores that decode for it."""
    decoding = images * costs.label / _MICROSECONDS_PER_HOUR / settings.cores
    rate = settings.gpu_images_per_second
    if settings.gpus and rate is None and costs.device != "cpu":
        rate = costs.device_images_per_second
    if settings.gpus and rate is not None:
        teaching = images / (rate * settings.gpus) / 3600
        hours = max(decoding, teaching)
        gpu_hours, bound = hours * settings.gpus, "GPUs" if teaching >= decoding else "cores"
    else:
        hours = images / (costs.device_images_per_second * settings.cores) / 3600 + decoding
        gpu_hours, bound = 0.0, "cores"
    return StagePlan(
        "label", images, hours, hours * settings.cores, gpu_hours, images * sizes.image / _TB,
        images * (sizes.beliefs + sizes.embedding) / _TB, bound,
    )  # fmt: skip
