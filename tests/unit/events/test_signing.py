"""Signatures: the right one is accepted, and every other one is refused."""

import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from events.signing import is_signed, sign

KEY = "k" * 32
OTHER = "ö" * 32


def test_it_is_hmac_sha256_of_the_body_in_lowercase_hex() -> None:
    # RFC 4231, test case 2
    assert sign(b"what do ya want for nothing?", "Jefe") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    # and the key's UTF-8 bytes count
    assert sign(b"{}", OTHER) == hmac.new(OTHER.encode("utf-8"), b"{}", hashlib.sha256).hexdigest()


@pytest.mark.parametrize("keys", [[KEY], [KEY, OTHER], [OTHER, KEY]])
def test_any_live_key_fits(keys: list[str]) -> None:
    assert is_signed(b"{}", sign(b"{}", KEY), keys)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_signature_of_another_body_does_not_fit(body: bytes, other: bytes) -> None:
    assume(body != other)
    assert not is_signed(body, sign(other, KEY), [KEY])


@given(st.data())
def test_nothing_but_the_signature_fits(data: st.DataObject) -> None:
    # Given a signature, or anything at all, a lone surrogate included, with one place changed
    good = sign(b"{}", KEY)
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + data.draw(st.characters()) + good[place + 1 :]
    given_one = data.draw(st.sampled_from([changed, good[:place], good + changed[place]]) | st.text())
    assume(given_one != good)
    # Then it is refused, without an error
    assert not is_signed(b"{}", given_one, [KEY, OTHER])


@pytest.mark.parametrize("changed", [str.upper, lambda text: f" {text}", lambda text: f"{text}\n"])
def test_it_is_not_mended(changed: Callable[[str], str]) -> None:
    assert not is_signed(b"{}", changed(sign(b"{}", KEY)), [KEY])


def test_without_keys_nothing_fits() -> None:
    assert not is_signed(b"{}", sign(b"{}", KEY), [])
