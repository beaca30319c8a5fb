"""200 questions about images that are at hand: two photographs and 198 scanned digits."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_sample_images

from coyo_labeler.demo.digits import load, photograph
from coyo_labeler.formats import schemas, tars
from coyo_labeler.formats.label_spaces import load_label_space

QUESTIONS = 200

#: What the photographs may show, by name; the first one is right.
_CLASSES = {
    "flower.jpg": ("n11960245", "n11950345", "n12034141", "n11978233", "n12620196"),
    "china.jpg": ("n04407435", "n04407686", "n03877845", "n04210390", "n03427296"),
}


def write(folder: Path) -> None:
    """Write images/00000.tar and questions.parquet: half choices, half verifications.

    Ids lie above 2^53, where a browser would round numbers.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    samples, rows = [], []
    space = load_label_space("imagenet21k")
    for number, (data, classes) in enumerate(_images(space.synsets or ())):
        key = f"00000{number:04d}"
        image_id = 2**53 + 1 + number
        samples.append((key, {"jpg": data, "json": f'{{"id": {image_id}}}'.encode()}))
        rows.append(_question(number, image_id, key, classes))
    with (folder / "images" / "00000.tar").open("wb") as file:
        tars.write(file, samples)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schemas.QUESTIONS), folder / "questions.parquet"
    )


def _images(synsets: "list[str] | tuple[str, ...]") -> "list[tuple[bytes, list[int]]]":
    random = np.random.default_rng(0)
    images = []
    photographs = load_sample_images()
    for path, pixels in zip(photographs.filenames, photographs.images, strict=True):
        wanted = _CLASSES[Path(path).name]
        classes = [synsets.index(synset) for synset in wanted if synset in synsets]
        images.append((_jpeg(Image.fromarray(pixels)), classes))
    ink, _ = load()
    for number in range(QUESTIONS - len(images)):
        classes = random.choice(len(synsets), 5, replace=False).tolist()
        images.append((_jpeg(photograph(ink[number], number)), classes))
    return images


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _question(number: int, image_id: int, key: str, classes: list[int]) -> dict[str, object]:
    is_choice = number % 2 == 0
    label = None if is_choice else classes[0]
    return {
        "question_id": f"check:{image_id}" + ("" if is_choice else f":{label}"),
        "image_id": image_id,
        "key": key,
        "url": f"https://example.org/{number}.jpg",
        "kind": "choice" if is_choice else "verify",
        "label": label,
        "candidates": classes if is_choice else None,
        "candidate_probs": [0.5, 0.2, 0.1, 0.1, 0.1] if is_choice else None,
        "purpose": ("uncertain", "audit", "gold")[number % 3],
        "inclusion_probability": 0.25,
        "overlap": 2,
        "risk": 0.5,
        "worker_id": None,
    }
