"""kombu's way to RabbitMQ over TLS, where the certificate must be for the host that is connected to.

py-amqp checks a host name when it is given one. kombu 5.7 fills in the first of several hosts, and keeps it when it
goes on to the next; and it fills in an address in place of `localhost`.
"""

from typing import Any

from kombu.transport import pyamqp


class Transport(pyamqp.SSLTransport):  # type: ignore[misc]
    """See kombu. Like it, fills in a `server_hostname` that is None; without one, nothing is checked."""

    def establish_connection(self) -> Any:
        """See kombu."""
        client = self.client
        host, tls = client.hostname, client.ssl
        if "server_hostname" in tls:
            client.ssl = tls | {"server_hostname": host}
        try:
            return super().establish_connection()
        finally:
            client.hostname, client.ssl = host, tls
