import pytest

from htcgrid.planes import exit_status


@pytest.mark.parametrize(("status", "known"), [(0, 0), (3, 3), (128, 128), (137, -9), (143, -15), (255, 255)])
def test_a_status_of_a_shell_is_an_exit_or_a_signal(status: int, known: int) -> None:
    assert exit_status.of_shell(status) == known
