"""The demo's web: an HTTP server on 127.0.0.1 with the faults of the real web.

Run as `python -m coyo_labeler.demo.server FOLDER PORT`. Prints `ready PORT` once it listens. Ends
when its standard input ends, so that it never outlives the demo, even one that was killed.
"""

import contextlib
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

#: Seconds between two bytes from the slow host.
DRIP_SECONDS = 1.0


class Handler(BaseHTTPRequestHandler):
    """Serves `/<kind>/<name>`. kind: how the image behaves. name: its file."""

    protocol_version = "HTTP/1.1"
    folder: Path
    refused_once: set[str]
    lock = threading.Lock()

    def do_GET(self) -> None:  # http.server finds its methods by name
        """Serve an image, or one of the faults."""
        kind, _, name = urlsplit(self.path).path.lstrip("/").partition("/")
        file = self.folder / Path(name).name
        if kind == "gone" or not file.is_file():
            self._send(HTTPStatus.NOT_FOUND, b"no such image\n", "text/plain")
            return
        body = file.read_bytes()
        if kind == "page":
            self._send(HTTPStatus.OK, b"<html>This domain is for sale.</html>", "image/jpeg")
        elif kind == "cut":
            self._send(HTTPStatus.OK, body[: len(body) // 2], "image/jpeg")
        elif kind == "slow":
            self._drip(body)
        elif kind == "busy" and self._first_time():
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"try again\n", "text/plain")
        else:
            self._send(HTTPStatus.OK, body, "image/jpeg")

    def _first_time(self) -> bool:
        with self.lock:
            first = self.path not in self.refused_once
            self.refused_once.add(self.path)
        return first

    def _head(self, status: HTTPStatus, length: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._head(status, len(body), kind)
        self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        self._head(HTTPStatus.OK, len(body), "image/jpeg")
        with contextlib.suppress(OSError):  # the client has given up, as it is meant to
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(DRIP_SECONDS)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the demo's standard error is for progress."""


class Server(ThreadingHTTPServer):
    """A thread per connection, which clients may drop as they please."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Report an error, unless the client hung up."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"image server: {error!r}", file=sys.stderr)


def serve(folder: Path, port: int) -> Server:
    """A server on 127.0.0.1 (port 0: any free one), not yet serving.

    Raises: OSError if the port is taken.
    """
    handler = type("FolderHandler", (Handler,), {"folder": folder, "refused_once": set()})
    return Server(("127.0.0.1", port), handler)


def main() -> int:
    """Serve until standard input ends."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    try:
        server = serve(folder, port)
    except OSError as error:
        print(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", flush=True)
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready {server.server_address[1]}", flush=True)
    sys.stdin.read()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
