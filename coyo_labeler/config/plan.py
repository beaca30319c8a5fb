"""Settings of `plan`."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from coyo_labeler.config.base import StageSettings


class PlanSettings(StageSettings):
    """What the pipeline takes on a cluster: hours, core and GPU hours, terabytes, and money."""

    sections: ClassVar[Mapping[str, str]] = {
        "rows": "The data",
        "cores": "The cluster",
        "price_core_hour": "Prices, in any currency",
        "unit_costs": "What a row costs",
    }

    rows: int = Field(
        gt=0, description="source rows; COYO-700M has 747,000,000", examples=[747_000_000]
    )
    kept_share: float = Field(
        0.85, gt=0, le=1, description="share of the rows that ingest keeps; COYO's duplicates go"
    )
    downloaded_share: float = Field(
        0.7, gt=0, le=1, description="share of the catalog that fetch still gets"
    )
    image_kb: float = Field(110.0, gt=0, description="kB of an image as it is stored")
    top_k: int = Field(50, ge=1, description="labels per image")
    embeddings: int = Field(0, ge=0, description="values per embedding that label writes; 0: none")
    votes_per_image: float = Field(
        0.05, ge=0, description="human votes per labelled image, over all rounds"
    )
    iterations: int = Field(30, ge=1, description="iterations of EM")
    merges: int = Field(1, ge=1, description="merges: one, or one per round of the human loop")

    cores: int = Field(256, ge=1, description="cores of the executors")
    gpus: int = Field(8, ge=0, description="GPUs of the executors; 0: label runs on the cores")
    network_gbps: float = Field(
        10.0, gt=0, description="Gbit/s that all machines together get from the internet"
    )
    gpu_images_per_second: float | None = Field(
        None,
        gt=0,
        description="images per second of one GPU with the teacher; null: as measured, where this "
        "machine has a GPU",
    )

    price_core_hour: float = Field(0.04, ge=0, description="of a core for an hour")
    price_gpu_hour: float = Field(2.0, ge=0, description="of a GPU for an hour")
    price_tb_month: float = Field(23.0, ge=0, description="of a terabyte kept for a month")
    months: float = Field(1.0, ge=0, description="months that the results are kept")
    price_vote: float = Field(0.03, ge=0, description="of a human answer")

    unit_costs: str | None = Field(
        None,
        description="JSON file of unit costs, as an earlier plan wrote it; null: measured on this "
        "machine, which takes about two minutes",
    )
    model: str = Field(
        "tf_efficientnetv2_xl.in21k", description="the teacher whose speed is measured, of timm"
    )
    label_space: str = Field("imagenet21k", description="the label space of its head, as of label")
    output: str = Field("out/plan", description="folder for plan.json, plan.txt, unit_costs.json")
