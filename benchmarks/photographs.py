"""JPEG files for the benchmarks: photographs of one's own, or crops of scikit-learn's."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from coyo_labeler.plan.samples import photograph


def jpegs(
    folder: str | None, crops: int, quality: int, size: tuple[int, int] | None = None
) -> list[bytes]:
    """The files of a folder, or else JPEGs of random crops of scikit-learn's two photographs.

    Without scikit-learn the crops are of a generated picture.

    crops: of each photograph. size: (width, height) to scale them to; left out, a crop of 350 to
    640 × 300 to 427 pixels keeps its size, which is that of web images.
    """
    if folder:
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    random, files = np.random.default_rng(0), []
    for photo in photographs() * crops:
        height, width = random.integers(300, 427), random.integers(350, 640)
        top, left = random.integers(0, 427 - height + 1), random.integers(0, 640 - width + 1)
        crop = Image.fromarray(photo[top : top + height, left : left + width])
        file = io.BytesIO()
        (crop.resize(size) if size else crop).save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return files


def photographs() -> list[np.ndarray]:
    """Pictures of 427 × 640 pixels or more."""
    if find_spec("sklearn") is None:  # a bare GPU machine
        return [np.asarray(Image.open(io.BytesIO(photograph())))] * 2
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    return list(load_sample_images().images)
