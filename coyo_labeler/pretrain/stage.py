"""The stage `pretrain_vit`, called by the command line in one process or in the first of several.

Under torchrun only the first process reads settings, claims the output and writes the manifest. The
others wait for it to send them the settings to train with.
"""

import sys
from typing import TYPE_CHECKING

from coyo_labeler import cli
from coyo_labeler.config.pretrain_vit import PretrainVitSettings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import Outcome, Run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def pretrain_vit(spark: "SparkSession | None", settings: PretrainVitSettings, run: Run) -> Outcome:
    """Train a Vision Transformer on labelled images.

    Raises: InputError if PyTorch or timm is missing, or settings and data do not fit.
    """
    try:
        from coyo_labeler.pretrain.distributed import this_process  # noqa: PLC0415
        from coyo_labeler.pretrain.loop import train  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"pretrain_vit: {error.name} is not installed; pip install 'coyo-labeler[train]'"
        ) from None
    process = this_process(settings.device)
    process.broadcast((settings, run.fingerprint))
    return train(settings, run.fingerprint, process)


def job() -> None:
    """The body of `jobs/pretrain_vit.py`, alone or under torchrun."""
    try:
        from coyo_labeler.pretrain import distributed  # noqa: PLC0415
    except ImportError:
        cli.job("pretrain_vit")  # names the package that is missing
        return
    if distributed.torchrun_processes() == 1:
        cli.job("pretrain_vit")
    distributed.join_group()
    if distributed.this_process("cpu").first:
        status = cli.main(["pretrain_vit", *sys.argv[1:]])
        if status == cli.DONE:  # on any other status torchrun ends the others
            distributed.this_process("cpu").broadcast(None)
    else:
        status = cli.guard(_follow)
    if status == cli.DONE:
        distributed.leave_group()
    sys.exit(status)


def _follow() -> None:
    """Train with the settings that the first process sends, until it sends None."""
    from coyo_labeler.pretrain.distributed import this_process  # noqa: PLC0415
    from coyo_labeler.pretrain.loop import train  # noqa: PLC0415

    task: tuple[PretrainVitSettings, str] | None
    while (task := this_process("cpu").broadcast(None)) is not None:
        settings, fingerprint = task
        train(settings, fingerprint, this_process(settings.device))
