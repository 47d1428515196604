"""What stands still while a process forks."""

import threading

import pytest

from jam.stores.forks import Gate


def test_a_closed_gate_lets_nobody_in_until_it_is_opened():
    gate = Gate()
    inside = threading.Event()

    def enter():
        with gate:
            inside.set()

    gate.close(1)
    thread = threading.Thread(target=enter)
    thread.start()
    assert not inside.wait(0.05)
    gate.open()
    thread.join(10)
    assert inside.is_set()


def test_closing_waits_until_nobody_is_inside():
    gate = Gate()
    inside, leave, closed = threading.Event(), threading.Event(), threading.Event()

    def stay():
        with gate:
            inside.set()
            leave.wait(10)

    def close():
        gate.close(10)
        closed.set()

    threads = [threading.Thread(target=stay), threading.Thread(target=close)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    assert not closed.wait(0.05)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert closed.is_set()


def test_who_stays_inside_too_long_is_reported_and_not_waited_for(caplog):
    gate = Gate()
    with gate:
        gate.close(0.01)
    assert "forks while a connection is being made" in caplog.text


def test_a_gate_whose_closing_was_interrupted_is_open(monkeypatch):
    gate = Gate()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gate._changed, "wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gate.close(1)
    monkeypatch.undo()
    with gate:
        pass
