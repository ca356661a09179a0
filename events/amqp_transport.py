"""kombu's transport for RabbitMQ over TLS. It checks that the certificate is for the host that is connected to.

py-amqp checks a host name only when it is given one. kombu 5.7 gives it the first of several hosts, also when it
connects to another one, and gives it an address instead of `localhost`.
"""

from typing import Any

from kombu.transport import pyamqp


class Transport(pyamqp.SSLTransport):  # type: ignore[misc]
    """Fills in a `server_hostname` that is None. Where there is no `server_hostname`, no host name is checked."""

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
