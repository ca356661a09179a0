"""The ports of the embedded engines."""

import socket
from pathlib import Path

from invigilator.local.server import PORTS, free_port, is_free

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_free_port_is_none_that_an_outgoing_connection_has() -> None:
    # A client that calls an engine that is away would be connected to itself
    lowest, _ = OUTGOING.read_text().split() if OUTGOING.exists() else ("32768", "")
    assert max(PORTS) < int(lowest)
    port = free_port()
    assert port in PORTS
    # And it is free until somebody listens on it
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
