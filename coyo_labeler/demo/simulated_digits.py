"""Inputs of `make simulate`: `python -m coyo_labeler.demo.simulated_digits FOLDER`.

The features of each digit are its 64 counts of ink. 10 images of each class are known at the start.
"""

import sys

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.demo.digits import load
from coyo_labeler.learn.out_of_fold import sample_by_class

_KNOWN_PER_CLASS = 10


def write_inputs(folder: str) -> None:
    """Write embeddings/, gold.parquet and seed_gold.parquet below a folder."""
    ink, label = load()
    image = np.arange(len(label), dtype=np.int64)
    flat = pa.array(ink.reshape(-1).astype(np.float16))
    vectors = pa.FixedSizeListArray.from_arrays(flat, ink[0].size)
    features = pa.table({"id": image, "embedding": vectors})
    gold = pa.table({"image_id": image, "label": label})
    known = sample_by_class(image, label.astype(np.int64), _KNOWN_PER_CLASS)
    storage.write_parquet(storage.join(folder, "embeddings", "00000.parquet"), features)
    storage.write_parquet(storage.join(folder, "gold.parquet"), gold)
    storage.write_parquet(storage.join(folder, "seed_gold.parquet"), gold.take(pa.array(known)))


if __name__ == "__main__":
    write_inputs(sys.argv[1])
