"""Threads that read ahead and write behind: same items, same order, errors where they belong, no leftovers."""

import threading
import time

import pytest

from utils.background import Behind, ahead


def test_ahead_gives_the_same_items():
    assert list(ahead(range(100), depth=3)) == list(range(100))
    assert list(ahead([])) == []


def test_ahead_is_bounded_and_stops_when_it_is_left():
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield i

    before = threading.active_count()
    iterator = ahead(items(), depth=2)
    assert next(iterator) == 0
    time.sleep(0.3)
    assert len(taken) <= 5
    iterator.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before


def test_ahead_raises_after_the_items_before_the_error():
    def items():
        yield 1
        raise OSError("gone")

    iterator = ahead(items())
    assert next(iterator) == 1
    with pytest.raises(OSError, match="gone"):
        next(iterator)


def test_behind_keeps_the_order_and_finishes():
    done = []
    with Behind(depth=2) as behind:
        for i in range(20):
            behind(done.append, i)
    assert done == list(range(20))


def test_behind_raises_what_went_wrong():
    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind(_fail)


def _fail():
    raise OSError("full")
