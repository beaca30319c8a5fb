"""What killed writers leave on S3, on a server of moto's."""

import uuid
from collections.abc import Iterator

import boto3
import pytest
import s3fs
from botocore.utils import parse_timestamp
from moto.server import ThreadedMotoServer

from coyo_labeler import listings, receipt_bundles, storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.listings import find_files, is_folder, list_folder
from coyo_labeler.manifest import Counts, Outcome, Run, read_manifest
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.storage_errors import DamagedFileError
from coyo_labeler.written import describe_files, differing


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, object]]:
    """The name of a bucket, and a client that sees uploads."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=name)
    yield name, client
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


class Example(StageSettings):
    """A stage without inputs."""

    size: int = 1


def begin_upload(client, bucket, key):
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": 1}
    client.upload_part(**part, Body=b"x" * 5_000_000)


def uploads(client, bucket):
    return sorted(
        each["Key"] for each in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    )


def test_a_run_removes_its_unfinished_uploads_when_it_resumes_and_when_it_ends(bucket):
    name, client = bucket
    settings = Example(output=f"s3://{name}/out")
    Run.begin("ingest", settings)
    for key in ("out/a.parquet", "out/catalog/b.parquet", "out-of-others/c.parquet"):
        begin_upload(client, name, key)
    run = Run.begin("ingest", settings)
    assert run.resumed
    assert uploads(client, name) == ["out-of-others/c.parquet"]
    begin_upload(client, name, "out/d.tar")
    run.finish(Outcome(Counts(1, 1)))
    assert uploads(client, name) == ["out-of-others/c.parquet"]
    assert read_manifest(settings.output) is not None


def test_an_output_on_s3_is_cleared_manifest_first(bucket, monkeypatch):
    name, client = bucket
    settings = Example(output=f"s3://{name}/out")
    Run.begin("ingest", settings).finish(Outcome(Counts(1, 1)))
    for key in ("a.parquet", "catalog/b.parquet"):
        storage.write_bytes(f"{settings.output}/{key}", b"rows")
    removed = []

    def kill(path, **options):
        removed.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storage.resolve(settings.output)[0], "rm", kill)
        with pytest.raises(KeyboardInterrupt):
            Run.begin("ingest", Example(output=settings.output, size=2, overwrite=True))
    assert len(removed) == 1
    assert read_manifest(settings.output) is None
    again = Run.begin("ingest", Example(output=settings.output, size=2))
    assert again.done is None
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=name)["Contents"]]
    assert keys == ["out/_run.json"]


def test_a_finished_output_on_s3_that_lost_a_file_is_noticed(bucket):
    name, client = bucket
    settings = Example(output=f"s3://{name}/out")
    run = Run.begin("ingest", settings)
    for key in ("a.parquet", "catalog/b.parquet"):
        storage.write_bytes(f"{settings.output}/{key}", b"rows")
    run.finish(Outcome(Counts(1, 1)))
    fingerprint_input("fetch", "catalog", f"{settings.output}/")
    client.delete_object(Bucket=name, Key="out/catalog/b.parquet")
    with pytest.raises(InputError, match=r"fetch: catalog: .*out/catalog/b\.parquet is missing"):
        fingerprint_input("fetch", "catalog", settings.output)
    assert Run.begin("ingest", settings).done is None
    with pytest.raises(InputError, match="ingest has not finished"):
        fingerprint_input("fetch", "catalog", settings.output)


def test_an_empty_document_on_s3_is_damaged_and_not_an_error_of_the_store(bucket):
    """S3 refuses any range of an empty object."""
    name, client = bucket
    client.put_object(Bucket=name, Key="out/_manifest.json", Body=b"")
    with pytest.raises(DamagedFileError, match="cut short or damaged"):
        read_manifest(f"s3://{name}/out")
    assert read_manifest(f"s3://{name}/none") is None


NAMES = [
    *(f"{shard:05d}.{ending}" for shard in range(0, 70_000, 3500) for ending in ("tar", "parquet")),
    "05",
    "5",  # as a range of names ends
    "_manifest.json",
    "part-00000.parquet",
    "~last",
    "07/in-a-folder",
    "_state/x",
    "zz/in-the-last-folder/deeper",
]


@pytest.mark.parametrize("stem", ["", "voted-0"])
def test_a_folder_of_many_pages_is_listed_as_it_is(bucket, monkeypatch, stem):
    name, client = bucket
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    sizes = {f"{stem}{key}": number for number, key in enumerate(NAMES)}
    for key, size in sizes.items():
        client.put_object(Bucket=name, Key=f"out/{key}", Body=b"x" * size)
    client.put_object(Bucket=name, Key="out/")  # as consoles create a folder
    client.put_object(Bucket=name, Key="out-of-others/1")
    fs = s3fs.S3FileSystem()
    infos = list(list_folder(fs, f"{name}/out"))
    files = {info["name"]: info for info in infos if info["type"] == "file"}
    direct = {f"{name}/out/{key}": size for key, size in sizes.items() if "/" not in key}
    assert {path: info["size"] for path, info in files.items()} == direct
    folders = {f"{name}/out/{key.partition('/')[0]}" for key in sizes if "/" in key}
    assert {info["name"] for info in infos if info["type"] == "directory"} == folders
    assert len(infos) == len(files) + len(folders)  # none twice
    path = f"{name}/out/{stem}00000.tar"
    assert storage.version_of(files[path]) == storage.version_of(fs.info(path))
    assert set(find_files(fs, f"{name}/out")) == {f"{name}/out/{key}" for key in sizes}
    assert list(list_folder(fs, f"{name}/nothing")) == []
    there = {path: is_folder(fs, f"{name}{path}") for path in ("", "/out", "/nothing", "/out/05")}
    assert there == {"": True, "/out": True, "/nothing": False, "/out/05": False}
    assert not is_folder(fs, "no-such-bucket/out")
    assert list(list_folder(fs, "no-such-bucket/out")) == []


def test_a_bucket_whose_keys_are_in_no_order_is_not_listed_by_ranges(monkeypatch):
    fs = s3fs.S3FileSystem(anon=True)
    infos = [{"name": f"ours--use1-az4--x-s3/out/{key}", "type": "file"} for key in "cab"]
    monkeypatch.setattr(fs, "isdir", lambda _: True)
    monkeypatch.setattr(fs, "ls", lambda _, detail: infos)
    assert list(list_folder(fs, "ours--use1-az4--x-s3/out")) == infos


def test_a_file_that_has_its_etag_is_not_read_again(bucket, monkeypatch):
    name, client = bucket
    output = f"s3://{name}/out"
    for key, data in {"a.parquet": b"first", "b.parquet": b"second"}.items():
        storage.write_bytes(f"{output}/{key}", data)
    described = describe_files(output, ["a.parquet", "b.parquet"])
    client.put_object(Bucket=name, Key="out/b.parquet", Body=b"SECOND")
    read = []
    fs, _ = storage.resolve(output)
    cat_ranges = fs.cat_ranges
    monkeypatch.setattr(
        fs,
        "cat_ranges",
        lambda paths, *rest, **more: read.extend(paths) or cat_ranges(paths, *rest, **more),
    )
    assert differing(output, described) == {"b.parquet": "is not the file that was written"}
    assert read == [f"{name}/out/b.parquet"]
    # As versions of the program before this one described it.
    without = {key: file[:2] for key, file in described.items()}
    assert differing(output, without) == {"b.parquet": "is not the file that was written"}
    assert len(read) == 3


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26T08:37:10.000Z",
        "2026-11-26T08:37:10+01:00",
        "Thu, 26 Nov 2026 08:37:10 GMT",
    ],
)
def test_times_of_s3_are_those_of_botocore(text):
    time = listings._parse_time(text)
    assert time == parse_timestamp(text)
    assert time.tzinfo is not None


def test_receipts_in_bundles_cost_a_request_for_each_bundle(bucket, monkeypatch):
    name, client = bucket
    receipts = Receipts(f"s3://{name}/out", "f")
    monkeypatch.setattr(receipt_bundles, "FEWEST", 4)
    monkeypatch.setattr(receipt_bundles, "BUNDLED", 10)
    for shard in range(24):
        receipts.write(Receipt(shard, "f", Counts(3, 3), 1.0, {"n": shard}))
    fs, _ = storage.resolve(f"s3://{name}")
    asked = []
    call = fs._call_s3

    async def counting(method, *words, **more):
        asked.append(method)
        return await call(method, *words, **more)

    monkeypatch.setattr(fs, "_call_s3", counting)

    def gets():
        asked.clear()
        read = receipts.read()
        made = asked.count("get_object")
        assert read == receipts.get_all(range(24))
        return made

    assert gets() == 24
    assert gets() == 3
    key = "out/_receipts/00005.json"
    content = client.get_object(Bucket=name, Key=key)["Body"].read()
    client.put_object(Bucket=name, Key=key, Body=content.replace(b'"n": 5', b'"n": 6'))
    assert gets() == 3 + 1
    client.delete_object(Bucket=name, Key="out/_receipts/00007.json")
    assert gets() == 3 + 1
    for each in client.list_objects_v2(Bucket=name, Prefix="out/_receipt_bundles")["Contents"]:
        client.put_object(Bucket=name, Key=each["Key"], Body=b"cut")
    assert gets() == 3 + 23
    assert gets() == 3
