"""Broker URLs: every library is led to the same place, and what cannot be is refused without quoting a secret."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.transport import redis as kombu_redis

from events.broker_url import BrokerUrl, Kind, for_each_kind, read_broker_url
from events.connecting import Connection
from worker.commands.sources.redis import make_client
from worker.errors import ConfigurationError
from worker.settings import load


def by_redis_py(broker: BrokerUrl) -> dict[str, Any]:
    """What redis-py would connect to."""
    with make_client(broker, 1) as client:
        told: dict[str, Any] = dict(client.connection_pool.connection_kwargs)
    return told


def by_kombu(broker: BrokerUrl) -> dict[str, Any]:
    """What kombu's transport for Redis would hand to redis-py."""
    with Connection.to(broker, timeout_s=1, transport_options={}) as connection:
        channel = object.__new__(kombu_redis.Channel)
        channel.connection = connection.transport
        told: dict[str, Any] = channel._connparams()
    return told


# Redis


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("localhost", 6379, 0, None, None)),
        ("redis://h", ("h", 6379, 0, None, None)),
        ("redis://h/", ("h", 6379, 0, None, None)),
        ("redis://h:/", ("h", 6379, 0, None, None)),
        ("redis://h?", ("h", 6379, 0, None, None)),
        ("redis://h/5", ("h", 6379, 5, None, None)),
        ("redis://h/05", ("h", 6379, 5, None, None)),
        ("REDIS://H.Example.ORG:1/15", ("h.example.org", 1, 15, None, None)),
        ("redis://:pw@h", ("h", 6379, 0, None, "pw")),
        ("redis://me@h", ("h", 6379, 0, "me", None)),
        ("redis://me:@h", ("h", 6379, 0, "me", None)),
        ("redis://:@h", ("h", 6379, 0, None, None)),
        ("redis://m%2Fe:p%40%3A%2F%3F%23+%25w@h/1", ("h", 6379, 1, "m/e", "p@:/?#+%w")),
        ("redis://me:p:w@h", ("h", 6379, 0, "me", "p:w")),
        ("redis://me:p@w@h", ("h", 6379, 0, "me", "p@w")),
        ("redis://me:p;w@h/2", ("h", 6379, 2, "me", "p;w")),
        ("redis://me:pässwört@h", ("h", 6379, 0, "me", "pässwört")),
        ("redis://[::1]:6380/3", ("::1", 6380, 3, None, None)),
        ("redis://[::FFFF:1.2.3.4]/3", ("::ffff:1.2.3.4", 6379, 3, None, None)),
        ("redis://münchen.example:1", ("münchen.example", 1, 0, None, None)),
        ("redis://my_broker.internal.", ("my_broker.internal.", 6379, 0, None, None)),
    ],
)
def test_both_libraries_go_to_the_same_server_and_database(url: str, expected: tuple[object, ...]) -> None:
    broker = read_broker_url(url)
    for told in (by_redis_py(broker), by_kombu(broker)):
        assert tuple(told[name] for name in ("host", "port", "db", "username", "password")) == expected


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
@example("a;b", ";redis://h/5")
def test_any_user_and_password_arrive_unchanged(user: str, password: str) -> None:
    broker = read_broker_url(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h")
    for told in (by_redis_py(broker), by_kombu(broker)):
        assert (told["host"], told["username"], told["password"]) == ("h", user, password)
    with Connection.to(
        read_broker_url(f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@a,b"),
        timeout_s=1,
        transport_options={},
    ) as connection:
        assert (connection.userid, connection.password) == (user, password)
        connection.maybe_switch_next()
        assert (connection.hostname, connection.userid, connection.password) == ("b", user, password)


# RabbitMQ


@pytest.mark.parametrize(
    ("url", "virtual_host"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h//", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/exams", "exams"),
        ("amqp://h/%2Fexams", "/exams"),
        ("amqp://h//exams", "/exams"),
        ("amqp://h/a/b", "a/b"),
        ("amqp://h/a%3Fb%40", "a?b@"),
    ],
)
def test_a_virtual_host_is_what_kombu_takes_it_for(url: str, virtual_host: str) -> None:
    with Connection.to(read_broker_url(url), timeout_s=1, transport_options={}) as connection:
        assert (connection.virtual_host, connection.userid) == (virtual_host, "guest")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:p%40@a:1,b,[::1]:3/v",
        "amqp://u:p%40@a:1;b;[::1]:3/v",
        "amqp://u:p%40@a:1/v;amqp://u:p%40@b/v;AMQP://u:p%40@[::1]:3/v",
    ],
)
def test_several_hosts_of_rabbitmq_are_tried_in_turn(url: str) -> None:
    # Given several hosts
    with Connection.to(read_broker_url(url), timeout_s=1, transport_options={}) as connection:
        seen = []
        for _ in range(4):
            seen.append((connection.hostname, connection.port))
            assert (connection.userid, connection.password, connection.virtual_host) == ("u", "p@", "v")
            # When one does not answer, then the next is tried, as the same user
            connection.maybe_switch_next()
    assert seen == [("a", 1), ("b", 5672), ("::1", 3), ("a", 1)]


def test_each_host_has_the_default_port_of_its_scheme() -> None:
    assert read_broker_url("amqps://a,b").hosts == (("a", 5671), ("b", 5671))
    assert read_broker_url("sentinel://a,b").hosts == (("a", 26379), ("b", 26379))


# Sentinel


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://me:pw@a:1,b,c:3/4?master_name=exams&sentinel_username=s&sentinel_password=s%2Bp",
        "sentinel://me:pw@a:1;sentinel://b;sentinel://c:3/4?master_name=exams&sentinel_username=s&sentinel_password=s%2Bp",
    ],
)
def test_sentinels(url: str) -> None:
    broker = read_broker_url(url)
    assert broker.hosts == (("a", 1), ("b", 26379), ("c", 3))
    assert (broker.user, broker.password, broker.database) == ("me", "pw", 4)
    options = broker.transport_options(1)
    assert options["master_name"] == "exams"
    assert (options["sentinel_kwargs"]["username"], options["sentinel_kwargs"]["password"]) == ("s", "s+p")
    # And the Sentinels themselves are not asked with the server's password
    plain = read_broker_url("sentinel://me:pw@a")
    assert plain.transport_options(1)["master_name"] == "mymaster"
    assert plain.sentinel_arguments(1)["password"] is None
    # A Sentinel has no more time than its server
    assert (
        plain.sentinel_arguments(1)["socket_timeout"],
        plain.sentinel_arguments(60)["socket_timeout"],
    ) == (1, 3)


def test_secrets_are_in_no_repr() -> None:
    broker = read_broker_url("sentinels://me:s3cret@a?sentinel_password=s3cret")
    assert "s3cret" not in repr(broker)


# What is refused, by everybody


REFUSED = [
    ("redis://:s3cret@h/5;redis://:s3cret@h/5", "names several servers"),
    ("redis://:s3cret@a,b/5", "names several servers"),
    ("redis://:s3cret@h?db=3", "has an unknown parameter db;"),
    ("redis://:s3cret@h/1?db=3", "has an unknown parameter db;"),
    ("redis://:s3cret@h?health_check_interval=30", "has an unknown parameter health_check_interval;"),
    ("redis://:s3cret@h?password=s3cret", "has an unknown parameter password;"),
    ("redis://:s3cret@h?virtual_host=3", "has an unknown parameter virtual_host;"),
    ("redis://:s3cret@h?protocol=3", "has an unknown parameter protocol;"),
    ("redis://:s3cret@h/5/", "must end with the number of a Redis database"),
    ("redis://:s3cret@h//5", "must end with the number of a Redis database"),
    ("redis://:s3cret@h/abc", "must end with the number of a Redis database"),
    ("redis://:s3cret@h/-1", "must end with the number of a Redis database"),
    ("redis://:s3cret@h/٣", "must end with the number of a Redis database"),
    ("redis://:s3cret@h/1.0", "must end with the number of a Redis database"),
    ("redis://:s3cret@h:0", "has a port that is not from 1 to 65535"),
    ("redis://:s3cret@h:70000", "has a port that is not from 1 to 65535"),
    ("redis://:s3cret@h:999999999999999999999", "has a port that is not from 1 to 65535"),
    ("redis://:s3cret@h:abc", "has a host or port that cannot be read"),
    ("redis://:s3cret@::1/0", "has a host or port that cannot be read"),
    ("redis://:s3cret@[::1", "has a host or port that cannot be read"),
    ("redis://:s3cret@[1::2::3]", "has a host that is neither a name nor an address"),
    ("redis://:s3cret@a..b", "has a host that is neither a name nor an address"),
    (f"redis://:s3cret@{'a' * 64}", "has a host that is neither a name nor an address"),
    ("redis://:s3cret@%2Ftmp%2Fsocket", "has a host or port that cannot be read"),
    ("redis://:s3cret@h#0", "has a # in it"),
    ("redis://:s3#cret@h", "has a # in it"),
    ("redis://:s3cret@h ", "has white space"),
    ("redis://:s3cret@h/0\n", "has white space"),
    ("redis://:s3 cret@h", "has white space"),
    ("redis://:s3cret\udcff@h", "has white space, control characters or other bytes than UTF-8"),
    ("redis://:s3cret%ff@h", "cannot be read"),
    ("redis://:12/s3cret@h", "cannot be read"),
    ("redis://:12?s3cret@h", "cannot be read"),
    ("redis://:s3[cret]@h", "cannot be read"),
    ("rediss://:s3cret@h?ssl_cert_reqs=none&ssl_cert_reqs=required", "has the parameter ssl_cert_reqs twice"),
    ("unix://:s3cret@/tmp/socket", "must start with redis://, "),
    ("redis+socket://:s3cret@/tmp/socket", "must start with redis://, "),
    ("redis+sentinel://:s3cret@h", "must start with redis://, "),
    ("memory://", "must start with redis://, "),
    ("sqs://s3cret@", "must start with redis://, "),
    ("://h", "must start with redis://, "),
    ("redis+cluster://:s3cret@h", "is a Redis Cluster, which Celery cannot use"),
    ("rediss+cluster://:s3cret@h", "is a Redis Cluster, which Celery cannot use"),
    ("sentinel://:s3cret@a,,b", "names several hosts, and one of them is empty"),
    ("sentinel://:s3cret@a?service=x", "has an unknown parameter service; known are "),
    ("redis://:s3cret@a?master_name=x", "has an unknown parameter master_name;"),
    ("sentinel://:s3cret@a/1;sentinel://b/2", "names several hosts with different paths"),
    ("sentinel://:s3cret@a;sentinel://:0ther@b", "names several hosts with different passwords"),
    ("sentinel://:s3cret@a;sentinels://b", "names several hosts with different schemes"),
    ("amqp://u:s3cret@h?heartbeat=5", "has an unknown parameter heartbeat;"),
    ("amqp://u:s3cret@h?connect_timeout=5", "has an unknown parameter connect_timeout;"),
    ("amqp://u:s3cret@h?ssl=true", "has an unknown parameter ssl;"),
    ("amqp://u:s3cret@h/v@w", "cannot be read"),
    (f"amqp://u:s3cret@h/{'v' * 256}", "has a virtual host of more than 255 bytes"),
    ("amqp://u:s3cret@a,", "names several hosts, and one of them is empty"),
    ("amqp://u:s3cret@a/v;amqp://u:0ther@b/v", "names several hosts with different passwords"),
    ("amqp://u:s3cret@a/v;amqp://w:s3cret@b/v", "names several hosts with different users"),
    ("amqp://u:s3cret@a/v;amqp://b/v", "names several hosts with different users"),
    ("amqp://u:s3cret@a/v;amqp://u:s3cret@b/w", "names several hosts with different paths"),
    ("amqp://u:s3cret@a/v;amqps://u:s3cret@b/v", "names several hosts with different schemes"),
    ("amqp://u:s3cret@a;redis://u:s3cret@b", "names several hosts with different schemes"),
    ("amqps://a;amqps://b?ssl_cert_reqs=none", "names several hosts with different parameters"),
]


@pytest.mark.parametrize(("url", "complaint"), REFUSED)
def test_what_is_wrong_is_named_and_nothing_is_quoted(url: str, complaint: str) -> None:
    with pytest.raises(ValueError) as wrong:
        read_broker_url(url)
    said = str(wrong.value)
    assert said.startswith(complaint)
    assert wrong.value.__suppress_context__ or wrong.value.__context__ is None
    assert not any(part in said for part in ("s3cret", "cret", "0ther", "\n"))


@pytest.mark.parametrize(
    ("url", "complaint"), [case for case in REFUSED if "\n" not in case[0] and "\udcff" not in case[0]]
)
def test_it_is_refused_at_the_start(url: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", url)
    with pytest.raises(ConfigurationError) as wrong:
        load()
    assert str(wrong.value).startswith(f"INVIGILATOR_BROKER_URL {complaint}")


@given(st.text(alphabet="redisamqp:/@;,?#[]%=&0123 sentl\ud800ü"))
def test_whatever_it_is_it_is_read_or_refused(rest: str) -> None:
    for scheme in ("redis://", "sentinels://", "amqp://"):
        try:
            broker = read_broker_url(scheme + rest)
        except ValueError:
            continue
        # What is written anew is read again as what it was
        options = "?ssl_cert_reqs=none" if broker.tls else ""
        again = read_broker_url(broker.for_kombu.replace("sentinel://", scheme) + options)
        assert (again.hosts, again.user, again.password) == (broker.hosts, broker.user, broker.password)
        assert (again.database, again.virtual_host) == (broker.database, broker.virtual_host)


def test_a_kind_that_a_table_lacks_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no entry for sentinel, amqp$"):
        for_each_kind({Kind.REDIS: 1})
    table = dict.fromkeys(Kind, 1)
    assert for_each_kind(table) is table
