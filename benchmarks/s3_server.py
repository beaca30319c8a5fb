"""A server of moto's for S3 that begins with the files of a folder, and lists them in order.

    python -m benchmarks.s3_server FOLDER PORT

Each folder in FOLDER is a bucket. moto looks at all keys and sorts them for each page of a listing,
which takes a second where there are 280,000. Here the names are kept in order.
"""

import sys
from bisect import bisect_left, bisect_right, insort
from pathlib import Path
from typing import Any

from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends
from moto.server import main as serve

ACCOUNT = "123456789012"

#: The names in each bucket, in order.
_names: dict[str, list[str]] = {}
_put, _delete = S3Backend.put_object, S3Backend.delete_object


def put_object(self: S3Backend, bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
    """As moto's, with the name kept in order."""
    names = _names.setdefault(bucket_name, [])
    is_new = key_name not in self.get_bucket(bucket_name).keys
    key = _put(self, bucket_name, key_name, *rest, **more)
    if is_new:
        insort(names, key_name)
    return key


def delete_object(self: S3Backend, bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
    """As moto's, with the name removed."""
    names = _names.setdefault(bucket_name, [])
    result = _delete(self, bucket_name, key_name, *rest, **more)
    index = bisect_left(names, key_name)
    if names[index : index + 1] == [key_name]:
        del names[index]
    return result


def list_objects_v2(
    self: S3Backend,
    bucket: FakeBucket,
    prefix: str | None,
    delimiter: str | None,
    continuation_token: str | None,
    start_after: str | None,
    max_keys: int,
) -> tuple[list[FakeKey | str], bool, str | None]:
    """A page of keys, and of folders where there is a delimiter; tokens are names."""
    names, prefix = _names.get(bucket.name, []), prefix or ""
    after = continuation_token or start_after or ""
    index = max(bisect_left(names, prefix), bisect_right(names, after))
    entries: list[FakeKey | str] = []
    last = ""
    while index < len(names) and names[index].startswith(prefix):
        if len(entries) == max_keys:
            return entries, True, last
        head, found, _ = names[index][len(prefix) :].partition(delimiter or "\0")
        if found:
            last = prefix + head + found
            index = bisect_left(names, last[:-1] + chr(ord(last[-1]) + 1))
            if last > after:
                entries.append(last)
        else:
            last = names[index]
            entries.append(bucket.keys[last])
            index += 1
    return entries, False, None


def fill(folder: Path) -> None:
    """Put the files of a folder into the buckets of its folders."""
    backend = s3_backends[ACCOUNT]["aws"]
    for bucket in folder.iterdir():
        backend.create_bucket(bucket.name, "us-east-1")
        paths = sorted(path for path in bucket.rglob("*") if path.is_file())
        for path in paths:
            backend.put_object(bucket.name, str(path.relative_to(bucket)), path.read_bytes())


if __name__ == "__main__":
    S3Backend.put_object = put_object  # type: ignore[method-assign]
    S3Backend.delete_object = delete_object  # type: ignore[method-assign]
    S3Backend.list_objects_v2 = list_objects_v2  # type: ignore[method-assign,assignment]
    fill(Path(sys.argv[1]))
    serve(["-H", "127.0.0.1", "-p", sys.argv[2]])
