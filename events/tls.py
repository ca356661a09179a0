"""TLS to a broker. Its certificate is checked, host name included, unless the URL says otherwise.

The libraries' own reading of a URL is not safe. kombu checks no certificate with `rediss://`, and py-amqp checks no
host name with `amqps://`, unless they are told to.
"""

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
PARAMETERS = ("ssl_cert_reqs", "ssl_check_hostname", *FILES)
"""The parameters of a broker's URL with TLS."""

_REQUIREMENTS = {
    "required": ssl.CERT_REQUIRED,
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "none": ssl.CERT_NONE,
    "CERT_NONE": ssl.CERT_NONE,
}
_SWITCH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Tls:
    """How a broker's certificate is checked, and which certificate of ours the broker gets.

    Parameters:
        ssl_cert_reqs: `ssl.CERT_REQUIRED` or `ssl.CERT_NONE`.
        ssl_check_hostname: whether the certificate must be for the host that is connected to.
        ssl_ca_certs: a file of authorities; by default the system's store, or the file that `SSL_CERT_FILE` names.
        ssl_certfile, ssl_keyfile: files of our own certificate, for a broker that asks.
    """

    ssl_cert_reqs: ssl.VerifyMode = ssl.CERT_REQUIRED
    ssl_check_hostname: bool = True
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def for_redis(self) -> dict[str, Any]:
        """Return keywords of a client of redis-py. They are also the `ssl` of kombu's transports for Redis."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def for_amqp(self) -> dict[str, Any]:
        """Return kombu's `ssl` for RabbitMQ. To have the host name checked, it has a `server_hostname`.

        That is None, because there may be several hosts. `events.amqp_transport` fills in the right one.
        """
        theirs = {name.removeprefix("ssl_"): value for name, value in self.for_redis().items()}
        return theirs | {"server_hostname": None} if theirs.pop("check_hostname") else theirs


def read_tls(parameters: Mapping[str, str]) -> Tls:
    """Read the parameters of a URL that begin with `ssl_`.

    Raises:
        ValueError: one is unknown or wrong. The text does not quote its value.
    """
    options: dict[str, Any] = {name: _value(name, value) for name, value in parameters.items()}
    if options.get("ssl_cert_reqs") == ssl.CERT_NONE:
        options["ssl_check_hostname"] = False
    return Tls(**options)


def refused_certificate(error: BaseException | None) -> str | None:
    """Return what is wrong with the other side's certificate; None when that is not what an error is about."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {error.verify_message}"
        error = error.__cause__ or error.__context__
    return None


def _value(name: str, value: str) -> Any:
    if name in FILES:
        if not Path(value).is_file():
            raise ValueError(f"names a file in {name} that does not exist")
        return value
    allowed: Mapping[str, object] = _REQUIREMENTS if name == "ssl_cert_reqs" else _SWITCH
    if value not in allowed:
        raise ValueError(f"must have one of {', '.join(allowed)} in {name}")
    return allowed[value]
