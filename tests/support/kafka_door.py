"""Stands before a Kafka server that has neither TLS nor logins, and adds them: TLS, and SASL by PLAIN."""

import asyncio
import ssl
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress

from devstack.ports import LOOPBACK

# Kafka's numbers of requests, and of errors.
SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 33, 58


class Door:
    """`logins`: passwords by user, or None for no logins. `port`: where it listens; `target`: where it passes on to."""

    def __init__(self, tls: ssl.SSLContext | None = None, logins: Mapping[str, str] | None = None) -> None:
        self.logins = logins
        self.target = self.port = 0
        self._tls = tls
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)

    def cut(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(lambda: [writer.transport.abort() for writer in self._open])

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._server.close)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection(LOOPBACK, self.target)
        self._open |= {to_near, to_far}
        with suppress(OSError, asyncio.IncompleteReadError):
            if self.logins is None or await self._log_in(near, to_near, far, to_far):
                await asyncio.gather(_copy(near, to_far), _copy(far, to_near))
        for writer in (to_near, to_far):
            self._open.discard(writer)
            writer.close()

    async def _log_in(
        self,
        near: asyncio.StreamReader,
        to_near: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        to_far: asyncio.StreamWriter,
    ) -> bool:
        """Answer until the client has logged in. Return False after a wrong login."""
        while True:
            request = await _frame(near)
            kind, version, number = struct.unpack('>hhi', request[:8])
            (length,) = struct.unpack('>h', request[8:10])
            rest = request[10 + max(length, 0) :]
            if kind == API_VERSIONS:
                _send(to_far, request)
                _send(to_near, await _frame(far))
            elif kind == SASL_HANDSHAKE:
                code = 0 if rest[2:] == b'PLAIN' else UNSUPPORTED_MECHANISM
                _send(to_near, struct.pack('>ihi', number, code, 1) + _text('PLAIN'))
            elif kind == SASL_AUTHENTICATE:
                _identity, user, password = rest[4:].decode().split('\0')
                is_right = (self.logins or {}).get(user) == password
                answer = struct.pack('>h', 0 if is_right else AUTHENTICATION_FAILED)
                answer += _text('' if is_right else 'Invalid username or password') + struct.pack('>i', 0)
                _send(to_near, struct.pack('>i', number) + answer + (struct.pack('>q', 0) if version else b''))
                await to_near.drain()
                return is_right
            else:
                return False


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack('>i', await reader.readexactly(4))
    return await reader.readexactly(length)


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack('>i', len(frame)) + frame)


def _text(value: str) -> bytes:
    return struct.pack('>h', len(value)) + value.encode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
