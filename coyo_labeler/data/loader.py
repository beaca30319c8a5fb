"""Batches from worker processes, with a state that resumes exactly, even within an epoch.

PyTorch's DataLoader delivers the batches of its workers in turn. Each batch here carries the state
of its worker after the batch. The last state of every worker, and whose turn it is, are all that
resuming needs. (torchdata's StatefulDataLoader does the same inside a copy of DataLoader's private
parts; its last release is of February 2025. The reader's own `state_dict` works with it too.)
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from coyo_labeler.data.batch import Batch, collate
from coyo_labeler.data.dataset import LabelledImages
from coyo_labeler.errors import InputError

#: (worker, its state after the batch, the batch), or (worker, None, an error's message).
_Item = tuple[int, dict[str, Any] | None, Batch | str]


class Loader:
    """Iterates over batches of a `LabelledImages`, in worker processes.

    batch_size: samples per batch of this process. num_workers: 0 reads in this process. epochs: how
    many to read, from the dataset's own on; None never ends, and no worker waits between epochs.
    With `drop_last` all batches are full. Where there are several epochs, a batch may hold samples
    of two. After its end, a loader can be iterated again, from the dataset's epoch at that time.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        batch_size: int,
        *,
        num_workers: int = 0,
        epochs: int | None = 1,
        drop_last: bool = False,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
        multiprocessing_context: str | None = None,
    ) -> None:
        self._dataset, self._batch_size = dataset, batch_size
        self._workers, self._epochs, self._drop_last = max(1, num_workers), epochs, drop_last
        self._options: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
        if num_workers:
            self._options |= {
                "prefetch_factor": prefetch_factor,
                "multiprocessing_context": multiprocessing_context,
            }
        self._states: dict[int, dict[str, Any]] = {}
        self._turn = 0
        self._counted: Counter[str] = Counter()  # in completed iterations

    @property
    def counts(self) -> "Counter[str]":
        """Images so far: drawn = used + waiting + unlabelled + empty + undecodable + held_out, and
        samples that are no images (`faults.Fault`).
        """
        total = Counter(self._counted)
        for state in self._states.values():
            total.update(state["counts"])
        return total

    @property
    def waiting(self) -> int:
        """Images that are drawn from the tars and wait in the workers' shuffle buffers."""
        return sum(len(state["buffer"]) for state in self._states.values())

    def __iter__(self) -> Iterator[Batch]:
        batches = _Batches(
            self._dataset,
            self._batch_size,
            epochs=self._epochs,
            drop_last=self._drop_last,
            states=self._states,
            turn=self._turn,
        )
        with warnings.catch_warnings():
            # The number of workers is chosen, and decides the order; they wait for a store, too.
            warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes")
            loader = DataLoader(
                batches,
                batch_size=None,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # else it would advance the trainer's random numbers
                **self._options,
            )
            items = iter(loader)
        for worker, state, batch in cast(Iterator[_Item], items):
            if state is None:
                raise InputError(str(batch))
            self._states[worker] = state
            self._turn = (worker + 1) % self._workers
            yield cast(Batch, batch)
        self._counted, self._states, self._turn = self.counts, {}, 0

    def state_dict(self) -> dict[str, Any]:
        """After a batch: what a loader with the same arguments needs to continue with the next."""
        return {
            "dataset": self._dataset.fingerprint(),
            "batch_size": self._batch_size,
            "workers": self._workers,
            "turn": self._turn,
            "counted": dict(self._counted),
            "states": dict(self._states),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue where another loader stopped.

        Raises: InputError where that one had other shards, another order, batch size or workers.
        """
        own = self.state_dict()
        for key in ("dataset", "batch_size", "workers"):
            if state[key] != own[key]:
                raise InputError(
                    f"reader: cannot resume: {key} was {state[key]}, is {own[key]}; give the same "
                    "shards, seed, batch size and workers as before"
                )
        self._states = {int(worker): dict(each) for worker, each in state["states"].items()}
        self._turn, self._counted = state["turn"], Counter(state["counted"])


class _Batches(IterableDataset[_Item]):
    """Batches, each with the state of its worker."""

    def __init__(
        self,
        dataset: LabelledImages,
        batch_size: int,
        *,
        epochs: int | None,
        drop_last: bool,
        states: Mapping[int, dict[str, Any]],
        turn: int,
    ) -> None:
        self._dataset, self._batch_size = dataset, batch_size
        self._epochs, self._drop_last = epochs, drop_last
        self._states, self._turn = dict(states), turn

    def __iter__(self) -> Iterator[_Item]:
        info = get_worker_info()
        process, workers = (info.id, info.num_workers) if info else (0, 1)
        # DataLoader begins with its worker 0, which takes the part of the worker whose turn it is.
        worker = (process + self._turn) % workers
        try:
            yield from self._batches(worker, workers)
        except InputError as error:  # DataLoader would wrap the message in a stack trace
            yield worker, None, str(error)

    def _batches(self, worker: int, workers: int) -> Iterator[_Item]:
        reader = self._dataset.reader(worker, workers, self._dataset.epoch)
        end = None if self._epochs is None else reader.epoch + self._epochs
        state = self._states.get(worker)
        if state is not None:
            reader.load_state_dict(state)
        samples = []
        for epoch in count(reader.epoch):
            if epoch != reader.epoch:
                if epoch == end:
                    break
                reader.begin(epoch)
            used = reader.counts["used"]
            for sample in reader:
                samples.append(sample)
                if len(samples) == self._batch_size:
                    yield worker, reader.state_dict(), collate(samples)
                    samples = []
            if self._epochs is None and reader.counts["used"] == used and state is None:
                raise InputError(
                    f"reader: worker {worker} of {workers} got no sample in epoch {epoch}; there "
                    "are too few images for so many workers, or the threshold leaves none"
                )
            state = None
        if samples and not self._drop_last:
            yield worker, reader.state_dict(), collate(samples)


def _as_it_is(item: Any) -> Any:
    return item
