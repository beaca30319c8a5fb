"""Writes conf/<stage>.yaml of every stage: `python -m coyo_labeler.write_conf`, or `make conf`."""

from pathlib import Path

from coyo_labeler.config.describe import yaml_text
from coyo_labeler.config.read import CONF
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.stages import STAGES


def default_files() -> dict[Path, str]:
    """The text of the default file of each stage and of `round`, by its path."""
    texts = {stage.name: yaml_text(stage.settings_class(), stage.name) for stage in STAGES.values()}
    texts["round"] = yaml_text(RoundSettings, "round")
    return {CONF / f"{name}.yaml": text for name, text in texts.items()}


if __name__ == "__main__":
    for path, text in default_files().items():
        path.write_text(text)
