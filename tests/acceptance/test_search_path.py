"""Options of libpq, as in `?options=-csearch_path%3Dexams`, hold for every process, or for none."""

from tests import standby
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = :schema"


def test_everything_happens_in_the_schema_that_the_address_names(
    empty_database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    # Given a schema of ours in a database, and an address that leads to it
    standby.execute(empty_database_url, "CREATE SCHEMA exams")
    with Stack(f"{empty_database_url}?options=-csearch_path%3Dexams", valkey_url) as stack:
        # When everybody works
        stack.cli("migrate")
        stack.client.publish(load(60, seed=29))
        stack.start_all()
        stack.settle()
        # Then every table is in the schema `exams`, and the command line finds it
        assert_nothing_lost_or_doubled(stack, calm_database_url)
        assert '"pending": 0' in stack.cli("status", "--json").stdout
        assert stack.number(TABLES, schema="exams") > 0
        assert stack.number(TABLES, schema="public") == 0
