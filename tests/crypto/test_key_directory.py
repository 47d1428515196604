"""A directory of keys: what is in it, who may read it, and that no change of it is ever seen half done."""

import base64
import builtins
import contextlib
import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.crypto.jws import read_header
from jam.crypto.key_directory import KeyDirectory, RefreshedKeys
from jam.crypto.keys import Key, KeySet
from jam.errors import ConcurrentUpdate, ConfigError, InvalidKey, InvalidValue, JamError, TokenExpired, TokenInvalid
from jam.stores.memory import MemoryStore
from jam.testing import MovableClock

ROOT = os.geteuid() == 0
NOBODY = 65534
FORK = multiprocessing.get_context("fork")
PATIENCE = 30
HOSTILE_KIDS = [
    "../../etc/passwd", "/etc/passwd", "x\0y", "states.json", ".lock", "", "\udc80", "k" * 10_000, "%2e%2e%2f", 7, None,
    ["a"], {"a": "b"},
]  # fmt: skip


@pytest.fixture
def directory(tmp_path, clock):
    return KeyDirectory(tmp_path / "keys", clock=clock)


@pytest.fixture
def rotated(directory, clock):
    """A directory with a retired key, a current one and a next one."""
    directory.generate()
    clock.move(60)
    directory.rotate()
    return directory


@pytest.fixture
def new_jam(secret, clock, directory):
    """Makes Jams that share the directory, as processes do."""
    store = MemoryStore()

    def make(**tokens):
        options = {"key_directory": str(directory.path), **tokens}
        return Jam({"secret": secret, "access_tokens": options}, store=store, clock=clock)

    return make


def states(directory):
    return [entry.state for entry in directory.list()]


def in_state(directory, state):
    (found,) = (entry for entry in directory.list() if entry.state == state)
    return found


def file_of(directory, entry):
    return directory.path / f"{entry.kid}.jwk.json"


def files_in(directory):
    return {one.name for one in directory.path.iterdir()} - {".lock"}


def expected_files(directory):
    return {"states.json", *(f"{entry.kid}.jwk.json" for entry in directory.list())}


def kid_of(token):
    return read_header(token)["kid"]


def refused(act, *said):
    with pytest.raises(JamError) as caught:
        act()
    assert type(caught.value) is ConfigError
    for words in said:
        assert str(words) in str(caught.value)
    return caught.value


@contextlib.contextmanager
def noting_files():
    """Yields the names of all files that are opened meanwhile, by whichever thread.

    Not by an audit hook: it could never be taken away, and would be in every other test's way from then on.
    """
    noted = []

    def noting(real):
        def call(path=".", *arguments, **options):
            noted.append(str(path))
            return real(path, *arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "open"), (io, "open"), (builtins, "open"), (os, "listdir"), (os, "scandir")):
            patch.setattr(module, name, noting(getattr(module, name)))
        yield noted


# -- states -------------------------------------------------------------------------------------------------


def test_the_first_key_is_the_current_one(directory, clock):
    made = directory.generate()
    assert (made.state, made.algorithm, made.created_at, made.since) == ("current", "ES256", clock(), clock())
    assert directory.list() == (made,)
    assert directory.keys().current.kid == made.kid


def test_a_second_key_is_announced_and_does_not_sign(directory):
    first = directory.generate()
    second = directory.generate()
    assert second.state == "next"
    assert directory.keys().current.kid == first.kid
    assert {key.kid for key in directory.keys().keys} == {first.kid, second.kid}


def test_another_next_key_takes_the_place_of_the_one_that_has_signed_nothing(directory):
    directory.generate()
    passed_over = directory.generate()
    chosen = directory.generate("EdDSA")
    assert in_state(directory, "next") == chosen
    assert not file_of(directory, passed_over).exists()


def test_a_rotation_signs_with_the_next_key_retires_the_current_one_and_announces_another(directory, clock):
    old = directory.generate()
    announced = directory.generate()
    clock.move(60)
    promoted = directory.rotate()
    assert (promoted.kid, promoted.created_at, promoted.since) == (announced.kid, clock() - 60, clock())
    assert states(directory) == ["next", "current", "retired"]
    assert in_state(directory, "retired") == type(old)(
        kid=old.kid, algorithm="ES256", state="retired", created_at=clock() - 60, since=clock()
    )
    assert in_state(directory, "next").kid not in (old.kid, announced.kid)
    assert directory.keys().current.kid == announced.kid


def test_a_rotation_without_a_next_key_makes_one_that_signs_at_once(directory):
    old = directory.generate()
    assert directory.rotate().kid == directory.keys().current.kid != old.kid
    assert states(directory) == ["next", "current", "retired"]


def test_a_rotation_goes_on_with_the_algorithm_of_the_key_that_was_announced(directory):
    directory.generate("ES256")
    directory.generate("EdDSA")
    assert directory.rotate().algorithm == "EdDSA"
    assert in_state(directory, "next").algorithm == "EdDSA"


def test_there_is_nothing_to_rotate_without_a_current_key(directory):
    refused(directory.rotate, "flask jam keys generate")
    directory.generate()
    (directory.path / "states.json").write_text('{"keys": []}')
    refused(directory.rotate, "no current key", "flask jam keys generate")
    refused(directory.keys, "no current key", "flask jam keys generate")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256"])
def test_asvs_11_2_3_a_key_of_each_algorithm_comes_back_as_it_was_made(directory, algorithm):
    made = directory.generate(algorithm)
    key = directory.keys().current
    assert (key.algorithm, key.kid, key.can_sign) == (algorithm, made.kid, True)
    assert key.verify(b"data", key.sign(b"data"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "", "ES256K"])
def test_no_key_is_made_for_shared_secrets_or_for_what_is_no_algorithm(directory, algorithm):
    with pytest.raises(InvalidKey):
        directory.generate(algorithm)
    assert not directory.path.exists()


def test_only_the_current_key_is_in_memory_with_its_private_half(rotated):
    assert [key.can_sign for key in rotated.keys().keys] == [True, False, False]


def test_more_keys_may_be_given_that_verify(rotated):
    other = Key.generate("EdDSA").public_key()
    assert rotated.keys(other).get(other.kid) is other


def test_pruning_removes_the_keys_that_were_retired_long_enough_ago(directory, clock):
    oldest = directory.generate()
    clock.move(100)
    older = directory.rotate()
    clock.move(100)
    directory.rotate()
    assert directory.prune(100.5) == ()
    assert [entry.kid for entry in directory.prune(100)] == [oldest.kid]
    assert states(directory) == ["next", "current", "retired"]
    assert [entry.kid for entry in directory.prune(0)] == [older.kid]
    assert files_in(directory) == expected_files(directory)


@pytest.mark.parametrize("age", [-1, float("nan"), float("inf")])
def test_pruning_takes_a_time(rotated, age):
    with pytest.raises(InvalidValue):
        rotated.prune(age)
    assert states(rotated) == ["next", "current", "retired"]


def test_a_directory_that_is_never_pruned_is_full_one_day_and_still_reads(directory, clock):
    directory.generate()
    said = None
    for _ in range(70):
        try:
            directory.rotate()
        except ConfigError as error:
            said = str(error)
            break
    assert "flask jam keys prune" in said
    assert len(directory.keys().keys) == 64
    directory.prune(0)
    directory.rotate()


# -- who may read it ----------------------------------------------------------------------------------------


def mode(path):
    return oct(path.stat().st_mode & 0o7777)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_files_and_directory_are_the_owners_alone_whatever_the_umask(directory, umask):
    before = os.umask(umask)
    try:
        directory.generate()
        directory.rotate()
    finally:
        os.umask(before)
    assert mode(directory.path) == "0o700"
    assert {mode(one) for one in directory.path.iterdir()} == {"0o600"}


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o620, 0o666, 0o700, 0o4600])
def test_a_key_that_others_can_read_is_refused_and_named(rotated, bits):
    file = file_of(rotated, in_state(rotated, "retired"))
    file.chmod(bits)
    error = refused(rotated.keys, file)
    assert "chmod 600" in error.hint


def test_states_that_others_can_change_are_refused(rotated):
    (rotated.path / "states.json").chmod(0o660)
    refused(rotated.list, "states.json")


def test_a_key_may_be_read_only(rotated):
    for one in rotated.path.glob("*.json"):
        one.chmod(0o400)
    assert len(rotated.keys().keys) == 3


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(rotated, bits):
    rotated.path.chmod(bits)
    for act in (rotated.keys, rotated.list, rotated.rotate, rotated.generate):
        refused(act, rotated.path, "chmod 700")


def test_a_directory_that_others_can_only_list_is_accepted(rotated):
    rotated.path.chmod(0o755)
    assert len(rotated.keys().keys) == 3


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else")
def test_a_directory_of_another_user_is_refused_except_by_root():
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        directory = KeyDirectory(Path(place) / "keys")
        directory.generate()
        os.chown(directory.path, NOBODY - 1, -1)
        directory.path.chmod(0o755)
        assert directory.list()
        os.seteuid(NOBODY)
        try:
            refused(directory.list, "another user")
        finally:
            os.seteuid(0)


@pytest.mark.skipif(not ROOT, reason="only root makes files for others")
def test_what_root_makes_belongs_to_whom_the_directory_belongs(tmp_path):
    directory = KeyDirectory(tmp_path)
    os.chown(tmp_path, NOBODY, NOBODY)
    directory.generate()
    directory.rotate()
    assert {(one.stat().st_uid, one.stat().st_gid) for one in tmp_path.iterdir()} == {(NOBODY, NOBODY)}


# -- what is not sound --------------------------------------------------------------------------------------


def entry_text(kid="k" * 43, state="current", **more):
    return {"kid": kid, "algorithm": "ES256", "state": state, "created_at": 1, "since": 1, **more}


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{", '{"keys": 1}', '{"other": []}', "\udc80", "x" * 70_000,
        {"keys": [entry_text(), entry_text("l" * 43)]},
        {"keys": [entry_text(state="next"), entry_text("l" * 43, "next")]},
        {"keys": [entry_text(state="retired"), entry_text(state="retired")]},
        {"keys": [entry_text(state="former")]},
        {"keys": [entry_text(more=1)]},
        {"keys": [entry_text(since="1")]},
        {"keys": [entry_text(since=1e300)]},
        {"keys": [entry_text(since=-1)]},
        *({"keys": [entry_text(kid)]} for kid in ["../../x", "k" * 42, "k" * 42 + "/", "k" * 43 + "\n", "é" * 43, 7]),
    ],
)  # fmt: skip
def test_states_that_are_not_sound_are_refused(rotated, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (rotated.path / "states.json").write_bytes(text.encode(errors="surrogateescape"))
    for act in (rotated.keys, rotated.list, rotated.rotate, rotated.generate):
        refused(act, rotated.path / "states.json")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200))
@example(content=b'{"kty": "SECRET-WORDS"}')
@example(content=b'{"kty": "EC", "crv": "SECRET-WORDS"}')
@example(content=b'{"kty": "oct", "alg": "SECRET-WORDS", "k": "SECRET-WORDS"}')
@example(content=b"[" * 60_000)
def test_a_file_that_is_no_sound_key_is_named_and_what_is_in_it_is_not(rotated, content):
    file = file_of(rotated, in_state(rotated, "next"))
    file.write_bytes(content)
    error = refused(rotated.keys, file)
    assert "SECRET" not in repr(error) + str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


def other_key(directory):
    return Key.generate("ES256").to_jwk(private=True)


def other_key_under_its_name(directory):
    return {**other_key(directory), "kid": in_state(directory, "next").kid}


def public_half(directory):
    return directory.keys().get(in_state(directory, "next").kid).to_jwk()


def shared_secret(directory):
    return Key.generate("HS256").to_jwk(private=True)


@pytest.mark.parametrize("make", [other_key, other_key_under_its_name, public_half, shared_secret])
def test_a_file_with_another_key_than_its_name_says_is_refused(rotated, make):
    file = file_of(rotated, in_state(rotated, "next"))
    file.write_text(json.dumps(make(rotated)))
    refused(rotated.keys, file)


def test_a_key_whose_file_is_gone_is_refused_and_named(rotated):
    file = file_of(rotated, in_state(rotated, "retired"))
    file.unlink()
    refused(rotated.keys, file, "missing")


def test_a_symbolic_link_is_not_followed(rotated, tmp_path):
    file = file_of(rotated, in_state(rotated, "current"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(rotated.keys, file, "symbolic link")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_and_keeps_nobody_waiting(rotated, make):
    file = file_of(rotated, in_state(rotated, "current"))
    file.unlink()
    make(file, 0o600)
    refused(rotated.keys, file)


def test_states_that_are_lost_are_not_made_up_and_no_key_is_swept_away(rotated):
    kept = files_in(rotated) - {"states.json"}
    (rotated.path / "states.json").unlink()
    refused(rotated.keys, "states.json")
    refused(rotated.generate, "Restore states.json")
    refused(rotated.rotate, "states.json")
    assert files_in(rotated) == kept


@pytest.mark.parametrize("path", ["a\0b", "a\udcff\ud800"])
def test_a_path_that_can_be_none_is_refused(path):
    refused(lambda: KeyDirectory(path), "path")


def test_a_path_where_no_directory_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused(KeyDirectory(tmp_path / "file").generate, "file")
    refused(KeyDirectory(tmp_path / "missing" / "keys").generate, "cannot be made")
    refused(KeyDirectory(tmp_path / "missing").list, "There is no key directory")


def test_a_directory_that_cannot_be_changed_says_so(rotated):
    (rotated.path / ".lock").unlink()
    (rotated.path / ".lock").mkdir()
    for act in (rotated.generate, rotated.rotate, lambda: rotated.prune(0)):
        refused(act, rotated.path, "cannot be changed")
    assert len(rotated.keys().keys) == 3


# -- at once, and interrupted -------------------------------------------------------------------------------


def in_processes(count, act, *arguments):
    """Run a function in processes that are forked, and wait for them."""
    running = [FORK.Process(target=act, args=(*arguments, number)) for number in range(count)]
    for one in running:
        one.start()
    for one in running:
        one.join(PATIENCE)
    return [one.exitcode for one in running]


def rotate_at_once(path, start, number):
    start.wait(PATIENCE)
    try:
        KeyDirectory(path).rotate()
    except ConcurrentUpdate:
        os._exit(3)
    os._exit(0)


def test_of_rotations_at_once_those_win_that_say_so(directory):
    directory.generate()
    codes = in_processes(6, rotate_at_once, directory.path, FORK.Barrier(6))
    assert set(codes) <= {0, 3}
    assert codes.count(0) == states(directory).count("retired") >= 1
    assert files_in(directory) == expected_files(directory)


def test_who_comes_while_the_keys_are_being_changed_is_refused_and_changes_nothing(rotated):
    before = rotated.list()
    with rotated._locked():
        for act in (rotated.generate, rotated.rotate, lambda: rotated.prune(0)):
            with pytest.raises(ConcurrentUpdate, match="nothing was changed"):
                act()
    assert rotated.list() == before


def rotate_and_prune(path, number):
    directory = KeyDirectory(path)
    for _ in range(40):
        directory.rotate()
        directory.generate()
        directory.prune(0)
    os._exit(0)


def test_readers_never_see_a_change_half_done(directory):
    directory.generate()
    changing = FORK.Process(target=rotate_and_prune, args=(directory.path, 0))
    changing.start()
    reads = 0
    try:
        while changing.is_alive():
            listed = directory.list()
            assert [entry.state for entry in listed].count("current") == 1
            assert directory.keys().current.can_sign
            reads += 1
    finally:
        changing.join(PATIENCE)
    assert changing.exitcode == 0
    assert reads > 40


STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir"}


def die_before_step(act, steps):
    """Run a change, and kill the process without warning before it touches the file system that often."""
    left = steps

    def count_down(event, _):
        nonlocal left
        if event in STEPS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_down)
    act()
    os._exit(0)


CHANGES = {
    "first": (None, KeyDirectory.generate),
    "next": (lambda one: one.generate(), KeyDirectory.generate),
    "another next": (lambda one: (one.generate(), one.generate()), KeyDirectory.generate),
    "rotation": (lambda one: (one.generate(), one.generate()), KeyDirectory.rotate),
    "pruning": (lambda one: (one.generate(), one.rotate()), lambda one: one.prune(0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_killed_at_any_step_is_whole_or_did_not_happen(tmp_path, change):
    prepare, act = CHANGES[change]
    outcomes = set()
    for steps in range(60):
        directory = KeyDirectory(tmp_path / str(steps))
        before = {}
        if prepare is not None:
            prepare(directory)
            before = {entry.kid: entry for entry in directory.list()}
        process = FORK.Process(target=die_before_step, args=(lambda one=directory: act(one), steps))
        process.start()
        process.join(PATIENCE)
        assert process.exitcode in (-signal.SIGKILL, 0)
        if prepare is not None or process.exitcode == 0:
            assert directory.keys().current.can_sign
            outcomes.add({entry.kid: entry for entry in directory.list()} == before)
        directory.generate()
        assert directory.keys().current.can_sign
        assert files_in(directory) == expected_files(directory)
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert steps > 5
    assert outcomes == ({True, False} if prepare is not None else {False})


def test_a_process_that_is_killed_again_and_again_leaves_a_directory_that_reads(directory):
    directory.generate()
    for number in range(12):
        process = FORK.Process(target=rotate_and_prune, args=(directory.path, number))
        process.start()
        time.sleep(0.002 + 0.003 * number)
        process.kill()
        process.join(PATIENCE)
        assert directory.keys().current.can_sign
    directory.rotate()
    directory.prune(0)
    assert files_in(directory) == expected_files(directory)


# -- read again ---------------------------------------------------------------------------------------------


def test_a_directory_signs_the_access_tokens_of_a_jam(rotated, new_jam):
    jam = new_jam()
    token = jam.access_tokens.issue("alice")
    assert kid_of(token) == in_state(rotated, "current").kid
    assert new_jam().access_tokens.verify(token).subject == "alice"
    assert jam.access_tokens.keys is jam.keys


def test_the_published_keys_are_the_public_halves_of_all_three(rotated, new_jam):
    jwks = new_jam().keys.to_jwks()["keys"]
    assert {key["kid"] for key in jwks} == {entry.kid for entry in rotated.list()}
    for key in jwks:
        assert key.keys() == {"kty", "crv", "x", "y", "alg", "use", "kid"}


def test_a_key_is_published_as_soon_as_it_is_announced(directory, new_jam):
    directory.generate()
    jam = new_jam()
    assert len(jam.keys.to_jwks()["keys"]) == 1
    announced = directory.generate()
    assert announced.kid in {key["kid"] for key in jam.keys.to_jwks()["keys"]}


def test_keys_that_have_not_changed_are_the_same_object(rotated, new_jam):
    jam = new_jam()
    assert jam.keys is jam.keys


def test_a_process_learns_of_a_key_from_its_first_token(directory, new_jam):
    directory.generate()
    one, other = new_jam(), new_jam()
    assert other.access_tokens.verify(one.access_tokens.issue("alice"))
    for _ in range(3):
        directory.rotate()
        token = new_jam().access_tokens.issue("alice")
        assert kid_of(token) == in_state(directory, "current").kid
        assert one.access_tokens.verify(token).subject == "alice"
        assert other.access_tokens.claims(token)["sub"] == "alice"


def test_every_process_signs_with_the_new_key_ten_seconds_later(directory, new_jam, clock):
    directory.generate()
    jam = new_jam()
    tokens = jam.access_tokens
    tokens.issue("alice")
    current = directory.rotate()
    clock.move(10)
    assert kid_of(tokens.issue("alice")) == current.kid
    current = directory.rotate()
    clock.move(10)
    assert kid_of(tokens.sign(tokens.payload(sub="alice"))) == current.kid


def test_the_directory_is_not_looked_at_more_often_than_every_ten_seconds_for_tokens_that_are_good(
    directory, new_jam, clock
):
    directory.generate()
    tokens = new_jam().access_tokens
    old = tokens.issue("alice")
    directory.rotate()
    clock.move(9.5)
    assert kid_of(tokens.issue("alice")) == kid_of(old)


def test_a_clock_that_is_set_back_does_not_keep_the_directory_from_being_looked_at(directory, new_jam, clock):
    directory.generate()
    tokens = new_jam().access_tokens
    tokens.issue("alice")
    current = directory.rotate()
    clock.move(-86400)
    assert kid_of(tokens.issue("alice")) == current.kid


def test_tokens_of_a_retired_key_are_good_until_it_is_removed(directory, new_jam, clock):
    directory.generate()
    tokens = new_jam().access_tokens
    token = tokens.issue("alice")
    directory.rotate()
    clock.move(11)
    assert tokens.verify(token).subject == "alice"
    directory.prune(0)
    clock.move(11)
    with pytest.raises(TokenInvalid):
        tokens.verify(token)


def test_a_token_seen_before_is_refused_too_ten_seconds_after_its_key_was_removed(directory, new_jam, clock):
    directory.generate()
    tokens = new_jam().access_tokens
    token = tokens.issue("alice")
    for _ in range(3):
        assert tokens.verify(token).subject == "alice"
        clock.move(4)
    directory.rotate()
    directory.prune(0)
    clock.move(10)
    with pytest.raises(TokenInvalid) as caught:
        tokens.verify(token)
    assert type(caught.value) is TokenInvalid


def test_a_token_seen_before_expires_all_the_same(directory, new_jam, clock):
    directory.generate()
    tokens = new_jam().access_tokens
    token = tokens.issue("alice", lifetime=25)
    for _ in range(5):
        assert tokens.verify(token).subject == "alice"
        clock.move(5)
    for _ in range(2):
        with pytest.raises(TokenExpired):
            tokens.verify(token)


def hostile_token(kid, typ="at+jwt"):
    def segment(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{segment({'alg': 'ES256', 'typ': typ, 'kid': kid})}.{segment({'sub': 'alice'})}.{'A' * 86}"


@pytest.mark.parametrize("kid", HOSTILE_KIDS, ids=lambda kid: repr(kid)[:20])
def test_asvs_9_1_3_a_kid_is_never_a_path(rotated, new_jam, kid):
    tokens = new_jam().access_tokens
    with noting_files() as opened:
        for _ in range(20):
            with pytest.raises(TokenInvalid):
                tokens.verify(hostile_token(kid))
    assert opened == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kid=st.text() | st.binary().map(repr) | st.integers())
def test_no_kid_whatsoever_makes_jam_open_a_file(rotated, new_jam, kid):
    tokens = new_jam().access_tokens
    with noting_files() as opened, pytest.raises(TokenInvalid):
        tokens.verify(hostile_token(kid))
    assert opened == []


def test_any_number_of_unknown_kids_has_a_changed_directory_read_once(rotated, new_jam):
    tokens = new_jam().access_tokens
    rotated.rotate()
    with noting_files() as opened:
        for kid in [*HOSTILE_KIDS, *map(str, range(50))]:
            with pytest.raises(TokenInvalid):
                tokens.verify(hostile_token(kid))
    assert opened.count(str(rotated.path)) == 1


def test_many_threads_read_a_changed_directory_once(rotated, clock):
    keys = RefreshedKeys(rotated, clock=clock)
    rotated.rotate()
    start = threading.Barrier(8)

    def ask(_):
        start.wait(PATIENCE)
        return keys.newest().current.kid

    with noting_files() as opened, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert set(found) == {in_state(rotated, "current").kid}
    assert opened.count(str(rotated.path)) == 1


def test_threads_that_sign_and_verify_while_the_keys_rotate_never_see_a_good_token_refused(directory, new_jam, clock):
    directory.generate()
    jam = new_jam()
    stop = threading.Event()

    def work():
        done = 0
        while not stop.is_set():
            clock.move(0.01)
            assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).subject == "alice"
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        try:
            for _ in range(15):
                directory.rotate()
                time.sleep(0.01)
        finally:
            stop.set()
        assert all(worker.result(PATIENCE) > 0 for worker in workers)
    clock.move(11)
    assert kid_of(jam.access_tokens.issue("alice")) == in_state(directory, "current").kid


def test_keys_that_cannot_be_read_any_more_stay_as_they_were_and_the_log_says_so_every_ten_seconds(
    rotated, new_jam, clock, caplog
):
    tokens = new_jam().access_tokens
    token = tokens.issue("alice")
    rotated.rotate()
    file = file_of(rotated, in_state(rotated, "current"))
    file.chmod(0o644)
    with caplog.at_level(logging.ERROR, "jam.keys"):
        for _ in range(5):
            with pytest.raises(TokenInvalid):
                tokens.verify(hostile_token("unknown"))
        assert tokens.verify(token).subject == "alice"
        assert [str(file) in record.getMessage() for record in caplog.records] == [True]
        clock.move(10)
        assert kid_of(tokens.issue("alice")) == kid_of(token)
        assert len(caplog.records) == 2
    file.chmod(0o600)
    clock.move(10)
    assert kid_of(tokens.issue("alice")) == in_state(rotated, "current").kid


def test_a_directory_that_is_gone_leaves_the_keys_as_they_were(rotated, clock):
    keys = RefreshedKeys(rotated, clock=clock)
    known = keys.newest()
    rotated.path.rename(rotated.path.with_name("elsewhere"))
    assert rotated.signature() is None
    assert keys.newest() is known


def child_that_asks(keys, expected):
    os._exit(0 if keys.newest().current.kid == expected else 1)


def test_a_child_reads_again_although_a_thread_of_its_parent_was_reading_when_it_forked(rotated, clock):
    keys = RefreshedKeys(rotated, clock=clock)
    current = rotated.rotate()
    with keys._lock:
        process = FORK.Process(target=child_that_asks, args=(keys, current.kid))
        process.start()
        process.join(PATIENCE)
        process.kill()
        process.join()
    assert process.exitcode == 0


# -- configured ---------------------------------------------------------------------------------------------


def test_configured_public_keys_verify_beside_the_directory(rotated, new_jam, secret, clock):
    former = Key.generate("ES256")
    token = Jam({"secret": secret}, keys=KeySet(former), clock=clock).access_tokens.issue("alice")
    jam = new_jam(public_keys=[former.to_pem()])
    assert jam.access_tokens.verify(token).subject == "alice"
    rotated.rotate()
    assert jam.keys.get(former.kid) is not None
    assert jam.access_tokens.verify(token).subject == "alice"


def test_a_shared_secret_beside_the_directory_is_refused(rotated, new_jam):
    secret_key = Key.generate("HS256").to_jwk(private=True)
    with pytest.raises(InvalidKey):
        new_jam(public_keys=[json.dumps(secret_key)]).keys


def test_a_private_key_and_a_directory_contradict_each_other(directory, secret):
    pem = Key.generate("ES256").to_pem(private=True)
    refused(lambda: Jam({"access_tokens": {"private_key": pem, "key_directory": "keys"}}), "both")


def test_keys_given_in_code_are_stronger_than_a_directory(tmp_path, secret):
    keys = KeySet(Key.generate("ES256"))
    jam = Jam({"secret": secret, "access_tokens": {"key_directory": str(tmp_path / "none")}}, keys=keys)
    assert jam.keys is keys
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice"))


def test_a_directory_without_a_current_key_is_refused_at_first_use(directory, new_jam):
    jam = new_jam()
    refused(lambda: jam.keys, "flask jam keys generate")
    directory.generate()
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice"))


def test_a_jam_without_a_directory_has_none(jam):
    assert jam.key_directory is None


def test_a_system_without_posix_locks_is_refused(directory, new_jam, monkeypatch):
    monkeypatch.delitem(sys.modules, "jam.crypto.key_directory")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    refused(lambda: new_jam().keys, "POSIX")


def test_a_directory_that_is_not_configured_is_not_imported():
    program = "import sys, jam; jam.Jam({'secret': 'x7Q-' * 3 + 'kT9mL2vN8pR4sW6yB1dF'}).access_tokens.issue('a'); "
    program += "sys.exit('jam.crypto.key_directory' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE).returncode == 0


def test_an_entry_says_nothing_of_the_key_itself(rotated):
    private = json.loads(file_of(rotated, in_state(rotated, "current")).read_text())["d"]
    assert private not in repr(rotated.list()) + repr(rotated.keys()) + (rotated.path / "states.json").read_text()


def test_the_directory_reads_the_real_clock_unless_told_otherwise(tmp_path):
    assert KeyDirectory(tmp_path / "keys").generate().since == pytest.approx(time.time(), abs=60)


def test_a_movable_clock_is_what_dates_the_keys(tmp_path):
    clock = MovableClock(1000.0)
    assert KeyDirectory(tmp_path / "keys", clock=clock).generate().created_at == 1000.0
