"""Writes conf/<stage>.yaml of every stage: `python -m coyo_labeler.write_conf`, or `make conf`."""

from pathlib import Path

from coyo_labeler.config.describe import yaml_text
from coyo_labeler.config.read import CONF
from coyo_labeler.stages import STAGES


def default_files() -> dict[Path, str]:
    """The text of the default file of each stage, by its path."""
    return {
        CONF / f"{stage.name}.yaml": yaml_text(stage.settings_class(), stage.name)
        for stage in STAGES.values()
    }


if __name__ == "__main__":
    for path, text in default_files().items():
        path.write_text(text)
