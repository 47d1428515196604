"""``flask jam keys``: what it prints, what it changes, and what real servers make of it."""

import collections
import json
import os
import re
import subprocess
import threading
import time

import pytest
import requests

from jam import Jam
from jam.crypto.key_directory import KeyDirectory
from jam.ext.flask import JWTExtension
from tests.processes import PYTHON, free_port, serving

PATIENCE = 30
KID = r"[A-Za-z0-9_-]{43}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def keyed(new_app, path, clock):
    """An app whose keys are in a directory; nothing is in it yet."""
    app = new_app(JAM_ACCESS_TOKENS_KEY_DIRECTORY=str(path))
    app.jam = Jam(clock=clock)
    JWTExtension(app.jam, app)
    return app


def run(app, *arguments):
    return app.test_cli_runner().invoke(args=["jam", "keys", *arguments])


def did(app, *arguments):
    done = run(app, *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def failed(app, *arguments):
    done = run(app, *arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert len(done.output.splitlines()) == 1
    return done.output


def listed(app):
    return json.loads(did(app, "list", "--json"))


def test_generate_makes_the_key_that_signs(keyed):
    said = did(keyed, "generate")
    (key,) = listed(keyed)
    assert key["state"] == "current"
    assert key["algorithm"] == "ES256"
    assert key["kid"] in said
    assert "signs from now on" in said


def test_generate_announces_the_next_key_of_the_algorithm_asked_for(keyed):
    did(keyed, "generate")
    said = did(keyed, "generate", "--algorithm", "EdDSA")
    assert "flask jam keys rotate" in said
    assert [(key["state"], key["algorithm"]) for key in listed(keyed)] == [("next", "EdDSA"), ("current", "ES256")]


def test_rotate_says_which_key_signs_from_now_on(keyed):
    did(keyed, "generate")
    did(keyed, "generate")
    announced = listed(keyed)[0]["kid"]
    assert announced in did(keyed, "rotate")
    assert [key["state"] for key in listed(keyed)] == ["next", "current", "retired"]
    assert listed(keyed)[1]["kid"] == announced


@pytest.mark.parametrize(("announced_for", "warned"), [(0, True), (299, True), (300, False)])
def test_rotate_warns_of_a_key_that_others_may_not_have_fetched_yet(keyed, clock, announced_for, warned):
    did(keyed, "generate")
    did(keyed, "generate")
    clock.move(announced_for)
    done = run(keyed, "rotate")
    assert done.exit_code == 0
    assert ("fetch them again" in done.stderr) is warned
    assert len(done.stdout.splitlines()) == 1


def test_list_is_a_table_for_people(keyed, clock):
    clock.now = 1_800_000_000.0
    did(keyed, "generate")
    clock.move(60)
    did(keyed, "rotate")
    head, rule, *rows = did(keyed, "list").splitlines()
    assert head.split() == ["Key", "Algorithm", "State", "Since", "Made"]
    assert set(rule) == {"-", " "}
    assert [row.split()[1:] for row in rows] == [
        ["ES256", "next", "2027-01-15", "08:01:00Z", "2027-01-15", "08:01:00Z"],
        ["ES256", "current", "2027-01-15", "08:01:00Z", "2027-01-15", "08:01:00Z"],
        ["ES256", "retired", "2027-01-15", "08:01:00Z", "2027-01-15", "08:00:00Z"],
    ]
    assert all(re.match(KID, row) for row in rows)


def test_list_is_json_for_machines(keyed, clock):
    did(keyed, "generate")
    (key,) = listed(keyed)
    assert key == {
        "kid": key["kid"], "algorithm": "ES256", "state": "current", "created_at": clock(), "since": clock(),
    }  # fmt: skip


def test_prune_keeps_a_key_until_the_last_token_it_signed_has_expired(keyed, clock):
    did(keyed, "generate")
    did(keyed, "rotate")
    retired = listed(keyed)[2]["kid"]
    clock.move(86400 + 9)
    assert did(keyed, "prune") == "0 keys removed.\n"
    clock.move(1)
    assert retired in did(keyed, "prune")
    assert [key["state"] for key in listed(keyed)] == ["next", "current"]


def test_prune_waits_as_long_as_tokens_may_live_here(new_app, path, clock):
    app = new_app(
        JAM_ACCESS_TOKENS_KEY_DIRECTORY=str(path), JAM_ACCESS_TOKENS_LIFETIME=60, JAM_ACCESS_TOKENS_MAX_LIFETIME=100,
        JAM_ACCESS_TOKENS_LEEWAY=5,
    )  # fmt: skip
    JWTExtension(Jam(clock=clock), app)
    did(app, "generate")
    did(app, "rotate")
    clock.move(114)
    assert did(app, "prune") == "0 keys removed.\n"
    clock.move(1)
    assert did(app, "prune").endswith("1 keys removed.\n")


def test_prune_removes_every_retired_key_at_once_if_told_so(keyed):
    did(keyed, "generate")
    did(keyed, "rotate")
    token = keyed.jam.access_tokens.issue("alice")
    assert keyed.jam.access_tokens.verify(token)
    did(keyed, "prune", "--older-than", "0")
    assert [key["state"] for key in listed(keyed)] == ["next", "current"]


@pytest.mark.parametrize("age", ["-1", "x", ""])
def test_prune_takes_a_number_of_seconds(keyed, age):
    did(keyed, "generate")
    assert run(keyed, "prune", "--older-than", age).exit_code == 2


@pytest.mark.parametrize("command", ["list", "rotate", "prune"])
def test_without_a_key_every_command_says_how_to_make_one(keyed, command):
    assert "flask jam keys generate" in failed(keyed, command)


@pytest.mark.parametrize("command", ["generate", "list", "rotate", "prune"])
def test_without_a_directory_every_command_says_how_to_set_one(new_app, jam, command):
    app = new_app()
    JWTExtension(jam, app)
    assert "JAM_ACCESS_TOKENS_KEY_DIRECTORY" in failed(app, command)


@pytest.mark.parametrize("algorithm", ["HS256", "none", "\x1b[31m"])
def test_what_is_no_algorithm_for_such_a_key_is_refused(keyed, path, algorithm):
    assert "\x1b" not in failed(keyed, "generate", "--algorithm", algorithm)
    assert not path.exists()


def test_a_directory_that_is_not_safe_is_refused_with_the_remedy(keyed, path):
    did(keyed, "generate")
    path.chmod(0o777)
    for command in ("generate", "list", "rotate", "prune"):
        assert "chmod 700" in failed(keyed, command)


def test_no_command_ever_prints_a_private_key(keyed, path):
    said = did(keyed, "generate") + did(keyed, "generate", "--algorithm", "EdDSA") + did(keyed, "rotate")
    private = [json.loads(one.read_text())["d"] for one in path.glob("*.jwk.json")]
    said += did(keyed, "list") + did(keyed, "list", "--json") + did(keyed, "prune", "--older-than", "0")
    assert len(private) == 3
    assert not any(secret in said for secret in private)


# -- real servers -------------------------------------------------------------------------------------------

APP = """
import os
import time

from flask import Flask, request

from jam import Jam
from jam.crypto.jws import read_header
from jam.ext.flask import Authenticated, JWTExtension, checkpoint, current_identity

BEGUN = float(os.environ["BEGUN"])
PACE = 20  # ten seconds of this clock are half of one
app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ["SERVED_SECRET"],
    JAM_STORE=os.environ["SERVED_STORE"],
    JAM_HTTPS=False,
    JAM_ACCESS_TOKENS_KEY_DIRECTORY="keys",
)
jam = Jam(clock=lambda: BEGUN + (time.time() - BEGUN) * PACE)
JWTExtension(jam, app)
jam.keys  # read before --preload forks the workers


@app.get("/token")
def token():
    made = jam.access_tokens.issue("alice")
    return {"token": made, "kid": read_header(made)["kid"], "worker": os.getpid()}


@app.get("/me")
@checkpoint(Authenticated())
def me():
    return {"subject": current_identity.subject, "worker": os.getpid()}


@app.get("/keys")
def keys():
    return jam.keys.to_jwks()
"""


@pytest.fixture
def place(tmp_path, secret, monkeypatch):
    """Where the served app and its keys are, and the environment it is started in."""
    (tmp_path / "keyed_app.py").write_text(APP)
    monkeypatch.setenv("SERVED_SECRET", secret)
    monkeypatch.setenv("SERVED_STORE", f"sqlite:///{tmp_path}/jam.sqlite3")
    monkeypatch.setenv("BEGUN", str(time.time()))
    return tmp_path


def flask_command(place, *arguments):
    """A command in a process of its own, as an administrator runs it."""
    command = [PYTHON, "-m", "flask", "--app", "keyed_app", "jam", "keys", *arguments]
    done = subprocess.run(
        command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Callers:
    """Callers that fetch tokens and show each of them again and again, to whichever worker answers."""

    def __init__(self, url):
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(3)]
        self.refusals = []
        self.signed_by = collections.defaultdict(str)  # the latest kid of each worker
        self.accepted = collections.defaultdict(set)  # the workers that have accepted a token of the kid

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _call(self):
        tokens = collections.deque(maxlen=8)
        while not self._stop.is_set():
            made = requests.get(f"{self._url}/token", timeout=PATIENCE).json()
            self.signed_by[made["worker"]] = made["kid"]
            tokens.append((made["kid"], made["token"]))
            for kid, token in tokens:
                answer = requests.get(f"{self._url}/me", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE)
                if answer.status_code == 200:
                    self.accepted[kid].add(answer.json()["worker"])
                else:
                    self.refusals.append(answer.text)

    def wait_for(self, kid):
        """Until both workers sign with a key and both have accepted what it signed."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if len(self.signed_by) == 2 and {*self.signed_by.values()} == {kid} and len(self.accepted[kid]) == 2:
                return True
            time.sleep(0.02)
        return False


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each reads", "preloaded"])
def test_workers_follow_three_rotations_and_refuse_no_token_that_is_good(place, options):
    directory = KeyDirectory(place / "keys")
    directory.generate()
    url = f"http://127.0.0.1:{free_port()}"
    server = [PYTHON, "-m", "gunicorn", "--bind", url.removeprefix("http://"), "--workers", "2", "--threads", "4"]
    with serving([*server, *options, "keyed_app:app"], url=f"{url}/keys", cwd=place, env={**os.environ}):
        with Callers(url) as callers:
            assert callers.wait_for(directory.keys().current.kid)
            for _ in range(3):
                flask_command(place, "rotate")
                assert callers.wait_for(directory.keys().current.kid), callers.signed_by
        assert callers.refusals == []
        published = requests.get(f"{url}/keys", timeout=PATIENCE).json()["keys"]
    assert {key["kid"] for key in published} == {entry.kid for entry in directory.list()}
    assert len(published) == 5
    assert not any("d" in key for key in published)
