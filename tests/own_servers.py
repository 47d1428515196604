"""Engines of the tests' own: started on free ports of this machine as an unprivileged user, and ended with the test.

What the shared servers cannot be used for: to be stopped, killed and frozen.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql
import redis
import sqlalchemy as sa

from tests.processes import free_port
from tests.services import missing

PATIENCE = 60


def state_of(path):
    """The state of a thread, by its file in /proc: T is stopped; Z for one that has ended meanwhile."""
    try:
        return path.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


class OwnServer:
    """An engine's program with a folder of its own; a context that starts and ends it."""

    name = ""
    good_bye = signal.SIGTERM
    also = ()  # how far above its port it needs more of them

    def __init__(self):
        self.port = free_port(also=self.also)
        self.folder = Path(tempfile.mkdtemp(prefix="jam-test-"))
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.process = None

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def prepare(self):
        """What has to be done once, before the first start."""

    def arguments(self):
        """The command line of the server."""
        raise NotImplementedError

    def ping(self):
        """Raise something unless the server answers."""
        raise NotImplementedError

    def start(self):
        self.process = self.run(subprocess.Popen, self.arguments())
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.ping()
            except Exception:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"{self.name} did not start: {self.log().read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self):
        """End it as an administrator would."""
        self.end_by(self.good_bye)

    def kill(self):
        """End it as a power cut would."""
        self.end_by(signal.SIGKILL)

    def end_by(self, number):
        if self.process is not None and self.process.poll() is None:
            self.signal_all(signal.SIGCONT)
            if number == signal.SIGKILL:
                self.signal_all(number)
            else:
                self.process.send_signal(number)
            self.process.wait(PATIENCE)

    @contextlib.contextmanager
    def frozen(self):
        """While the block runs it accepts connections and never answers: the kernel does the former."""
        self.signal_all(signal.SIGSTOP)
        try:
            self.wait_until_it_stands_still()
            yield
        finally:
            self.signal_all(signal.SIGCONT)

    def signal_all(self, number):
        """To the program and those it started: PostgreSQL has a process for each connection."""
        own = self.process.pid
        for pid in (own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_until_it_stands_still(self, patience=10):
        """A signal takes effect a moment after it was sent, thread by thread; until then an answer may still come."""
        until = time.monotonic() + patience
        tasks = Path(f"/proc/{self.process.pid}/task")
        while time.monotonic() < until:
            children = (tasks / str(self.process.pid) / "children").read_text().split()
            of_children = [path for child in children for path in Path(f"/proc/{child}/task").glob("*/stat")]
            if all(state_of(path) in "TtZ" for path in (*tasks.glob("*/stat"), *of_children)):
                return
            time.sleep(0.01)
        raise AssertionError(f"{self.name} does not stand still after {patience} seconds")

    def log(self):
        return self.folder / "log.txt"

    def run(self, how, arguments):
        """A program in the folder, as the unprivileged user, its words in the log."""
        program = shutil.which(arguments[0], path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if program is None:
            missing(self.name, FileNotFoundError(arguments[0]))
        with self.log().open("a") as log:
            return how(
                [program, *arguments[1:]],
                cwd=self.folder,
                user=self.user,
                group="nogroup" if self.user else None,
                extra_groups=[] if self.user else None,
                env={**os.environ, "HOME": str(self.folder)},
                stdout=log,
                stderr=log,
            )


class OwnPostgreSQL(OwnServer):
    name = "PostgreSQL"
    good_bye = signal.SIGINT  # it would wait until all clients have gone, on SIGTERM

    @property
    def url(self):
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def program(self, name):
        """Debian keeps them apart, a folder for each version."""
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return str(found[-1]) if found else name

    def prepare(self):
        done = self.run(
            subprocess.run,
            [self.program("initdb"), "-D", "data", "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C.UTF-8"],
        )
        assert done.returncode == 0, self.log().read_text()

    def arguments(self):
        return [self.program("postgres"), "-D", "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]

    def ping(self):
        ping_sql(self.url)


class OwnMariaDB(OwnServer):
    name = "MariaDB"

    @property
    def url(self):
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/mysql"

    def prepare(self):
        done = self.run(
            subprocess.run,
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.folder}/data",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
        )
        assert done.returncode == 0, self.log().read_text()

    def arguments(self):
        return [
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--skip-name-resolve",
        ]

    def ping(self):
        with contextlib.closing(pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=1)):
            pass


class OwnRedis(OwnServer):
    name = "Redis"
    options = ("--appendonly", "yes", "--appendfsync", "always")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def arguments(self):
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return ["redis-server", *where, "--save", "", *self.options]

    def ping(self):
        with self.client() as client:
            client.ping()

    def client(self):
        return redis.Redis(port=self.port, socket_timeout=5)


class OwnRedisNode(OwnRedis):
    """One of a cluster, whose bus has a port 10000 above its own."""

    also = (10000,)
    options = (*OwnRedis.options, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")


class OwnRedisCluster:
    """Three primaries that share the slots; a context that starts and ends them."""

    def __enter__(self):
        self.ended = contextlib.ExitStack()
        try:
            self.nodes = [self.ended.enter_context(OwnRedisNode()) for _ in range(3)]
            self.join()
        except BaseException:
            self.ended.close()
            raise
        return self

    def __exit__(self, *_):
        self.ended.close()

    @property
    def url(self):
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def join(self):
        ends = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER ADDSLOTSRANGE", ends[number], ends[number + 1] - 1)
                for other in self.nodes[:number]:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
        self.wait_until_it_is_whole()

    def wait_until_it_is_whole(self):
        until = time.monotonic() + PATIENCE
        while not all(self.is_whole_to(node) for node in self.nodes):
            assert time.monotonic() < until, "the cluster did not come together"
            time.sleep(0.02)

    def is_whole_to(self, node):
        with node.client() as client:
            said = client.execute_command("CLUSTER INFO")
            state = said if isinstance(said, dict) else dict(line.split(":") for line in said.decode().split())
            return (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")


def ping_sql(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 2})
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
