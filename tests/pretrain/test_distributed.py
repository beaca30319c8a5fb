"""Processes that do not find each other say so on one line."""

from datetime import timedelta

import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.pretrain import distributed


@pytest.mark.parametrize(
    ("rank", "port", "reason"),
    [
        (1, "1", "refused|timed out|failed to recv|connect"),  # nobody listens
        (0, "0", "[Tt]imed out"),  # on a free port; nobody else comes
        (0, "no number", "invalid literal"),
    ],
)
def test_who_does_not_come_is_told(
    monkeypatch: pytest.MonkeyPatch, rank: int, port: str, reason: str
) -> None:
    monkeypatch.setattr(distributed, "_MEETING", timedelta(seconds=1))
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = port
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    message = rf"process {rank} of 2 did not find the others at 127.0.0.1:.*({reason})"
    with pytest.raises(InputError, match=message):
        distributed.join_group()
