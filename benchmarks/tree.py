"""What the label tree is worth in merge and select, on a simulated hierarchy.

    python -m benchmarks.tree               # 3,000 images, some minutes
    python -m benchmarks.tree images=1000

Classes are those at or below WordNet's carnivore and motor vehicle. The truth of an image is a leaf
and all classes above it. The machine's probabilities fall with the distance to the truth in the
tree, with noise. Workers are right with probability 0.85.

- merge, truth=multi: each image has some verifications of classes that its belief lists. Quality of
  the posterior over all listed classes, without and with tree=true. The machine is trained on one
  label per image, so that dog and beagle share what there is ("competing"), or on all ("closed").
- select: rounds of one answer per image, as kind=verify and as kind=tree, merged with truth=single.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

ROOTS = ("n02075296", "n03791235")  # carnivore, motor vehicle
WORKERS, ACCURACY, LISTED = 20, 0.85, 20


class World:
    """Images with their leaf, and what the machine says of each: a softmax over all classes."""

    def __init__(self, images: int, seed: int) -> None:
        all_classes = read_label_tree("imagenet21k")
        nodes = np.unique(
            np.concatenate([all_classes.node_set(all_classes.node(r)) for r in ROOTS])
        )
        self.synsets = tuple(all_classes.synsets[n] for n in nodes.tolist())
        self.tree: LabelTree = read_label_tree(LabelSpace("w", len(self.synsets), self.synsets))
        self.random = np.random.default_rng(seed)
        self.leaf = self.random.choice(self.tree.leaves, images)
        classes = np.arange(len(self.synsets))
        distance = np.stack(
            [self.tree.distance(classes, np.full(len(classes), c)) for c in classes]
        )
        score = -0.9 * distance[self.leaf] + self.random.gumbel(0, 1.3, (images, len(classes)))
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        self.probs = weight / weight.sum(axis=1, keepdims=True)
        offsets, above = self.tree.class_ancestors()
        self.is_above = np.zeros((len(classes), len(classes)), dtype=bool)
        self.is_above[np.repeat(classes, np.diff(offsets)), above] = True

    def there(self, image: Any, label: Any) -> Any:
        """Whether classes are in images: they are the leaf, or above it."""
        return self.is_above[self.leaf[image], label]

    def answer(self, truth: Any) -> Any:
        right = self.random.random(len(truth)) < ACCURACY
        return np.where(truth == right, "yes", "no")


def write_beliefs(folder: Path, probs: Any) -> tuple[Any, Any]:
    """Write the most probable classes of each image; returns image and class of each entry."""
    top = np.argsort(-probs, axis=1)[:, :LISTED]
    rows = np.take_along_axis(probs, top, axis=1)
    n = len(probs)
    columns = {
        name: pa.nulls(n, schemas.BELIEFS.field(name).type) for name in schemas.BELIEFS.names
    }
    columns |= {
        "id": pa.array(np.arange(n)),
        "labels": pa.array(top.tolist(), pa.list_(pa.int32())),
    }
    columns["label_probs"] = pa.array(rows.tolist(), pa.list_(pa.float32()))
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=schemas.BELIEFS), folder / "00000.parquet")
    return np.repeat(np.arange(n), LISTED), top.ravel()


def run(stage: str, **settings: Any) -> None:
    words = [f"{key}={value}" for key, value in settings.items()]
    run_stage(STAGES[stage], read_stage_settings(STAGES[stage], [*words, "engine=local"]))


def read_lists(folder: Path) -> dict[int, dict[int, float]]:
    rows = pq.read_table(folder / "posterior", columns=["id", "labels", "label_probs"]).to_pylist()
    return {r["id"]: dict(zip(r["labels"], r["label_probs"], strict=True)) for r in rows}


def multi(folder: Path, images: int, machine: str, votes: float, seed: int) -> None:
    """Print the quality of the posterior over listed classes, without and with the tree."""
    world = World(images, seed)
    probs = world.probs
    if machine == "closed":
        noise = np.exp(world.random.normal(0, 0.3, probs.shape))
        probs = np.clip(probs @ world.is_above * noise, 1e-4, 0.999)
    image, label = write_beliefs(folder / "beliefs", probs)
    asked = world.random.choice(len(image), round(votes * images), replace=False)
    rows = {
        "image_id": image[asked],
        "worker_id": [f"w{n}" for n in world.random.integers(0, WORKERS, len(asked))],
        "label": label[asked],
        "response": world.answer(world.there(image[asked], label[asked])),
    }
    pq.write_table(pa.table(rows), folder / "votes.parquet")
    (folder / "space.txt").write_text("\n".join(world.synsets))
    truth = world.there(image, label)
    for tree in ("false", "true"):
        given = {"label_space": folder / "space.txt", "beliefs": folder / "beliefs"}
        given |= {"votes": folder / "votes.parquet", "output": folder / tree, "tree": tree}
        run("merge", truth="multi", **given)
        found = read_lists(folder / tree)
        p = np.array([found[i][c] for i, c in zip(image.tolist(), label.tolist(), strict=True)])
        q = np.clip(p, 1e-6, 1 - 1e-6)
        loss = -np.where(truth, np.log(q), np.log(1 - q)).mean()
        wrong = ((p >= 0.5) != truth).mean()
        torn = [
            found[i][c] > found[i][a] + 1e-6
            for i in found
            for c in found[i]
            for a in found[i]
            if a != c and world.is_above[c, a]
        ]
        print(
            f"| {machine} | {votes:g} | {tree} | {loss:.3f} | {100 * wrong:.1f} % | "
            f"{((p - truth) ** 2).mean():.4f} | {100 * np.mean(torn):.0f} % |",
            flush=True,
        )


def rounds(folder: Path, images: int, kind: str, number: int, seed: int) -> None:
    """Print how many first labels are right after each round of one answer per image."""
    world = World(images, seed)
    write_beliefs(folder / "beliefs", world.probs)
    (folder / "space.txt").write_text("\n".join(world.synsets))
    space, labels, collected = {"label_space": folder / "space.txt"}, folder / "beliefs", []
    for step in range(1, number + 1):
        ask = {"labels": labels, "output": folder / f"q{step}", "kind": kind, "round": step}
        ask |= {"budget": images, "audit": 0, "max_votes": 99, "repeat_risk": 0} | space
        if collected:
            ask["votes"] = folder / "votes"
        run("select", **ask)
        table = pq.read_table(folder / f"q{step}/questions")
        sets = [
            [label] if label is not None else candidates
            for label, candidates in zip(
                table["label"].to_pylist(), table["candidates"].to_pylist(), strict=True
            )
        ]
        ids = table["image_id"].to_numpy()
        inside = np.array([world.leaf[i] in s for i, s in zip(ids.tolist(), sets, strict=True)])
        votes = {
            "image_id": ids,
            "worker_id": [f"w{n}" for n in world.random.integers(0, WORKERS, len(ids))],
            "label": table["label"],
            "response": world.answer(inside),
            "candidates": table["candidates"],
        }
        (folder / "votes").mkdir(exist_ok=True)
        collected.append(step)
        pq.write_table(pa.table(votes), folder / f"votes/{step}.parquet")
        labels = folder / f"m{step}"
        more = {"beliefs_are": "categorical", "votes": folder / "votes", "output": labels} | space
        run("merge", beliefs=folder / "beliefs", duplicate_votes="last", tree="true", **more)
        found = read_lists(labels)
        first = np.array([next(iter(found[i])) for i in range(images)])
        right = (first == world.leaf).mean()
        far = world.tree.distance(first.astype(np.int64), world.leaf.astype(np.int64)).mean()
        size = np.mean([len(s) for s in sets])
        print(f"| {kind} | {step} | {right:.3f} | {far:.2f} | {size:.1f} |", flush=True)


def main() -> None:
    settings = dict(word.split("=", 1) for word in sys.argv[1:])
    images, seed = int(settings.get("images", 3000)), int(settings.get("seed", 0))
    with tempfile.TemporaryDirectory() as temporary:
        print(
            "| machine | votes per image | tree | log loss | wrong at 0.5 | Brier | contradictory |"
        )
        for machine in ("competing", "closed"):
            for votes in (0.5, 2, 5):
                multi(Path(temporary, f"{machine}{votes}"), images, machine, votes, seed)
        print(
            "| kind | answers per image | first label right | steps to the truth | classes asked |"
        )
        for kind in ("verify", "tree"):
            rounds(Path(temporary, kind), images, kind, 6, seed)


if __name__ == "__main__":
    main()
