"""The rules of history.py, tried on histories that break them: a checker that can't fail shows nothing."""

import unittest

from clients import history
from clients.history import History, Poll


def told(*events: tuple) -> History:
    """A history of (time, who, kind, fields)."""
    made = History()
    for t, who, kind, fields in events:
        made.add(who, {"t": t, "event": kind, **fields})
    return made


def acked(t: float, value: str) -> tuple:
    return (t, "producer", "acked", {"value": value, "partition": 0, "offset": 0})


def record(t: float, who: str, offset: int, value: str = "") -> tuple:
    return (t, who, "record", {"partition": 0, "offset": offset, "value": value or f"v{offset}"})


def committed(t: float, who: str, offset: int) -> tuple:
    return (t, who, "committed", {"offsets": {"0": offset}})


def poll(t: float, offset: int | None, settled: bool = True) -> Poll:
    return Poll(t, t + 0.1, settled, {} if offset is None else {0: offset, 1: 7})


class Rules(unittest.TestCase):
    def test_a_good_history_passes(self):
        good = told(acked(1, "v0"), acked(2, "v1"), record(3, "a", 0), committed(4, "a", 1), record(5, "b", 1))
        self.assertEqual(history.missing(good), set())
        self.assertEqual(history.repeated(good), [])
        self.assertEqual(history.repeated_after_commit(good), [])
        self.assertEqual(history.out_of_order(good), [])
        self.assertEqual(history.commits_moved_back(good), [])
        self.assertEqual(history.commits_lost(good, [poll(3.5, None), poll(4.5, 1), poll(6, 2)]), [])

    def test_a_record_that_nobody_was_given(self):
        self.assertEqual(history.missing(told(acked(1, "v0"), acked(2, "v1"), record(3, "a", 0))), {"v1"})

    def test_a_record_given_twice(self):
        before = told(record(1, "a", 0), record(2, "b", 0), committed(3, "b", 1))
        self.assertEqual([delivery.who for delivery in history.repeated(before)], ["b"])
        self.assertEqual(history.repeated_after_commit(before), [])
        after = told(record(1, "a", 0), committed(2, "a", 1), record(3, "b", 0))
        self.assertEqual([delivery.who for delivery in history.repeated_after_commit(after)], ["b"])

    def test_a_gap(self):
        self.assertEqual(len(history.out_of_order(told(record(1, "a", 0), record(2, "a", 2)))), 1)
        self.assertEqual(len(history.out_of_order(told(record(1, "a", 0), record(2, "b", 2)))), 1)
        again = told(record(1, "a", 0), record(2, "a", 1), record(3, "b", 1), record(4, "b", 2), record(5, "a", 3))
        self.assertEqual(history.out_of_order(again), [])

    def test_a_member_that_stores_less(self):
        back = told(committed(1, "a", 5), committed(2, "b", 3))
        self.assertEqual([(one.offset, other.offset) for one, other in history.commits_moved_back(back)], [(5, 3)])

    def test_a_server_that_shows_less_than_it_acknowledged(self):
        stored = told(committed(1, "a", 5))
        self.assertEqual(len(history.commits_lost(stored, [poll(2, 4)])), 1)
        self.assertEqual(len(history.commits_lost(stored, [Poll(2, 2.1, True, {1: 7})])), 1)
        self.assertEqual(history.commits_lost(stored, [poll(0.5, 4), poll(2, 5)]), [])

    def test_a_server_that_shows_less_than_it_showed(self):
        self.assertEqual(len(history.commits_lost(told(), [poll(1, 9), poll(2, 8)])), 1)

    def test_a_stuck_group(self):
        polls = [poll(1, 0, settled=False), poll(2, 0), poll(5, 0, settled=False), poll(30, 0), poll(31, 0)]
        self.assertAlmostEqual(history.longest_unsettled(polls), 28.1)
        never_again = [poll(2, 0), poll(40, 0, settled=False)]
        self.assertAlmostEqual(history.longest_unsettled(never_again), 38.1)

    def test_a_log_that_lost_or_doubled_a_record(self):
        self.assertEqual(history.lost_from_log({"a", "b"}, ["a", "c", "c"]), ({"b"}, ["c"]))
        self.assertEqual(history.lost_from_log({"a"}, ["a", "unacknowledged"]), (set(), []))


if __name__ == "__main__":
    unittest.main()
