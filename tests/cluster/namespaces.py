"""Machines that are network namespaces: each has an address of its own, and can be cut off."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

_SECONDS = 20


@dataclass(frozen=True)
class Machine:
    """A namespace with an address on the bridge. port: the bridge's end of its cable."""

    namespace: str
    address: str
    port: str
    bridge: str

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run on this machine."""
        return ["ip", "netns", "exec", self.namespace]

    def cut_off(self) -> None:
        """Let nothing reach it or leave it; nobody is told."""
        _ip("link", "set", self.port, "nomaster")

    def reconnect(self) -> None:
        """Let it be reached again."""
        _ip("link", "set", self.port, "master", self.bridge)


@dataclass(frozen=True)
class Network:
    """A bridge with machines. address: of the machine that the tests run on."""

    address: str
    machines: list[Machine]


@contextmanager
def network(machines: int) -> Iterator[Network]:
    """Namespaces on a bridge of their own, removed in the end.

    Skips the test where none can be made. Addresses are of 198.18.0.0/15, which is for such tests.
    """
    if shutil.which("ip") is None:
        pytest.skip("network namespaces are made with `ip` of iproute2, which is not installed")
    number = os.getpid() % 50_000
    subnet = f"198.{18 + number % 2}.{number // 2 % 256}"
    bridge = f"clbr{number}"
    with ExitStack() as stack:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            stack.callback(_ip, "link", "delete", bridge)
            _ip("address", "add", f"{subnet}.254/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            made = [
                _machine(stack, f"cl{number}-{n}", f"{subnet}.{n + 1}", bridge)
                for n in range(machines)
            ]
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield Network(f"{subnet}.254", made)


def _machine(stack: ExitStack, name: str, address: str, bridge: str) -> Machine:
    machine = Machine(name, address, f"{name}v", bridge)
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)
    _ip("link", "add", machine.port, "type", "veth", "peer", "name", "eth0", "netns", name)
    machine.reconnect()
    _ip("link", "set", machine.port, "up")
    for command in (
        ["link", "set", "lo", "up"],
        ["address", "add", f"{address}/24", "dev", "eth0"],
        ["link", "set", "eth0", "up"],
    ):
        _ip("-netns", name, *command)
    return machine


def _ip(*words: str) -> None:
    command = ["ip", *words]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
