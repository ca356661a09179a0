"""The database URL: which URLs are accepted, what they mean, and which are refused before a connection is made."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from db import dsn

ADDRESSES = {
    "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write": {
        "host": "h1,h2",
        "port": "5432,5433",
        "target_session_attrs": "read-write",
    },
    "postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/db": {"host": "/var/run/postgresql"},
    "postgresql://u:p@/db?host=/var/run/postgresql": {"host": "/var/run/postgresql"},
    "postgresql://u:p@/db?host=h1:1&host=h2:2": {"host": "h1,h2", "port": "1,2"},
    "postgresql://u:p@/db?host=h1,h2&port=1,2": {"host": "h1,h2", "port": "1,2"},
    "postgresql://u:p@h:1/db?host=/tmp": {"host": "/tmp", "port": "1"},
    "postgresql://u:p@[::1]:5/db": {"host": "::1", "port": "5"},
    "postgresql://u:p@[::1],h2:6/db": {"host": "::1,h2", "port": ",6"},
    "postgres+asyncpg://u:p@h/db?ssl=true": {"host": "h", "sslmode": "require"},
    "postgresql://u:p@h/db?options=-c+search_path%3Dexams": {"host": "h", "options": "-c search_path=exams"},
    "postgresql://h/db?user=u&password=p": {"host": "h"},
    "postgresql://h/db?connect_timeout=3&user=u&password=p&": {"host": "h", "connect_timeout": "3"},
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_what_psql_understands_means_the_same_here(url: str) -> None:
    expected = {"user": "u", "password": "p", "dbname": "db", **ADDRESSES[url]}
    assert dsn.parse(url) == expected
    # And checking the URL changes only the driver
    assert dsn.parse(dsn.checked(url)) == expected


@pytest.mark.parametrize("password", ["p@s:s/w?o&r=d#+%", "ü 李", "'\\"])
def test_special_characters_are_quoted(password: str) -> None:
    assert dsn.parse(f"postgresql://u:{quote(password, safe='')}@h/db")["password"] == password
    assert dsn.parse(f"postgresql://h/db?user=u&password={quote(password)}")["password"] == password


def test_an_empty_password_is_none() -> None:
    assert "password" not in dsn.parse("postgresql://u:@h/db")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:secret@h/db?sslmod=require", "'sslmod'"),
        ("postgresql://u:secret@h/db?sslmode=requir", 'invalid sslmode value: "requir"'),
        ("postgresql://u:secret@h/db?sslmode", "is no database URL"),
        ("postgresql://u:secret@h/db?target_session_attrs=rw", "target_session_attrs"),
        ("postgresql://u:secret@h/db?connect_timeout=soon", "connect_timeout"),
        ("postgresql://u:secret@h/db?keepalives_idle=x", "keepalives_idle"),
        ("postgresql://u:secret@h/db?sslrootcert=/no/such.pem", "sslrootcert=/no/such.pem"),
        ("postgresql://u:secret@h/db?sslcert=/no/such.pem", "sslcert=/no/such.pem"),
        ("postgresql://u:secret@h/db?passfile=/no/such", "passfile=/no/such"),
        ("postgresql://u:secret@h/db?sslmode=verify-full", "sslrootcert"),
        ("postgresql://u:secret@h/db?sslmode=require&sslrootcert=system", "sslrootcert=system"),
        ("postgresql://u:secret@h/db?service=nowhere", 'service "nowhere"'),
        ("postgresql://u:secret@h/db?gssencmode=x", "gssencmode"),
        ("postgresql://u:secret@h:port/db", "port"),
        ("postgresql://u:secret@h:0/db", "port"),
        ("postgresql://u:secret@h1:1,h2:65536/db", "port"),
        ("postgresql://u:secret@h1,h2/db?port=1,2,3", "3 port numbers to 2 hosts"),
        ("postgresql://u:sec/ret@h/db", "is no database URL"),
        ("postgresql://u:sec@ret@h/db", "is no database URL"),
        ("postgresql://u:secret%zz@h/db", "is no database URL"),
        ("postgresql://u:s/secret?secret=1@h/db", "port"),
        ("postgresql:/u:secret@h", "is no database URL"),
        ("host=h password=secret", "is no database URL"),
        ("", "is no database URL"),
        ("mysql://u:secret@h/db", "must start with postgresql://"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_without_secrets(
    url: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        dsn.checked(url)
    message = str(raised.value)
    assert "\n" not in message
    assert "secret" not in message


def test_what_the_environment_says_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")  # nobody is asked while an address is checked
    monkeypatch.setenv("PGSSLROOTCERT", str(authorities))
    dsn.checked("postgresql://u@h/db?sslmode=verify-full")
    monkeypatch.setenv("PGSSLMODE", "requir")
    with pytest.raises(ValueError, match="sslmode"):
        dsn.checked("postgresql://u@h/db")


def test_a_service_is_read_with_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = tmp_path / "services.conf"
    services.write_text("# ours\n[exams]\nhost=h\noptions=-csearch_path=exams\nconnect_timeout=3\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    expected = {"host": "h", "options": "-csearch_path=exams", "connect_timeout": "4", "dbname": "db"}
    named = "postgresql:///db?service=exams&connect_timeout=4"
    assert dsn.parse(named) == {**expected, "service": "exams"}
    assert dsn.checked(named)
    # And the environment may set it as well
    monkeypatch.setenv("PGSERVICE", "exams")
    assert dsn.parse("postgresql:///db?connect_timeout=4") == expected
