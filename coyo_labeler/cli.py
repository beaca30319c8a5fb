"""The command line: `coyo-labeler STAGE key=value …`. The only place that prints and exits."""

import argparse
import gc
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

import coyo_labeler
from coyo_labeler import extras
from coyo_labeler.config.base import StageSettings
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.config.describe import help_text
from coyo_labeler.config.plan import PlanSettings
from coyo_labeler.config.read import default_config, preset_names, read_settings
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.manifest import Manifest
from coyo_labeler.redact import RedactingFormatter, printable, redact
from coyo_labeler.session import explain
from coyo_labeler.stages import STAGES, Stage, in_processes, read_stage_settings, run_stage
from coyo_labeler.storage_errors import explain_os_error, explain_store_error

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

#: So many new objects start a search for cycles among them.
_OBJECTS = 100_000


class _Parser(argparse.ArgumentParser):
    """A parser whose messages hold no secrets of the words that they repeat.

    explain: the description and the list of keys of a command, which are made only for `--help`:
    to import and describe the settings of every stage takes longer than many a run.
    """

    def __init__(
        self, *words: Any, explain: Callable[[], tuple[str, str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*words, **options)
        self._explain = explain

    def format_help(self) -> str:
        """The help of the command."""
        if self._explain is not None:
            self.description, self.epilog = self._explain()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print a message of one line and exit."""
        super().error(printable(redact(message)))


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error of the program itself, without the secrets of URLs."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(printable(redact(text), keep="\n\t"))


def main(argv: Sequence[str] | None = None, whole_process: bool = False) -> int:
    """Run `coyo-labeler` with `argv`; returns the exit status.

    whole_process: the process does nothing else.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    sys.excepthook = _print_traceback
    parser = _Parser(
        prog="coyo-labeler",
        description="Labels for web images at scale: a teacher's beliefs merged with human votes.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {coyo_labeler.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage in STAGES.values():
        _add_parser(commands, stage.name, stage.summary, stage.settings_class)
    for name, (summary, settings, _) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            explain=partial(_explain_settings, settings),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    summary = "the next step of the loop: merge, ask people, collect"
    _add_parser(commands, "round", summary, lambda: RoundSettings)
    arguments, rest = parser.parse_known_args(argv)
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides += rest  # words behind an option, which argparse leaves over
    if arguments.command in COMMANDS:
        work = COMMANDS[arguments.command][2]
        return guard(lambda: work(arguments.overrides))
    if arguments.command == "round":
        return guard(lambda: _round(arguments.overrides, arguments.config))
    stage = STAGES[arguments.command]
    work = partial(_run, stage, arguments.overrides, arguments.config, whole_process)
    return guard(lambda: in_processes(stage, work))


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """The whole of a process: run `coyo-labeler` with `argv`, and exit.

    Imports make half a million objects, hardly one of them garbage: to search for cycles among
    them over and over took much of the time of a small merge. They are not frozen for the exit:
    PyTorch's libraries would complain of leaks.
    """
    gc.set_threshold(_OBJECTS)
    sys.exit(main(argv, whole_process=True))


def job(name: str) -> NoReturn:
    """The body of jobs/<name>.py: run the stage with the words of the command line, and exit."""
    run([name, *sys.argv[1:]])


def guard(work: Callable[[], None]) -> int:
    """Run `work`; what the user can fix or must know becomes one line and an exit status."""
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise
        return _say(explained, WRONG_INPUT if isinstance(explained, InputError) else FAILED)
    return DONE


def _explain(error: Exception) -> Exception | None:
    """The error as one of ours; None for an error of the program itself."""
    if isinstance(error, InputError | WorkError):
        return error
    if isinstance(error, OSError):
        return explain_os_error(error)
    return explain_store_error(error) or explain(error)


def _say(error: Exception, status: int) -> int:
    print(f"error: {redact(str(error))}", file=sys.stderr)
    return status


def _run(stage: Stage, overrides: Sequence[str], config: str | None, whole_process: bool) -> None:
    settings = read_stage_settings(stage, overrides, config)
    start_logging(settings.log_format)
    manifest, worked = run_stage(stage, settings, whole_process=whole_process)
    print(redact(summary_line(manifest, settings.output, worked)))


def summary_line(manifest: Manifest, output: str, worked: bool) -> str:
    """What a stage did, on one line."""
    if not worked:
        return f"{manifest.stage}: nothing to do, {output} is complete"
    parts = [f"{manifest.rows.rows_in:,} in, {manifest.rows.rows_out:,} out"]
    for name, counts in {"": manifest.rows, **manifest.tables}.items():
        rejected = {reason: n for reason, n in counts.rejected.items() if n}
        if name:
            parts.append(f"{name}: {counts.rows_in:,} in, {counts.rows_out:,} used")
        if rejected:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(rejected.items()))
            parts.append(f"{sum(rejected.values()):,} rejected ({reasons})")
    return f"{manifest.stage}: {'; '.join(parts)}; {manifest.seconds:.1f} s → {output}"


def _demo(overrides: Sequence[str]) -> None:
    with extras.needed("demo", "demo"):
        from coyo_labeler.demo.run import run_demo  # noqa: PLC0415

        settings = read_settings(DemoSettings, "demo", None, overrides)
        start_logging(settings.log_format)
        print(run_demo(settings))


def _round(overrides: Sequence[str], config: str | None) -> None:
    with extras.needed("round", "em"):
        from coyo_labeler.round.run import run_round  # noqa: PLC0415

        config = config or default_config("round")
        settings = read_settings(RoundSettings, "round", config, overrides)
        start_logging(settings.log_format)
        print(redact(f"round: {run_round(settings)}"))


def _plan(overrides: Sequence[str]) -> None:
    with extras.needed("plan", "demo"):
        from coyo_labeler.plan.run import run_plan  # noqa: PLC0415

        settings = read_settings(PlanSettings, "plan", None, overrides)
        start_logging(settings.log_format)
        print(run_plan(settings))


#: Commands that are no stages: what they do, their settings, the work.
COMMANDS: dict[str, tuple[str, type[StageSettings], Callable[[Sequence[str]], None]]] = {
    "plan": ("hours, terabytes and money of a run, before it is started", PlanSettings, _plan),
    "demo": ("the whole pipeline on real scanned digits", DemoSettings, _demo),
}


def start_logging(log_format: str) -> None:
    """Send the package's log lines to standard error, as text or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415

        fields = ["asctime", "levelname", "name", "message"]
        formatter: logging.Formatter = JsonFormatter(fields, rename_fields={"asctime": "time"})
    else:
        formatter = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(RedactingFormatter(formatter))
    if logging.lastResort is not None:  # warnings of libraries
        logging.lastResort.setFormatter(RedactingFormatter(logging.Formatter("%(message)s")))
    package = logging.getLogger("coyo_labeler")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


def _explain_settings(settings: type[StageSettings | RoundSettings]) -> tuple[str, str]:
    return inspect.getdoc(settings) or "", help_text(settings)


def _add_parser(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    summary: str,
    settings_class: Callable[[], type[StageSettings | RoundSettings]],
) -> None:
    def explain() -> tuple[str, str]:
        about, keys = _explain_settings(settings_class())
        return about, f"defaults in {default_config(name)}\n\n{keys}"

    parser = commands.add_parser(
        name,
        help=summary,
        explain=explain,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    presets = ", ".join(preset_names(name))
    parser.add_argument("--config", help=f"YAML file, or one of {presets} (default: {name})")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="see below; dotted if nested"
    )


if __name__ == "__main__":
    run()
