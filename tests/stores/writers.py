"""Threads that write while something happens to the store."""

import threading
import time

from jam.errors import StoreUnavailable
from jam.testing.stores import NOW, new_record


def write_during(store, trouble, times=20):
    """Cause trouble so many times while four threads add records; returns those whose writing was acknowledged.

    Between two troubles at least twenty records are written: the store must recover. Nothing but ``StoreUnavailable``
    may be raised.
    """
    ended = threading.Event()
    acknowledged, surprises = [], []

    def write():
        while not ended.is_set():
            record = new_record("alice", idle_for=None)
            try:
                store.add(record, NOW)
            except StoreUnavailable:
                continue
            except Exception as error:
                surprises.append(error)
                return
            acknowledged.append(record)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(times):
            enough = len(acknowledged) + 20
            until = time.monotonic() + 20
            while len(acknowledged) < enough and not surprises and time.monotonic() < until:
                time.sleep(0.001)
            trouble()
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert surprises == []
    assert len(acknowledged) >= 20 * times
    return acknowledged
