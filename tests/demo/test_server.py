import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from coyo_labeler.demo.server import serve


@contextmanager
def running(folder):
    server = serve(folder, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(url):
    with urllib.request.urlopen(url, timeout=120) as response:
        return response.read()


def test_every_fault_is_served(tmp_path):
    body = bytes(range(200))
    (tmp_path / "0001.jpg").write_bytes(body)
    with running(tmp_path) as url:
        assert get(f"{url}/image/0001.jpg") == body
        assert get(f"{url}/image/copy-of/0001.jpg?changed") == body
        assert get(f"{url}/cut/0001.jpg") == body[:100]
        assert b"<html>" in get(f"{url}/page/0001.jpg")
        for path in ("gone/0001.jpg", "image/none.jpg", "image/../../etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{url}/{path}")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(f"{url}/busy/0001.jpg")
        assert get(f"{url}/busy/0001.jpg") == body


def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-m", "coyo_labeler.demo.server", str(tmp_path), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline().startswith("ready ")
    server.stdin.close()
    assert server.wait(timeout=280) == 0


def test_a_taken_port_is_said(tmp_path):
    with running(tmp_path) as url:
        port = url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "coyo_labeler.demo.server", str(tmp_path), port],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stdout
