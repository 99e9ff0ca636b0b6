"""Stopping a long loop between two of its steps."""

from __future__ import annotations

import signal
import threading


class StopSignals:
    """Ctrl-C and SIGTERM as a flag that a loop looks at between steps; a second one stops at once.

    An interrupt raised in the middle of a step can get lost in compiled code that clears errors. As a context
    manager it puts the former handlers back; outside of the main thread, where Python allows none, it does nothing.
    """

    def __init__(self):
        self.asked = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
