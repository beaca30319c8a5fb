"""The training loop."""

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coyo_labeler import storage
from coyo_labeler.config.pretrain_vit import PretrainVitSettings
from coyo_labeler.data import Batch, Loader
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.faults import Fault
from coyo_labeler.manifest import Counts, Outcome
from coyo_labeler.pretrain.augment import normalise
from coyo_labeler.pretrain.checkpoint import Checkpoints, Training
from coyo_labeler.pretrain.distributed import Process
from coyo_labeler.pretrain.evaluate import evaluate_head, fine_tune, linear_probe
from coyo_labeler.pretrain.inputs import (
    GoldImages,
    open_gold,
    open_loader,
    open_training,
    split_batch,
)
from coyo_labeler.pretrain.journal import Journal
from coyo_labeler.pretrain.meter import Meter
from coyo_labeler.pretrain.metrics import mean_average_precision
from coyo_labeler.pretrain.model import build_model, load_weights, start_head, write_safetensors
from coyo_labeler.pretrain.optimise import (
    binary_cross_entropy,
    build_optimiser,
    learning_rate,
    take_step,
)
from coyo_labeler.progress import Progress

logger = logging.getLogger(__name__)


def train(settings: PretrainVitSettings, fingerprint: str, process: Process) -> Outcome:
    """Train, or resume training, and evaluate. Every process makes the same call.

    Writes checkpoints/, metrics.jsonl, tensorboard/, model.safetensors and model.json into
    `settings.output`.

    Raises: InputError if settings and data do not fit, WorkError if a gradient is not finite.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    gold = open_gold(settings)
    dataset = open_training(settings, gold, process)
    images = process.broadcast(dataset.count() if process.first else None)
    if not images:
        raise InputError(
            f"pretrain_vit: labels: none of the images in {settings.images} has labels in "
            f"{settings.labels} to train on"
        )
    steps = settings.steps or math.ceil(settings.epochs * images / settings.batch_size)
    micro_batch, accumulate = split_batch(settings, process.count)

    torch.manual_seed(settings.seed)  # every process starts with the same weights
    model = build_model(
        settings.model, settings.num_classes, settings.image_size, settings.model_args
    )
    start_head(model, settings.head_bias)
    if settings.initial_weights is not None:
        load_weights(model, settings.initial_weights)
    model.to(process.device)
    torch.manual_seed(settings.seed + 1 + process.rank)  # dropout differs between processes
    loader = open_loader(settings, dataset, micro_batch, process)
    optimiser = build_optimiser(model, settings.optimiser)
    training = Training(model, optimiser, loader, Meter(process.device))
    checkpoints = Checkpoints(settings.output, fingerprint, process)
    if checkpoints.load(training):
        logger.info("pretrain_vit: resuming after step %d", training.step)
    run = _Run(settings, process, training, checkpoints, gold, steps, accumulate, images)
    run.take_all_steps()
    details = run.finish()
    counts = sum(process.gather(loader.counts), start=type(loader.counts)())
    waiting = sum(process.gather(loader.waiting))
    if counts["damaged_shards"]:
        details = {**details, "damaged_shards": counts["damaged_shards"]}
    return Outcome(_counts(counts, waiting, steps * settings.batch_size), details=details)


def _counts(counts: dict[str, int], waiting: int, used: int) -> Counts:
    """Pictures drawn from the tars over all epochs, and those used in steps."""
    rejected = {
        reason: counts[reason]
        for reason in ("unlabelled", "empty", "held_out", "undecodable", *map(str, Fault))
        if counts[reason]
    }
    return Counts(counts["drawn"], used, {**rejected, "not_reached": waiting})


@dataclass
class _Run:
    settings: PretrainVitSettings
    process: Process
    training: Training
    checkpoints: Checkpoints
    gold: GoldImages | None
    steps: int
    accumulate: int
    images: int
    _evaluated: dict[str, float] = field(default_factory=dict)

    def take_all_steps(self) -> None:
        """Steps, log lines, evaluations and checkpoints until the last step."""
        settings, training, process = self.settings, self.training, self.process
        network = self._wrap(training.model)
        batches = _on_device(training.loader, process.device)
        output, step = settings.output, training.step
        journal = Journal(output, step, settings.tensorboard) if process.first else nullcontext()
        shown: dict[str, str] = {}
        with journal as log, self._progress() as progress:
            while training.step < self.steps:
                rate = learning_rate(training.step, self.steps, settings.optimiser)
                precision = self._take_step(network, batches, rate)
                training.step += 1
                last = training.step == self.steps
                if training.step % settings.log_every == 0 or last:
                    values = self._collect(rate, precision)
                    if log is not None:
                        log.write(training.step, **values)
                    shown = {
                        "loss": f"{values['loss']:.4f}",
                        "images_per_second": f"{values['images_per_second']:.0f}",
                    }
                    self._check()
                    training.meter = Meter(process.device)
                if progress is not None:
                    progress.update(training.step, **shown)
                if self._is_due(settings.evaluate_every) or (last and self.gold):
                    self._evaluate(log)
                if self._is_due(settings.checkpoint_every) or last:
                    self._check()
                    self.checkpoints.save(training, settings.keep_checkpoints, self._metadata())

    def _is_due(self, every: int | None) -> bool:
        return every is not None and self.training.step % every == 0

    def _check(self) -> None:
        if not math.isfinite(norm := float(self.training.meter.norm)):
            raise WorkError(
                f"pretrain_vit: the gradient of step {self.training.step} is {norm}; nothing has "
                "been written since the last checkpoint. Lower optimiser.learning_rate or lengthen "
                "optimiser.warmup_steps, and start with another output"
            )

    def _wrap(self, model: nn.Module) -> nn.Module:
        network: nn.Module = model
        if self.settings.compile:
            network = torch.compile(network)  # type: ignore[assignment]
        if self.process.count > 1:
            network = DistributedDataParallel(network)
        network.train()
        return network

    def _progress(self) -> AbstractContextManager[Progress | None]:
        if not self.process.first:
            return nullcontext()
        return Progress("pretrain_vit", self.steps, "steps", done=self.training.step)

    def autocast(self) -> torch.autocast:
        """The precision of the network."""
        return torch.autocast(
            self.process.device.type,
            dtype=torch.bfloat16,
            enabled=self.settings.precision == "bfloat16",
        )

    def _take_step(self, network: nn.Module, batches: Iterator[Batch], rate: float) -> float:
        """One optimiser step; returns the mAP of its last micro-batch where a log line is due."""
        settings, training = self.settings, self.training
        meter = training.meter
        for part in range(self.accumulate):
            with meter.waiting():
                batch = next(batches)
            targets = batch.targets.dense(settings.num_classes)
            later = part + 1 < self.accumulate
            hold = later and isinstance(network, DistributedDataParallel)
            with network.no_sync() if hold else nullcontext():  # type: ignore[operator]
                with self.autocast():
                    logits = network(normalise(batch.images))
                loss = binary_cross_entropy(logits, targets)
                (loss / self.accumulate).backward()  # type: ignore[no-untyped-call]
            meter.add(loss.detach(), len(batch))
        clip = settings.optimiser.clip_norm
        meter.norm = take_step(training.optimiser, training.model, rate, clip)
        if (training.step + 1) % settings.log_every and training.step + 1 < self.steps:
            return math.nan
        return mean_average_precision(logits.detach(), batch.targets)

    def _collect(self, rate: float, precision: float) -> dict[str, float]:
        """The values of a log line, over all processes. All processes must call it."""
        totals = self.process.gather(self.training.meter.totals())
        images = sum(each.images for each in totals)
        seconds = max(each.seconds for each in totals)
        return {
            "epoch": self.training.step * self.settings.batch_size / self.images,
            "loss": sum(each.loss for each in totals) / sum(each.parts for each in totals),
            "batch_mAP": precision,
            "learning_rate": rate,
            "gradient_norm": float(self.training.meter.norm),
            "images_per_second": images / seconds,
            "waiting_for_data": totals[0].waited / totals[0].seconds,
        }

    def _evaluate(self, log: Journal | None) -> None:
        if log is not None and self.gold is not None:
            measured = evaluate_head(
                self.training.model,
                self._loader_of(self.gold.test()),
                *self._device_and_precision(),
            )
            self._evaluated = measured
            values = {f"held_out_{name}": value for name, value in measured.items()}
            log.write(self.training.step, **values)
            logger.info("pretrain_vit: step %d: %s", self.training.step, _text(values))
        self.process.barrier()

    def _loader_of(self, dataset: Any, batch_size: int | None = None, **options: Any) -> Loader:
        size = batch_size or self.settings.micro_batch_size or min(256, self.settings.batch_size)
        return Loader(dataset, size, num_workers=self.settings.workers, **options)

    def _device_and_precision(self) -> tuple[torch.device, torch.autocast]:
        return self.process.device, self.autocast()

    def _metadata(self) -> dict[str, str]:
        return {
            "architecture": self.settings.model,
            "step": str(self.training.step),
            "fingerprint": self.checkpoints.fingerprint,
        }

    def finish(self) -> dict[str, Any]:
        """Write the network and its description, probe it, and return the details of the run."""
        settings, details = self.settings, dict[str, Any](steps=self.steps, images=self.images)
        if self.process.first:
            url = storage.join(settings.output, "model.safetensors")
            write_safetensors(url, self.training.model, self._metadata())
            storage.write_json(storage.join(settings.output, "model.json"), self._card())
            if self.gold is not None:
                if not self._evaluated:  # killed between the last step and the end
                    test = self._loader_of(self.gold.test())
                    self._evaluated = evaluate_head(
                        self.training.model, test, *self._device_and_precision()
                    )
                details["held_out"] = self._evaluated
                if settings.probe.method != "none":
                    details[settings.probe.method] = self._probe(self.gold)
        self.process.barrier()
        return details

    def _probe(self, gold: GoldImages) -> dict[str, float]:
        settings, model = self.settings.probe, self.training.model
        test = self._loader_of(gold.test())
        if settings.method == "linear_probe":
            train_on = self._loader_of(gold.train(augment=False))
            measured = linear_probe(
                model, train_on, test, settings.l2, *self._device_and_precision()
            )
        else:
            train_on = self._loader_of(gold.train(augment=True), settings.batch_size, epochs=None)
            measured = fine_tune(model, train_on, test, settings, *self._device_and_precision())
        logger.info("pretrain_vit: %s: %s", settings.method, _text(measured))
        return measured

    def _card(self) -> dict[str, Any]:
        """What builds the network again: timm.create_model(architecture, **model_args)."""
        settings = self.settings
        return {
            "architecture": settings.model,
            "num_classes": settings.num_classes,
            "model_args": {"img_size": settings.image_size, **settings.model_args},
            "input_size": [3, settings.image_size, settings.image_size],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "activation": "sigmoid",
        }


def _on_device(loader: Loader, device: torch.device) -> Iterator[Batch]:
    for batch in loader:
        yield batch.to(device, non_blocking=True)


def _text(values: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}"
        for name, value in values.items()
    )
