"""Rows that a statement is given, so that its text does not depend on how many there are."""

from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, column, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine


def rows_from_arrays(name: str, **columns: type[TypeEngine[Any]]) -> TableValuedAlias:
    """The rows, to select from. Each column is passed as an array, the parameter `{name}_{column}`.

    Parameters:
        name: of the rows in the statement.
        columns: their types.
    """
    # SQLAlchemy keeps the bare names of columns for what an UPDATE sets.
    arrays = [bindparam(f"{name}_{key}", type_=ARRAY(type_)) for key, type_ in columns.items()]
    rows = func.unnest(*arrays).table_valued(*(column(key, type_) for key, type_ in columns.items()))
    return rows.render_derived(name=name)
