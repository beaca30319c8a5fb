"""An event loop on which waiting takes no time, so that a test of timing depends on no machine."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, it notes how far the clock has to be put on."""

    waited = 0.0

    def select(self, timeout=None):
        if timeout is None:
            return super().select()
        self.waited += timeout
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    late = 0.0

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.waited + self.late


def run(work: Callable[[], Coroutine]) -> None:
    """Run a coroutine function whose only waits are timers of asyncio."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(work())


def stall(seconds: float) -> None:
    """What a busy machine does to the running loop: nothing runs for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop.late += seconds
