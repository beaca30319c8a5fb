import json
import subprocess
import sys
from pathlib import Path

import fsspec
import webdataset

from coyo_labeler.data import LabelledImages
from tests.data.shards import FIRST_ID, Folders, ids_of, picture, row_of, write_labels
from tests.tars import write_members


def test_any_fsspec_filesystem_is_read(folders: Folders, tmp_path: Path) -> None:
    folders(3, 2, table=True)
    memory = fsspec.filesystem("memory")
    for path in [*tmp_path.glob("images/*"), *tmp_path.glob("beliefs/*")]:
        memory.pipe_file(f"/reader/{path.parent.name}/{path.name}", path.read_bytes())
    dataset = LabelledImages("memory://reader/images", "memory://reader/beliefs")
    assert sorted(ids_of(dataset)) == list(range(FIRST_ID, FIRST_ID + 5))


def test_an_id_that_is_text_is_read_as_a_number(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(1)
    meta = json.dumps({"id": str(FIRST_ID)}).encode()
    members = [("folder/a.JPEG", picture(1, form="JPEG")), ("folder/a.json", meta)]
    write_members(tmp_path / "images/00000.tar", members)
    assert [sample.key for sample in LabelledImages(images, labels)] == ["folder/a"]


def test_webdataset_reads_the_same_samples_from_tars_of_its_own(tmp_path: Path) -> None:
    tars = [tmp_path / f"images/{shard:05d}.tar" for shard in range(2)]
    tars[0].parent.mkdir()
    for shard, tar in enumerate(tars):
        ids = range(10 * shard, 10 * shard + 4)
        with webdataset.TarWriter(str(tar)) as writer:
            for image_id in ids:
                sample = {"png": picture(image_id), "json": {"id": image_id}, "txt": "caption"}
                writer.write({"__key__": f"{image_id:09d}", **sample})
        write_labels(tmp_path / f"beliefs/{tar.stem}.parquet", {each: row_of(each) for each in ids})
    urls = [str(tar) for tar in tars]
    theirs = webdataset.WebDataset(urls, shardshuffle=False).decode("pilrgb")
    ours = LabelledImages(str(tmp_path / "images"), str(tmp_path / "beliefs"), shuffle=False)
    assert [(s.key, s.id, s.image.tobytes()) for s in ours] == [
        (each["__key__"], each["json"]["id"], each["png"].tobytes()) for each in theirs
    ]


def test_pytorch_pyarrow_and_fsspec_are_all_that_the_reader_imports() -> None:
    others = ["pyspark", "pydantic", "yaml", "tqdm", "webdataset", "timm", "torchvision", "PIL"]
    others += ["pandas", "cv2", "torchdata", "pythonjsonlogger", "safetensors", "tensorboard"]
    code = f"import sys; sys.modules.update(dict.fromkeys({others})); import coyo_labeler.data"
    subprocess.run([sys.executable, "-c", code], check=True)
