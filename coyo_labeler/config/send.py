"""Settings of the stage `send`."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coyo_labeler.config.base import StageSettings
from coyo_labeler.formats.image_ids import Ids


class SendSettings(StageSettings):
    """Put questions into an annotation tool, or into the files that it imports."""

    inputs: ClassVar[tuple[str, ...]] = ("questions", "images")
    paths: ClassVar[tuple[str, ...]] = ("image_folder", "document_root")
    by_content: ClassVar[frozenset[str]] = frozenset({"label_space"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "timeout_seconds",
        "retries",
        "batch_size",
        "threads",
    }

    sections: ClassVar[Mapping[str, str]] = {
        "questions": "Input and output",
        "url": "The tool",
        "images": "The images",
        "timeout_seconds": "How the work is done",
    }

    questions: str = Field(
        description="what to ask: output of select, or Parquet in its schema",
        examples=["rounds/0001/questions"],
    )
    to: Literal[
        "label_studio", "cvat", "label_studio_files", "cvat_files", "mturk_files", "csv"
    ] = Field(
        description="label_studio or cvat: a server, over its API; label_studio_files, cvat_files, "
        "mturk_files or csv: files in output, to import by hand",
        examples=["label_studio_files"],
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    url: str | None = Field(
        None,
        description="start page of the server, such as http://127.0.0.1:8080; its token comes from "
        "the environment: LABEL_STUDIO_API_KEY or CVAT_ACCESS_TOKEN",
    )
    project: str | None = Field(
        None,
        description="first words of the names of projects and tasks; null: the round in the "
        "question ids",
    )
    job_images: int = Field(
        200, ge=1, le=100_000, description="images in one job of CVAT, where no worker is assigned"
    )
    cloud_storage: int | None = Field(
        None, description="CVAT's number of the cloud storage that holds image_folder"
    )
    images: str | None = Field(
        None,
        description="tars that hold the images, which are then copied to image_folder; null: the "
        "tool shows the questions' URLs",
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    image_folder: str | None = Field(
        None, description="folder for single images, any fsspec URL; null: images/ in output"
    )
    image_url: str = Field(
        "auto",
        description="how the tool reaches image_folder: an http(s) URL of the folder; local_files: "
        "Label Studio's own files, below document_root; signed: signed URLs of an object store; "
        "uri: s3://…, which Label Studio signs itself; path: the path below document_root, for "
        "CVAT and files; auto: signed for object stores, path with cloud_storage, local_files for "
        "Label Studio, else path",
    )
    document_root: str | None = Field(
        None,
        description="folder above image_folder that the tool serves or mounts; null: the folder "
        "above it",
    )
    signed_seconds: int = Field(
        604_800, ge=60, le=604_800, description="how long signed URLs are valid; S3 allows 7 days"
    )
    timeout_seconds: float = Field(
        60.0, gt=0, description="seconds that a server may be silent before a request is repeated"
    )
    retries: int = Field(
        6, ge=0, le=20, description="repetitions of a request after an overload or a broken line"
    )
    batch_size: int = Field(
        500, ge=1, le=5000, description="tasks that are sent at once to Label Studio"
    )
    threads: int = Field(8, ge=1, le=64, description="tars that are read at once")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.to in {"label_studio", "cvat"} and not self.url:
            raise ValueError(f"url is missing; to={self.to} needs the server's start page")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url '{self.url}' does not begin with http:// or https://")
        words = {"auto", "local_files", "signed", "uri", "path"}
        if self.image_url not in words and not self.image_url.startswith(("http://", "https://")):
            raise ValueError(
                f"image_url '{self.image_url}' is no http(s) URL and none of "
                + ", ".join(sorted(words))
            )
        if "?" in self.image_url or "#" in self.image_url:
            raise ValueError(
                f"image_url '{self.image_url}' is no URL of a folder: names of images are put "
                "behind it; for a bucket give image_folder=s3://… and image_url=signed"
            )
        return self
