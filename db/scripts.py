"""The migrations of this release, as Alembic reads them. Only what migrates a database imports Alembic."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from db import compatibility


def scripts() -> ScriptDirectory:
    """The migrations of this release."""
    return ScriptDirectory.from_config(alembic_config())


def alembic_config() -> Config:
    """Where Alembic finds the migrations."""
    config = Config()
    config.set_main_option("script_location", str(compatibility.MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
