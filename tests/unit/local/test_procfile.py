"""The Procfile: each mistake in it gives a one-line error."""

from pathlib import Path

import pytest

from invigilator.local.procfile import arguments_of, read_procfile
from worker.errors import ConfigurationError


def test_a_procfile_that_is_not_utf8_is_told_by_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_bytes(b"one: true\ntwo: \xff\n")
    with pytest.raises(ConfigurationError, match=f"^{file}: line 2 is not UTF-8: "):
        read_procfile(file)


def test_a_procfile_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_bytes(b"\xef\xbb\xbfone: true\n")
    assert read_procfile(file) == {"one": "true"}


def test_the_lines_of_our_procfile_need_no_shell() -> None:
    assert None not in map(arguments_of, read_procfile().values())


@pytest.mark.parametrize(
    "command",
    [
        "invigilator consume; true",
        "invigilator $WHAT",
        "A=1 invigilator relay",
        "invigilator 'web'",
        "python x.py",
        "",
    ],
)
def test_what_needs_a_shell_or_another_program_is_not_forked(command: str) -> None:
    assert arguments_of(command) is None
