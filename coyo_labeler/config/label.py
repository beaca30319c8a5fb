"""Settings of the stage `label`."""

import importlib.util
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from coyo_labeler import storage
from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LISTED
from coyo_labeler.session import require_java


class SamplingSettings(Settings):
    """Which labelled images are kept; the published set was sampled by such a threshold."""

    min_top1: float = Field(
        0.0, ge=0, le=1, description="probability of the first label at least, else set aside"
    )


class LabelSettings(StageSettings):
    """What to label, with which teacher, how its images are prepared and its outputs read."""

    inputs: ClassVar[tuple[str, ...]] = ("images", "checkpoint")
    inputs_by_shard: ClassVar[frozenset[str]] = frozenset({"images"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "device",
        "engine",
        "decode_threads",
        "compile",
    }

    images: str = Field(
        description="tars to label: an output of fetch or img2dataset, a tar, a folder or a glob"
    )
    model: str = Field(
        "tf_efficientnetv2_xl.in21k", description="a timm model name, or hf-hub:owner/name"
    )
    checkpoint: str | None = Field(
        None, description="weights of the model: .safetensors, or .pth read with weights_only"
    )
    pretrained: bool | None = Field(
        None, description="load timm's own weights; left out: true unless there is a checkpoint"
    )
    model_label_space: str | None = Field(
        None,
        description="classes of the model's head: imagenet21k, imagenet21k_goog, imagenet22k_ms, "
        "imagenet1k or a text file; left out: by the size of the head",
    )
    label_space: str = Field(
        "imagenet21k",
        description="classes that labels index: imagenet21k, imagenet1k, or a text file that "
        "names one class a line",
    )
    activation: Literal["auto", "sigmoid", "softmax"] = Field(
        "auto",
        description="how the head was trained; auto: softmax for timm's S, M, L .in21k and for "
        "heads other than ImageNet-21k's, else sigmoid",
    )
    preprocess: str = Field(
        "automl_512",
        description="automl_<N>: EfficientNetV2's own evaluation at N px; timm: the model's "
        "configuration",
    )
    exif_orientation: bool = Field(
        False, description="turn pictures upright first; the published labels were made without"
    )
    top_k: int = Field(50, ge=1, description="labels kept of an image, fewer in a smaller space")
    batch_size: int = Field(64, ge=1, le=65536, description="images in one forward pass")
    precision: Literal["bfloat16", "float16", "float32"] = Field(
        "float16",
        description="arithmetic of the forward pass; float32 on a CPU, where float16 is slow",
    )
    device: str = Field(
        "auto", description="auto (all GPUs that are visible, else the CPU), cpu, cuda or cuda:<n>"
    )
    label_probs_dtype: Literal["float16", "float32"] = Field(
        "float16", description="probabilities are rounded through this type, stored as float32"
    )
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="spark: one task a device; local: one process a device, without Spark and "
        "Java; auto: spark where both are installed",
    )
    decode_threads: int | None = Field(
        None, ge=1, description="threads that decode for a GPU; left out: one a core"
    )
    compile: bool | None = Field(
        None, description="torch.compile the model; left out: on GPUs, not on a CPU"
    )
    embeddings: bool = Field(
        False, description="also write the pooled features, as float16, to embeddings/"
    )
    sampling: SamplingSettings = Field(
        default_factory=SamplingSettings,
        description="sampling.min_top1: images whose first label is less probable are set aside",
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

    def files_by_content(self) -> Mapping[str, str]:
        """The checkpoint, and files that name classes.

        What is neither a file nor a known name is left to the stage, which says what would be one.
        """
        files = {} if self.checkpoint is None else {"checkpoint": self.checkpoint}
        for key in ("label_space", "model_label_space"):
            value = getattr(self, key)
            if value is not None and value not in LISTED and storage.exists(value):
                files[key] = value
        return files

    @property
    def uses_spark(self) -> bool:
        """Whether Spark deals out the shards."""
        if self.engine != "auto":
            return self.engine == "spark"
        if importlib.util.find_spec("pyspark") is None:
            return False
        try:
            require_java()
        except InputError:
            return False
        return True
