"""During an upgrade the processes of this release and of the previous one work on one database."""

import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice

import pytest

from db import compatibility, scripts
from invigilator.local.procfile import PROCFILE
from tests.acceptance.harness import PROGRAMS, Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.engines import disposed
from tests.loops import running
from tests.release import Release, previous_release

COMMANDS = 8_000
INTRODUCTIONS = 72
"""Of the load: the courses, exams and learners that everything else is about."""
BETWEEN_COMMANDS_S = 0.05
WORK = 60
"""Commands that each release handles alone."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return previous_release(tmp_path_factory.mktemp("previous"))


def use(stack: Stack, release: Release | None) -> None:
    """Run the programs of another release from now on; None for this one."""
    stack.programs = release.programs if release else PROGRAMS
    stack.procfile = release.procfile if release else PROCFILE


def revision(stack: Stack) -> str:
    """The revision of the database's schema."""
    with disposed(stack.database_url) as engine, engine.connect() as connection:
        return compatibility.schema_revision(connection)


def test_each_release_can_use_the_schema_of_the_other(previous: Release) -> None:
    newest = scripts.scripts().get_revision(compatibility.head())
    assert previous.head >= compatibility.NEEDED
    assert newest.module.usable_from <= previous.head


def assert_works(stack: Stack, calm_database_url: str, seed: int) -> None:
    """Check that everything happens, that the relay prunes, and that the command line works."""
    stack.client.publish(load(60, seed=seed))
    stack.start("commands")
    relay = stack.start("relay", PRUNE_OLDER_THAN="90d")
    stack.start("effects")
    stack.start("mail")
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)
    assert '"pending": 0' in stack.cli("status", "--json").stdout
    stack.wait_until(lambda: "pruned" in relay.output(), "the relay to prune")


def test_this_release_works_on_the_schema_of_the_previous_one(
    previous: Release, empty_database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    with Stack(empty_database_url, valkey_url) as stack:
        # Given a database that the previous release has made
        use(stack, previous)
        stack.cli("migrate")
        use(stack, None)
        # When this release starts without migrating, then it works
        assert_works(stack, calm_database_url, seed=31)
        assert revision(stack) == previous.head


def test_the_previous_release_works_on_this_schema(
    previous: Release, database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    with Stack(database_url, valkey_url) as stack:
        # Given the schema of this release, which `migrate` of the previous one leaves as it is
        use(stack, previous)
        stack.cli("migrate")
        assert revision(stack) == compatibility.head()
        # When the previous release starts, then it works
        assert_works(stack, calm_database_url, seed=32)


def test_nothing_is_lost_on_the_way_to_this_release_and_back(
    previous: Release, empty_database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    bodies = iter(load(COMMANDS, seed=33))
    with Stack(empty_database_url, valkey_url, BATCH_SIZE=5) as stack:
        # Given the previous release at work, and an LMS that never stops publishing
        use(stack, previous)
        stack.cli("migrate")
        stack.client.publish(list(islice(bodies, INTRODUCTIONS)))
        stack.start_all()
        with running(partial(publish_steadily, stack, bodies)):
            wait_for_work(stack)
            # When this release takes its place, and then the previous one again
            for release in (None, previous):
                replace(stack, release)
                assert revision(stack) == compatibility.head()
                # Then each of them goes on alone where the other one has stopped
                wait_for_work(stack)
        assert next(bodies, None) is not None, "the LMS had nothing more to publish: raise COMMANDS"
        # And in the end every command has its outcome, once, and everything that follows from it has happened, once
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def publish_steadily(stack: Stack, bodies: Iterator[bytes], stopping: threading.Event) -> None:
    """Publish one command after the other until the test has seen enough."""
    while not stopping.wait(BETWEEN_COMMANDS_S):
        stack.client.publish([next(bodies)])


def wait_for_work(stack: Stack) -> None:
    """Wait until those who run now have all begun, and have handled some of what is published now."""
    stack.wait_until(lambda: pids(stack) <= seen(stack), "each process to give a sign of life")
    published = len(stack.client.bodies)
    stack.wait_until_handled(published + WORK)


def pids(stack: Stack) -> set[int]:
    return {process.pid for process in stack.processes if process.is_running}


def seen(stack: Stack) -> set[int]:
    """Those who have given a sign of life. Who has not yet is ended by SIGTERM itself."""
    return {row.pid for row in stack.rows("SELECT pid FROM processes")}


def replace(stack: Stack, release: Release | None) -> None:
    """Let another release take over as docs/operate.md says: migrate, start the new processes, end the old ones."""
    olds = [process for process in stack.processes if process.is_running]
    use(stack, release)
    stack.cli("migrate")
    stack.start_all()
    for old in olds:
        assert old.terminate() == 0
