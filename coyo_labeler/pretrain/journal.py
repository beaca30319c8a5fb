"""The log of a training: JSON lines and TensorBoard events."""

import json
import math
from types import TracebackType
from typing import TYPE_CHECKING, Any

from coyo_labeler import storage
from coyo_labeler.storage_errors import parsing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"


class Journal:
    """Appends to `output/metrics.jsonl`, and to TensorBoard events in `output/tensorboard/`.

    step: the step that the training resumes from; lines of later steps, by a killed run, are
    dropped.
    """

    def __init__(self, output: str, step: int, tensorboard: bool) -> None:
        self._url = storage.join(output, METRICS)
        self._lines = [line for line in read_journal(output) if line["step"] <= step]
        self._events = _open_events(output, step) if tensorboard else None

    def write(self, step: int, **values: float) -> None:
        """Append a line of values by name, after `step` steps. NaN is written as null."""
        known = {name: None if math.isnan(value) else value for name, value in values.items()}
        self._lines.append({"step": step, **known})
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        storage.write_bytes(self._url, text.encode())
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()


def read_journal(output: str) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; [] if there is none."""
    url = storage.join(output, METRICS)
    if not storage.exists(url):
        return []
    with parsing(url, "remove it: the log begins anew"):
        lines = [json.loads(line) for line in storage.read_text(url).splitlines()]
        if not all(isinstance(line["step"], int) for line in lines):
            raise ValueError("a step is no number")
        return lines


def _open_events(output: str, step: int) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    folder = storage.join(output, "tensorboard")
    return SummaryWriter(storage.local_path(folder) or folder, purge_step=step + 1)
