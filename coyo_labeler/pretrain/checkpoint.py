"""Checkpoints: the weights as safetensors, and beside them all that an exact resumption needs.

checkpoints/00001000/model.safetensors   the network
                     optimiser.pt        AdamW's moments
                     process-00000.pt    one per process: position of its reader, random state
                     done.json           written last; a folder without it is incomplete. It holds
                                         the sha256 of the others
"""

import io
import logging
import posixpath
import random
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from coyo_labeler import storage
from coyo_labeler.data import Loader
from coyo_labeler.errors import InputError
from coyo_labeler.pretrain.distributed import Process
from coyo_labeler.pretrain.meter import Meter, Totals
from coyo_labeler.pretrain.model import read_safetensors, write_safetensors
from coyo_labeler.storage_errors import DamagedFileError

logger = logging.getLogger(__name__)

_DONE = "done.json"


@dataclass
class Training:
    """All state that changes from step to step.

    model: without wrappers. meter: sums since the latest log line. step: number of steps taken.
    """

    model: nn.Module
    optimiser: Optimizer
    loader: Loader
    meter: Meter
    step: int = 0


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in its output folder."""

    output: str
    fingerprint: str
    process: Process

    def _folder(self, step: int) -> str:
        return storage.join(self.output, "checkpoints", f"{step:08d}")

    def save(self, training: Training, keep: int, metadata: dict[str, str]) -> None:
        """Write a checkpoint, and remove all but the `keep` latest. All processes must call it.

        metadata: of the safetensors file.
        """
        folder = self._folder(training.step)
        own = {
            "loader": training.loader.state_dict(),
            "meter": tuple(training.meter.totals()),
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
        }
        if self.process.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.process.device)
        _write(storage.join(folder, self._name()), own)
        if self.process.first:
            write_safetensors(storage.join(folder, "model.safetensors"), training.model, metadata)
            _write(storage.join(folder, "optimiser.pt"), training.optimiser.state_dict())
        self.process.barrier()
        if self.process.first:
            storage.write_json(
                storage.join(folder, _DONE),
                {
                    "step": training.step,
                    "fingerprint": self.fingerprint,
                    "processes": self.process.count,
                    "sha256": _digests(folder),
                },
            )
            for step in self._steps()[:-keep]:
                storage.clear(self._folder(step))

    def load(self, training: Training) -> bool:
        """Restore the latest checkpoint that is as it was written; returns whether there was one.

        Raises: InputError if another number of processes wrote it.
        """
        # The first process decides, so that all continue from the same step.
        step = self.process.broadcast(self._latest() if self.process.first else None)
        if not step:
            return False
        folder = self._folder(step)
        done = self._read_done(step)
        assert done is not None
        if done["processes"] != self.process.count:
            raise InputError(
                f"pretrain_vit: output: the run in {self.output} has {done['processes']} "
                f"processes, this one has {self.process.count}; start as many, or choose another "
                "output"
            )
        device = self.process.device
        training.model.load_state_dict(read_safetensors(storage.join(folder, "model.safetensors")))
        training.optimiser.load_state_dict(_read(storage.join(folder, "optimiser.pt"), device))
        own = _read(storage.join(folder, self._name()), torch.device("cpu"))
        training.loader.load_state_dict(own["loader"])
        training.meter = Meter(device, Totals(*own["meter"]))
        torch.set_rng_state(own["torch"])
        random.setstate(own["python"])
        if "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], device)
        training.step = done["step"]
        return True

    def _name(self) -> str:
        return f"process-{self.process.rank:05d}.pt"

    def _steps(self) -> list[int]:
        """Steps of the complete checkpoints of this run, ascending."""
        fs, path = storage.resolve(storage.join(self.output, "checkpoints"))
        fs.invalidate_cache()
        if not fs.isdir(path):
            return []
        names = (re.search(r"(\d{8,})/?$", name) for name in fs.ls(path, detail=False))
        steps = sorted(int(match[1]) for match in names if match)
        return [step for step in steps if self._is_ours(step)]

    def _is_ours(self, step: int) -> bool:
        return self._read_done(step) is not None

    def _latest(self) -> int:
        """The step of the latest checkpoint whose files are as they were written; 0 without one."""
        for step in reversed(self._steps()):
            done = self._read_done(step) or {}
            if done.get("sha256") in (None, _digests(self._folder(step))):
                return step
            logger.warning(
                "pretrain_vit: %s is not as it was written; the one before it is used",
                self._folder(step),
            )
        return 0

    def _read_done(self, step: int) -> dict[str, Any] | None:
        """What says that a checkpoint is complete; None without it, or where it is damaged."""
        url = storage.join(self._folder(step), _DONE)
        try:
            done = storage.read_json(url)
        except DamagedFileError as error:
            logger.warning("pretrain_vit: %s", error)
            return None
        ours = {"step": step, "fingerprint": self.fingerprint}
        known = done is not None and isinstance(done.get("processes"), int)
        return done if done is not None and known and ours.items() <= done.items() else None


def _digests(folder: str) -> dict[str, str]:
    """The sha256 of each file of a checkpoint, by name."""
    fs, path = storage.resolve(folder)
    fs.invalidate_cache(path)
    names = sorted(posixpath.basename(name) for name in fs.ls(path, detail=False))
    return {
        name: storage.sha256_of(storage.join(folder, name))
        for name in names
        if name != _DONE and not name.startswith(".")
    }


def _write(url: str, state: dict[str, Any]) -> None:
    with storage.open_atomic(url) as file:
        torch.save(state, file)


def _read(url: str, device: torch.device) -> dict[str, Any]:
    fs, path = storage.resolve(url)
    state: dict[str, Any] = torch.load(
        io.BytesIO(fs.cat_file(path)), map_location=device, weights_only=True
    )
    return state
