"""The training reader against plain webdataset decoding of the same tars.

    python -m benchmarks.reader                      # generated JPEGs as large as web images
    python -m benchmarks.reader --photos FOLDER      # JPEG files of your own
    python -m benchmarks.reader --part speed         # only one part: speed, targets or memory

speed: images per second from a DataLoader that decodes, crops to 224 px (Inception) and batches.
Our reader also joins the labels and makes targets of them; webdataset's has no labels. Decoder,
crop, batch size and number of workers are the same. The readers take turns, and every epoch starts
its own workers; the ratio is the median over the rounds. targets: sparse targets against dense ones
of 21,841 floats that the workers make. memory: that of the largest worker, over several epochs.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.photographs import jpegs
from coyo_labeler import storage
from coyo_labeler.config.pretrain_vit import AugmentSettings
from coyo_labeler.data import Batch, LabelledImages, Loader, MultiHot, collate
from coyo_labeler.data.decode import decode_rgb
from coyo_labeler.formats import schemas, tars
from coyo_labeler.pretrain.augment import training_transform
from coyo_labeler.progress import Progress

FOLDER = Path(__file__).parents[1] / "out" / "bench" / "reader"
CLASSES, LISTED, FIRST_ID = 21_841, 50, 1 << 33
THRESHOLD = 0.05
#: Mean size of COYO's images, in pixels.
WIDTH, HEIGHT = 622, 541


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        generate(arguments)
        for name, part in {"speed": speed, "targets": targets, "memory": memory}.items():
            if arguments.part in (name, "all"):
                part(arguments)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of JPEG files; else crops of two photographs")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--buffer", type=int, default=256, help="encoded images each worker holds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6, help="of the memory part")
    parser.add_argument("--part", choices=["all", "speed", "targets", "memory"], default="all")
    return parser.parse_args()


# -- data -----------------------------------------------------------------------------------------


def generate(arguments: argparse.Namespace) -> None:
    """Write images/ as fetch does, beliefs/ by shard, and posterior/ as merge does."""
    files = jpegs(arguments.photos, crops=30, quality=90, size=(WIDTH, HEIGHT))
    random = np.random.default_rng(1)
    per_shard = arguments.images // arguments.shards
    (FOLDER / "images").mkdir(parents=True)
    rows = []
    for shard in range(arguments.shards):
        ids = FIRST_ID + np.arange(shard * per_shard, (shard + 1) * per_shard)
        samples = []
        for index, image_id in enumerate(ids.tolist()):
            key = f"{shard:05d}{index:04d}"
            document = json.dumps({"id": image_id, "key": key, "url": "http://127.0.0.1/"})
            parts = {"jpg": files[image_id % len(files)], "json": document.encode()}
            samples.append((key, parts))
        with (FOLDER / f"images/{shard:05d}.tar").open("wb") as file:
            tars.write(file, samples)
        rows.append(beliefs_of(ids, random))
        storage.write_parquet(str(FOLDER / f"beliefs/{shard:05d}.parquet"), rows[-1])
        images = {"id": ids, "status": ["success"] * per_shard}
        storage.write_parquet(str(FOLDER / f"images/{shard:05d}.parquet"), pa.table(images))
    write_posterior(rows, random)
    size = np.mean([len(content) for content in files]) / 1024
    print(
        f"{arguments.images} JPEGs of {size:.0f} KiB on average in {arguments.shards} tars, "
        f"{LISTED} labels each; batches of {arguments.batch}, {arguments.workers} workers; "
        f"{os.cpu_count()} cores; torch {torch.__version__}, webdataset {webdataset.__version__}, "
        f"Pillow {Image.__version__}",
        flush=True,
    )


def write_posterior(shards: list[pa.Table], random: np.random.Generator) -> None:
    """Write a quarter of the images, the voted ones, into four files; the others by shard."""
    table = pa.concat_tables(shards)
    part = random.integers(0, 16, len(table))
    for number in range(4):
        url = str(FOLDER / f"posterior/voted-{number:05d}.parquet")
        storage.write_parquet(url, table.filter(pa.array(part == number)))
    for number, start in enumerate(range(0, len(table), len(shards[0]))):
        unvoted = pa.array(part[start : start + len(shards[0])] >= 4)
        storage.write_parquet(
            str(FOLDER / f"posterior/{number:05d}.parquet"), shards[number].filter(unvoted)
        )


def beliefs_of(ids: np.ndarray, random: np.random.Generator) -> pa.Table:
    """Rows of labels; as in COYO, some 3 per image have a probability of 0.05 or more."""
    n = len(ids)
    first = random.integers(0, CLASSES, (n, 1))
    labels = (first + np.cumsum(random.integers(1, 400, (n, LISTED)), axis=1)) % CLASSES
    tail = np.exp(-np.cumsum(random.exponential(0.8, (n, LISTED)), axis=1))
    probs = (THRESHOLD + (1 - THRESHOLD) * random.beta(1.2, 1.2, (n, 1))) * tail / tail[:, :1]
    offsets = np.arange(0, (n + 1) * LISTED, LISTED, dtype=np.int32)
    columns = {
        "id": ids,
        "url": ["http://127.0.0.1/"] * n,
        "imagehash": ["8000000000000000"] * n,
        "labels": pa.ListArray.from_arrays(offsets, labels.astype(np.int32).ravel()),
        "label_probs": pa.ListArray.from_arrays(offsets, probs.astype(np.float32).ravel()),
        "width": np.full(n, WIDTH, np.int32),
        "height": np.full(n, HEIGHT, np.int32),
    }
    return pa.table(columns).cast(schemas.BELIEFS)


# -- what is measured -----------------------------------------------------------------------------


def dataset(arguments: argparse.Namespace, labels: str = "beliefs", **more: Any) -> LabelledImages:
    return LabelledImages(
        str(FOLDER / "images"),
        str(FOLDER / labels),
        target=MultiHot(THRESHOLD),
        transform=crop(),
        shuffle_buffer=arguments.buffer,
        **more,
    )


def crop() -> Callable[[Image.Image], torch.Tensor]:
    return training_transform(224, AugmentSettings())


def ours(arguments: argparse.Namespace, labels: str = "beliefs") -> Iterator[Batch]:
    data = dataset(arguments, labels)
    return iter(Loader(data, arguments.batch, num_workers=arguments.workers))


def plain(arguments: argparse.Namespace) -> Iterator[list[torch.Tensor]]:
    """webdataset as in its documentation; the JSON beside each picture is not parsed."""
    urls = sorted(str(path) for path in (FOLDER / "images").glob("*.tar"))
    pipeline = (
        webdataset.WebDataset(urls, shardshuffle=100)
        .shuffle(arguments.buffer)
        .to_tuple("jpg")
        .map_tuple(decode_rgb)
        .map_tuple(crop())
        .batched(arguments.batch, collation_fn=stacked)
    )
    loader = webdataset.WebLoader(pipeline, batch_size=None, num_workers=arguments.workers)
    return iter(loader)


def stacked(samples: list[tuple[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([picture for (picture,) in samples])


def dense_in_workers(arguments: argparse.Namespace) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Our reader with targets that the workers expand, as in coyo-vit."""
    loader = DataLoader(
        dataset(arguments),
        arguments.batch,
        num_workers=arguments.workers,
        collate_fn=expanded,
    )
    return iter(loader)


def expanded(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate(samples)
    return batch.images, batch.targets.dense(CLASSES)


def sparse_then_dense(arguments: argparse.Namespace) -> Iterator[torch.Tensor]:
    for batch in ours(arguments):
        yield batch.targets.dense(CLASSES)


def rate(batches: Iterator[Any], images: int, progress: Progress, done: int) -> float:
    """Images per second over an epoch, including the start of the workers."""
    start, seen = time.perf_counter(), 0
    for batch in batches:
        seen += len(batch if not isinstance(batch, tuple) else batch[0])
        progress.update(done + seen)
    assert seen == images, f"{seen} of {images} images"
    return seen / (time.perf_counter() - start)


def in_turns(
    arguments: argparse.Namespace, kinds: dict[str, Callable[[argparse.Namespace], Iterator[Any]]]
) -> dict[str, list[float]]:
    """Images per second of each kind, one epoch per round; the first round does not count."""
    images = arguments.images // arguments.shards * arguments.shards
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with Progress("reader", images * len(kinds) * (arguments.rounds + 1), "images") as progress:
        for turn in range(arguments.rounds + 1):
            for index, (name, make) in enumerate(kinds.items()):
                done = images * (turn * len(kinds) + index)
                measured = rate(make(arguments), images, progress, done)
                if turn:
                    rates[name].append(measured)
    return rates


def table(rates: dict[str, list[float]], base: str) -> None:
    print(f"{'':<44}{'images/s':>9}{'ratio':>8}   in each round")
    for name, measured in rates.items():
        ratios = [own / other for own, other in zip(measured, rates[base], strict=True)]
        print(
            f"{name:<44}{statistics.median(measured):>9.0f}{statistics.median(ratios):>8.3f}   "
            + " ".join(f"{ratio:.3f}" for ratio in ratios)
        )
    print(flush=True)


def speed(arguments: argparse.Namespace) -> None:
    kinds = {
        "webdataset, no labels": plain,
        "coyo_labeler.data, beliefs by shard": ours,
        "coyo_labeler.data, posterior of merge": lambda given: ours(given, "posterior"),
    }
    table(in_turns(arguments, kinds), "webdataset, no labels")


def targets(arguments: argparse.Namespace) -> None:
    kinds = {
        "dense targets made in the workers": dense_in_workers,
        "sparse targets, expanded in the trainer": sparse_then_dense,
        "sparse targets": ours,
    }
    table(in_turns(arguments, kinds), "dense targets made in the workers")
    batch = next(iter(Loader(dataset(arguments), arguments.batch)))
    parts = (batch.targets.classes, batch.targets.weights, batch.targets.offsets)
    sparse = sum(part.nbytes for part in parts) / len(batch)
    start = time.perf_counter()
    for _ in range(20):
        batch.targets.dense(CLASSES)
    seconds = (time.perf_counter() - start) / 20 / len(batch)
    print(
        f"bytes per image from worker to trainer: sparse {sparse:.0f}, dense {4 * CLASSES:,}; "
        f"expanding takes {1e6 * seconds:.0f} µs per image on one CPU core\n",
        flush=True,
    )


# -- memory ---------------------------------------------------------------------------------------


def memory_mib(process: int) -> float:
    """Anonymous memory of a process, which no file backs. Linux only.

    Memory that a forked worker shares with its parent counts from the start. Otherwise it would
    look like growth once the worker touches it.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    sizes = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return int(sizes["Anonymous"].split()[0]) / 1024


def memory(arguments: argparse.Namespace) -> None:
    """Print the memory of the largest worker at each tenth of consecutive epochs."""
    if not sys.platform.startswith("linux"):
        print("memory: measured on Linux only")
        return
    images = arguments.images // arguments.shards * arguments.shards * arguments.epochs
    for labels in ("beliefs", "posterior"):
        loader = Loader(
            dataset(arguments, labels),
            arguments.batch,
            num_workers=arguments.workers,
            epochs=arguments.epochs,
        )
        seen, measured = 0, []
        with Progress(f"memory, {labels}", images, "images") as progress:
            for batch in loader:
                seen += len(batch)
                progress.update(seen)
                if seen * 10 // images > len(measured) and seen < images - 4 * arguments.batch:
                    children = multiprocessing.active_children()
                    measured.append([memory_mib(child.pid) for child in children if child.pid])
        print(f"MiB of the largest worker at each tenth of {images:,} images, {labels}:")
        print("  " + " ".join(f"{max(sizes):.0f}" for sizes in measured), flush=True)


if __name__ == "__main__":
    main()
