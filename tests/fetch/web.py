"""A web on 127.0.0.1 whose answers each test writes itself."""

import asyncio
import io
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import imagehash
import numpy as np
from PIL import Image

#: What a path does with a connection on which it was asked.
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Web:
    """A server. answers: by path. asked: (path, header lines) of every request, in order.

    connections: how many were made to it.
    """

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, *parts: bytes, status: str = "200 OK", **headers: object) -> str:
        """Answer a path in full; returns its URL."""
        self.answers[path] = reply(b"".join(parts), status, **headers)
        return self.url(path)

    def times(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers = {}
                while header := (await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                self.asked.append((path, headers))
                answer = self.answers.get(path.partition("?")[0]) or reply(b"", "404 Not Found")
                await answer(reader, writer)
                if writer.is_closing() or headers.get("connection") == "close":
                    return
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()


def reply(body: bytes, status: str = "200 OK", **headers: object) -> Answer:
    """A whole answer; header names have underscores for dashes."""
    given = {"Content-Type": "image/jpeg", "Content-Length": len(body)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
        await writer.drain()

    return answer


def photograph(seed: int, side: int = 96) -> Image.Image:
    """A picture with structure, so that its pHash is its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side + 16), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def phash(data: bytes) -> str:
    return str(imagehash.phash(Image.open(io.BytesIO(data))))


async def drip(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


def reset_after(prefix):
    async def answer(reader, writer):
        writer.write(prefix)
        await writer.drain()
        await asyncio.sleep(0.02)
        linger = struct.pack("ii", 1, 0)  # a reset, not an orderly end
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    return answer


def in_turn(*answers):
    """One answer after the other, then the last for ever."""
    left = list(answers)

    async def answer(reader, writer):
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return answer
