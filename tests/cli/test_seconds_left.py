from htcgrid.cli.progress import _seconds_left


def test_the_time_left_is_never_negative_though_more_tasks_came_than_were_there_at_first() -> None:
    assert _seconds_left(10, 25, 0, 5.0) == 0
    assert _seconds_left(10, 5, 0, 5.0) == 1.0
