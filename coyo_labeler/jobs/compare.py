"""spark-submit entry point of the stage `compare`; `--help` lists its keys."""

from coyo_labeler.cli import job

if __name__ == "__main__":
    job("compare")
