"""Runs of the stage on three small tars with a small teacher."""

from coyo_labeler.stages import STAGES, run_stage
from tests.label.tars import crops, jpeg

FILES = [jpeg(pixels) for pixels in crops(6, seed=5, small=40, large=90)]


def label(settings, spark=None):
    return run_stage(STAGES["label"], settings, spark)


def tables(output):
    """The bytes of every table, by name."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.parquet")}
