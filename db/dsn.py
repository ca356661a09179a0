"""The database's address. libpq reads it, so every URL means here what it means to `psql`."""

import os
import re
from collections.abc import Iterable, Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus, urlencode

import psycopg2
from psycopg2.extensions import parse_dsn

NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
NO_FILE = re.compile("system|.*:.*")
"""Values that are no paths: `system` for the system's authorities, `engine:key` for a key of an OpenSSL engine."""
NOWHERE = "/nonexistent"

# The user and the password end at the first @ that comes before any slash, as libpq reads them.
_URL = re.compile(r"(?P<scheme>[^:/@]+)://(?P<login>[^@/]*@)?(?P<place>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_UNREADABLE = "is no database URL; write postgresql://user:password@host:port/name, special characters as %XX"


class _Parts(NamedTuple):
    scheme: str
    login: str
    place: str
    query: str


def parse(url: str) -> dict[str, str]:
    """The URL as libpq's parameters by name, with those of the service that the URL or PGSERVICE names.

    Parameters:
        url: `postgresql://…` as `psql` takes it: with several hosts, a socket's folder as the host, and any
            parameter of libpq. The scheme may name a driver, which is ignored. In the query `+` is a space, and
            hosts may also be written as in SQLAlchemy (`?host=h1:5432&host=h2:5432`).

    Raises:
        ValueError: it is no such URL. The text quotes nothing that may be secret.
    """
    parts = _split(url)
    before_query = f"postgresql://{parts.login}{parts.place}"
    # Before the query is read: after an unquoted slash in the password, the port is a part of the password.
    _check_ports(_read(before_query).get("port", ""))
    fields = _query(parts.query)
    for name, value in fields.items():
        _check_known(name, value)
    parameters = _read(f"{before_query}?{urlencode(fields, quote_via=quote)}")
    _check_ports(parameters.get("port", ""))
    return _of_service(parameters.get("service") or os.environ.get("PGSERVICE")) | parameters


def checked(url: str) -> str:
    """The URL with the driver that we use, after every check that needs no connection.

    Raises:
        ValueError: what is wrong, in one line that quotes nothing that may be secret.
    """
    parameters = parse(url)
    for name in NUMBERS:
        if not re.fullmatch(r"\s*-?\d{1,9}\s*", parameters.get(name, "0")):
            raise ValueError(f"has a parameter {name} that is no number")
    for name in FILES:
        _check_file(name, parameters.get(name, ""))
    _check_authorities(parameters)
    _rehearse(parameters)
    return re.sub("^[^:]*", "postgresql+psycopg2", url)


def _split(url: str) -> _Parts:
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(_UNREADABLE)
    parts = _Parts(*(found[name] or "" for name in _Parts._fields))
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError("must start with postgresql://; other databases are not supported")
    if "@" in parts.place or ("@" in parts.query and not parts.login):
        # Most likely the password has an @ or a slash, and libpq would take a part of it for a host.
        raise ValueError(_UNREADABLE)
    return parts


def _read(url: str) -> dict[str, str]:
    try:
        return dict(parse_dsn(url))
    except psycopg2.ProgrammingError:
        # The original error may quote a part of the URL, and so the password.
        raise ValueError(_UNREADABLE) from None


def _query(text: str) -> dict[str, str]:
    fields: dict[str, list[str]] = {}
    for field in filter(None, text.split("&")):
        name, separator, value = field.partition("=")
        if not separator:
            raise ValueError(_UNREADABLE)
        fields.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    last = {name: values[-1] for name, values in fields.items()}
    return last | _hosts(fields["host"], fields.get("port", [])) if "host" in fields else last


def _hosts(hosts: Iterable[str], ports: Iterable[str]) -> dict[str, str]:
    given = [host.split(":") if host.count(":") == 1 else [host, ""] for host in ",".join(hosts).split(",")]
    found = {
        "host": ",".join(host for host, _ in given),
        "port": ",".join(ports) or ",".join(port for _, port in given),
    }
    return {name: value for name, value in found.items() if value.strip(",")}


def _check_known(name: str, value: str) -> None:
    try:
        parse_dsn(f"postgresql:///?{urlencode({name: value}, quote_via=quote)}")
    except psycopg2.ProgrammingError:
        raise ValueError(f"has a parameter {name!r} that libpq, PostgreSQL's client, does not know") from None


def _of_service(name: str | None) -> dict[str, str]:
    # libpq reads the service as well, but our own defaults would override it. A service file elsewhere is left to
    # libpq.
    if not name:
        return {}
    file = os.environ.get("PGSERVICEFILE") or str(Path.home() / ".pg_service.conf")
    services = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=False)
    try:
        services.read(file)
    except (Error, UnicodeDecodeError):
        return {}
    return dict(services[name]) if services.has_section(name) else {}


def _check_ports(ports: str) -> None:
    for port in filter(None, ports.split(",")):
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
            raise ValueError("has a port that is no number from 1 to 65535")


def _check_file(name: str, path: str) -> None:
    if path and not NO_FILE.fullmatch(path) and not os.access(path, os.R_OK):
        raise ValueError(f"names a file that cannot be read: {name}={path}")


def _check_authorities(parameters: Mapping[str, str]) -> None:
    mode = parameters.get("sslmode") or os.environ.get("PGSSLMODE", "")
    authorities = (
        parameters.get("sslrootcert")
        or os.environ.get("PGSSLROOTCERT")
        or str(Path.home() / ".postgresql" / "root.crt")
    )
    if mode.startswith("verify-"):
        try:
            _check_file("sslrootcert", authorities)
        except ValueError:
            raise ValueError(
                f"has sslmode={mode}, and no sslrootcert: give it a file of certificates, or `system`"
            ) from None


def _rehearse(parameters: Mapping[str, str]) -> None:
    """Let libpq check the parameters, which it does before it connects. The sockets given to it do not exist."""
    hosts = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST", "")
    gss = parameters.get("gssencmode", "require")
    elsewhere: dict[str, Any] = {
        "host": ",".join(NOWHERE for _ in hosts.split(",")),
        "hostaddr": "",  # overrides PGHOSTADDR
        "gssencmode": "disable" if gss == "require" else gss,  # sockets have no GSS encryption
    }
    try:
        psycopg2.connect(**{**parameters, **elsewhere}).close()
    except psycopg2.OperationalError as error:
        for line in str(error).splitlines():
            if not line.startswith(("\t", "connection to server on socket")):
                raise ValueError(f"cannot be used: {line}") from None
