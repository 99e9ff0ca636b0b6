"""Reading ahead and writing behind, in threads, with bounded queues: the same results, while the CPU computes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """The same items, taken up to ``depth`` ahead in a thread. An error in taking one is raised in its place."""
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def take() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:  # noqa: BLE001  it is raised where the item is asked for
            put((None, error, False))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            item, error, ended = ready.get()
            if error is not None:
                raise error
            if ended:
                return
            yield item
    finally:
        stopped.set()
        thread.join()  # a thread inside of a decoder when Python ends would abort the process


def with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each item with the one that follows, None after the last."""
    remaining = iter(items)
    for item in remaining:
        for following in remaining:
            yield item, following
            item = following
        yield item, None


class Behind:
    """Calls made one after another in a thread, at most ``depth`` waiting.

    As a context manager it waits for the last call; an error in any of them is raised at a later call or there.
    """

    def __init__(self, depth: int = 8):
        self.depth = depth
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()

    def __call__(self, function: Callable, *arguments: object) -> None:
        while len(self._waiting) >= self.depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *arguments))

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            for waiting in self._waiting:
                waiting.result()
