"""The data folder: what cannot be one is refused by the name of its setting."""

from pathlib import Path

import pytest

from invigilator.local import folder
from worker import data_folder
from worker.errors import ConfigurationError


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(ConfigurationError, match=r"INVIGILATOR_DATA_DIR=\S+ cannot be used: File exists"),
        folder.hold(file),
    ):
        pass


def test_nobody_runs_where_there_is_nothing(tmp_path: Path) -> None:
    assert not data_folder.is_held(tmp_path / "nowhere")
    assert not data_folder.is_held(tmp_path)


def test_a_folder_is_held_while_it_is(tmp_path: Path) -> None:
    with folder.hold(tmp_path / "new"):
        assert data_folder.is_held(tmp_path / "new")
    assert not data_folder.is_held(tmp_path / "new")
