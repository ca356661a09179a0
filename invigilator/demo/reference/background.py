"""What the reference LMS and the mail sink have in common: they run in the background of a program."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class BackgroundServer(ABC):
    """A server in a thread of its own. It runs between `start` and `stop`, or in a `with` block."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for the settings."""

    @abstractmethod
    def start(self) -> None:
        """Listen and serve."""

    @abstractmethod
    def stop(self) -> None:
        """Close every connection and wait for the threads. What the server has recorded can still be read."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
