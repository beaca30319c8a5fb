"""State dicts as training programs save them: inside wrappers, under prefixes, or as pointers."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from coyo_labeler.errors import InputError

T = TypeVar("T")

#: Under which keys training programs save a model's state dict; averaged weights come last.
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "net",
    "network",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
)
#: What precedes the names of a model that was compiled, or was part of a module or wrapper.
PREFIXES = ("_orig_mod.", "ema_model.", *(f"{wrapper}." for wrapper in WRAPPERS))

#: Keys that average or count, and are no weights: a file may have or lack them.
_COUNTERS = ("n_averaged", "num_batches_tracked")

#: Wrappers within wrappers; a file may hold a circle of them.
_DEPTH = 8

_LFS = b"version https://git-lfs.github.com/spec/"
#: Keys of each kind in a message.
_SHOWN = 3


def refuse_pointer(key: str, url: str, start: bytes) -> None:
    """Raises: InputError where a file, by its first bytes, only points to one in Git LFS."""
    if start.startswith(_LFS):
        raise InputError(
            f"{key}: {url} is a pointer of Git LFS, not the weights; run 'git lfs pull' in its "
            "repository to fetch them"
        )


def unwrap(saved: Any) -> Any:
    """The state dict within what `torch.save` saved."""
    for _ in range(_DEPTH):
        if not isinstance(saved, dict):
            break
        inner = (saved[key] for key in WRAPPERS if isinstance(saved.get(key), dict))
        saved = next(inner, saved)
    return saved


def fit_names(given: Mapping[str, T], own: Collection[str], source: str) -> dict[str, T]:
    """Entries of a state dict by the names of the model, without the prefixes before them.

    own: the names of the model's tensors. source: setting and file, for messages. A name that does
    not fit stays as it was given.

    Raises: InputError where two names become the same.
    """
    names: dict[str, str] = {}
    for name in given:
        fitting = _strip(name, own)
        if fitting in names:
            raise InputError(
                f"{source} has '{fitting}' twice, as '{names[fitting]}' and '{name}'; save the "
                "state_dict of one model"
            )
        names[fitting] = name
    return {fitting: given[name] for fitting, name in names.items()}


def _strip(name: str, own: Collection[str]) -> str:
    rest = name
    while rest not in own:
        prefix = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None)
        if prefix is None:
            return name if not _is_counter(rest) else rest
        rest = rest.removeprefix(prefix)
    return rest


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def explain_names(given: Collection[str], own: Collection[str]) -> str | None:
    """How the names of a state dict, see `fit_names`, differ from a model's; None: not at all."""
    missing = [name for name in own if name not in given and not _is_counter(name)]
    unexpected = [name for name in given if name not in own and not _is_counter(name)]
    differences = []
    if missing:
        differences.append(f"{_some(missing)} of {len(own):,} keys missing")
    if unexpected:
        differences.append(f"{_some(unexpected)} keys unexpected")
    return " and ".join(differences) or None


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return f"{len(names):,} ({', '.join(names[:_SHOWN])}{more})"
