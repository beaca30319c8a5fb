"""Why an image of a shard cannot be used, by the name that stands in tables, counts and
messages."""

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a sample of a shard, or with its picture."""

    NO_IMAGE = "no_image"  # the tar holds no picture under its key
    NO_ID = "no_id"  # see formats.image_ids
    DUPLICATE_ID = "duplicate_id"  # an earlier sample of the shard has its id
    DUPLICATE_KEY = "duplicate_key"  # its key, or other parts of it, stand before in the tar
    TOO_LARGE = "too_large"  # its bytes or its pixels are more than are read
    UNDECODABLE = "undecodable"  # its bytes are no whole picture


class ImageError(ValueError):
    """The picture of one image cannot be used. fault: why; detail: in a few words, on one line."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault, self.detail = fault, detail

    def __str__(self) -> str:
        return f"{self.fault}: {self.detail}"
