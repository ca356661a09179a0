"""Engines of a storm that are clusters: RabbitMQ, PostgreSQL with a standby, and Redis behind Sentinels."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from events.sharding import queue_name
from invigilator.local.server import HOST, Server
from tests import engines, standby
from tests.chaos.engines import Strike, Target, ending, pausing, signal_all
from tests.rabbit import Rabbit, running_cluster
from tests.sentinel import Group, running_group

REPLICAS = 2
MAX_LAG_S = 2
"""`min-replicas-max-lag`: a primary without a replica takes no more commands after so long."""
SERVER_SETTINGS = ("min-replicas-to-write 1", f"min-replicas-max-lag {MAX_LAG_S}")
NOTICED_S = 2
"""A server looks at its replicas once a second, and Redis tells a lag in whole seconds."""
POLL_S = 0.05
PATIENCE_S = 60

_STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


# --- RabbitMQ ----------------------------------------------------------------------------------------------


@contextmanager
def running_rabbitmq(seed: int) -> Iterator[Target]:
    """Three nodes. The leader of the first shard's queue is struck, and any node."""
    chance = random.Random(f"nodes {seed}")

    def on_leader(strike: Callable[[Rabbit], Strike]) -> Strike:
        return lambda for_s: strike(cluster.leader(queue_name(0)))(for_s)

    def kill(node: Rabbit) -> Strike:
        return ending(node, signal.SIGKILL)

    with running_cluster() as cluster:
        strikes = {
            "kill_leader": on_leader(kill),
            "kill_node": lambda for_s: kill(chance.choice(cluster.nodes))(for_s),
            "pause_leader": on_leader(pausing),
        }
        yield Target(cluster.url, strikes, lambda: cluster.url)


# --- PostgreSQL --------------------------------------------------------------------------------------------


class Pair:
    """A primary and its synchronous standby, which change their places.

    While there is no standby, the primary commits alone, as Patroni's `synchronous_mode` has it.

    Parameters:
        folder: keeps both.
        start: starts a server on a folder.
    """

    def __init__(self, folder: Path, start: Callable[[Path], Server]) -> None:
        self._start = start
        self._folders = [folder / "one", folder / "other"]
        primary, second = self._folders
        self.primary = start(primary)
        standby.copy(self.primary.url, primary, second)
        self.standby = start(second)
        standby.follow_closely(self.primary.url)
        parts = make_url(self.primary.url)
        hosts = f"{HOST}:{self.primary.port},{HOST}:{self.standby.port}"
        self.url = f"postgresql://{parts.username}:{parts.password}@{hosts}/{parts.database}"

    def fail_over(self, for_s: float) -> None:
        """The primary is killed; after a while the standby takes its place."""
        engines.end(self.primary, signal.SIGKILL)
        time.sleep(for_s)
        self._promote()
        self._rebuild()

    def switch_over(self, _for_s: float) -> None:
        """The primary is shut down in order, and the standby takes its place at once."""
        engines.end(self.primary, signal.SIGINT)
        self._promote()
        self._rebuild()

    def wake_demoted(self, for_s: float) -> None:
        """The primary stands still until it is replaced. It wakes, and takes itself for the primary for a while."""
        signal_all(self.primary, signal.SIGSTOP)
        try:
            self._promote()
        finally:  # a backend that stands still does not notice that its server has ended
            signal_all(self.primary, signal.SIGCONT)
        time.sleep(for_s)
        engines.end(self.primary, signal.SIGQUIT)
        self._rebuild()

    def pause_standby(self, for_s: float) -> None:
        """The standby stands still, so nothing is committed meanwhile."""
        signal_all(self.standby, signal.SIGSTOP)
        time.sleep(for_s)
        signal_all(self.standby, signal.SIGCONT)

    def _promote(self) -> None:
        standby.promote(self.standby.url)
        standby.follow_nobody(self.standby.url)

    def _rebuild(self) -> None:
        """The old primary becomes the standby of the new one."""
        self._folders.reverse()
        self.primary, old = self.standby, self.primary
        primary, second = self._folders
        shutil.rmtree(second / "data")
        standby.copy(self.primary.url, primary, second)
        self.standby = self._start(second)
        assert self.standby.port == old.port, "the server came back at another address"
        _wait_until(lambda: standby.number(self.primary.url, _STREAMING) == 1, "the standby to follow")
        standby.follow_closely(self.primary.url)


@contextmanager
def running_pair(folder: Path) -> Iterator[Target]:
    """A primary and a synchronous standby."""
    with engines.starter(lambda folder, watch: engines.start_postgres(folder, watch=watch)) as start:
        folder.mkdir()
        pair = Pair(folder, start)
        strikes = {
            "fail_over": pair.fail_over,
            "switch_over": pair.switch_over,
            "wake_demoted": pair.wake_demoted,
            "pause_standby": pair.pause_standby,
        }
        yield Target(pair.url, strikes, lambda: pair.primary.url)


# --- Redis behind Sentinels --------------------------------------------------------------------------------


class Windows:
    """When a primary may have acknowledged commands that no replica has got, by the clock on the wall."""

    def __init__(self) -> None:
        self._windows: list[tuple[float, float]] = []

    def add(self, begin: float, end: float) -> None:
        """Note a window, in seconds since 1970."""
        self._windows.append((begin, end))

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, float) and any(begin <= moment <= end for begin, end in self._windows)


class Failovers:
    """What befalls a primary that has replicas and Sentinels.

    Parameters:
        group: of the servers.
        windows: learns what each failover may have lost.
    """

    def __init__(self, group: Group, windows: Windows) -> None:
        self._group = group
        self._windows = windows

    def fail_over(self, for_s: float) -> None:
        """The primary is killed, and comes back as a replica."""
        self._windows.add(time.time() - 1, time.time())
        self._kill(for_s)

    def freeze(self, for_s: float) -> None:
        """The primary stands still until it is replaced, and longer."""
        frozen, began = self._group.primary(), time.time()
        self._group.freeze(frozen)
        self._group.wait_for_another_primary(frozen)
        time.sleep(for_s)
        # It may answer those who have waited for it, before it hears that it is no primary any more.
        self._windows.add(began - 1, time.time() + NOTICED_S)
        self._group.thaw(frozen)
        self._wait_for_replicas()

    def cut_replicas_and_kill(self, for_s: float) -> None:
        """The primary has no replica for so long, and then it is killed."""
        cut = time.time()
        replicas = self._group.cut_replicas()
        time.sleep(for_s)
        self._windows.add(cut - 1, min(time.time(), cut + MAX_LAG_S + NOTICED_S))
        dead = self._group.primary()
        self._group.kill(dead)
        self._group.mend_replicas(replicas)
        self._come_back(dead, 0)

    def _kill(self, for_s: float) -> None:
        dead = self._group.primary()
        self._group.kill(dead)
        self._come_back(dead, for_s)

    def _come_back(self, dead: int, for_s: float) -> None:
        self._group.wait_for_another_primary(dead)
        time.sleep(for_s)
        self._group.start_server(dead)
        self._wait_for_replicas()

    def _wait_for_replicas(self) -> None:
        _wait_until(self._group.has_its_replicas, "every other server to be a replica")


@contextmanager
def running_sentinels(windows: Windows) -> Iterator[Target]:
    """A primary with two replicas, and three Sentinels."""
    with running_group(REPLICAS, SERVER_SETTINGS) as group:
        struck = Failovers(group, windows)
        strikes = {
            "fail_over": struck.fail_over,
            "freeze": struck.freeze,
            "cut_replicas_and_kill": struck.cut_replicas_and_kill,
        }
        yield Target(group.url, strikes, lambda: group.url)


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_S)
