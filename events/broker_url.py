"""Reads a broker's URL, once, for every library that connects to it.

kombu (and with it Celery and Flower) and redis-py read URLs differently: the same URL may name two databases. So no
library gets a URL that a person wrote. This module reads it and hands on the parts, or a URL written from the parts
in a form that all libraries read alike. A URL that they would read differently, or not at all, is refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Any, TypeVar
from urllib.parse import quote, unquote, unquote_plus

from .tls import PARAMETERS, Tls, read_tls

_T = TypeVar("_T")

UNREADABLE = "cannot be read; percent-encode what is special in it"
SCHEMES = "redis://, rediss://, sentinel://, sentinels://, amqp:// or amqps://"
NO_CLUSTER = (
    "is a Redis Cluster, which Celery cannot use (its commands have keys in several slots); "
    "use one server, or Redis Sentinel with sentinel://"
)

MASTER_NAME = "mymaster"
SENTINEL_TIMEOUT_S = 3.0
"""Seconds that a Sentinel has to connect or answer. It has little to do, and there are others to ask."""

_MAX_VIRTUAL_HOST_BYTES = 255  # AMQP's short string
_MAX_PORT = 65_535

_BEGINNING = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BETWEEN_URLS = re.compile(rf";(?={_BEGINNING.pattern})")
_URL = re.compile(
    r"(?P<scheme>[^:]+)://((?P<credentials>[^/?]*)@)?(?P<hosts>[^/?@]*)(?P<path>/[^?@]*)?(\?(?P<query>[^@]*))?"
)
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]*))(?::(?P<port>[0-9]*))?")


class Kind(StrEnum):
    """What answers at the address. Every table by kind is made with `for_each_kind`."""

    REDIS = "redis"
    SENTINEL = "sentinel"
    AMQP = "amqp"


def for_each_kind(table: Mapping[Kind, _T]) -> Mapping[Kind, _T]:
    """Return the table, which must have an entry for each kind. Tables are made when modules are imported.

    Raises:
        TypeError: an entry is missing.
    """
    if missing := [kind for kind in Kind if kind not in table]:
        raise TypeError(f"a table by kind of broker has no entry for {', '.join(missing)}")
    return table


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Which server the Sentinels are asked for.

    Parameters:
        master_name: the name under which they know the server.
        user, password: of the Sentinels themselves; None for nobody.
    """

    master_name: str = MASTER_NAME
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where a broker is, and who connects to it. Its `repr` shows no password.

    Parameters:
        kind: what answers there.
        hosts: names or addresses, with ports. Sentinels and nodes of RabbitMQ may be several.
        user, password: of the broker itself; None for nobody.
        database: a number, on Redis and behind Sentinels.
        virtual_host: on RabbitMQ.
        tls: None for a connection without TLS.
        sentinels: None where there are none.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    virtual_host: str = "/"
    tls: Tls | None = None
    sentinels: Sentinels | None = None

    @property
    def for_kombu(self) -> str:
        """The URL for kombu, Celery and Flower: one for each host, separated by semicolons."""
        form = _FORMS[self.kind]
        scheme = self.kind if self.tls is None else form.kombu_tls_scheme
        path = form.write_path(self)
        return ";".join(
            f"{scheme}://{self._credentials()}{_bracketed(host)}:{port}/{path}" for host, port in self.hosts
        )

    @property
    def ssl(self) -> dict[str, Any]:
        """kombu's and Celery's options of TLS; empty without TLS."""
        return {} if self.tls is None else _FORMS[self.kind].tls_options(self.tls)

    def sentinel_arguments(self, timeout_s: float) -> dict[str, Any]:
        """Return keywords of redis-py's clients for the Sentinels themselves.

        Parameters:
            timeout_s: seconds that the server behind them has to connect or answer. They get no more than that.
        """
        assert self.sentinels is not None
        patience_s = min(timeout_s, SENTINEL_TIMEOUT_S)
        tls = {} if self.tls is None else {"ssl": True, **self.tls.for_redis()}
        return {
            "username": self.sentinels.user,
            "password": self.sentinels.password,
            "socket_timeout": patience_s,
            "socket_connect_timeout": patience_s,
            "retry": None,  # the next one is asked instead
            **tls,
        }

    def transport_options(self, timeout_s: float) -> dict[str, Any]:
        """Return what kombu must be told beside the URL; `timeout_s` as for `sentinel_arguments`."""
        if self.sentinels is None:
            return {}
        return {
            "master_name": self.sentinels.master_name,
            "sentinel_kwargs": self.sentinel_arguments(timeout_s),
        }

    def _credentials(self) -> str:
        if self.user is None and self.password is None:
            return ""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"{quote(self.user or '', safe='')}{password}@"


@dataclass(frozen=True, slots=True)
class _Scheme:
    kind: Kind
    port: int
    has_tls: bool


@dataclass(frozen=True, slots=True)
class _Url:
    """One of several URLs separated by semicolons. A part that it does not have is None."""

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    user: str | None
    password: str | None = field(repr=False)
    path: dict[str, Any] | None
    parameters: tuple[tuple[str, str], ...] | None = field(repr=False)  # the Sentinels' password among them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How the URL of one kind of broker is read and written.

    Parameters:
        read_path: returns fields of `BrokerUrl`; None for a path that says nothing.
        write_path: returns the path for kombu.
        kombu_tls_scheme: kombu's scheme with TLS.
        tls_options: returns kombu's and Celery's options of TLS.
        default_user: user and password that the broker's libraries fill in.
        takes_several_hosts: whether there may be several.
        sentinel_parameters: those that are about the Sentinels.
        agreed: returns the value of a part, from that of each of several URLs.
    """

    read_path: Callable[[str], dict[str, Any] | None]
    write_path: Callable[[BrokerUrl], str]
    kombu_tls_scheme: str
    tls_options: Callable[[Tls], dict[str, Any]]
    agreed: Callable[[str, Iterable[Any]], Any]
    default_user: str | None = None
    takes_several_hosts: bool = True
    sentinel_parameters: tuple[str, ...] = ()


_SCHEMES = {
    "redis": _Scheme(Kind.REDIS, 6379, has_tls=False),
    "rediss": _Scheme(Kind.REDIS, 6379, has_tls=True),
    "sentinel": _Scheme(Kind.SENTINEL, 26379, has_tls=False),
    "sentinels": _Scheme(Kind.SENTINEL, 26379, has_tls=True),
    "amqp": _Scheme(Kind.AMQP, 5672, has_tls=False),
    "amqps": _Scheme(Kind.AMQP, 5671, has_tls=True),
}


def read_broker_url(text: str) -> BrokerUrl:
    """Read a broker's URL.

    Parameters:
        text: one URL, or several separated by semicolons, as kombu has it:
            `redis://[[user]:password@]host[:port][/database]` ·
            `sentinel://[[user]:password@]host[:port][,host[:port]]…[/database][?master_name=mymaster]`, with the
            user and password of the server behind the Sentinels; their own are the parameters
            `sentinel_username` and `sentinel_password` ·
            `amqp://[user:password@]host[:port][,host[:port]]…[/virtual host]`. `rediss`, `sentinels` and `amqps`
            are with TLS and may have the parameters `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
            `ssl_check_hostname=false` and `ssl_cert_reqs=none` (see `Tls`).

    Raises:
        ValueError: it cannot be read, or libraries would read it differently. The text names the part and quotes
            nothing of the URL but names of parameters.

    Example:
        >>> read_broker_url("amqp://lms:secret@mq1,mq2/exams").hosts
        (('mq1', 5672), ('mq2', 5672))
    """
    if re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", text):
        raise ValueError(
            "has white space, control characters or other bytes than UTF-8 in it; write them as %XX"
        )
    if "#" in text:
        raise ValueError("has a # in it; write it as %23")
    return _build(_merge([_split(url) for url in _BETWEEN_URLS.split(text)]))


def _split(url: str) -> _Url:
    scheme = _scheme_of(url)
    # Only the credentials may end with an @. Another one belongs to a password that is not encoded.
    parts = _URL.fullmatch(url)
    credentials = parts["credentials"] if parts else None
    if parts is None or re.search(r"[\[\]]", credentials or ""):
        raise ValueError(UNREADABLE)
    user, _, password = (credentials or "").partition(":")
    return _Url(
        scheme,
        tuple(_read_host(host) for host in re.split("[,;]", parts["hosts"])),
        _decoded(user) or None,
        _decoded(password) or None,
        _FORMS[_SCHEMES[scheme].kind].read_path(parts["path"] or ""),
        _read_query(parts["query"]) if parts["query"] else None,
    )


def _scheme_of(url: str) -> str:
    scheme = url.partition("://")[0].lower() if _BEGINNING.match(url) else ""
    if "cluster" in scheme:
        raise ValueError(NO_CLUSTER)
    if scheme not in _SCHEMES:
        raise ValueError(f"must start with {SCHEMES}")
    return scheme


def _read_host(text: str) -> tuple[str, int | None]:
    host = _HOST.fullmatch(text)
    if host is None:
        raise ValueError(
            "has a host or port that cannot be read; a port is a number, an IPv6 address in brackets"
        )
    try:
        if host["v6"]:
            IPv6Address(host["v6"])
        elif host["name"]:
            host["name"].encode("idna")  # connecting does the same, and no library expects the error there
    except ValueError:
        raise ValueError("has a host that is neither a name nor an address") from None
    return (host["v6"] or host["name"]).lower(), _port(host["port"])


def _port(digits: str | None) -> int | None:
    if not digits:
        return None
    if not 1 <= int(digits[: len(str(_MAX_PORT)) + 1]) <= _MAX_PORT:
        raise ValueError(f"has a port that is not from 1 to {_MAX_PORT}")
    return int(digits)


def _read_database(path: str) -> dict[str, Any] | None:
    if path in ("", "/"):
        return None
    if not re.fullmatch(r"/[0-9]{1,9}", path):
        raise ValueError("must end with the number of a Redis database, or without a path")
    return {"database": int(path[1:])}


def _read_virtual_host(path: str) -> dict[str, Any]:
    name = _decoded(path[1:]) or "/"
    if len(name.encode()) > _MAX_VIRTUAL_HOST_BYTES:
        raise ValueError(f"has a virtual host of more than {_MAX_VIRTUAL_HOST_BYTES} bytes")
    return {"virtual_host": name}


def _read_query(query: str) -> tuple[tuple[str, str], ...]:
    parameters: dict[str, str] = {}
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name in parameters:
            raise ValueError(f"has the parameter {name} twice")
        parameters[name] = _decoded(value, unquote_plus)
    return tuple(sorted(parameters.items()))


def _decoded(text: str, decode: Callable[..., str] = unquote) -> str:
    try:
        return decode(text, errors="strict")
    except ValueError:
        raise ValueError(UNREADABLE) from None  # the text of the original error quotes a part of the URL


def _merge(urls: Sequence[_Url]) -> _Url:
    """Return one URL with the hosts of all. They must agree on everything else."""
    first = urls[0]
    if len(urls) == 1:
        return first
    agreed = _FORMS[_SCHEMES[first.scheme].kind].agreed
    return _Url(
        _agreed("schemes", (url.scheme for url in urls)),
        tuple(host for url in urls for host in url.hosts),
        agreed("users", (url.user for url in urls)),
        agreed("passwords", (url.password for url in urls)),
        agreed("paths", (url.path for url in urls)),
        agreed("parameters", (url.parameters for url in urls)),
    )


def _agreed(what: str, values: Iterable[_T]) -> _T:
    first, *others = values
    if any(other != first for other in others):
        raise ValueError(f"names several hosts with different {what}; they must have the same")
    return first


def _agreed_if_said(what: str, values: Iterable[_T | None]) -> _T | None:
    # kombu reads only the hosts of further Sentinels, so people write only those.
    said = [value for value in values if value is not None]
    return _agreed(what, said) if said else None


def _build(url: _Url) -> BrokerUrl:
    scheme = _SCHEMES[url.scheme]
    form = _FORMS[scheme.kind]
    tls, sentinels = _read_parameters(scheme, dict(url.parameters or ()))
    hosts = _with_defaults(url.hosts, scheme.port)
    if len(hosts) > 1 and not form.takes_several_hosts:
        raise ValueError(
            "names several servers; name one, or the Sentinels that know which, with sentinel://"
        )
    return BrokerUrl(
        scheme.kind,
        hosts,
        url.user or form.default_user,
        url.password or form.default_user,
        tls=tls,
        sentinels=sentinels,
        **(url.path or {}),
    )


def _with_defaults(hosts: Sequence[tuple[str, int | None]], default_port: int) -> tuple[tuple[str, int], ...]:
    if len(hosts) > 1 and not all(host for host, _ in hosts):
        raise ValueError("names several hosts, and one of them is empty")
    return tuple((host or "localhost", port or default_port) for host, port in hosts)


def _read_parameters(scheme: _Scheme, given: Mapping[str, str]) -> tuple[Tls | None, Sentinels | None]:
    ours = {name: value for name, value in given.items() if name.startswith("ssl_")}
    others = {name: value for name, value in given.items() if name not in ours}
    if ours and not scheme.has_tls:
        raise ValueError(
            "has parameters of TLS without TLS; start it with rediss://, sentinels:// or amqps://"
        )
    sentinel_parameters = _FORMS[scheme.kind].sentinel_parameters
    known = (*PARAMETERS, *sentinel_parameters)
    for name in given:
        if name not in known:
            raise ValueError(f"has an unknown parameter {name}; known are {', '.join(known)}")
    return (
        read_tls(ours) if scheme.has_tls else None,
        _read_sentinels(others) if sentinel_parameters else None,
    )


def _read_sentinels(parameters: Mapping[str, str]) -> Sentinels:
    return Sentinels(
        parameters.get("master_name") or MASTER_NAME,
        parameters.get("sentinel_username") or None,
        parameters.get("sentinel_password") or None,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _write_database(url: BrokerUrl) -> str:
    return str(url.database)


def _write_virtual_host(url: BrokerUrl) -> str:
    return quote(url.virtual_host, safe="")


_FORMS = for_each_kind(
    {
        Kind.REDIS: _Form(
            read_path=_read_database,
            write_path=_write_database,
            kombu_tls_scheme="rediss",
            tls_options=Tls.for_redis,
            agreed=_agreed,
            takes_several_hosts=False,
        ),
        Kind.SENTINEL: _Form(
            read_path=_read_database,
            write_path=_write_database,
            kombu_tls_scheme="sentinel",  # kombu has no other: `ssl` and `sentinel_arguments` tell it about TLS
            tls_options=Tls.for_redis,
            agreed=_agreed_if_said,
            sentinel_parameters=("master_name", "sentinel_username", "sentinel_password"),
        ),
        Kind.AMQP: _Form(
            read_path=_read_virtual_host,
            write_path=_write_virtual_host,
            kombu_tls_scheme="amqps",
            tls_options=Tls.for_amqp,
            agreed=_agreed,
            default_user="guest",
        ),
    }
)
