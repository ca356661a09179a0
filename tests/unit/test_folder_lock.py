"""The lock of the data folder, and the error for a path that cannot be a folder."""

from pathlib import Path

import pytest

from invigilator.local import single_instance
from worker import folder_lock
from worker.errors import ConfigurationError


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(ConfigurationError, match=r"INVIGILATOR_DATA_DIR=\S+ cannot be used: File exists"),
        single_instance.hold(file),
    ):
        pass


def test_nobody_runs_where_there_is_nothing(tmp_path: Path) -> None:
    assert not folder_lock.is_held(tmp_path / "nowhere")
    assert not folder_lock.is_held(tmp_path)


def test_a_folder_is_held_while_it_is(tmp_path: Path) -> None:
    with single_instance.hold(tmp_path / "new"):
        assert folder_lock.is_held(tmp_path / "new")
    assert not folder_lock.is_held(tmp_path / "new")
