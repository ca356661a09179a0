"""Extras: which of their distributions are missing."""

import pytest

from worker import extras
from worker.errors import ConfigurationError


@pytest.fixture
def half_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "anyio",
        "pytest; extra == 'local'",
        "no-such-engine>=3; extra == 'local'",
        "nor-this; extra == 'flower'",
    ]
    monkeypatch.setattr(extras, "requires", lambda _name: wanted)


@pytest.mark.usefixtures("half_installed")
def test_what_an_extra_lacks_is_named_with_how_to_install_it() -> None:
    assert extras.missing(extras.LOCAL) == ["no-such-engine"]
    with pytest.raises(ConfigurationError) as caught:
        extras.need(extras.LOCAL, "`invigilator up`")
    assert str(caught.value) == (
        "`invigilator up` needs the extra [local] (no-such-engine missing): pip install 'invigilator[local]'"
    )


@pytest.mark.parametrize("extra", [extras.LOCAL, extras.FLOWER, extras.WEB, extras.OPENEDX])
def test_with_everything_installed_nothing_is_missing(extra: str) -> None:
    extras.need(extra, "this test")
