"""In: processes that write and read one store, some of them killed. Out: whether anything is lost, or wrong."""

from experiments.speed.store_kills import kills


def test_a_kill_loses_nothing_and_leaves_nothing_wrong(tmp_path):
    """By the dozen: ``python -m experiments.speed.store``."""
    for row in kills(3, 1, tmp_path, seconds=0.5):
        for what in ("lost", "wrong", "back", "torn", "refused", "failed_processes"):
            assert row[what] == 0, row
    assert row["stored"] > 0
