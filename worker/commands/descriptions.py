"""Merges what an LMS says of a course, an exam or a learner into what is known of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from db.recordset import Row
from events.commands import CommandData


@dataclass(slots=True)
class Descriptions:
    """The rows of one table that a batch describes: as they are known, and as upserts have changed them.

    Parameters:
        key: the column of the primary key.
    """

    key: str
    # Learners have names and addresses, which stay out of every repr.
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _changed: set[str] = field(default_factory=set)

    def load(self, rows: Iterable[Row]) -> None:
        """Take over what is recorded."""
        for row in rows:
            at = row["described_at"]
            self._rows[row[self.key]] = {
                **row,
                "described_at": None if at is None else datetime.fromisoformat(at),
            }

    def describe(self, data: CommandData, at: datetime) -> Row | None:
        """Apply an upsert, and return the whole row. A field that was not sent keeps what is known.

        Parameters:
            data: what the LMS says.
            at: from when it is so.

        Returns:
            None when a newer description was applied before. Nothing was changed then.
        """
        key = getattr(data, self.key)
        known = self._rows.get(key)
        if known is None:
            row = dict(data)
        elif known["described_at"] is not None and at < known["described_at"]:
            return None
        else:
            row = known | {name: getattr(data, name) for name in data.model_fields_set}
        row["described_at"] = at
        self._rows[key] = row
        self._changed.add(key)
        return row

    def changed(self) -> Sequence[Row]:
        """Return the changed rows by their keys: two shards that write the same rows lock them in one order."""
        return [self._rows[key] for key in sorted(self._changed)]
