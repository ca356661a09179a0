"""Rows for a person: whole values, whatever the terminal's width; and no waiting for the last row."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from invigilator.cli.output import TABLE_ROWS, print_rows, rows_wanted
from invigilator.cli.table import MEASURED_ROWS, print_table

COLUMNS = ("id", "state", "last_error")
ID = "0198c0de-0000-7000-8000-000000000000"

Shown = Callable[[Sequence[Sequence[str]], Sequence[str]], str]


class Terminal(io.StringIO):
    """Standard output of somebody who looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a terminal of 80 columns is given."""

    def show(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
        terminal = Terminal()
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "stdout", terminal)
        assert print_table(rows, columns) == len(rows)
        return terminal.getvalue()

    return show


def test_what_fits_is_a_line_for_each_row(shown: Shown) -> None:
    assert shown([(ID, "failed", "no"), (ID, "done", "-")], COLUMNS) == (
        f"id{' ' * 36}state   last_error\n{ID}  failed  no\n{ID}  done    -\n"
    )


def test_what_does_not_fit_is_a_block_for_each_row_with_whole_values(shown: Shown) -> None:
    error = "; ".join(["the service of invigilator.effects.credit answered 503"] * 3)
    assert shown([(ID, "leaves no room for an error", error), (ID, "done", "-")], COLUMNS) == (
        f"id          {ID}\n"
        "state       leaves no room for an error\n"
        f"last_error  {error}\n\n"
        f"id          {ID}\nstate       done\nlast_error  -\n\n"
    )


def test_of_a_line_only_free_text_is_cut(shown: Shown) -> None:
    rows = [("1", "x" * 300), ("22", "x" * 20)]
    assert shown(rows, ("id", "last_error")).splitlines()[1:] == [f"1   {'x' * 75}…", f"22  {'x' * 20}"]
    assert f"target  {'x' * 300}\n" in shown(rows, ("id", "target"))


def test_a_later_row_may_be_wider_and_stays_whole(shown: Shown) -> None:
    rows = [("1", "short", "-")] * MEASURED_ROWS + [("1", "much longer", "no")]
    assert shown(rows, COLUMNS).endswith("\n1   short  -\n1   much longer  no\n")


def test_wide_characters_are_aligned(shown: Shown) -> None:
    printed = shown([("試験", "created"), ("a", "started")], ("exam_id", "status"))
    assert printed.splitlines()[1:] == ["試験     created", "a        started"]


def test_a_pipe_gets_a_line_for_each_row_however_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_table([(ID, "failed", "x" * 500)], COLUMNS, indent="  ")
    assert capsys.readouterr().out.splitlines()[1] == f"  {ID}  failed  {'x' * 500}"


def test_of_nothing_a_person_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], COLUMNS, as_json=True, what="effects")
    assert capsys.readouterr().out == ""
    print_rows([], COLUMNS, as_json=False, what="effects")
    assert capsys.readouterr().out == "no effects\n"


@pytest.mark.parametrize(
    ("stored", "limit", "shown", "hinted"),
    [
        (TABLE_ROWS, None, TABLE_ROWS, False),
        (TABLE_ROWS + 1, None, TABLE_ROWS, True),
        (TABLE_ROWS + 1, TABLE_ROWS, TABLE_ROWS, False),
        (TABLE_ROWS + 1, TABLE_ROWS + 1, TABLE_ROWS + 1, False),
    ],
)
def test_only_rows_that_the_default_leaves_out_are_hinted_at(
    stored: int, limit: int | None, shown: int, hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [dict.fromkeys(COLUMNS, "x")] * stored
    print_rows(rows[: rows_wanted(limit, as_json=False)], COLUMNS, False, "effects", limit=limit)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + shown
    assert ("for more use --limit" in printed.err) is hinted


class ClosedPipe(io.StringIO):
    """Standard output of somebody who has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("as_json", [True, False])
def test_rows_are_printed_while_others_are_read(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    # Given very many rows, and somebody who reads none of them
    read: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(100 * MEASURED_ROWS):
            read.append(number)
            yield dict.fromkeys(COLUMNS, "x")

    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    # When they are printed
    with pytest.raises(BrokenPipeError):
        print_rows(rows(), COLUMNS, as_json, "effects", limit=100 * MEASURED_ROWS)
    # Then that is noticed at the first, when no more than a page was read
    assert len(read) == (1 if as_json else MEASURED_ROWS)
