from types import SimpleNamespace

from coyo_labeler.demo import run


def test_a_part_that_was_done_before_keeps_its_time(monkeypatch):
    """On a busy machine to see that all is done takes seconds; the summary must not change."""
    clock = iter([0.0, 40.0, 50.0, 59.0])
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    seconds: dict[str, float] = {}
    for _ in range(2):
        with run._timed(seconds, "rounds"):
            pass
    assert seconds == {"rounds": 40.0}
