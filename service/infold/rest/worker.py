"""One of several processes that answer on one socket, under a supervisor.

It is told what to do over its channel, and ends when the channel does: a worker
never outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable

import msgspec
import uvicorn
import uvloop

from infold import logs
from infold.errors import InfoldError
from infold.rest.access.handshake import shake_hands, shaken_or_gone
from infold.rest.access.second_door import SecondDoor
from infold.rest.access.tls import Certificates, certificates_of
from infold.rest.bounds import Bounds
from infold.rest.channel import Answer, Ask, Channel, Drain, Failed, Gathered, Hello, Joined, Opened, Ready
from infold.rest.counting import Snapshot
from infold.rest.listening import second_port_of
from infold.rest.peers import Peers
from infold.rest.server import Server, begin_to_leave, config_of, described_late, leave, start
from infold.rest.service import Service, edge_of
from infold.rest.shares import Shares
from infold.runtime import choose_device
from infold.settings import Settings

__all__ = ["WorkerServer", "work"]

log = logging.getLogger(__name__)

COURTESY_S = 0.001  # that a connection is left to a worker that holds fewer
RETRY_S = 1.0
# Handshakes under way beside all connections that there may be: what is full can only say so behind one.
MOST_UNSHAKEN = 64


class WorkerServer(Server):
    """A server that takes connections from a socket which it shares.

    The loop's own servers take whatever waits, at once: whoever wakes first may have nearly all of
    a burst. So a worker takes one a turn, and leaves it for a moment to whoever holds fewer. (A
    socket a process, SO_REUSEPORT, is dealt to by hash, would lose the connections queued at a
    worker that dies, and would let a second service take the same port in silence.)

    Args:
        config: As uvicorn wants it.
        listener: Listening; shared with the other workers.
        worker: Which of them this is.
        shares: What they hold.
        on_ready: Called once connections are taken.
        second: The second port, listening and shared as well.
        certificates: For TLS.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        worker: int,
        shares: Shares,
        on_ready: Callable[[], None],
        second: socket.socket | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(config)
        self._certificates = certificates
        self._second = None if second is None else SecondDoor(second, self._take_second)
        self._listener = listener
        self._worker = worker
        self._shares = shares
        self._on_ready = on_ready
        self._accepting: dict[asyncio.Task[object], asyncio.Protocol] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._show_share()
        self._wait_for_one()
        if self._second is not None:
            self._second.open()
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn does now and then, and show what connections are left."""
        self._show_share()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and answer what came over those there are."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._shares.leave(self._worker)
        if self._second is not None:
            self._second.close()
        if self._certificates is not None:
            await shaken_or_gone(self._accepting)
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets=[])

    def _show_share(self) -> None:
        self._shares.hold(self._worker, self._held)

    def _wait_for_one(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._accept_in_turn)

    def _accept_in_turn(self) -> None:
        self._show_share()
        if self._shares.is_turn_of(self._worker):
            self._accept()
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(COURTESY_S, self._accept_late)

    def _accept_late(self) -> None:
        if self._listener.fileno() < 0:  # closed meanwhile
            return
        self._wait_for_one()
        if not self._is_full or self._shares.is_turn_of(self._worker):
            self._accept()  # or else one of the others has room

    @property
    def _is_full(self) -> bool:
        """Whoever comes now is turned away."""
        return self._held >= self._bounds.max_connections

    @property
    def _bounds(self) -> Bounds:
        bounds: Bounds = self.config.http.bounds  # type: ignore[union-attr]  # see `config_of`
        return bounds

    @property
    def _held(self) -> int:
        # One that is on its way in is among the connections before its task has ended.
        made = self.server_state.connections
        return len(made) + sum(protocol not in made for protocol in self._accepting.values())

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # another worker has it, or it is gone
            return
        except OSError as failure:  # no descriptor is left, most likely; trying on would take all the time
            log.error("connection not taken", extra={"reason": failure.strerror})
            loop.remove_reader(self._listener)
            loop.call_later(RETRY_S, self._accept_late)
            return
        self._take(connection)

    def _take_second(self, connection: socket.socket) -> None:
        self._take(connection, is_second=True)

    def _take(self, connection: socket.socket, *, is_second: bool = False) -> None:
        if self._held >= self._bounds.most_connections + MOST_UNSHAKEN:
            self._bounds.refuse("connections")
            connection.close()  # nothing can be told before a handshake
            return
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        protocol = self._protocol()
        task: asyncio.Task[object]
        # The loop sets TCP_NODELAY; without it an answer of two segments would wait 40 ms.
        if self._certificates is None:
            task = loop.create_task(loop.connect_accepted_socket(lambda: protocol, connection))
        else:
            context = self._certificates.context(is_second=is_second)
            task = loop.create_task(shake_hands(lambda: protocol, connection, context))
        self._accepting[task] = protocol
        task.add_done_callback(self._accepting.pop)
        self._show_share()

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # typed as any protocol
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def work(listener_fd: int, shares_fd: int, channel_fd: int, second_fd: int | None = None) -> int:
    """Answer requests until told to drain, or until the supervisor is gone.

    Args:
        listener_fd: The socket all workers share, listening.
        shares_fd: The memory in which they show what they hold.
        channel_fd: This worker's end of its channel.
        second_fd: The second port, as the first.

    Returns:
        The exit code; a start that fails is told over the channel.
    """
    listening = [listener_fd] if second_fd is None else [listener_fd, second_fd]
    for descriptor in (*listening, shares_fd, channel_fd):
        os.set_inheritable(descriptor, False)  # or a child of ours would hold them open
    listeners = [socket.socket(fileno=descriptor) for descriptor in listening]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(listeners, shares_fd, socket.socket(fileno=channel_fd)))


async def _work(listeners: list[socket.socket], shares_fd: int, connected: socket.socket) -> int:
    # Ctrl-C reaches every process of the terminal; what it means is the supervisor's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = await Channel.over(connected)
    hello = await anext(aiter(channel), None)
    if not isinstance(hello, Hello):
        return 1
    settings = Settings(**hello.settings)  # type: ignore[arg-type] # pydantic checks them
    logs.configure(settings.log_level, worker=hello.worker)
    try:
        await _serve(hello, settings, listeners, Shares(shares_fd, settings.workers), channel)
    except InfoldError as failure:
        channel.send(Failed.of(failure))
        await channel.flush()
        return 1
    return 0


async def _serve(
    hello: Hello, settings: Settings, listeners: list[socket.socket], shares: Shares, channel: Channel
) -> None:
    placement = choose_device(settings.device, settings.gpu_id, settings.gpu_memory_bytes)
    peers = Peers(hello.worker, settings.workers, channel.send, hello.earlier)
    service = Service(settings, placement, peers)
    behind = described_late(service)
    service.metrics.restarts = hello.predecessors
    if "metrics" in hello.earlier:
        service.metrics.go_on_from(msgspec.convert(hello.earlier["metrics"], Snapshot))

    service.bounds.second_port = second_port_of(listeners)
    config = config_of(edge_of(service, behind, listeners), settings, service.bounds)
    main, second = listeners[0], listeners[1] if len(listeners) > 1 else None
    certificates = certificates_of(settings)
    joined = asyncio.Event()

    def opened() -> None:
        behind.begin()
        channel.send(Opened(f"{placement.device} ({placement.why})", service.models.models()))

    server = WorkerServer(config, main, hello.worker, shares, opened, second, certificates)

    def drain(grace_s: float) -> None:
        begin_to_leave(server, service, grace_s)
        joined.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain, settings.grace_s)
    listening = asyncio.create_task(_listen(channel, peers, joined, drain, settings.drain_s))
    await start(service)
    channel.send(Ready())
    await joined.wait()
    await peers.settled()  # orders that were given meanwhile; nobody is answered as if they were not
    await server.serve()
    await leave(service)
    listening.cancel()


async def _listen(
    channel: Channel, peers: Peers, joined: asyncio.Event, drain: Callable[[float], None], drain_s: float
) -> None:
    """Obey the supervisor; without one, drain, and end in any case."""
    async for message in channel:
        match message:
            case Ask() | Gathered():
                peers.receive(message)
            case Joined():
                joined.set()
            case Drain():
                drain(message.grace_s)
            case Hello() | Ready() | Opened() | Failed() | Answer():
                continue
    peers.left_alone()
    drain(0.0)
    asyncio.get_running_loop().call_later(drain_s + 1, os._exit, 1)
