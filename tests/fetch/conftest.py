import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.fetch.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(site.handle, "127.0.0.1", 0))
    site.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield site

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        loop.stop()

    asyncio.run_coroutine_threadsafe(stop(), loop)
    thread.join()
    loop.close()
