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


def test_every_item_is_done_once_and_here_too_where_threads_do_not_live_on():
    order = []
    filler = Filler(order.append, 50, threads=3)
    filler.wait()
    assert sorted(order) == list(range(50))
    forked = Filler(order.append, 2, threads=1)
    forked._process = -1  # as a child finds it
    forked.wait()
    assert order[50:] == [0, 1]
