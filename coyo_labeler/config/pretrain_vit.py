"""Settings of pretrain_vit."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.formats.image_ids import Ids

#: What to do with images of some kind.
Choice = Literal["skip", "error"]


class OptimiserSettings(Settings):
    """AdamW with a linear warm-up from 0 and a linear decay, after coyo-vit."""

    learning_rate: float = Field(6e-4, gt=0, description="at the end of the warm-up")
    end_learning_rate: float = Field(1e-5, ge=0, description="after the last step")
    warmup_steps: int = Field(10_000, ge=0, description="steps of linear warm-up from 0")
    weight_decay: float = Field(
        0.1, ge=0, description="decoupled, of every parameter, as in coyo-vit"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's first moment")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of AdamW's second moment")
    epsilon: float = Field(1e-7, gt=0, description="AdamW's epsilon")
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest global gradient norm; null: not clipped"
    )


class AugmentSettings(Settings):
    """Inception crop and flip to train on; a central crop to evaluate on."""

    min_area: float = Field(
        0.05, gt=0, le=1, description="least area of the Inception crop, as a share of the image"
    )
    max_aspect_ratio: float = Field(
        4 / 3, ge=1, description="largest aspect ratio of the Inception crop, either way"
    )
    flip: bool = Field(True, description="mirror half of the images")
    evaluation_crop: float = Field(
        0.875,
        gt=0,
        le=1,
        description="side of the central crop for evaluation, as a share of the shorter side",
    )


class ProbeSettings(Settings):
    """Training on gold that is not held out, after pretraining, to measure what it gained."""

    method: Literal["none", "linear_probe", "fine_tune"] = Field(
        "none",
        description="none; linear_probe: logistic regression on frozen features; fine_tune: SGD",
    )
    l2: float = Field(1e-3, ge=0, description="linear_probe: penalty on the weights")
    steps: int = Field(500, ge=1, description="fine_tune: steps of SGD with cosine decay")
    batch_size: int = Field(512, ge=1, description="fine_tune: images per step")
    learning_rate: float = Field(
        0.03, gt=0, description="fine_tune: learning rate of SGD with momentum 0.9"
    )


class PretrainVitSettings(StageSettings):
    """Pretrain a Vision Transformer on labelled images.

    The hyperparameters are those of coyo-vit for ViT-L/16 on COYO-Labeled-300M. The stage runs on
    PyTorch alone, without Spark; on several GPUs with
    torchrun --nproc-per-node 8 -m coyo_labeler pretrain_vit labels=… images=… output=…
    """

    inputs: ClassVar[tuple[str, ...]] = ("labels", "images", "gold", "gold_images")
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "checkpoint_every",
        "device",
        "keep_checkpoints",
        "log_every",
        "prefetch",
        "tensorboard",
    }
    sections: ClassVar[Mapping[str, str]] = {
        "labels": "Input and output",
        "model": "The model",
        "target": "Targets",
        "epochs": "Training",
        "workers": "How the work is done",
    }

    labels: str = Field(
        description="beliefs or posterior: output of label or merge, or Parquet",
        examples=["out/demo/merged"],
    )
    images: str = Field(
        description="output of fetch, or any webdataset tars with an id",
        examples=["out/demo/images"],
    )
    gold: str | None = Field(
        None, description="Parquet of image_id, label: true classes to evaluate on"
    )
    gold_images: str | None = Field(
        None, description="tars of the gold images; null: they are in images"
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    held_out: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of gold that is never trained on, chosen by a hash of its ids",
    )

    model: str = Field("vit_large_patch16_224", description="a timm model")
    model_args: dict[str, Any] = Field(
        default_factory=dict,
        description="further arguments of timm.create_model, such as {depth: 4}",
    )
    image_size: int = Field(224, ge=16, description="side of the crop in pixels")
    num_classes: int = Field(21_841, ge=2, description="classes of the label space of labels")
    head_bias: float = Field(
        -10.0, description="initial bias of the head; its initial weights are 0"
    )
    initial_weights: str | None = Field(
        None,
        description="safetensors to start from; a head with another number of classes is dropped",
    )

    target: Literal["multi_hot", "soft", "top1", "top1_soft"] = Field(
        "multi_hot",
        description="target made from a row of labels; multi_hot: 1 for each label, soft: their "
        "probabilities, top1 and top1_soft: the same of the most probable label alone",
    )
    threshold: float = Field(
        0.05, ge=0, le=1, description="labels below this probability are dropped"
    )
    unlabelled: Choice = Field("skip", description="images without a row of labels: skip or error")
    out_of_range: Choice = Field(
        "error", description="labels outside 0..num_classes-1: skip (drop the label) or error"
    )
    empty: Choice = Field(
        "skip", description="images that threshold leaves without a label: skip or error"
    )
    undecodable: Choice = Field(
        "error", description="images that cannot be decoded, and damaged tars: skip or error"
    )

    epochs: float = Field(7, gt=0, description="passes over the labelled images")
    steps: int | None = Field(None, ge=1, description="optimiser steps; overrides epochs")
    batch_size: int = Field(4096, ge=1, description="images per step, over all processes")
    micro_batch_size: int | None = Field(
        None, ge=1, description="images that a process computes at once; null: its whole share"
    )
    optimiser: OptimiserSettings = Field(
        default_factory=OptimiserSettings, description="AdamW, warm-up and decay, clipping"
    )
    augment: AugmentSettings = Field(
        default_factory=AugmentSettings, description="how images are cropped and mirrored"
    )
    probe: ProbeSettings = Field(
        default_factory=ProbeSettings,
        description="training on gold that is not held out, after pretraining",
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="arithmetic of the network: bfloat16 or float32"
    )
    compile: bool = Field(False, description="torch.compile the network")
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentations")

    workers: int = Field(8, ge=0, description="reader processes of each training process")
    prefetch: int = Field(2, ge=1, description="batches that each reader process reads ahead")
    shuffle_buffer: int = Field(
        2048, ge=1, description="encoded images that each reader process draws from"
    )
    threads: int | None = Field(
        None, ge=1, description="threads of a network on CPU; null: PyTorch's choice, one per core"
    )
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints to keep")
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between evaluations on held-out gold; null: at the end"
    )
    log_every: int = Field(50, ge=1, description="steps between log lines")
    tensorboard: bool = Field(True, description="write TensorBoard events beside metrics.jsonl")

    @model_validator(mode="after")
    def _fits(self) -> "PretrainVitSettings":
        for name in self.model_args:
            if not name.isidentifier():  # {depth:4} is the key "depth:4" in YAML
                raise ValueError(
                    f"model_args: '{name}' is no name of an argument; write {{depth: 4}}, with a "
                    "space behind the colon"
                )
        if self.gold_images is not None and self.gold is None:
            raise ValueError("gold_images: holds the images of gold, which is missing; give gold=…")
        if self.probe.method != "none":
            if self.gold is None:
                raise ValueError(f"probe.method: {self.probe.method} trains on gold; give gold=…")
            if self.held_out == 1:
                raise ValueError("held_out: 1 leaves the probe no gold to train on; give less")
        if self.gold is None and self.evaluate_every is not None:
            raise ValueError("evaluate_every: there is nothing to evaluate on; give gold=…")
        return self
