"""TFRecord files and the metadata with which TensorFlow Datasets reads a folder of them.

The files are what coyo-vit's loader (`tfds.builder_from_directory`, TFDS 4.5) expects:
`tf.train.Example`s of `image` (the encoded picture), `labels` and `label_probs`. The format is
small and fixed, so this module writes it without TensorFlow: an Example is a protocol buffer of
three map entries; a record is a length and the content, each with a masked CRC-32C sum.
"""

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
from PIL import Image

from coyo_labeler.formats.pictures import open_picture, to_rgb

#: The first bytes of pictures that `tf.image.decode_image` decodes to three channels.
_DECODABLE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_JPEG_QUALITY = 95

_FEATURES = "tensorflow_datasets.core.features"


def frame(record: bytes) -> bytes:
    """A record in the form of the file: length, its sum, content, its sum."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_sum(length), record, _masked_sum(record)))


def _masked_sum(data: bytes) -> bytes:
    total = crc32c.crc32c(data)
    rotated = (total >> 15 | total << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def example(image: bytes, labels: npt.ArrayLike, probs: npt.ArrayLike) -> bytes:
    """A serialised `tf.train.Example` of image, labels (int64 list) and label_probs (float list).

    labels: (k,) integers from 0; probs: (k,), written as float32.
    """
    ids = b"".join(map(_varint, np.asarray(labels, np.int64).tolist()))
    floats = np.asarray(probs, "<f4").tobytes()
    # Feature: bytes_list = 1, float_list = 2, int64_list = 3; the value of each list is field 1.
    features = {
        b"image": _field(1, _field(1, image)),
        b"label_probs": _field(2, _field(1, floats)),
        b"labels": _field(3, _field(1, ids)),
    }
    entries = (
        _field(1, _field(1, name) + _field(2, feature)) for name, feature in features.items()
    )
    return _field(1, b"".join(entries))


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return b"".join((_varint(number << 3 | 2), _varint(len(data)), data))


def _varint(value: int) -> bytes:
    """A number from 0, seven bits per byte, the lowest first."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def decodable(image: bytes) -> tuple[bytes, bool]:
    """An image that TensorFlow decodes, and whether it had to be re-encoded for that.

    JPEG and PNG stay unchanged. Of WebP, GIF, TIFF and the like, the first frame becomes a JPEG
    (quality 95), with alpha on white. EXIF orientation is not applied, as in TensorFlow.

    Raises: ImageError where the image does not decode.
    """
    if image.startswith(_DECODABLE):
        return image, False
    with open_picture(image) as opened:
        picture = opened
        if opened.has_transparency_data:
            picture = Image.new("RGBA", opened.size, "white")
            picture.alpha_composite(opened.convert("RGBA"))
        buffer = io.BytesIO()
        to_rgb(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), True


def shard_name(name: str, number: int, count: int) -> str:
    """The file name of a shard that TFDS expects."""
    return f"{name}-train.tfrecord-{number:05d}-of-{count:05d}"


def metadata_files(
    name: str, version: str, shard_lengths: Sequence[int], num_bytes: int, description: str
) -> Mapping[str, Mapping[str, Any]]:
    """dataset_info.json and features.json, in the form that TFDS 4.5 to 4.9 read.

    version: three numbers. shard_lengths: records of each shard, in order.
    """
    info = {
        "name": name,
        "version": version,
        "description": description,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": "train",
                "shardLengths": [str(length) for length in shard_lengths],
                "numBytes": str(num_bytes),
            }
        ],
    }
    features = {
        "features": {
            "image": {
                "pythonClassName": f"{_FEATURES}.image_feature.Image",
                "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"},
            },
            "labels": _tensor("int32"),
            "label_probs": _tensor("float32"),
        }
    }
    # Later versions write the message itself, but also read this; 4.5 reads only this.
    document = {
        "type": f"{_FEATURES}.features_dict.FeaturesDict",
        "content": json.dumps(features),
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }
    return {"dataset_info.json": info, "features.json": document}


def _tensor(dtype: str) -> Mapping[str, Any]:
    shape = {"dimensions": ["-1"]}
    return {
        "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
        "tensor": {"shape": shape, "dtype": dtype, "encoding": "none"},
    }
