"""Stores in trouble: proves that a store behind a network fails closed, tells no lies, and recovers by itself.

For an engine of your own, beside ``jam.testing.stores``::

    class TestMyStoreInTrouble(TroubleContract):
        @pytest.fixture
        def server(self):
            return "127.0.0.1", 6379

        @pytest.fixture
        def open_at(self):
            return lambda host, port: MyStore(f"my://{host}:{port}", timeout=1)

The kit puts a ``Wire`` between store and server, counts what goes over it, and cuts it at the worst moments. The store
must be opened with a time-out of about a second. Needs pytest (``pip install jam-auth[testing]``).
"""

from __future__ import annotations

import contextlib
import functools
import random
import secrets
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import msgspec
import pytest

from jam.crypto.handles import new_id
from jam.errors import StoreUnavailable
from jam.stores.base import REVOKED_TOKEN, Store
from jam.testing.stores import NOW, new_record

__all__ = ["TroubleContract", "Wire"]

_PATIENCE = 20.0  # seconds; a guard against hanging, not a measurement
_CHUNK = 65536


class Wire:
    """A way to a server that can be counted, cut and held: a proxy on this machine, to be used as a context.

    Args:
        host: The server's.
        port: The server's.

    Attributes:
        address: Where to connect instead.
        trips: How often something was sent after nothing or an answer, on all connections together.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener: socket.socket | None = _listen_somewhere()
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.trips = 0
        self._others: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._asking: set[socket.socket] = set()  # the clients that wait for an answer
        self._held = False
        self._lose_requests = self._lose_answers = 0
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_PATIENCE)
        self.refuse()
        self._selector.close()

    def cut(self) -> None:
        """Close all connections; new ones are welcome."""
        with self._lock:
            for client in list(self._clients):
                self._close(client)

    def refuse(self) -> None:
        """Close all connections and take no new ones."""
        with self._lock:
            self.cut()
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None

    def accept(self) -> None:
        """Take connections again, at the same address."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(self.address)
                self._selector.register(self._listener, selectors.EVENT_READ)

    def hold(self) -> None:
        """Take connections and everything that is said, and never answer."""
        with self._lock:
            self._held = True

    def release(self) -> None:
        """End ``hold``: what was said in vain is gone, with its connections."""
        with self._lock:
            self._held = False
            self.cut()

    def lose_request(self, times: int = 1) -> None:
        """Cut the connection of whoever asks next, before the server hears of it."""
        with self._lock:
            self._lose_requests = times

    def lose_answer(self, times: int = 1) -> None:
        """Cut the connection of whoever is answered next: the server has done it, and nobody is told."""
        with self._lock:
            self._lose_answers = times

    def keep_all(self) -> None:
        """End ``lose_request`` and ``lose_answer``."""
        with self._lock:
            self._lose_requests = self._lose_answers = 0

    def _pass_on(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.05):
                with self._lock, contextlib.suppress(OSError):
                    one: Any = key.fileobj
                    if self._listener is not None and one is self._listener:
                        self._welcome(self._listener)
                    elif one in self._others:
                        self._transfer(one)

    def _welcome(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(self._server, timeout=1)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.settimeout(_PATIENCE)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(client)
        self._others |= {client: server, server: client}
        self._selector.register(client, selectors.EVENT_READ)
        self._selector.register(server, selectors.EVENT_READ)

    def _transfer(self, one: socket.socket) -> None:
        client = one if one in self._clients else self._others[one]
        try:
            said = one.recv(_CHUNK)
            if not said:
                self._close(client)
            elif one is client:
                self._ask(client, said)
            else:
                self._answer(client, said)
        except OSError:
            self._close(client)

    def _ask(self, client: socket.socket, said: bytes) -> None:
        if client not in self._asking:
            self._asking.add(client)
            self.trips += 1
        if self._held:
            return
        if self._lose_requests:
            self._lose_requests -= 1
            self._close(client)
            return
        self._others[client].sendall(said)

    def _answer(self, client: socket.socket, said: bytes) -> None:
        self._asking.discard(client)
        if self._held:
            return
        if self._lose_answers:
            self._lose_answers -= 1
            self._close(client)
            return
        client.sendall(said)

    def _close(self, client: socket.socket) -> None:
        server = self._others.pop(client)
        self._others.pop(server)
        self._clients.discard(client)
        self._asking.discard(client)
        for one in (client, server):
            self._selector.unregister(one)
            one.close()


def _listen_somewhere() -> socket.socket:
    """Below the ports the system gives to outgoing connections: nobody takes it while ``refuse`` is on."""
    while True:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", random.randrange(10240, 32000)))


class TroubleContract:
    """Subclass it in a test module; say where the server is and how to open the store there."""

    extra_trips: Mapping[str, int] = {}
    """For verbs that cannot be one trip: how many more, by the verb's name. Say why in the store's documentation."""

    patience: float = 20.0
    """When a verb counts as hanging, in seconds: much longer than the store's time-out, however busy the machine is."""

    @pytest.fixture
    def server(self) -> tuple[str, int]:
        """Host and port of the engine; override it."""
        raise NotImplementedError

    @pytest.fixture
    def open_at(self) -> Callable[[str, int], Store]:
        """Opens the store at a host and port, with a time-out of about a second; override it."""
        raise NotImplementedError

    @pytest.fixture
    def wire(self, server: tuple[str, int]) -> Iterator[Wire]:
        """What lies between store and server."""
        with Wire(*server) as wire:
            yield wire

    @pytest.fixture
    def store(self, wire: Wire, open_at: Callable[[str, int], Store]) -> Iterator[Store]:
        """The store under test, reached over the wire."""
        store = open_at(*wire.address)
        yield store
        store.close()

    @pytest.fixture
    def subject(self) -> str:
        """A subject nobody else uses."""
        return f"subject-{secrets.token_hex(8)}"

    # -- not there ------------------------------------------------------------------------------------------

    def test_nothing_is_asked_before_the_first_use(self, wire: Wire, open_at: Callable[[str, int], Store]) -> None:
        store = open_at(*wire.address)
        assert wire.trips == 0
        store.close()

    def test_a_server_that_is_not_there_means_unavailable_for_every_verb(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        wire.refuse()
        for name, act in _verbs(store, subject, prepared=False).items():
            assert _answer(act) is StoreUnavailable, name
        with pytest.raises(StoreUnavailable):
            store.check()

    def test_a_store_that_was_opened_too_early_works_when_the_server_comes(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        wire.refuse()
        record = new_record(subject)
        for _ in range(3):
            assert _answer(lambda: store.add(record, NOW)) is StoreUnavailable
        wire.accept()
        store.add(record, NOW)
        assert _found(store, record) == record

    def test_a_server_that_went_away_means_unavailable_until_it_is_back(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        wire.refuse()
        for name, act in _verbs(store, subject, prepared=False).items():
            assert _answer(act) is StoreUnavailable, name
        wire.accept()
        assert _found(store, record) == record

    # -- cut ------------------------------------------------------------------------------------------------

    def test_a_read_does_not_notice_that_idle_connections_were_cut(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        reads: tuple[Callable[[], object], ...] = (
            lambda: _found(store, record) == record,
            lambda: store.marks(subject, "", NOW).revoked is False,
            lambda: list(store.list(subject, "session", NOW)) == [record],
        )
        for read in reads:
            wire.cut()
            assert read()

    def test_every_verb_works_at_the_latest_the_second_time_after_a_cut(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        for name, act in _verbs(store, subject).items():
            wire.cut()
            first = _answer(act)
            assert first is True or _answer(act) is not StoreUnavailable, name

    @pytest.mark.parametrize("lost", ["request", "answer"])
    def test_what_was_lost_half_way_is_unavailable_and_never_a_refusal(
        self, wire: Wire, store: Store, subject: str, lost: str
    ) -> None:
        for name in _verbs(store, subject):
            act = _verbs(store, subject)[name]
            store.marks(subject, "", NOW)  # the connection is there
            wire.lose_request() if lost == "request" else wire.lose_answer()
            answer = _answer(act)
            wire.keep_all()
            assert answer is StoreUnavailable or answer is True, (name, answer)

    def test_a_write_whose_answer_was_lost_happened_whole_or_not_at_all(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        for lose in (wire.lose_request, wire.lose_answer):
            record, moved = new_record(subject), new_id(subject)
            store.add(record, NOW)
            lose()
            answer = _answer(functools.partial(store.swap, record, _changed(record, id=moved), NOW))
            wire.keep_all()
            alive = [one.id for one in store.list(subject, "session", NOW)]
            assert len(alive) == 1
            assert answer is StoreUnavailable or alive == [moved]
            assert (store.get("session", record.id, NOW) is None) == (alive == [moved])
            assert (store.get("session", moved, NOW) is None) == (alive == [record.id])
            store.remove("session", alive[0])

    def test_while_connections_are_cut_nothing_acknowledged_is_lost_and_nobody_wins_twice(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        tally = new_record(subject, data={"data": {"n": 0}}, idle_for=None)
        store.add(tally, NOW)
        ended = threading.Event()
        acknowledged: list[str] = []
        tried: list[str] = []
        surprises: list[object] = []

        def work() -> None:
            while not ended.is_set():
                record = new_record(subject, kind="one_time", idle_for=None)
                try:
                    with contextlib.suppress(StoreUnavailable):
                        store.add(record, NOW)
                        acknowledged.append(record.id)
                    with contextlib.suppress(StoreUnavailable):
                        found = store.get("session", tally.id, NOW)
                        assert found is not None
                        old = found.record
                        tried.append("n")
                        new = _changed(old, data={"data": {"n": old.data["data"]["n"] + 1}})
                        if store.swap(old, new, NOW) is None:
                            tried.pop()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is none of the promised answers
                    surprises.append(error)
                    return

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until = time.monotonic() + self.patience
            for trouble in (wire.cut, wire.lose_answer, wire.lose_request) * 7:
                done = len(acknowledged)
                while len(acknowledged) < done + 3 and not surprises and time.monotonic() < until:
                    time.sleep(0.001)
                trouble()
        finally:
            ended.set()
            for thread in threads:
                thread.join(self.patience)
            wire.keep_all()
        assert surprises == []
        assert len(acknowledged) >= 3 * 21, "it did not recover in between"
        missing = [one for one in acknowledged if _again(functools.partial(store.get, "one_time", one, NOW)) is None]
        assert missing == []
        assert _again(lambda: _found(store, tally)).data["data"]["n"] <= len(tried)

    # -- silent ---------------------------------------------------------------------------------------------

    def test_a_server_that_never_answers_means_unavailable_in_time(
        self, wire: Wire, store: Store, subject: str
    ) -> None:
        verbs = _verbs(store, subject)
        wire.hold()  # connections that were used before
        try:
            for name in ("get", "add", "swap", "count_up"):
                assert self.answer_in_time(verbs[name]) is StoreUnavailable, name
            store.close()  # and new ones
            assert self.answer_in_time(verbs["marks"]) is StoreUnavailable
        finally:
            wire.release()
        assert _again(lambda: _answer(verbs["marks"])) is True

    def answer_in_time(self, act: Callable[[], object]) -> object:
        """What a verb answers; asked in a thread of its own, because it might never do so."""
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(_answer(act)), daemon=True)
        thread.start()
        thread.join(self.patience)
        return answers[0] if answers else f"nothing within {self.patience} seconds"

    # -- cost -----------------------------------------------------------------------------------------------

    def test_each_verb_is_one_trip(self, wire: Wire, store: Store, subject: str) -> None:
        trips: dict[str, list[int]] = {}
        for _ in range(16):
            for name, act in _verbs(store, subject).items():
                before = wire.trips
                assert _answer(act) is True, name
                trips.setdefault(name, []).append(wire.trips - before)
        # Drivers prepare a statement after some uses, and a store may collect the dead with every so many.
        usual = {name: statistics.median_low(counted[8:]) for name, counted in trips.items()}
        allowed = {name: 1 + self.extra_trips.get(name, 0) for name in usual}
        assert usual == allowed, {name: count for name, count in usual.items() if count != allowed[name]}


def _verbs(store: Store, subject: str, *, prepared: bool = True) -> Mapping[str, Callable[[], bool]]:
    """Every verb, ready to be called on records of its own; each says whether the answer is the right one.

    Args:
        store: Whose verbs.
        subject: Whose records.
        prepared: Whether the records are put into the store first.
    """
    own = f"{subject}-{secrets.token_hex(4)}"
    got, touched, swapped, moved, taken, removed = records = [new_record(own) for _ in range(6)]
    revocation = new_record(own, kind=REVOKED_TOKEN, idle_for=None)
    if prepared:
        for record in (*records, revocation):
            store.add(record, NOW)
    other = f"{own}-other"

    def right(found: Any, record: Any) -> bool:
        return found is not None and found.record.id == record.id

    return {
        "add": lambda: store.add(new_record(other), NOW) is None,
        "get": lambda: right(store.get("session", got.id, NOW), got),
        "get that touches": lambda: right(store.get("session", touched.id, NOW + 100, touch_after=60), touched),
        "marks": lambda: store.marks(own, revocation.id, NOW).revoked,
        "swap": lambda: store.swap(swapped, swapped, NOW) is not None,
        "swap to a new id": lambda: store.swap(moved, _changed(moved, id=new_id(own)), NOW) is not None,
        "take": lambda: store.take("session", taken.id, NOW) == taken,
        "remove": lambda: store.remove("session", removed.id) is None,
        "list": lambda: len(store.list(own, "session", NOW)) > 0,
        "count_up": lambda: store.count_up(own, 60, 5, NOW).allowed,
        "count_back": lambda: store.count_back(own, NOW) is None,
        "count_reset": lambda: store.count_reset(own) is None,
        "advance": lambda: store.advance(other, ("session",), NOW)["session"] > 0,
        "purge": lambda: store.purge(0.0) == 0,
    }


def _answer(act: Callable[[], object]) -> object:
    """What it returned, or ``StoreUnavailable`` if it raised that."""
    try:
        return act()
    except StoreUnavailable:
        return StoreUnavailable


def _again(act: Callable[[], Any]) -> Any:
    """Call it, a second time if the store was unavailable."""
    answer = _answer(act)
    return act() if answer is StoreUnavailable else answer


def _found(store: Store, record: Any) -> Any:
    found = store.get(record.kind, record.id, NOW)
    return None if found is None else found.record


def _changed(record: Any, **members: Any) -> Any:
    return msgspec.structs.replace(record, **members)
