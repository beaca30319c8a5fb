from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from coyo_labeler.demo import pretrain
from coyo_labeler.manifest import read_manifest
from tests.data.shards import write_labels
from tests.pretrain.pictures import write_tinted

CONF = Path(__file__).parents[2] / "conf"


def write_demo(folder: Path) -> None:
    """Two tars; the machine takes every third picture of class 0 or 1 for the next class."""
    for shard in range(2):
        ids = range(shard * 90, shard * 90 + 90)
        write_tinted(folder / f"images/{shard:05d}.tar", ids)
        truth = {each: ([each % 3, 9], [0.9, 0.05]) for each in ids}
        taken = {each: ([min(2, each % 3 + 1), 9], [0.9, 0.05]) for each in ids if each % 4 < 3}
        write_labels(folder / f"merged/voted-{shard:05d}.parquet", truth)
        write_labels(folder / f"beliefs/{shard:05d}.parquet", {**truth, **taken})
    gold = {"image_id": list(range(60, 180)), "label": [each % 3 for each in range(60, 180)]}
    (folder / "gold").mkdir()
    pq.write_table(pa.table(gold), folder / "gold/gold.parquet")


def test_better_labels_train_a_better_network_on_the_same_pictures(tmp_path: Path) -> None:
    write_demo(tmp_path)
    found = pretrain.pretrain(str(tmp_path))
    assert found["accuracy"]["merged"] > 0.9
    assert found["accuracy"]["machine"] < 0.6
    assert found["trained_on"] == {"machine": 180 - found["held_out"]} | {
        "merged": 180 - found["held_out"]
    }
    seconds = found["seconds"]
    assert pretrain.pretrain(str(tmp_path))["seconds"] == seconds  # there was nothing to do
    configs = [read_manifest(str(tmp_path / f"pretrain/{name}")) for name in pretrain.LABELS]
    assert all(manifest is not None for manifest in configs)
    paths = {"labels", "output"}
    left, right = ({k: v for k, v in m.config.items() if k not in paths} for m in configs if m)
    assert left == right


def test_the_tiny_configuration_is_the_demos() -> None:
    shown = (CONF / f"{pretrain.PRESET}.yaml").read_text()
    assert yaml.safe_load(shown)["num_classes"] == 10
