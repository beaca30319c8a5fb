"""The checkpoints that several test files share."""

import pytest
import torch

from coyo_labeler.config.label import LabelSettings
from tests.label.jobs import FILES
from tests.label.tars import write_tar
from tests.label.teachers import MODEL, save_teacher


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Nets this small are slower on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_teacher(tmp_path_factory):
    """A checkpoint of ten classes at 64 px, and the text file that names them."""
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(folder / "model.safetensors", 10, 64)
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return folder


@pytest.fixture(scope="session")
def goog_teacher(tmp_path_factory):
    """A checkpoint with the 21,843 outputs of timm's in21k models."""
    path = tmp_path_factory.mktemp("goog") / "model.safetensors"
    save_teacher(path, 21_843, 96)
    return path


@pytest.fixture(scope="session")
def small_spec(small_teacher):
    """Keys of a job or TeacherSpec with the small teacher."""
    return {
        "model": MODEL,
        "checkpoint": str(small_teacher / "model.safetensors"),
        "label_space": str(small_teacher / "labels.txt"),
        "activation": "sigmoid",
        "preprocess": "automl_64",
        "precision": "float32",
        "batch_size": 4,
    }


@pytest.fixture
def images(tmp_path):
    for shard, count in enumerate((6, 5, 3)):
        write_tar(tmp_path / "images", shard, [*FILES[:count], b"poison"])
    return tmp_path / "images"


@pytest.fixture
def settings(images, tmp_path, small_spec):
    def make(output="beliefs", **changes):
        keys = {"engine": "local", "device": "cpu", **small_spec, **changes}
        return LabelSettings(images=str(images), output=str(tmp_path / output), **keys)

    return make
