"""Real servers, several worker processes, real HTTP."""

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from jam.stores import open_store
from tests.own_servers import OwnRedisCluster
from tests.processes import PYTHON, free_port, serving

HERE = Path(__file__).parent


@pytest.fixture
def environment(secret, tmp_path):
    return {**os.environ, "SERVED_SECRET": secret, "SERVED_STORE": f"sqlite:///{tmp_path}/jam.sqlite3"}


def gunicorn(url, *options):
    bind = url.removeprefix("http://")
    return [PYTHON, "-m", "gunicorn", "--bind", bind, "--workers", "2", "--threads", "4", *options, "served_app:app"]


@pytest.fixture(params=["SQLite", "SQLite, preloaded", "PostgreSQL", "MariaDB", "Redis", "Redis Cluster"])
def url(request, environment):
    """An app in two processes, on each engine; on a server with connections that were open when the workers forked."""
    options = () if request.param == "SQLite" else ("--preload",)
    if request.param in SERVERS:
        environment["SERVED_STORE"] = request.getfixturevalue(SERVERS[request.param])
        with contextlib.closing(open_store(environment["SERVED_STORE"])) as store:
            store.create_tables()
    address = f"http://127.0.0.1:{free_port()}"
    with serving(gunicorn(address, *options), url=address, cwd=HERE, env=environment):
        yield address


SERVERS = {
    "PostgreSQL": "postgresql_url",
    "MariaDB": "mysql_url",
    "Redis": "redis_url",
    "Redis Cluster": "redis_cluster_url",
}


@pytest.fixture(scope="module")
def redis_cluster_url():
    with OwnRedisCluster() as cluster:
        yield cluster.url


def signed_in(url, name="alice"):
    browser = requests.Session()
    browser.headers["Origin"] = url
    answer = browser.post(f"{url}/sign-in", data={"name": name}, timeout=10)
    assert answer.status_code == 200
    return browser, answer.json()["token"]


def test_all_workers_agree_about_who_is_calling(url):
    browser, token = signed_in(url)
    workers = set()

    def ask(_):
        page = requests.get(f"{url}/me", cookies=browser.cookies.get_dict(), timeout=10)
        api = requests.get(f"{url}/me-async", headers={"Authorization": f"Bearer {token}"}, timeout=10)
        return page.json()["subject"], page.json()["worker"], api.json()["subject"]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):  # which worker takes a connection is the system's choice
            for subject, worker, by_token in pool.map(ask, range(60)):
                assert (subject, by_token) == ("alice", "alice")
                workers.add(worker)
            if len(workers) == 2:
                break
    assert len(workers) == 2


def test_asvs_7_4_1_signed_out_in_one_worker_is_refused_by_all(url):
    browser, token = signed_in(url)
    other, _ = signed_in(url, "bob")
    cookies = browser.cookies.get_dict()
    for _ in range(10):  # so that every worker has seen, and may have remembered, the token
        requests.get(f"{url}/me", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert browser.post(f"{url}/sign-out-everywhere", timeout=10).status_code == 200
    for _ in range(20):
        by_cookie = requests.get(f"{url}/me", cookies=cookies, timeout=10)
        by_token = requests.get(f"{url}/me", headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert (by_cookie.status_code, by_cookie.json()["code"]) == (401, "session_invalid")
        assert (by_token.status_code, by_token.json()["code"]) == (401, "token_revoked")
    assert other.get(f"{url}/me", timeout=10).json()["subject"] == "bob"


def test_a_streamed_page_that_asks_who_is_calling_is_for_its_caller_only(url):
    _, token = signed_in(url)
    response = requests.get(f"{url}/stream", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert response.text == "hello alice"
    assert (response.headers["Vary"], response.headers["Cache-Control"]) == ("Authorization, Cookie", "private")


def test_two_workers_writing_into_one_session_lose_nothing(url):
    browser, _ = signed_in(url)
    cookies = browser.cookies.get_dict()
    start = threading.Barrier(6)

    def write(number):
        start.wait(20)
        return [
            requests.post(f"{url}/write/{number}-{n}", cookies=cookies, headers={"Origin": url}, timeout=20).status_code
            for n in range(10)
        ]

    with ThreadPoolExecutor(6) as pool:
        codes = [code for some in pool.map(write, range(6)) for code in some]
    assert codes == [200] * 60
    data = browser.get(f"{url}/me", timeout=10).json()["data"]
    assert data == {"n": 0, **{f"{number}-{n}": 1 for number in range(6) for n in range(10)}}


def test_a_session_survives_the_sudden_death_of_all_workers(environment):
    address = f"http://127.0.0.1:{free_port()}"
    with serving(gunicorn(address), url=address, cwd=HERE, env=environment) as server:
        browser, token = signed_in(address)
        workers = {requests.get(address, timeout=10).json()["worker"] for _ in range(40)}
        server.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    address = f"http://127.0.0.1:{free_port()}"
    with serving(gunicorn(address), url=address, cwd=HERE, env=environment):
        again = requests.get(f"{address}/me", cookies=browser.cookies.get_dict(), timeout=10)
        assert again.json()["subject"] == "alice"
        by_token = requests.get(f"{address}/me", headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert by_token.json()["subject"] == "alice"
