"""Where an annotation tool finds a question's image: at its own URL, or in a folder of ours."""

import logging
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from coyo_labeler import storage
from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.config.send import SendSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats.image_shards import Shard, find_shards, read_index
from coyo_labeler.formats.single_pictures import read_pictures
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.progress import Progress
from coyo_labeler.redact import without_parameters

logger = logging.getLogger(__name__)

#: How a tool reaches a file: see the setting image_url; `prefix`: by an http(s) URL.
Access = Literal["local_files", "signed", "uri", "path", "prefix"]

#: Besides a URL of the folder.
_OF_LABEL_STUDIO, _OF_OTHERS = {"local_files", "signed", "uri"}, {"signed", "path"}


@dataclass(frozen=True)
class Shown:
    """An image as a tool gets it. url: what it shows. recorded: the same without a signature."""

    url: str
    recorded: str


class Images:
    """The images of questions, as a tool gets them.

    folder: where single images lie; None: the tool shows the questions' URLs. files: name below
    the folder by image id. root: folder that the tool serves. prefix: URL of the folder.
    """

    def __init__(
        self,
        folder: str | None = None,
        files: Mapping[int, str] | None = None,
        access: Access = "path",
        root: str = "",
        prefix: str = "",
        signed_seconds: int = 0,
    ) -> None:
        self.folder, self.files, self.access, self.root = folder, files or {}, access, root
        self._prefix, self._signed_seconds = prefix, signed_seconds

    @property
    def are_urls(self) -> bool:
        """Whether the tool gets http(s) URLs, which it need not have a folder for."""
        return self.folder is None or self.access in {"signed", "prefix"}

    def find(self, question: Question) -> Shown | None:
        """The image of a question; None where there is none."""
        if self.folder is None:
            url = question.url or ""
            return (
                Shown(url, without_parameters(url))
                if url.startswith(("http://", "https://"))
                else None
            )
        name = self.files.get(question.image_id)
        return None if name is None else self._shown(name)

    def path_of(self, name: str) -> str:
        """A file of the folder, as a path below the root that the tool serves."""
        assert self.folder is not None
        return posixpath.relpath(storage.join(_plain(self.folder), name), _plain(self.root))

    def _shown(self, name: str) -> Shown:
        assert self.folder is not None
        url = storage.join(self.folder, name)
        if self.access == "signed":
            fs, path = storage.resolve(url)
            return Shown(fs.sign(path, expiration=self._signed_seconds), url)
        if self.access == "uri":
            return Shown(url, url)
        if self.access == "prefix":
            shown = storage.join(self._prefix, quote(name))
            return Shown(shown, without_parameters(shown))
        if self.access == "local_files":
            shown = f"/data/local-files/?d={quote(self.path_of(name))}"
        else:
            shown = self.path_of(name)
        return Shown(shown, shown)


def _plain(url: str) -> str:
    return storage.resolve(url)[1]


def prepare_images(settings: SendSettings, wanted: Collection[int]) -> Images:
    """Copy the wanted images out of their tars, where there are tars, and say how they are reached.

    Raises: InputError where the folder does not fit the way in which the tool shall reach it, or a
    tar is damaged.
    """
    if settings.images is None:
        return Images()
    folder = storage.absolute(settings.image_folder or storage.join(settings.output, "images"))
    access, prefix = _access_of(settings, folder)
    root = _root_of(settings, folder, access)
    shards = find_shards(settings.images, settings.ids, "send: images")
    files = _extract(shards, wanted, folder, settings.threads)
    return Images(folder, files, access, root, prefix, settings.signed_seconds)


def _access_of(settings: SendSettings, folder: str) -> tuple[Access, str]:
    is_local = storage.is_local(storage.resolve(folder)[0])
    chosen = settings.image_url
    if chosen.startswith(("http://", "https://")):
        return "prefix", chosen
    if chosen == "auto":
        if not is_local:
            chosen = "path" if settings.cloud_storage is not None else "signed"
        elif settings.to.startswith("label_studio"):
            chosen = "local_files"
        else:
            chosen = "path"
    usable = _OF_LABEL_STUDIO if settings.to.startswith("label_studio") else _OF_OTHERS
    if chosen not in usable:
        raise InputError(
            f"send: image_url: {settings.to} cannot reach images by {chosen}; leave image_url out, "
            "or give the http(s) URL of the folder"
        )
    if chosen in {"signed", "uri"} and is_local:
        raise InputError(
            f"send: image_url: {chosen} needs an object store, and image_folder is {folder}; give "
            "image_folder=s3://…, or image_url=local_files"
        )
    if chosen == "local_files" and not is_local:
        raise InputError(
            f"send: image_url: local_files needs a folder of this machine, and image_folder is "
            f"{folder}; give image_url=signed"
        )
    access: Access = chosen  # type: ignore[assignment]  # the settings refuse other words
    return access, ""


def _root_of(settings: SendSettings, folder: str, access: Access) -> str:
    """The folder that the tool serves: the setting, else Label Studio's variable, else above."""
    variable = os.environ.get("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", "")
    served = variable if access == "local_files" else ""
    root = storage.absolute(settings.document_root or served or posixpath.dirname(folder))
    if access in {"local_files", "path"}:
        inside = posixpath.relpath(_plain(folder), _plain(root))
        if inside.startswith("..") or (access == "local_files" and inside == "."):
            raise InputError(
                f"send: document_root: image_folder {folder} does not lie below {root}, so the "
                "tool would not serve it; give an image_folder below it"
            )
    return root


def _extract(
    shards: list[Shard], wanted: Collection[int], folder: str, threads: int
) -> dict[int, str]:
    """Copy images into `folder/{shard}/`; returns their names below the folder, by id.

    Those that are there were written whole, and are kept.

    Raises: InputError naming a tar that cannot be read.
    """
    files: dict[int, str] = {}
    with (
        Progress("send: images", len(shards), "tars") as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        found = pool.map(lambda shard: _extract_shard(shard, wanted, folder), shards)
        for number, of_shard in enumerate(found, 1):
            for image_id, name in of_shard.items():
                files.setdefault(image_id, name)
            progress.update(number, images=f"{len(files):,}")
    return files


def _extract_shard(shard: Shard, wanted: Collection[int], folder: str) -> dict[int, str]:
    try:
        keys = {key: image_id for key, image_id in read_index(shard) if image_id in wanted}
        if not keys:
            return {}
        there = dict(_present(storage.join(folder, shard.name)))
        files = {i: f"{shard.name}/{there[i]}" for i in keys.values() if i in there}
        missing = {key: image_id for key, image_id in keys.items() if image_id not in files}
        for key, ending, data in read_pictures(shard.url, missing) if missing else ():
            name = f"{shard.name}/{missing[key]}.{ending}"
            storage.write_bytes(storage.join(folder, name), data)
            files[missing[key]] = name
        return files
    except DamagedTarError as error:
        raise InputError(
            f"send: images: {error.url} is damaged ({error.why}); fetch it again"
        ) from None


def _present(folder: str) -> Iterator[tuple[int, str]]:
    """(image id, file name) of the images that an earlier run has copied."""
    try:
        urls = storage.files_of(folder, suffix="")
    except FileNotFoundError:
        return
    for url in urls:
        name = posixpath.basename(url)
        stem = name.partition(".")[0]
        if stem.lstrip("-").isdecimal():
            yield int(stem), name
