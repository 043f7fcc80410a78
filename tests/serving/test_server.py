"""Tests of the socket of the server."""

import asyncio
import socket

import pytest

from synthdetect.serving.server import _listen
from synthdetect.system.errors import UserError


def test_answers_are_not_held_back() -> None:
    """Nagle's algorithm is off for each connection."""

    async def option() -> int:
        with _listen("127.0.0.1", 0) as listening:
            found = asyncio.get_running_loop().create_future()

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                accepted = writer.get_extra_info("socket")
                found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            server = await asyncio.start_server(connected, sock=listening)
            async with server:
                _, writer = await asyncio.open_connection(*listening.getsockname())
                writer.close()
                return int(await asyncio.wait_for(found, 30))

    assert asyncio.run(option()) != 0


def test_a_port_that_is_taken_is_refused() -> None:
    with _listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: .* on 127.0.0.1:{port}"):
            _listen("127.0.0.1", port)
