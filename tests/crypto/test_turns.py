"""Turns: so many at once, in the order in which they came."""

import threading

import pytest

from jam.crypto import turns as turns_module
from jam.crypto.turns import Turns

PATIENCE = 30


def test_so_many_turns_are_had_at_once_and_no_more():
    turns = Turns(2)
    assert [turns.take(0) for _ in range(3)] == [True, True, False]
    turns.give_back()
    assert [turns.take(0) for _ in range(2)] == [True, False]


def test_whoever_waits_has_the_turn_that_is_given_back():
    turns, had = Turns(1), []
    assert turns.take(0)
    waiting = threading.Thread(target=lambda: had.append(turns.take(PATIENCE)))
    waiting.start()
    try:
        while not turns._waiting:
            assert waiting.is_alive()
    finally:
        turns.give_back()
        waiting.join(PATIENCE)
    assert had == [True]
    assert turns.take(0) is False


def test_a_wait_that_is_broken_off_leaves_no_turn_behind():
    class Interrupted(BaseException):
        pass

    class Call:
        """A lock whose wait is broken off: before the turn came, or just after."""

        def __init__(self, turns, called):
            self.turns, self.called, self.taken = turns, called, False

        def acquire(self, timeout=None):
            if timeout is None:
                return True
            if self.called:
                self.turns.give_back()
            raise Interrupted

        def release(self):
            pass

    for called in (False, True):
        turns = Turns(1)
        assert turns.take(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns_module.threading, "Lock", lambda called=called, turns=turns: Call(turns, called))
            with pytest.raises(Interrupted):
                turns.take(1)
        if not called:
            turns.give_back()
        assert (turns._free, list(turns._waiting)) == (1, [])


def test_a_turn_that_comes_at_the_last_moment_is_taken():
    turns = Turns(1)
    assert turns.take(0)

    class Call:
        """A lock that somebody opens just after the wait for it has ended."""

        def acquire(self, timeout=None):
            if timeout is None:
                return True
            turns.give_back()
            return False

        def release(self):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns_module.threading, "Lock", Call)
        assert turns.take(1) is True
    turns.give_back()
    assert (turns._free, list(turns._waiting)) == (1, [])
