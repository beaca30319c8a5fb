"""A picture of a page that needs a login: Chromium sees it through a proxy that has the cookie."""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3
from PIL import Image

#: Headers that belong to one connection.
_HOP = {"transfer-encoding", "connection", "content-encoding", "content-length", "keep-alive"}


@contextmanager
def with_cookie(url: str, cookie: str) -> Iterator[str]:
    """The URL of a proxy to `url` on 127.0.0.1 that is logged in."""
    pool = urllib3.PoolManager(timeout=60)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _pass_on(self, body: bytes | None) -> None:
            kept = {
                k: v for k, v in self.headers.items() if k.lower() in {"accept", "content-type"}
            }
            response = pool.request(
                self.command, url + self.path, body=body, headers={**kept, "Cookie": cookie}
            )
            self.send_response(response.status)
            for name, value in response.headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.data)))
            self.end_headers()
            self.wfile.write(response.data)

        def log_message(self, *_: object) -> None:
            """Chromium's requests are not the check's business."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def take(chromium: str, url: str, path: Path, size: tuple[int, int]) -> None:
    """Write a picture of a page, as a PNG of so many pixels."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--disable-gpu",
                f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}",
                "--virtual-time-budget=25000",
                f"--screenshot={path}",
                url,
            ],
            check=True,
            capture_output=True,
            timeout=180,
        )
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
