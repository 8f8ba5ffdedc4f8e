"""What a client has not read of what was written to it, in this process and in the system."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

__all__ = ["cut_off", "sent_and_unread", "unread_bytes"]

RESET = struct.pack("ii", 1, 0)


def unread_bytes(transport: asyncio.Transport) -> int:
    """How much of what was written is still on its way; 0 once this process keeps nothing of it.

    The system takes on more only in steps of a megabyte and more, so without what it has itself a
    slow client would seem to read nothing for a long time.
    """
    with suppress(RuntimeError):  # closed already
        if kept := transport.get_write_buffer_size():
            return kept + sent_and_unread(transport)
    return 0


def cut_off(transport: asyncio.Transport) -> None:
    """The connection is reset; closed, the system would keep for the client what it has not read."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()


def sent_and_unread(transport: asyncio.Transport) -> int:
    """How much the system has of what was written, and the client's system has not."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        with suppress(OSError):
            answer = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, bytes(4))
            return int.from_bytes(answer, sys.byteorder)
    return 0
