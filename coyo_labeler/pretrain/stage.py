"""The stage `pretrain_vit`, called by the command line in one process or in the first of several.

Under torchrun only the first process reads settings, claims the output and writes the manifest. The
others wait for it to send them the settings to train with.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coyo_labeler.config.pretrain_vit import PretrainVitSettings
from coyo_labeler.manifest import Outcome, Run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def pretrain_vit(spark: "SparkSession | None", settings: PretrainVitSettings, run: Run) -> Outcome:
    """Train a Vision Transformer on labelled images.

    Raises: InputError if settings and data do not fit.
    """
    from coyo_labeler.pretrain.distributed import this_process  # noqa: PLC0415
    from coyo_labeler.pretrain.loop import train  # noqa: PLC0415

    process = this_process(settings.device)
    process.broadcast((settings, run.fingerprint))
    return train(settings, run.fingerprint, process)


def in_group(command: Callable[[], None]) -> None:
    """Join the processes that torchrun started; run the command in the first, follow in the others.

    command: the stage, with its settings. An error leaves the group as it is: torchrun ends the
    processes that wait for this one.
    """
    from coyo_labeler.pretrain import distributed  # noqa: PLC0415

    distributed.join_group()
    process = distributed.this_process("cpu")
    if process.first:
        command()
        process.broadcast(None)
    else:
        _follow()
    distributed.leave_group()


def _follow() -> None:
    """Train with the settings that the first process sends, until it sends None."""
    from coyo_labeler.pretrain.distributed import this_process  # noqa: PLC0415
    from coyo_labeler.pretrain.loop import train  # noqa: PLC0415

    task: tuple[PretrainVitSettings, str] | None
    while (task := this_process("cpu").broadcast(None)) is not None:
        settings, fingerprint = task
        train(settings, fingerprint, this_process(settings.device))
