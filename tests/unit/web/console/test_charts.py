"""Charts: all have the same axis, whatever there is to draw."""

from datetime import UTC, datetime, timedelta

from invigilator.web.console.charts import LEFT, WIDTH, spans, stacked

NOON = datetime(2027, 1, 31, 12, 7, 3, tzinfo=UTC)
MOMENTS = spans(NOON, timedelta(hours=6), timedelta(minutes=15))


def test_the_axis_is_six_hours_long_and_ends_now() -> None:
    assert len(MOMENTS) == 24
    assert (MOMENTS[0], MOMENTS[-1]) == (
        datetime(2027, 1, 31, 6, 15, tzinfo=UTC),
        datetime(2027, 1, 31, 12, tzinfo=UTC),
    )
    chart = stacked("Tries", "results", {"done": {NOON: 1}}, MOMENTS)
    assert [hour for _, hour in chart.hours] == ["07:00", "08:00", "09:00", "10:00", "11:00", "12:00"]


def test_a_first_sample_is_one_narrow_bar_at_its_time() -> None:
    [bar] = stacked("Tries", "results", {"done": {NOON: 5}}, MOMENTS).bars
    assert bar.width < (WIDTH - LEFT) / 24
    assert bar.x > WIDTH - (WIDTH - LEFT) / 24 - 1
    assert bar.title == "12:00 done: 5"


def test_what_is_within_a_span_is_added_up_and_what_was_before_is_left_out() -> None:
    points = {NOON - timedelta(hours=7): 9.0, NOON - timedelta(minutes=1): 1.0, NOON: 2.0}
    chart = stacked("Tries", "results", {"done": points, "failed": {}}, MOMENTS)
    assert [numbers for _, numbers in chart.rows if any(numbers)] == [(3, 0)]
    assert chart.top == 3


def test_without_anything_to_draw_it_says_so() -> None:
    chart = stacked("Tries", "results", {"done": {}}, MOMENTS, "Not counted yet.")
    assert (chart.is_empty, chart.nothing) == (True, "Not counted yet.")
