"""Ending a training by a signal: after the step that is under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the current step.

    Yields a list that stays empty until a signal arrives; the same once more interrupts at once.
    Ctrl-C is both at torchrun: from the terminal SIGINT, and from itself SIGTERM.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if number in received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals cannot be caught
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
