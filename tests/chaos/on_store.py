"""A stage of the pipeline with its output on S3, and its inputs too where Spark does not read them.

Spark itself reads and writes S3 by Hadoop's connector, which is not installed with PySpark. What
Spark reads stays on the local disk.
"""

from pathlib import Path
from typing import Any

from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.chaos.commands import Stage

#: The inputs that Python reads, and so s3fs.
_ON_STORE = {
    "label": ("images",),
    "merge": ("beliefs", "votes", "gold"),
    "report": ("images",),
    "export": ("images",),
}


def run_on_store(stage: Stage, client: Any, bucket: str, folder: Path) -> Manifest:
    """Run a stage; its output comes back into `folder`. client: goes past the failing store."""
    words = [f"output=s3://{bucket}/out"]
    for word in stage.words:
        key, _, value = word.partition("=")
        is_moved = key in _ON_STORE.get(stage.name, ())
        words.append(f"{key}={_upload(client, bucket, Path(value), key)}" if is_moved else word)
    settings = read_stage_settings(STAGES[stage.name], words)
    manifest, _ = run_stage(STAGES[stage.name], settings, stage.spark)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="out/")
    for entry in (entry for page in pages for entry in page.get("Contents", ())):
        path = folder / entry["Key"].removeprefix("out/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, entry["Key"], str(path))
    return manifest


def _upload(client: Any, bucket: str, path: Path, key: str) -> str:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        name = f"in/{key}/{file.relative_to(path if path.is_dir() else path.parent)}"
        client.upload_file(str(file), bucket, name)
    return f"s3://{bucket}/in/{key}" if path.is_dir() else f"s3://{bucket}/in/{key}/{path.name}"
