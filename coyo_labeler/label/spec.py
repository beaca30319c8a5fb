"""What identifies a teacher, also on machines that cannot run it, such as a Spark driver."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coyo_labeler.config.label import LabelSettings


@dataclass(frozen=True)
class TeacherSpec:
    """All that determines a teacher's answers: the settings of `label` with the same names."""

    model: str
    checkpoint: str | None = None
    pretrained: bool | None = None
    model_label_space: str | None = None
    label_space: str = "imagenet21k"
    activation: str = "auto"
    preprocess: str = "automl_512"
    exif_orientation: bool = False
    top_k: int = 50
    batch_size: int = 64
    precision: str = "float16"
    label_probs_dtype: str = "float16"
    embeddings: bool = False
    compile: bool | None = None


def spec_of(settings: "LabelSettings") -> TeacherSpec:
    """The part of the stage's settings that determines the teacher's answers."""
    return TeacherSpec(
        **{field.name: getattr(settings, field.name) for field in fields(TeacherSpec)}
    )
