"""Every change that we make to a library at run time, in one table.

A patch replaces something inside a library that offers no hook for it. `INVIGILATOR_WITHOUT_PATCHES` switches
patches off, for a release of the library that does not need them or does not work with them.
`tests/integration/test_patches.py` fails when an installed library no longer needs its patch.

A subclass that a library is told to use is no patch, because it changes nothing for others in the process. There
are some: Celery's consumer (its setting `worker_consumer`), request (`Task.Request`) and connection
(`AMQP.Connection`), and kombu's transports (`events.connecting`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from worker.errors import ConfigurationError
from worker.logs import get_logger
from worker.settings import PREFIX, Settings

logger = get_logger(__name__)


READ_AHEAD_BYTES = 8 * 1024
"""How much is read from RabbitMQ at once. The transport copies its buffer at each read, so it is small."""


class Process(StrEnum):
    """A kind of process in which patches are applied."""

    CONSUME = "consume"
    WORKER = "worker"
    FLOWER = "flower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One change to one library.

    Parameters:
        name: what `INVIGILATOR_WITHOUT_PATCHES` calls it.
        library: the distribution that is changed.
        seen_with: its newest version in which the reason was seen.
        why: what happens without the patch, in one sentence.
        processes: where it is applied.
        apply: makes the change in this process. Applying it again changes nothing.
    """

    name: str
    library: str
    seen_with: str
    why: str
    processes: Collection[Process]
    apply: Callable[[], None]


def apply(process: Process, settings: Settings) -> None:
    """Apply the patches of a process, except those that the settings switch off.

    Raises:
        ConfigurationError: the settings name a patch that does not exist.
    """
    check(settings)
    for patch in _of(process):
        if patch.name not in settings.without_patches:
            patch.apply()


def warn_of_switched_off(process: Process, settings: Settings) -> None:
    """Warn of each patch of a process that the settings switch off."""
    for patch in _of(process):
        if patch.name in settings.without_patches:
            logger.warning(
                "a patch is switched off", patch=patch.name, library=patch.library, without_it=patch.why
            )


def check(settings: Settings) -> None:
    """Check that every patch that the settings name exists.

    Raises:
        ConfigurationError: one does not.
    """
    known = [patch.name for patch in PATCHES]
    if unknown := sorted(settings.without_patches - set(known)):
        raise ConfigurationError(
            f"{PREFIX}WITHOUT_PATCHES names {unknown[0]!r}, which is no patch; there are {', '.join(known)}"
        )


def _of(process: Process) -> list[Patch]:
    return [patch for patch in PATCHES if process in patch.processes]


# The libraries are imported by the functions: no process loads one that it does not use.


def _ignore_undecodable_properties() -> None:
    from amqp.basic_message import Message

    Message._load_properties = _load_properties


def _load_properties(message: Any, class_id: int, buffer: bytes, offset: int) -> int:
    from amqp.serialization import GenericContent

    try:
        return int(GenericContent._load_properties(message, class_id, buffer, offset))
    except Exception:  # noqa: BLE001 - the sender decides what is wrong with them
        message.properties = {}
        return offset


def _read_ahead() -> None:
    from amqp.transport import TCPTransport

    TCPTransport._setup_transport = _set_up_reading_ahead


def _set_up_reading_ahead(transport: Any) -> None:
    recv = transport.sock.recv
    transport._write = transport.sock.sendall
    transport._read_buffer = b""
    # The transport keeps what it did not ask for in its buffer.
    transport._quick_recv = lambda wanted: recv(max(wanted, READ_AHEAD_BYTES))


def _read_envelopes_strictly() -> None:
    from kombu.transport import redis

    from worker.celery.strict_consumer import read_envelope

    redis.loads = read_envelope


def _refuse_compressed_bodies() -> None:
    from kombu import compression

    for content_type in compression.encoders():
        encoder, _ = compression.get_encoder(content_type)
        compression.register(encoder, _refuse_compressed, content_type)


def _refuse_compressed(_: object) -> NoReturn:
    raise ValueError("compressed messages are not accepted")


def _reconnect_soon() -> None:
    import flower.app

    from worker.celery.flower import PatientEvents

    flower.app.Events = PatientEvents


def _use_our_dashboard() -> None:
    import flower.command

    from worker.celery.flower import Dashboard

    flower.command.Flower = Dashboard


PATCHES = (
    Patch(
        name="amqp-properties",
        library="amqp",
        seen_with="5.4.2",
        why="a message on RabbitMQ whose properties cannot be decoded (a time stamp in milliseconds, a deep table) "
        "ends every reader of its queue, and waits there for the next one",
        processes=(Process.CONSUME, Process.WORKER),
        apply=_ignore_undecodable_properties,
    ),
    Patch(
        name="amqp-read-ahead",
        library="amqp",
        seen_with="5.4.2",
        why="py-amqp asks the system nine times for each message, at a high price",
        # Not in workers: their loop waits until the socket can be read, and does not know of what is in the buffer.
        processes=(Process.CONSUME,),
        apply=_read_ahead,
    ),
    Patch(
        name="kombu-envelope",
        library="kombu",
        seen_with="5.7.0",
        why="an entry of a Redis list that is not kombu's envelope ends the worker that reads it",
        processes=(Process.WORKER,),
        apply=_read_envelopes_strictly,
    ),
    Patch(
        name="kombu-compression",
        library="kombu",
        seen_with="5.7.0",
        why="a worker decompresses a body, however large it becomes, before anything can look at its size",
        processes=(Process.WORKER,),
        apply=_refuse_compressed_bodies,
    ),
    Patch(
        name="flower-events",
        library="flower",
        seen_with="2.2.0",
        why="Flower's pause before it connects to the broker again doubles without limit",
        processes=(Process.FLOWER,),
        apply=_reconnect_soon,
    ),
    Patch(
        name="flower-dashboard",
        library="flower",
        seen_with="2.2.0",
        why="Flower lists only queues that a worker consumes from, sends tasks through its API, and waits at its "
        "end for threads that wait for the broker",
        processes=(Process.FLOWER,),
        apply=_use_our_dashboard,
    ),
)
