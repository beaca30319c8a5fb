import io
import json
import struct
from pathlib import Path

import crc32c
import numpy as np
import pytest
from PIL import Image
from tfrecord.reader import tfrecord_loader

from coyo_labeler.export import tfrecord


def picture(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 6), "teal" if mode != "P" else 3).save(buffer, kind)
    return buffer.getvalue()


def test_an_independent_parser_reads_the_examples(tmp_path: Path) -> None:
    rows = [
        (bytes(range(256)) * 900, [8087, 0, 21840, 127, 128], [0.5, 0.4, 0.3, 0.2, 0.1]),
        (b"small", [3], [1.0]),
        (b"", [2**31 - 1, 300], [1e-8, 0.0]),
    ]  # fmt: skip
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(tfrecord.frame(tfrecord.example(*row)) for row in rows))
    declared = {"image": "byte", "labels": "int", "label_probs": "float"}
    examples = list(tfrecord_loader(str(path), None, declared))
    assert len(examples) == len(rows)
    for example, (image, labels, probs) in zip(examples, rows, strict=True):
        assert bytes(example["image"]) == image
        assert example["labels"].tolist() == labels
        np.testing.assert_array_equal(example["label_probs"], np.array(probs, np.float32))


def test_the_sums_of_a_record_are_masked_crc32c() -> None:
    # RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8A9136AA.
    record = bytes(32)
    assert crc32c.crc32c(record) == 0x8A9136AA
    framed = tfrecord.frame(record)
    length, _, data, stored = struct.unpack("<Q4s32sI", framed)
    assert (length, data) == (32, record)
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    assert ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF == 0x8A9136AA


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_tensorflow_decodes_stays_byte_for_byte(kind: str) -> None:
    data = picture(kind)
    assert tfrecord.decodable(data) == (data, False)


@pytest.mark.parametrize(("kind", "mode"), [("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "RGBA")])
def test_what_it_does_not_decode_becomes_a_jpeg_of_three_channels(kind: str, mode: str) -> None:
    data, again = tfrecord.decodable(picture(kind, mode))
    assert again
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (8, 6))


def test_transparency_turns_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "WEBP", lossless=True)
    data, _ = tfrecord.decodable(buffer.getvalue())
    with Image.open(io.BytesIO(data)) as image:
        assert image.getpixel((4, 4)) == (255, 255, 255)


def test_the_metadata_is_what_tfds_4_5_writes_of_the_same_features() -> None:
    # tensorflow-datasets 4.5.0's own folder_dataset.write_metadata wrote these.
    files = tfrecord.metadata_files("coyo_labeled", "1.0.0", [3, 0, 2], 0, "")
    info = files["dataset_info.json"]
    assert (info["name"], info["version"], info["fileFormat"]) == (
        "coyo_labeled",
        "1.0.0",
        "tfrecord",
    )
    (split,) = info["splits"]
    assert split["name"] == "train" and split["shardLengths"] == ["3", "0", "2"]
    features = files["features.json"]
    assert features["type"] == "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    assert features["proto_cls"] == "tensorflow_datasets.FeaturesDict"
    tensor = {"shape": {"dimensions": ["-1"]}, "encoding": "none"}
    assert json.loads(features["content"]) == {
        "features": {
            "labels": {
                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                "tensor": {**tensor, "dtype": "int32"},
            },
            "image": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"},
            },
            "label_probs": {
                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                "tensor": {**tensor, "dtype": "float32"},
            },
        }
    }


def test_shards_are_named_as_tfds_looks_for_them() -> None:
    assert (
        tfrecord.shard_name("coyo_labeled", 3, 12) == "coyo_labeled-train.tfrecord-00003-of-00012"
    )
