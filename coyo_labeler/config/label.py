"""Settings of the stage `label`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.formats.image_ids import Ids


class SamplingSettings(Settings):
    """Which labelled images are kept; the published set was sampled by such a threshold."""

    min_top1: float = Field(
        0.0,
        ge=0,
        le=1,
        description="images whose first label is less probable go to below_threshold/",
    )


class LabelSettings(StageSettings):
    """Label image tars with a teacher: its top classes and their probabilities, per image."""

    inputs: ClassVar[tuple[str, ...]] = ("images", "checkpoint")
    by_content: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint", "label_space", "model_label_space"}
    )
    inputs_by_shard: ClassVar[frozenset[str]] = frozenset({"images"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "device",
        "engine",
        "decode_threads",
        "compile",
    }

    sections: ClassVar[Mapping[str, str]] = {
        "images": "Input and output",
        "model": "The teacher",
        "label_space": "What is written",
        "batch_size": "How the work is done",
    }

    images: str = Field(
        description="tars to label: output of fetch or img2dataset, a tar, a folder or a glob",
        examples=["out/demo/images"],
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    model: str = Field(
        "tf_efficientnetv2_xl.in21k", description="a timm model, or hf-hub:owner/name"
    )
    checkpoint: str | None = Field(
        None,
        description="weights of the model, any fsspec URL: .safetensors, or .pth read with "
        "weights_only",
    )
    pretrained: bool | None = Field(
        None, description="load timm's own weights; null: true unless there is a checkpoint"
    )
    model_label_space: str | None = Field(
        None,
        description="classes of the model's head: imagenet21k, imagenet21k_goog, imagenet22k_ms, "
        "imagenet1k or a text file; null: by the size of the head",
    )
    activation: Literal["auto", "sigmoid", "softmax"] = Field(
        "auto",
        description="activation that the head was trained with: sigmoid or softmax; auto: softmax "
        "for timm's S, M, L .in21k and for heads other than ImageNet-21k's, else sigmoid",
    )
    preprocess: str = Field(
        "automl_512",
        description="automl_<N>: EfficientNetV2's own evaluation at N px; timm: the model's "
        "configuration",
    )
    exif_orientation: bool = Field(
        False, description="turn images upright first; the published labels were made without"
    )
    precision: Literal["bfloat16", "float16", "float32"] = Field(
        "float16",
        description="arithmetic of the forward pass: bfloat16, float16 or float32; use float32 on "
        "a CPU, where float16 is slow",
    )
    label_space: str = Field(
        "imagenet21k",
        description="classes that labels index: imagenet21k, imagenet1k, or a text file with one "
        "class name per line",
    )
    top_k: int = Field(
        50, ge=1, description="labels kept per image; fewer where the label space is smaller"
    )
    label_probs_dtype: Literal["float16", "float32"] = Field(
        "float16",
        description="type that probabilities are rounded to, float16 or float32; they are stored "
        "as float32",
    )
    embeddings: bool = Field(
        False, description="also write the pooled features, as float16, to embeddings/"
    )
    sampling: SamplingSettings = Field(
        default_factory=SamplingSettings, description="which labelled images are kept"
    )
    batch_size: int = Field(
        64,
        ge=1,
        le=65536,
        description="images in one forward pass; on a CPU at most 16, which is faster there",
    )
    device: str = Field(
        "auto", description="auto (all visible GPUs, else the CPU), cpu, cuda or cuda:<n>"
    )
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="spark: one task per device; local: one process per device, without Spark and "
        "Java; auto: spark where both are installed",
    )
    decode_threads: int | None = Field(
        None, ge=1, description="threads that decode for a GPU; null: one per core"
    )
    compile: bool | None = Field(
        None, description="torch.compile the model; null: on GPUs, not on a CPU"
    )

    @field_validator("preprocess")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        size = value.removeprefix("automl_")
        if value != "timm" and not (value != size and size.isdecimal() and 32 <= int(size) <= 4096):
            raise ValueError(
                f"'{value}' is no preset; give automl_<N> with N from 32 to 4096, or timm"
            )
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if value not in {"auto", "cpu", "cuda"} and not (kind == "cuda" and index.isdecimal()):
            raise ValueError(f"'{value}' is no device; give auto, cpu, cuda or cuda:<n>")
        return value
