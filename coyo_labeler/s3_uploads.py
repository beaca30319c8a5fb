"""Multipart uploads of S3 that killed writers left: in no listing of files, and paid for."""

import logging
from contextlib import suppress
from typing import Any

from fsspec import AbstractFileSystem

from coyo_labeler.errors import one_line

logger = logging.getLogger(__name__)


def abort_uploads(fs: AbstractFileSystem, path: str) -> None:
    """Abort the uploads below a folder that were begun and not completed. fs: of s3fs."""
    bucket, _, key = path.partition("/")
    page: dict[str, Any] = {"IsTruncated": True}
    markers: dict[str, str] = {}
    try:
        while page.get("IsTruncated"):
            page = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/", **markers)
            for upload in page.get("Uploads", ()):
                with suppress(FileNotFoundError):
                    fs.call_s3(
                        "abort_multipart_upload",
                        Bucket=bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
            markers = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
    except (PermissionError, NotImplementedError) as error:
        logger.warning(
            "%s: unfinished uploads of killed writers cannot be listed or removed (%s); a "
            "lifecycle rule of the bucket can do it",
            path,
            one_line(error),
        )
