"""Work done once for each item, in threads."""

import threading

import pytest

from softlabels.filling import Filler


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
        filler.need([0, 1])
    second.set()
    for thread in threading.enumerate():
        if thread.name == "softlabels-fill":
            thread.join(10)
    with pytest.raises(KeyError, match="the cause"):
        filler.check()


def test_what_is_needed_comes_first_and_nothing_twice():
    order, gate = [], threading.Event()

    def work(item: int) -> None:
        gate.wait(10)
        order.append(item)

    filler = Filler(work, 50, threads=1)
    filler.start()
    threading.Timer(0.1, gate.set).start()
    filler.need([40, 30])
    assert order[1:3] == [40, 30], "after the one that was begun"
    filler.wait()
    assert sorted(order) == list(range(50))
