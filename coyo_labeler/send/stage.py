"""The stage `send`: questions go to an annotation tool, each once, or into files for one."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.annotation_tools.questions import CHOICE, Question, read_tables
from coyo_labeler.annotation_tools.records import SENT, Project, Record
from coyo_labeler.config.send import SendSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import Progress
from coyo_labeler.send import files
from coyo_labeler.send.groups import Group, Survey, survey, title_of
from coyo_labeler.send.images import Images, Shown, prepare_images
from coyo_labeler.send.reasons import DETAILS, Reason
from coyo_labeler.send.record import Sent, to_tables
from coyo_labeler.send.wording import Wording

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coyo_labeler.annotation_tools.cvat_api import Cvat
    from coyo_labeler.annotation_tools.label_studio_api import LabelStudio

REJECTS = "rejects"
PART = "part-00000.parquet"

#: Who writes the files of each `to`.
_WRITERS = {
    "label_studio_files": files.write_label_studio,
    "mturk_files": files.write_mturk,
    "csv": files.write_csv,
}


def send(_: "SparkSession | None", settings: SendSettings, run: Run) -> Outcome:
    """Put the questions into the tool of `settings.to`, and record where each one is.

    Reads `settings.questions` (schemas.QUESTIONS) and, where given, the tars of `settings.images`;
    writes sent/ (schemas.SENT), rejects/ (schemas.SEND_REJECTS) and the files of the tool. Risk,
    purpose, probabilities and gold are not read, and so cannot leave.

    Raises: InputError naming the setting, file or value at fault; WorkError where a server fails.
    """
    space = load_label_space(settings.label_space)
    for_cvat = settings.to in {"cvat", "cvat_files"}
    surveyed = survey(read_tables("send", settings.questions, space), by_class=for_cvat)
    if for_cvat and any(group.kind == CHOICE for group in surveyed.groups):
        raise InputError(
            "send: to: CVAT asks yes-or-no questions only, and these are choices; select with "
            "kind=verify, or send them to label_studio"
        )
    servers = _label_studio(settings), _cvat(settings)  # before any image is copied
    images = prepare_images(settings, surveyed.images)
    sending = Sending(settings, run, surveyed, images, Wording(space), *servers)
    sent = sending.cvat() if for_cvat else sending.groups()
    with Progress("send", surveyed.table.num_rows, "questions") as progress:
        tables = to_tables(_counted(sent, progress))
        rows = storage.write_tables(_part(settings.output, SENT), schemas.SENT, tables)
    rejects = pa.Table.from_pylist(sending.rejects, schema=schemas.SEND_REJECTS)
    storage.write_parquet(_part(settings.output, REJECTS), rejects)
    reasons = Counter(str(row["reason"]) for row in sending.rejects)
    record = Record(settings.to, settings.url or "", tuple(sending.projects))
    return Outcome(Counts(surveyed.table.num_rows, rows, reasons), details=record.to_json())


def _label_studio(settings: SendSettings) -> "LabelStudio | None":
    """The server of Label Studio that the questions go to; None: they go elsewhere."""
    if settings.to != "label_studio":
        return None
    from coyo_labeler.annotation_tools.label_studio_api import LabelStudio  # noqa: PLC0415

    url = settings.url or ""
    return LabelStudio.connect("send", url, settings.timeout_seconds, settings.retries)


def _cvat(settings: SendSettings) -> "Cvat | None":
    """The server of CVAT that the questions go to; None: they go elsewhere."""
    if settings.to != "cvat":
        return None
    from coyo_labeler.annotation_tools.cvat_api import Cvat  # noqa: PLC0415

    return Cvat.connect("send", settings.url or "", settings.timeout_seconds, settings.retries)


def _part(output: str, table: str) -> str:
    return storage.join(output, table, PART)


def _counted(sent: Iterable[Sent], progress: Progress) -> Iterator[Sent]:
    for number, row in enumerate(sent, 1):
        progress.update(number)
        yield row


@dataclass
class Sending:
    """What is sent, and what is found on the way.

    label_studio, cvat_server: where the questions go, if to a server. projects: those of it.
    rejects: rows of schemas.SEND_REJECTS.
    """

    settings: SendSettings
    run: Run
    surveyed: Survey
    images: Images
    wording: Wording
    label_studio: "LabelStudio | None" = None
    cvat_server: "Cvat | None" = None
    projects: list[Project] = field(default_factory=list)
    rejects: list[dict[str, object]] = field(default_factory=list)

    @property
    def _name(self) -> str:
        return self.settings.project or self.surveyed.round_name

    def groups(self) -> Iterator[Sent]:
        """Send group by group, to Label Studio or into files."""
        settings = self.settings
        if self.label_studio is not None:
            yield from self._to_label_studio(self.label_studio)
            return
        kinds = len({group.kind for group in self.surveyed.groups})
        names = files.file_names({group.key.worker for group in self.surveyed.groups})
        for group in self.surveyed.groups:
            folder = files.Folder(settings.output, group, kinds, names[group.key.worker])
            write = _WRITERS[settings.to]
            yield from write(folder, group, self._usable(group), self.wording)

    def _to_label_studio(self, api: "LabelStudio") -> Iterator[Sent]:
        from coyo_labeler.send import label_studio as tool  # noqa: PLC0415

        opened = []
        for group in self.surveyed.groups:  # all, before anything is sent to one
            project = tool.open_project(api, group, title_of(group, self._name), self.images)
            questions = self.surveyed.questions_of(group)
            present = tool.find_present(api, project, questions, self.images, self.wording)
            opened.append((group, project, present))
        for group, project, present in opened:
            self._note(project)
            usable, batch_size = self._usable(group), self.settings.batch_size
            yield from tool.send_tasks(api, project, usable, present, self.wording, batch_size)

    def cvat(self) -> Iterator[Sent]:
        """Send task by task, to CVAT or into files."""
        from coyo_labeler.send import cvat  # noqa: PLC0415
        from coyo_labeler.send.cvat_tasks import tasks_of  # noqa: PLC0415

        settings, images = self.settings, self.images
        if images.folder is not None and settings.cloud_storage is not None:
            cvat.write_manifest(images)
        api = self.cvat_server
        number = 0
        for group in self.surveyed.groups:
            usable = self._usable(group)
            for task in tasks_of(group, usable, self._name, self.wording, settings.job_images):
                if api is not None:
                    storage_id = settings.cloud_storage
                    self._note(cvat.send_task(api, task, images, storage_id))
                else:
                    cvat.write_task(settings.output, number, task, images, settings.cloud_storage)
                number += 1
                yield from cvat.sent_rows(task)

    def _note(self, project: Project) -> None:
        if not self.projects:
            self.run.note_effects()
        self.projects.append(project)

    def _usable(self, group: Group) -> Iterator[tuple[Question, Shown]]:
        """The questions of a group that can be asked; the others become rejects."""
        for question in self.surveyed.questions_of(group):
            shown = self.images.find(question)
            if question.kind == CHOICE and not question.candidates:
                self._reject(question, Reason.NO_CANDIDATES)
            elif shown is None:
                is_copied = self.images.folder is not None
                self._reject(question, Reason.NO_IMAGE if is_copied else Reason.NO_URL)
            else:
                yield question, shown

    def _reject(self, question: Question, reason: Reason) -> None:
        self.rejects.append(
            {
                "question_id": question.question_id,
                "image_id": question.image_id,
                "reason": str(reason),
                "detail": DETAILS[reason],
            }
        )
