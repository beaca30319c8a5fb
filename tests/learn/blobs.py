"""Features of a few classes, as tables: gaussian clouds whose class a linear learner can find."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def blobs(images, classes, features, seed=0, spread=1.0):
    """Features (images, features) float32 and classes (images,)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    centres = rng.normal(size=(classes, features))
    return (centres[truth] + spread * rng.normal(size=(images, features))).astype(np.float32), truth


def one_hot(labels, classes):
    return np.eye(classes, dtype=np.float32)[labels]


def write_embeddings(folder, ids, features, files=2, kind=None):
    """{file:05d}.parquet with id and embedding; kind: None: float16 lists of fixed size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(np.array_split(np.arange(len(ids)), files)):
        if kind is None:
            flat = pa.array(features[rows].astype(np.float16).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
        else:
            vectors = pa.array(features[rows].tolist(), kind)
        table = pa.table({"id": pa.array(ids[rows], pa.int64()), "embedding": vectors})
        pq.write_table(table, folder / f"{number:05d}.parquet")
    return str(folder)


def write_posterior(file, ids, probabilities, votes=None):
    """Rows of BELIEFS, or of POSTERIOR where votes (n,) are given."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns = {
        "id": pa.array(ids, pa.int64()),
        "url": pa.array([f"u{image}" for image in ids]),
        "imagehash": pa.nulls(len(ids), pa.string()),
        "labels": pa.array(order.tolist(), pa.list_(pa.int32())),
        "label_probs": pa.array(
            np.take_along_axis(probabilities, order, 1).tolist(), pa.list_(pa.float32())
        ),
        "width": pa.array([8] * len(ids), pa.int32()),
        "height": pa.array([8] * len(ids), pa.int32()),
    }
    if votes is not None:
        columns["n_votes"] = pa.array(votes, pa.int32())
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return str(file)


def write_classes(file, classes):
    file.write_text("".join(f"class {number}\n" for number in range(classes)))
    return str(file)
