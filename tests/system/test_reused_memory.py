"""Tensors in the memory of earlier ones."""

import threading

import torch

from softlabels.system.reused_memory import ReusedMemory


def test_memory_is_given_again_when_no_view_of_it_is_left_and_not_before():
    memory = ReusedMemory()
    first = memory.empty((4, 6), torch.float32).fill_(1)
    place, view = first.data_ptr(), first[1:].permute(1, 0).numpy()
    del first
    second = memory.empty((4, 6), torch.float32).fill_(2)
    assert second.data_ptr() != place
    assert (view == 1).all()
    del view
    smaller = memory.empty((3, 5), torch.int16)
    assert smaller.data_ptr() == place
    assert smaller.shape == (3, 5)
    del smaller
    larger = memory.empty((5, 6), torch.float32).fill_(3)
    assert (second == 2).all()
    assert larger.shape == (5, 6)


def test_no_two_tensors_of_threads_share_memory():
    memory, wrong = ReusedMemory(4), []

    def use(value: int) -> None:
        for rows in range(1, 200):
            tensor = memory.empty((rows % 7 + 1, 50), torch.int64).fill_(value)
            if not (tensor == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
