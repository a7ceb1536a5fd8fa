"""A process for the clients, which read their environment when they are imported."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def client(environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """`run(work, *args)` calls `work`, which has a name in a module, in a fresh process and gives
    what it returns or raises. One process does all the calls, one after the other."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with patch.dict(os.environ, environment):
            pool.submit(int).result()
        yield lambda work, *args, **words: pool.submit(work, *args, **words).result()
