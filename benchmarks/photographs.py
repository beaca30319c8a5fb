"""JPEG files for the benchmarks: photographs of one's own, or crops of scikit-learn's."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def jpegs(
    folder: str | None, crops: int, quality: int, size: tuple[int, int] | None = None
) -> list[bytes]:
    """The files of a folder, or else JPEGs of random crops of scikit-learn's two photographs.

    crops: of each photograph. size: (width, height) to scale them to; left out, a crop of 350 to
    640 × 300 to 427 pixels keeps its size, which is that of web images.
    """
    if folder:
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    random, files = np.random.default_rng(0), []
    for photo in load_sample_images().images * crops:
        height, width = random.integers(300, 427), random.integers(350, 640)
        top, left = random.integers(0, 427 - height + 1), random.integers(0, 640 - width + 1)
        crop = Image.fromarray(photo[top : top + height, left : left + width])
        file = io.BytesIO()
        (crop.resize(size) if size else crop).save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return files
