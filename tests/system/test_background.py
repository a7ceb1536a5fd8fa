"""Work done once for each item, in threads."""

import threading

import pytest

from softlabels.system.background import Filler


def test_the_first_failure_is_told_whatever_follows_from_it():
    first, second = threading.Event(), threading.Event()

    def work(item: int) -> None:
        if item == 0:
            first.wait(10)
            raise KeyError("the cause")
        first.set()
        second.wait(10)
        raise ValueError("what follows")

    filler = Filler(work, 2, threads=2)
    with pytest.raises(KeyError, match="the cause"):
        filler.wait()
    second.set()
    for thread in threading.enumerate():
        if thread.name == "softlabels-fill":
            thread.join(10)
    with pytest.raises(KeyError, match="the cause"):
        filler.check()


def test_who_needs_some_items_waits_for_these_and_the_last_one_finishes():
    gate, done = threading.Event(), []

    def work(item: int) -> None:
        assert item < 2 or gate.wait(10)
        done.append(item)

    filler = Filler(work, 4, threads=2, finish=lambda: done.append(-1))
    filler.start()
    filler.wait(lambda: {0, 1} <= set(done))
    assert sorted(done) == [0, 1]
    gate.set()
    filler.wait()
    assert (len(done), done[-1]) == (5, -1)


def test_what_finishing_raises_is_raised():
    def finish() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        Filler(lambda item: None, 3, threads=2, finish=finish).wait()


def test_every_item_is_done_once_and_here_too_where_threads_do_not_live_on():
    order = []
    filler = Filler(order.append, 50, threads=3)
    filler.wait()
    assert sorted(order) == list(range(50))
    forked = Filler(order.append, 2, threads=1)
    forked._process = -1  # as a child finds it
    forked.wait()
    assert order[50:] == [0, 1]
