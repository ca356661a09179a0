"""The connections of what is written by hand."""

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from benchmarks.engines import libpq_url


def connect(database_url: str) -> Connection:
    """Connect to the database with this URL of SQLAlchemy's. Each message to it is a transaction of its own."""
    # PostgreSQL keeps a prepared plan. One made for a nearly empty table would later scan the whole table.
    connection = psycopg2.connect(
        libpq_url(database_url), options="-c enable_seqscan=off", application_name="floor"
    )
    connection.autocommit = True  # where there are several statements, BEGIN and COMMIT are sent with them
    return connection
