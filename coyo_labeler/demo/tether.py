"""Runs a command that ends with its parent process, even if the parent is killed.

Run as `python -m coyo_labeler.demo.tether COMMAND …`. Starts the command, prints `pid N`, and
terminates the command when standard input ends.
"""

import contextlib
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command until it ends, or standard input does."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    print(f"pid {child.pid}", flush=True)

    def wait_for_the_parent() -> None:
        sys.stdin.read()
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)
        child.kill()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes our input
    threading.Thread(target=wait_for_the_parent, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
