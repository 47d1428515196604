"""PostgreSQL and MariaDB, real ones; and engines an app already has."""

import contextlib
import functools
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from jam import Jam
from jam.errors import ConfigError, StoreUnavailable
from jam.ext.flask import JamExtension, SessionExtension, current_identity
from jam.stores import open_store
from jam.stores.sql import SQLStore, jam_tables
from jam.testing.stores import NOW, StoreContract, new_record
from tests.stores.writers import write_during

create_engine = sa.create_engine


@pytest.fixture(params=["postgresql_url", "mysql_url"], ids=["PostgreSQL", "MariaDB"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def store(url):
    store = SQLStore(url)
    store.create_tables()
    yield store
    store.close()


class SQLContract(StoreContract):
    rounds = 500
    process_rounds = 100

    @pytest.fixture
    def opener(self, url):
        make_tables(url)
        return functools.partial(SQLStore, url)


@functools.cache
def make_tables(url):
    with contextlib.closing(SQLStore(url)) as store:
        store.create_tables()


class TestPostgreSQL(SQLContract):
    @pytest.fixture
    def url(self, postgresql_url):
        return postgresql_url


class TestMariaDB(SQLContract):
    @pytest.fixture
    def url(self, mysql_url):
        return mysql_url


class TestAnEngineTheAppHas(SQLContract):
    """An app's own engine, as it would make it: with a pool, pinging, and not in autocommit."""

    rounds = 100
    process_rounds = 30

    @pytest.fixture
    def url(self, postgresql_url):
        return postgresql_url

    @pytest.fixture
    def opener(self, url):
        make_tables(url)
        yield functools.partial(on_own_engine, url)
        own_engine(url).dispose()


@functools.cache
def own_engine(url):
    return sa.create_engine(url, pool_pre_ping=True, pool_size=16)


def on_own_engine(url):
    return SQLStore(own_engine(url))


# -- where the engine comes from


def test_threads_that_use_a_new_store_at_the_same_moment_share_one_engine(url, monkeypatch):
    made = []
    monkeypatch.setattr(sa, "create_engine", lambda *given, **named: made.append(1) or create_engine(*given, **named))
    for _ in range(20):
        store = SQLStore(url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n, store=store: store.count_reset(str(n)), range(4)))
        store.close()
    assert len(made) == 20


def test_a_url_opens_the_store(url):
    store = open_store(url)
    store.create_tables()
    store.check()
    store.close()


@pytest.mark.parametrize(
    "url", ["postgresql://localhost/x", "mysql://localhost/x", "postgresql+asyncpg://localhost/x", "oracle://x"]
)
def test_a_driver_that_is_not_tested_is_refused_with_those_that_are(url):
    with pytest.raises(ConfigError):
        open_store(url)


def test_nothing_is_connected_before_the_first_use():
    SQLStore("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    SQLStore(lambda: 1 / 0)


def test_an_engine_with_one_connection_for_everybody_is_refused():
    store = SQLStore(sa.create_engine("sqlite://", poolclass=sa.StaticPool))
    with pytest.raises(ConfigError, match="StaticPool"):
        store.get("session", new_record("alice").id, NOW)


@pytest.mark.parametrize("source", [lambda: None, lambda: "postgresql://x", (5.0).__int__])
def test_what_is_no_engine_is_refused(source):
    with pytest.raises(ConfigError, match="Engine"):
        SQLStore(source).create_tables()


def test_a_file_of_sqlite_by_the_apps_own_engine_keeps_the_promises_too(tmp_path):
    store = SQLStore(sa.create_engine(f"sqlite:///{tmp_path}/app.db"))
    store.create_tables()
    store.check()
    record = new_record("alice")
    store.add(record, NOW)
    assert store.get("session", record.id, NOW, 60).record == record
    assert store.swap(record, record, NOW).version == 2
    assert store.count_up("x", 60, 1, NOW).allowed
    assert not store.count_up("x", 60, 1, NOW).allowed
    assert store.advance("alice", ("session",), NOW) == {"session": 1}
    assert store.list("alice", "session", NOW) == []
    assert store.purge(NOW + 1e9) == 2


# -- beside the app's own work


@pytest.fixture
def app_with_db(url, secret, tmp_path):
    app = Flask(__name__, root_path=str(tmp_path))
    app.config.update(SECRET_KEY=secret, SQLALCHEMY_DATABASE_URI=url, TESTING=True)
    db = SQLAlchemy()

    class Post(db.Model):
        __tablename__ = "posts"
        id = db.Column(db.Integer, primary_key=True)
        text = db.Column(db.String(50))

    jam_tables(db.metadata)
    db.init_app(app)
    Migrate(app, db)
    jam = Jam(store=SQLStore(db))
    app.jam, app.db, app.Post = jam, db, Post
    app.sessions = SessionExtension(jam, app)
    with app.app_context():
        db.create_all()
    yield app
    with app.app_context():
        db.drop_all()
        db.engine.dispose()


def test_jam_never_commits_nor_rolls_back_the_apps_own_work(app_with_db):
    app, db, post = app_with_db, app_with_db.db, app_with_db.Post

    @app.post("/")
    def view():
        db.session.add(post(text="uncommitted"))
        db.session.flush()
        app.sessions.sign_in("alice")
        handle = app.jam.create_session("bob")
        app.jam.update_session(handle, {"a": 1})
        db.session.rollback()
        return {
            "posts": db.session.query(post).count(),
            "who": current_identity.subject,
            "bob": app.jam.get_session(handle),
        }

    answer = app.test_client().post("/", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.json == {"posts": 0, "who": "alice", "bob": {"a": 1}}
    assert len(app.jam.sessions.list("alice")) == 1


def test_an_apps_failed_transaction_does_not_touch_jams_writes(app_with_db):
    app, db = app_with_db, app_with_db.db
    with app.app_context():
        with pytest.raises(sa.exc.SQLAlchemyError):
            db.session.execute(sa.text("SELECT * FROM no_such_table"))
        handle = app.jam.create_session("alice")
        db.session.rollback()
    assert app.jam.get_session(handle) == {}


def test_an_autogenerated_migration_right_after_is_empty(app_with_db):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    app = app_with_db
    with app.app_context(), app.db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        ours = [change for change in compare_metadata(context, app.db.metadata) if "jam_" in repr(change)]
        assert ours == []


def test_a_generated_migration_makes_tables_that_pass_the_check(url, secret, tmp_path):
    """What `flask db migrate` writes is run in a process of its own, as an app would."""
    (tmp_path / "app.py").write_text(
        "import os\nfrom flask import Flask\nfrom flask_migrate import Migrate\nfrom flask_sqlalchemy import SQLAlchemy\n"
        "from jam import Jam\nfrom jam.ext.flask import JWTExtension\nfrom jam.stores.sql import SQLStore, jam_tables\n"
        "app = Flask(__name__)\napp.config.update(SECRET_KEY=os.environ['KEY'], SQLALCHEMY_DATABASE_URI=os.environ['URL'])\n"
        "db = SQLAlchemy()\njam_tables(db.metadata)\ndb.init_app(app)\nMigrate(app, db)\nJWTExtension(Jam(store=SQLStore(db)), app)\n"
    )
    import os

    environment = {**os.environ, "KEY": secret, "URL": url, "FLASK_APP": "app.py"}
    server = sa.create_engine(url)
    with server.begin() as connection:
        for table in ("jam_records", "jam_marks", "jam_counts"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))

    def flask(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    try:
        before = flask("jam", "db", "status")
        assert before.returncode == 1
        assert "missing" in before.stderr
        for step in (("db", "init"), ("db", "migrate", "-m", "jam"), ("db", "upgrade"), ("jam", "db", "status")):
            done = flask(*step)
            assert done.returncode == 0, done.stderr
        again = flask("db", "migrate", "-m", "nothing")
        assert "No changes in schema detected" in again.stderr + again.stdout
    finally:
        with server.begin() as connection:
            for table in ("jam_records", "jam_marks", "jam_counts", "alembic_version"):
                connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
        server.dispose()


# -- the schema


@pytest.fixture
def no_tables(url):
    engine = sa.create_engine(url)

    def drop():
        with engine.begin() as connection:
            for table in ("jam_records", "jam_marks", "jam_counts"):
                connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))

    drop()
    yield engine
    drop()
    engine.dispose()


def test_missing_tables_are_a_clear_error_at_the_first_request(url, no_tables, secret):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret, TESTING=True)
    jam = Jam({"store": url})
    SessionExtension(jam, app)
    app.get("/")(lambda: str(current_identity.subject))
    with pytest.raises(ConfigError, match="jam_records") as caught:
        app.test_client().get("/")
    assert "flask jam db create" in caught.value.hint
    jam.store.close()


def test_the_tables_can_be_made_and_looked_at_from_the_command_line(url, no_tables, secret):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret)
    jam = Jam({"store": url})
    JamExtension(jam, app)
    run = app.test_cli_runner().invoke
    assert run(args=["jam", "db", "status"]).exit_code == 1
    assert run(args=["jam", "db", "create"]).exit_code == 0
    assert run(args=["jam", "db", "status"]).exit_code == 0
    assert run(args=["jam", "db", "create"]).exit_code == 0
    jam.store.close()


@pytest.mark.parametrize("comment", ["Jam schema 99", "Jam schema 0", "something else"])
def test_tables_of_another_version_are_refused(store, url, comment, no_tables):
    store.create_tables()
    statement = (
        f"COMMENT ON TABLE jam_records IS '{comment}'"
        if "postgresql" in url
        else f"ALTER TABLE jam_records COMMENT '{comment}'"
    )
    with no_tables.begin() as connection:
        connection.execute(sa.text(statement))
    with pytest.raises(ConfigError, match=comment):
        store.check()


def test_a_table_that_lacks_a_column_is_refused(store, no_tables):
    store.create_tables()
    with no_tables.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jam_marks DROP COLUMN generation"))
    with pytest.raises(ConfigError, match="jam_marks lacks generation"):
        store.check()


# -- plans


def test_no_verb_reads_a_whole_table(store, url):
    for n in range(300):
        store.add(new_record(f"subject-{n % 7}", ends_at=NOW + n), NOW - 10)
    for n in range(200):
        store.advance(f"marked-{n}", ("session",), NOW)
        store.count_up(f"name-{n}", 60, 5, NOW)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    statements = store._made()
    text = store._text
    key = {"its_kind": text("session"), "its_id": text(new_record("x").id), "now": NOW}
    by_subject = {"subject": text("subject-3"), "kind": text("session"), "after": text(""), "now": NOW, "limit": 10}
    asked = {
        "get": (statements.get, key),
        "touch": (statements.touch, key),
        "remove": (statements.remove, key),
        "marks": (statements.marks, {"subject": text("subject-3"), "id": key["its_id"]}),
        "list": (statements.list, by_subject),
        "count_back": (statements.count_back, {"its_name": text("x"), "now": NOW}),
        "count_reset": (statements.count_reset, {"name": text("x")}),
        "purge": (statements.purge, {"until": NOW, "limit": 10}),
    }
    with engine.connect() as connection:
        for table in ("jam_records", "jam_marks", "jam_counts"):
            connection.execute(sa.text(f"ANALYZE {'TABLE ' if 'mysql' in url else ''}{table}"))
        if "postgresql" in url:  # on so small a table a scan would be right; the question is whether it must
            connection.execute(sa.text("SET enable_seqscan = off"))
        for name, (statement, arguments) in asked.items():
            compiled = statement.compile(dialect=engine.dialect)
            plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.construct_params(arguments)).all()
            if "postgresql" in url:
                assert not [row for row in plan if "Seq Scan" in row[0]], (name, plan)
            else:
                assert not [row for row in plan if row._mapping.get("type") == "ALL"], (name, plan)
    engine.dispose()


# -- trouble


def test_asvs_16_5_3_an_engine_that_is_not_there_means_unavailable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens there
        for url in (f"postgresql+psycopg://x@127.0.0.1:{port}/x", f"mysql+pymysql://x@127.0.0.1:{port}/x"):
            store = open_store(url)
            with pytest.raises(StoreUnavailable):
                store.get("session", "x", NOW)
            with pytest.raises(StoreUnavailable):
                store.count_up("x", 1, 1, NOW)
            with pytest.raises(StoreUnavailable):
                store.check()


def test_an_engine_that_accepts_and_never_answers_means_unavailable_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in (f"postgresql+psycopg://x@127.0.0.1:{port}/x", f"mysql+pymysql://x@127.0.0.1:{port}/x"):
            before = time.monotonic()
            with pytest.raises(StoreUnavailable):
                SQLStore(url, timeout=1).get("session", new_record("x").id, NOW)
            assert time.monotonic() - before < 20  # a guard against hanging, not a measurement


def kill_all_others(url):
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        if "postgresql" in url:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            return
        mine = connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar()
        database = connection.execute(sa.text("SELECT DATABASE()")).scalar()
        for row in connection.execute(sa.text("SHOW PROCESSLIST")).all():
            if row.Id != mine and row.db == database:
                with contextlib.suppress(sa.exc.OperationalError):  # it went by itself meanwhile
                    connection.execute(sa.text(f"KILL {row.Id}"))


def test_a_killed_connection_means_unavailable_once_and_the_store_recovers(store, url):
    record = new_record("alice")
    store.add(record, NOW)
    kill_all_others(url)
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(store.get("session", record.id, NOW).record == record)
        except StoreUnavailable:
            outcomes.append("unavailable")
    assert outcomes[-2:] == [True, True]
    store.close()


def test_an_idle_connection_of_the_apps_own_engine_that_the_server_ended_is_made_anew(url):
    engine = sa.create_engine(url)
    try:
        store = SQLStore(engine)
        store.create_tables()
        kill_all_others(url)
        assert (
            store.marks("alice", "", NOW).generations == {}
        )  # and no error of the driver's own while it is made ready
    finally:
        engine.dispose()


def test_while_connections_are_killed_no_acknowledged_write_is_lost_and_nothing_but_unavailable_is_raised(store, url):
    acknowledged = write_during(store, lambda: kill_all_others(url))
    missing = 0
    for record in acknowledged:
        try:
            found = store.get("session", record.id, NOW)
        except StoreUnavailable:
            found = store.get("session", record.id, NOW)
        missing += found is None
    assert missing == 0


def test_a_pool_that_is_used_up_means_unavailable(url):
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    store = SQLStore(engine)
    store.create_tables()
    with engine.connect(), pytest.raises(StoreUnavailable):
        store.get("session", new_record("x").id, NOW)
    assert store.get("session", new_record("x").id, NOW) is None
    engine.dispose()


def test_asvs_16_2_5_a_failure_is_logged_without_the_password(caplog):
    store = open_store("postgresql+psycopg://someone:hunter2-very-secret@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable) as caught:
        store.check()
    assert "hunter2" not in caplog.text + str(caught.value)


def test_a_connection_that_lost_its_socket_is_not_used_again(store):
    store.get("session", new_record("x").id, NOW)
    with store._engine.connect() as used:
        driver = used.connection.driver_connection
    if hasattr(driver, "pgconn"):
        driver.pgconn.finish()
    else:
        driver._force_close()
    assert store.get("session", new_record("x").id, NOW) is None


def test_a_value_that_no_store_has_written_means_unavailable(store, url):
    record = new_record("alice")
    store.add(record, NOW)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("UPDATE jam_records SET data = '['"))
    for act in (
        lambda: store.get("session", record.id, NOW),
        lambda: store.list("alice", "session", NOW),
        lambda: store.take("session", record.id, NOW),
    ):
        with pytest.raises(StoreUnavailable):
            act()
    with engine.connect() as connection:
        connection.execute(sa.text("DELETE FROM jam_records"))


def test_a_deadlock_with_the_apps_own_work_is_tried_again(store, url):
    kinds = ("kind_a", "kind_b")
    assert store.advance("locked", kinds, NOW) == {"kind_a": 1, "kind_b": 1}
    engine = sa.create_engine(url)
    lock = sa.text("SELECT generation FROM jam_marks WHERE subject = 'locked' AND kind = :kind FOR UPDATE")
    many = sa.text("INSERT INTO jam_counts (name, count, ends_at) VALUES (:name, 1, 0)")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(store.advance("locked", kinds, NOW)))
    with engine.connect() as connection:
        connection.execute(many, [{"name": f"weight-{n}"} for n in range(200)])  # the lighter one is given up
        connection.execute(lock, {"kind": "kind_b"})
        thread.start()  # locks kind_a, waits for kind_b
        time.sleep(0.3)
        connection.execute(lock, {"kind": "kind_a"})
        connection.rollback()
    thread.join(30)
    engine.dispose()
    assert answers == [{"kind_a": 2, "kind_b": 2}]
