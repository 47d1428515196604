"""Real servers for the tests: started on a free port of this machine, and ended by the test that started them."""

import contextlib
import random
import signal
import socket
import subprocess
import sys
import time

import requests


def free_port(*, also=()):
    """A port nobody listens on, nor on those that far above it; all of them below those that the system gives to outgoing
    connections, one of which could take it before the server does."""
    for _ in range(1000):
        port = random.randrange(10240, 32000 - max(also, default=0))
        if all(is_free(port + above) for above in (0, *also)):
            return port
    raise AssertionError("no free port between 10240 and 32000")


def is_free(port):
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@contextlib.contextmanager
def serving(arguments, *, url, cwd=None, env=None, stop_with=signal.SIGTERM):
    """Run a server until the block ends; yields its process once it answers."""
    process = subprocess.Popen(arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until_it_answers(url, process)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop_with)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)
        process.output = process.stdout.read()
        process.stdout.close()


def wait_until_it_answers(url, process, patience=20):
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"the server ended: {process.stdout.read()}")
        with contextlib.suppress(requests.ConnectionError):
            requests.get(url, timeout=5)
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}")


PYTHON = sys.executable
