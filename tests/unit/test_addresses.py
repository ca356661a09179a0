"""Which addresses a webhook may lead to, in every form in which one can be written."""

from ipaddress import ip_address

import pytest

from worker.addresses import is_loopback, is_public, literal


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "2002:a00:1::",
        "2001:db8::1",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "192.0.0.1",
        "192.0.0.9",
        "192.0.0.192",
        "192.0.0.255",
        "192.88.99.1",
        "::ffff:192.0.0.192",
        "64:ff9b::192.0.0.192",
        "2002:c000:c0::",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:1::1",
        "2001:4:112::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
    ],
)
def test_an_address_for_a_special_purpose_is_not_public_in_any_python(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "192.0.1.1",
        "192.88.98.1",
        "192.88.100.1",
        "2001:200::1",
        "3ffe::1",
        "8.8.8.8",
        "203.0.114.7",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::",
    ],
)
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_an_address_of_this_machine(address: str) -> None:
    assert is_loopback(ip_address(address))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1", "127.0.0.1."]
)
def test_an_address_is_known_in_every_form(host: str) -> None:
    assert literal(host) == ip_address("127.0.0.1")


def test_an_address_of_a_single_link_keeps_its_link() -> None:
    found = literal("fe80::1%1")
    assert str(found) == "fe80::1%1"
    assert found is not None
    assert not is_public(found)


@pytest.mark.parametrize(
    "host", ["acme.example", "localhost", "127.0.0.1.example", "127.0.0.1..", "", ".", "a" * 300]
)
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None
