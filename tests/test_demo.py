"""The demo: served for real, restarted, and its list of things to try."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import requests

from tests.processes import PYTHON, free_port, serving

APP = Path(__file__).parent.parent / "examples" / "demo" / "app.py"


def demo(folder, port, answers_on=None):
    environment = {**os.environ, "PORT": str(port), "DEMO_FOLDER": str(folder)}
    return serving([PYTHON, str(APP)], url=f"http://127.0.0.1:{answers_on or port}", env=environment)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "demo"


def sign_in(url, folder, **headers):
    browser = requests.Session()
    password = (folder / "password.txt").read_text().strip()
    answer = browser.post(
        f"{url}/sign-in",
        data={"username": "demo", "password": password},
        headers={"Origin": url, **headers},
        timeout=10,
    )
    return browser, answer


def test_who_signs_in_stays_signed_in_over_a_restart(folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with demo(folder, port) as first:
        assert requests.get(f"{url}/page", timeout=10).status_code == 401
        browser, answer = sign_in(url, folder)
        assert "colour plum" in answer.text
        password = (folder / "password.txt").read_text().strip()
        token = requests.post(f"{url}/api/token", json={"username": "demo", "password": password}, timeout=10).json()[
            "access_token"
        ]
    with demo(folder, port) as second:
        assert "colour plum" in browser.get(f"{url}/page", timeout=10).text
        bearer = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{url}/api/notes", headers=bearer, timeout=10).json()["for"] == "demo"
        assert requests.post(f"{url}/api/revoke", headers=bearer, timeout=10).status_code == 204
        assert requests.get(f"{url}/api/notes", headers=bearer, timeout=10).json()["code"] == "token_revoked"
        assert browser.post(f"{url}/sign-out", headers={"Origin": url}, timeout=10).status_code == 200
        assert browser.get(f"{url}/page", timeout=10).status_code == 401
    for server in (first, second):
        assert f"password  {password}" in server.output
        assert "/api/notes" in server.output


def test_its_secrets_are_readable_only_by_their_owner(folder):
    with demo(folder, free_port()):
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert {modes["password.txt"], modes["secret.txt"]} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_wrong_password_and_a_foreign_page_are_refused_and_guessing_ends(folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with demo(folder, port):
        assert sign_in(url, folder, Origin="http://evil.example")[1].json()["code"] == "csrf_failed"
        for _ in range(10):
            wrong = requests.post(
                f"{url}/sign-in", data={"username": "demo", "password": "guess"}, headers={"Origin": url}, timeout=10
            )
            assert wrong.status_code == 401
        assert sign_in(url, folder)[1].status_code == 401  # right, but tried too often


def test_a_taken_port_is_said_and_the_next_free_one_used(folder):
    port = free_port(also=(1,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with demo(folder, port, answers_on=port + 1) as server:
            pass
    assert f"Port {port} is taken; using {port + 1}." in server.output


@pytest.mark.parametrize("url", ["postgresql_url", "mysql_url", "redis_url"])
def test_it_runs_on_a_server_too(folder, url, monkeypatch, request):
    monkeypatch.setenv("STORE", request.getfixturevalue(url))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with demo(folder, port):
        assert "colour plum" in sign_in(url, folder)[1].text
    assert not (folder / "jam.sqlite3").exists()


@pytest.mark.parametrize("name", ["demo", "test", "lint", "docs", "bench", "lowest"])
def test_what_make_does_to_prepare_an_environment_is_sound_shell(name):
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", f".venv-{name}/.ready"],
        cwd=APP.parents[2], capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "pip" in recipe
    assert subprocess.run(["sh", "-n"], input=recipe, text=True, timeout=60, check=False).returncode == 0
