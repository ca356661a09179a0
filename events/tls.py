"""TLS to a broker: its certificate is checked, host name included, unless the URL says otherwise.

The libraries' own reading of a URL is not safe: kombu checks no certificate behind `rediss://`, and py-amqp no
host name behind `amqps://`, unless they are told to.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

UNREADABLE = "cannot be read; percent-encode what is special in it"

_REDIS, _RABBITMQ = "rediss", "amqps"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_KNOWN = ("ssl_cert_reqs", "ssl_check_hostname", *_FILES)
_REQUIREMENTS = {
    "required": ssl.CERT_REQUIRED,
    "CERT_REQUIRED": ssl.CERT_REQUIRED,
    "none": ssl.CERT_NONE,
    "CERT_NONE": ssl.CERT_NONE,
}
_SWITCH = {"true": True, "false": False}


def split_tls(broker_url: str) -> tuple[str, dict[str, Any]]:
    """Take what a broker's URL says about TLS out of it.

    Parameters:
        broker_url: `rediss://` and `amqps://` may have these parameters: `ssl_ca_certs` (a file of authorities; by
            default the system's store, or what `SSL_CERT_FILE` names), `ssl_certfile` and `ssl_keyfile` (our
            own, for a broker that asks), `ssl_check_hostname=false`, and `ssl_cert_reqs=none`: nothing is checked.

    Returns:
        the URL without them, and the options of TLS: kombu's and Celery's `ssl`, and the keywords of a client of
        redis-py. Empty for a connection without TLS.

    Raises:
        ValueError: a parameter is unknown or wrong, or the URL has no TLS. The text does not quote the URL.
    """
    scheme = broker_url.partition("://")[0]
    address, _, query = broker_url.partition("?")
    parts = query.split("&") if query else []
    ours = [part for part in parts if part.startswith("ssl_")]
    others = "&".join(part for part in parts if not part.startswith("ssl_"))
    url = f"{address}?{others}" if others else address
    if scheme not in (_REDIS, _RABBITMQ):
        if ours:
            raise ValueError("has parameters of TLS without TLS; start it with rediss:// or amqps://")
        return url, {}
    options = _read(ours)
    return url, options if scheme == _REDIS else _for_amqp(options, _host(address))


def refused_certificate(error: BaseException | None) -> str | None:
    """What was wrong with the other side's certificate, when that is what an error, or its cause, is about."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {error.verify_message}"
        error = error.__cause__ or error.__context__
    return None


def _read(parameters: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        options[name] = _value(name, unquote_plus(value))
    if options["ssl_cert_reqs"] == ssl.CERT_NONE:
        options["ssl_check_hostname"] = False
    return options


def _value(name: str, value: str) -> Any:
    if name not in _KNOWN:
        raise ValueError(f"has an unknown parameter {name}; known are {', '.join(_KNOWN)}")
    if name in _FILES:
        if not Path(value).is_file():
            raise ValueError(f"names a file in {name} that does not exist")
        return value
    allowed: Mapping[str, object] = _REQUIREMENTS if name == "ssl_cert_reqs" else _SWITCH
    if value not in allowed:
        raise ValueError(f"must have one of {', '.join(allowed)} in {name}")
    return allowed[value]


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "localhost"
    except ValueError:
        raise ValueError(UNREADABLE) from None  # the original's text may quote a part of the password


def _for_amqp(options: dict[str, Any], host: str) -> dict[str, Any]:
    checked = options.pop("ssl_check_hostname")
    theirs = {name.removeprefix("ssl_"): value for name, value in options.items()}
    # py-amqp checks the host name when it is given one. (With None, kombu would fill in its own.)
    return theirs | {"server_hostname": host} if checked else theirs
