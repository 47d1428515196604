"""Redis and Redis Cluster, real ones."""

import contextlib
import datetime as dt
import functools
import ipaddress
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from jam.crypto.handles import bucket_of, new_handle
from jam.errors import ConfigError, StoreUnavailable
from jam.stores import open_store
from jam.stores.base import COLLECT_AFTER, REVOKED_TOKEN
from jam.stores.redis import RedisStore
from jam.testing.stores import NOW, StoreContract, new_record
from tests.own_servers import OwnRedis, OwnRedisCluster
from tests.stores.writers import write_during


@pytest.fixture(scope="module")
def own():
    with OwnRedis() as server:
        yield server


@pytest.fixture(scope="module")
def cluster():
    with OwnRedisCluster() as cluster:
        yield cluster


@pytest.fixture(params=["own", "cluster"], ids=["Redis", "Redis Cluster"])
def url(request):
    return request.getfixturevalue(request.param).url


@pytest.fixture
def store(url):
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def server(own):
    with own.client() as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def single(own, server):
    store = RedisStore(own.url)
    yield store
    store.close()


class TestRedis(StoreContract):
    @pytest.fixture
    def opener(self, redis_url):
        return functools.partial(RedisStore, redis_url)


class TestRedisCluster(StoreContract):
    rounds = 100  # all three nodes are on this machine
    process_rounds = 30

    @pytest.fixture
    def opener(self, cluster):
        return functools.partial(RedisStore, cluster.url)


class TestAClientTheAppHas(StoreContract):
    rounds = 100
    process_rounds = 50

    @pytest.fixture
    def opener(self, own):
        return functools.partial(on_own_client, own.port)


def on_own_client(port):
    return RedisStore(redis.Redis(port=port, retry=Retry(NoBackoff(), 0)))


# -- where the server is


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/not-a-number",
        "redis://localhost:port/0",
        "redis://localhost/0?tiemout=1",
        "redis://localhost/0?timeout=soon",
        "redis://localhost/0?timeout=0",
        "redis://localhost/0?timeout=1000",
        "redis://localhost/0?prefix={x}",
        "redis://localhost/0?max_connections=0",
        "redis://localhost/0?ssl_ca_certs=ca.pem",
        "redis://one,two/0",
        "redis+cluster://localhost/1",
        "unix://",
        "unix://host/path",
        "redis://localhost/0#x",
        "redis://localhost:0/0",
        "rediss://localhost/0?ssl_ca_certs=/there/is/no/such/file",
    ],
)
def test_a_url_that_says_something_wrong_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url.replace("://", "://user:hunter2-secret@", 1) if "unix" not in url else url)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_options_of_a_url_are_heeded(own, server):
    one, other = (open_store(f"{own.url}?prefix={prefix}&timeout=2&max_connections=3") for prefix in ("one", "other"))
    record = new_record("alice")
    one.add(record, NOW)
    one.advance(None, ("api_token",), NOW)
    assert other.get("session", record.id, NOW) is None
    assert other.marks("alice", "", NOW).generations == {}
    assert {key.split(b":")[0] for key in server.keys()} == {b"one"}
    one.close()
    other.close()


def test_a_server_behind_a_password_and_another_database_is_reached():
    with OwnRedisWithPassword() as server:
        store = open_store(f"redis://:s%3Acret%2F@127.0.0.1:{server.port}/3")
        store.check()
        store.close()
        wrong = open_store(f"redis://:wrong@127.0.0.1:{server.port}/3")
        with pytest.raises(StoreUnavailable):
            wrong.check()


def test_a_server_behind_a_socket_is_reached():
    with OwnRedisOnSocket() as server:
        store = open_store(f"unix://{server.folder}/socket?db=2")
        record = new_record("alice")
        store.add(record, NOW)
        assert store.get("session", record.id, NOW).record == record
        store.close()


def test_asvs_12_3_2_a_server_behind_tls_is_believed_only_with_a_certificate_of_a_known_authority():
    with OwnRedisWithTLS() as server:
        url = f"rediss://127.0.0.1:{server.port}/0"
        store = open_store(f"{url}?ssl_ca_certs={server.folder}/ca.pem")
        store.check()
        store.close()
        with pytest.raises(StoreUnavailable):
            open_store(url).check()
        with pytest.raises(StoreUnavailable):  # the certificate is for the address
            open_store(f"rediss://localhost:{server.port}/0?ssl_ca_certs={server.folder}/ca.pem").check()


def test_each_kind_of_url_for_the_other_kind_of_server_says_so(own, cluster):
    with pytest.raises(ConfigError, match="not one of a cluster"):
        open_store(f"redis+cluster://127.0.0.1:{own.port}").check()
    for node in cluster.nodes:
        with pytest.raises(ConfigError, match="one of a cluster"):
            open_store(node.url).add(new_record("alice"), NOW)


def test_a_client_that_would_send_a_write_twice_is_refused(own):
    with pytest.raises(ConfigError, match="again"):
        RedisStore(redis.Redis(port=own.port, retry=Retry(NoBackoff(), 1)))


def test_a_client_that_decodes_is_refused(own):
    with pytest.raises(ConfigError, match="decode"):
        RedisStore(redis.Redis(port=own.port, decode_responses=True, retry=Retry(NoBackoff(), 0)))


def test_what_is_no_client_is_refused():
    with pytest.raises(ConfigError):
        RedisStore(5)


def test_a_clusters_client_of_the_apps_own_is_used(cluster):
    with RedisCluster(port=cluster.nodes[0].port, host="127.0.0.1", retry=Retry(NoBackoff(), 0)) as client:
        store = RedisStore(client)
        record = new_record("alice")
        store.add(record, NOW)
        assert store.get("session", record.id, NOW).record == record


def test_a_server_that_forgot_the_scripts_is_taught_again(single, server):
    single.marks("alice", "", NOW)
    server.script_flush()
    assert single.marks("alice", "", NOW).generations == {}


# -- what is kept


def test_redis_itself_forgets_a_record_a_day_after_its_death_and_not_before(single, server):
    record = new_record("alice", idle_for=600.0)
    single.add(record, NOW)
    (key,) = server.keys("jam:*:session:*")
    assert COLLECT_AFTER + 590 < server.ttl(key) <= COLLECT_AFTER + 600
    single.get("session", record.id, NOW + 300, touch_after=60)
    assert COLLECT_AFTER + 590 < server.ttl(key) <= COLLECT_AFTER + 600
    single.count_up("x", 60, 1, NOW)
    (count,) = server.keys("jam:*:count/x")
    assert COLLECT_AFTER + 50 < server.ttl(count) <= COLLECT_AFTER + 60
    single.count_back("x", NOW + 30)
    assert COLLECT_AFTER + 50 < server.ttl(count) <= COLLECT_AFTER + 60


def test_everything_but_marks_has_an_end_even_if_nobody_purges(single, server):
    single.add(new_record("alice"), NOW)
    single.count_up("x", 60, 1, NOW)
    assert [key for key in server.keys() if server.ttl(key) < 0] == []
    single.advance("alice", ("session",), NOW)
    assert [key for key in server.keys() if server.ttl(key) < 0] == server.keys("jam:*:marks")


@pytest.mark.parametrize("end", ["take", "remove", "swap", "purge", "redis"])
def test_nothing_is_left_of_a_record_that_ended(single, server, end):
    record = new_record("alice")
    single.add(record, NOW)
    if end == "take":
        single.take("session", record.id, NOW)
    elif end == "remove":
        single.remove("session", record.id)
    elif end == "swap":
        _, new_id, _ = new_handle(bucket_of("alice"))
        moved = single.swap(record, new_record("alice", id=new_id), NOW)
        single.remove("session", moved.id)
    elif end == "purge":
        assert single.purge(NOW + 600 + COLLECT_AFTER) == 1
    else:
        server.delete(*server.keys("jam:*:session:*"))
        assert single.list("alice", "session", NOW) == []
    assert server.keys() == []


def test_what_an_advance_killed_leaves_the_index_with_the_next_list(single, server):
    for _ in range(150):
        single.add(new_record("alice"), NOW)
    generation = single.advance("alice", ("session",), NOW)["session"]
    single.add(new_record("alice", generation=generation), NOW)
    assert len(single.list("alice", "session", NOW)) == 1
    (index,) = server.keys("jam:*:index")
    assert (server.zcard(index), server.zcard("jam:deaths")) == (1, 1)


def test_the_dead_are_collected_while_the_living_are_added(single, server):
    for n in range(300):
        single.add(new_record("alice", idle_for=None, ends_at=NOW + n + 1), NOW + n + COLLECT_AFTER)
    assert len(server.keys("jam:*:session:*")) < 100
    assert server.zcard("jam:deaths") < 100


def test_a_count_is_kept_under_its_name_whatever_that_is(store):
    for name in ("", "{x}", "a\0b", "ü" * 200, "count/x"):
        assert store.count_up(name, 60, 1, NOW).count == 1
        assert store.count_up(name, 60, 1, NOW).count == 2
        store.count_reset(name)
        assert store.count_up(name, 60, 1, NOW).count == 1
    assert store.purge(NOW + 60 + COLLECT_AFTER) >= 5


def test_what_has_not_the_form_of_an_id_is_absent(store):
    for record_id in ("", "x", "*", "a" * 25, "{0000}" * 4):
        assert store.get("session", record_id, NOW) is None
        assert store.take("session", record_id, NOW) is None
        store.remove("session", record_id)
        assert not store.marks("alice", record_id, NOW).revoked


# -- values that no store has written


@pytest.mark.parametrize(
    "value",
    [b"", b"short", b"\xff" * 200, b"\0" * 51, b"\0" * 50 + b"\xff\xff{}", b"\0" * 49 + b"\0\1\xff{}"],
    ids=["empty", "short", "noise", "without data", "too long a subject", "no text"],
)
def test_asvs_16_5_3_a_record_that_cannot_be_read_is_unavailable_or_absent(single, server, value):
    record = new_record("alice", idle_for=None)
    single.add(record, NOW)
    (key,) = server.keys("jam:*:session:*")
    server.set(key, value)
    for act in (
        lambda: single.get("session", record.id, -1.0),
        lambda: single.take("session", record.id, -1.0),
        lambda: single.list("alice", "session", -1.0),
    ):
        try:
            assert act() in (None, [])
        except StoreUnavailable:
            pass


@pytest.mark.parametrize("value", [b"{", b"7", b'{"session": "x"}', b"\xff"])
def test_asvs_16_5_3_marks_that_cannot_be_read_mean_unavailable(single, server, value):
    single.advance("alice", ("session",), NOW)
    (key,) = server.keys("jam:*:marks")
    server.hset(key, "alice", value)
    for act in (
        lambda: single.marks("alice", "", NOW),
        lambda: single.add(new_record("alice"), NOW),
        lambda: single.list("alice", "session", NOW),
        lambda: single.advance("alice", ("session",), NOW),
    ):
        with pytest.raises(StoreUnavailable):
            act()


def test_a_revocation_that_cannot_be_read_means_unavailable(single, server):
    revocation = new_record("alice", kind=REVOKED_TOKEN, idle_for=None)
    single.add(revocation, NOW)
    (key,) = server.keys("jam:*:revoked_token:*")
    server.set(key, b"x")
    with pytest.raises(StoreUnavailable):
        single.marks("alice", revocation.id, NOW)


def test_a_key_of_another_type_means_unavailable(single, server):
    record = new_record("alice")
    single.add(record, NOW)
    for key in server.keys():
        server.delete(key)
        server.lpush(key, "x")
    with pytest.raises(StoreUnavailable):
        single.get("session", record.id, NOW)
    with pytest.raises(StoreUnavailable):
        single.add(new_record("alice"), NOW)


def test_what_cannot_be_read_is_thrown_out_of_the_deaths_and_holds_nothing_up(single, server):
    record = new_record("alice", idle_for=None)
    single.add(record, NOW)
    server.zadd("jam:deaths", {b"\xff\xfe": 0, b"session\0alice\0!!!!": 0, b"session": 0})
    for _ in range(20):
        single.add(new_record("bob"), NOW)
    while single.purge(NOW + 3600 + COLLECT_AFTER):
        pass
    assert server.keys() == []


def test_what_cannot_be_read_is_collected_like_the_dead(single, server):
    single.add(new_record("alice", idle_for=None), NOW)
    single.count_up("x", 60, 1, NOW)
    for key in server.keys("jam:{*"):
        if server.type(key) == b"string":
            server.set(key, b"x")
    assert single.purge(NOW + 3600 + COLLECT_AFTER) == 2
    assert server.keys() == []


def test_an_id_that_somebody_else_has_meanwhile_is_theirs(single, server):
    record = new_record("alice")
    single.add(record, NOW)
    server.delete(*server.keys("jam:*:session:*"))  # as Redis does a day after its death
    names = (f"subject-{n}" for n in range(100_000_000))
    other = next(name for name in names if bucket_of(name)[:1] == bucket_of("alice")[:1])
    theirs = new_record(other, id=record.id, idle_for=None, ends_at=NOW + 1e6)
    single.add(theirs, NOW)
    assert single.list("alice", "session", NOW) == []
    single.purge(NOW + 3600 + COLLECT_AFTER)
    assert single.get("session", record.id, NOW).record == theirs


# -- a cluster


def test_everyone_is_revoked_in_every_group_of_buckets(cluster):
    one, other = open_store(cluster.url), open_store(cluster.url)
    records = [new_record(f"subject-{n}", kind="everywhere") for n in range(100)]
    for record in records:
        one.add(record, NOW)
    other.advance(None, ("everywhere",), NOW)
    assert [one.get("everywhere", record.id, NOW) for record in records] == [None] * 100
    generation = one.marks("", "", NOW).generation("everywhere")
    anonymous = [new_record("", kind="everywhere", generation=generation) for _ in range(20)]
    for record in anonymous:
        one.add(record, NOW)
    assert [one.get("everywhere", record.id, NOW).record for record in anonymous] == anonymous
    one.close()
    other.close()


def test_a_token_of_nobody_can_be_revoked_in_a_cluster(cluster):
    store = open_store(cluster.url)
    for _ in range(20):
        revocation = new_record("", kind=REVOKED_TOKEN, idle_for=None)
        store.add(revocation, NOW)
        assert store.marks("", revocation.id, NOW).revoked
    store.close()


def test_everyone_is_revoked_even_if_the_first_group_has_lost_what_it_knew():
    with OwnRedisCluster() as cluster:
        store = open_store(cluster.url)
        for generation in (1, 2, 3):
            assert store.advance(None, ("session",), NOW) == {"session": generation}
        records = [new_record(f"subject-{n}", generation=3) for n in range(50)]
        for record in records:
            store.add(record, NOW)
        for node in cluster.nodes:  # as a fail-over to a replica that was behind would do
            with node.client() as client, contextlib.suppress(redis.exceptions.ResponseError):
                client.delete("jam:{000}:everyone")
        assert store.advance(None, ("session",), NOW) == {"session": 4}
        assert [store.get("session", record.id, NOW) for record in records] == [None] * 50
        generation = store.marks("", "", NOW).generation("session")
        store.add(new_record("", generation=generation), NOW)
        store.close()


def test_everyone_is_revoked_as_often_as_it_was_asked_for_by_many_at_once(cluster):
    store = open_store(cluster.url)
    before = store.marks("", "", NOW).generation("at_once")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: store.advance(None, ("at_once",), NOW)["at_once"], range(12)))
    assert sorted(answers) == list(range(before + 1, before + 13))
    assert store.marks("somebody", "", NOW).generation("at_once") == before + 12
    store.close()


def test_a_cluster_is_asked_over_so_many_connections_and_no_more():
    with OwnRedisCluster() as cluster:  # which nobody else is connected to
        store = open_store(f"{cluster.url}?max_connections=2&timeout=5")
        store.check()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: store.marks(f"subject-{n}", "", NOW), range(400)))
        for node in cluster.nodes:
            with node.client() as client:
                assert len([one for one in client.client_list() if one["cmd"] in ("eval", "evalsha")]) <= 2
        store.close()


def test_an_error_of_one_key_costs_nobody_their_connection(cluster):
    store = open_store(cluster.url)
    store.check()
    client = store._client
    record = new_record("alice", kind="planted")
    client.lpush(f"jam:{{{bucket_of('alice').hex()[:3]}}}{bucket_of('alice').hex()[3:]}:planted:{record.id}", "x")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            store.get("planted", record.id, NOW)
    assert store._client is client
    store.close()


def test_a_slot_that_moves_to_another_node_is_followed(cluster):
    store = open_store(cluster.url)
    record = new_record("moving")
    store.add(record, NOW)
    with contextlib.ExitStack() as clients:
        nodes = [clients.enter_context(node.client()) for node in cluster.nodes]
        names = [node.execute_command("CLUSTER MYID").decode() for node in nodes]
        key = f"jam:{{{bucket_of('moving').hex()[:3]}}}"
        slot = nodes[0].execute_command("CLUSTER KEYSLOT", key)
        (source,) = (n for n, node in enumerate(nodes) if node.execute_command("CLUSTER GETKEYSINSLOT", slot, 1))
        target = (source + 1) % 3
        nodes[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[source])
        nodes[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[target])
        keys = nodes[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
        address = "127.0.0.1", cluster.nodes[target].port
        nodes[source].execute_command("MIGRATE", *address, "", 0, 5000, "KEYS", *keys)
        assert outcome(store, record) == "unavailable"  # in the middle of it Redis has no word but "try again"
        for node in (nodes[target], nodes[source], nodes[3 - source - target]):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", names[target])
    assert store.get("session", record.id, NOW).record == record
    assert store.take("session", record.id, NOW) == record
    store.close()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_node_that_fails_takes_its_share_with_it_and_brings_it_back(end):
    with OwnRedisCluster() as cluster:
        store = open_store(f"{cluster.url}?timeout=1")
        records = [new_record(f"subject-{n}", idle_for=None) for n in range(60)]
        for record in records:
            store.add(record, NOW)
        failing = cluster.nodes[1]
        getattr(failing, end)()
        outcomes = [outcome(store, record) for record in records]
        assert "unavailable" in outcomes
        assert "absent" not in outcomes
        failing.start()
        cluster.wait_until_it_is_whole()
        again = open_store(cluster.url)
        assert [outcome(again, record) for record in records] == ["found"] * 60
        until = time.monotonic() + 30
        while [outcome(store, record) for record in records] != ["found"] * 60:
            assert time.monotonic() < until, "the store did not find its way back"
        store.close()
        again.close()


def test_a_node_that_never_answers_means_unavailable_in_time_and_is_used_again():
    with OwnRedisCluster() as cluster:
        store = open_store(f"{cluster.url}?timeout=1")
        records = [new_record(f"subject-{n}", idle_for=None) for n in range(12)]
        for record in records:
            store.add(record, NOW)
        with cluster.nodes[1].frozen():
            outcomes = []
            for record in records:
                before = time.monotonic()
                outcomes.append(outcome(store, record))
                assert time.monotonic() - before < 20  # a guard against hanging, not a measurement
        assert "unavailable" in outcomes
        assert "absent" not in outcomes
        cluster.wait_until_it_is_whole()
        until = time.monotonic() + 30
        while [outcome(store, record) for record in records] != ["found"] * 12:
            assert time.monotonic() < until, "the store did not find its way back"
        store.close()


def test_a_cluster_that_was_away_altogether_is_found_again():
    with OwnRedisCluster() as cluster:
        store = open_store(f"{cluster.url}?timeout=1")
        record = new_record("alice")
        store.add(record, NOW)
        for node in cluster.nodes:
            node.kill()
        for _ in range(3):
            assert outcome(store, record) == "unavailable"
        for node in cluster.nodes:
            node.start()
        cluster.wait_until_it_is_whole()
        assert outcome(store, record) == "found"
        store.close()


def outcome(store, record):
    try:
        return "absent" if store.get(record.kind, record.id, NOW) is None else "found"
    except StoreUnavailable:
        return "unavailable"


# -- what doctor asks


def test_a_server_that_may_evict_is_a_problem(single, server):
    assert single.problems(time.time()) == ()
    server.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (problem,) = single.problems(time.time())
    finally:
        server.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in problem.message
    assert "noeviction" in problem.advice


def test_each_node_of_a_cluster_is_asked(cluster):
    store = open_store(cluster.url)
    with cluster.nodes[2].client() as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        try:
            (problem,) = store.problems(time.time())
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "volatile-ttl" in problem.message
    store.close()


def test_a_server_that_is_full_means_unavailable_for_who_writes_and_nothing_else(single, server):
    record = new_record("alice")
    single.add(record, NOW)
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            single.add(new_record("bob"), NOW)
        with pytest.raises(StoreUnavailable):
            single.advance("alice", ("session",), NOW)
    finally:
        server.config_set("maxmemory", 0)
    assert single.get("session", record.id, NOW).record == record


def test_a_server_that_is_full_still_says_who_is_calling_and_does_not_note_it(single, server):
    record = new_record("alice")
    single.add(record, NOW)
    server.config_set("maxmemory", 1)
    try:
        found = single.get("session", record.id, NOW + 300, touch_after=60)
    finally:
        server.config_set("maxmemory", 0)
    assert found.record == record


def test_a_server_that_allows_no_scripts_is_found_out_at_the_start(own, server):
    server.acl_setuser("scriptless", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@scripting"])
    store = open_store(f"redis://scriptless:x@127.0.0.1:{own.port}/0")
    with pytest.raises(StoreUnavailable):
        store.check()
    store.close()


# -- connections


def test_a_pool_that_is_used_up_means_unavailable(own):
    store = RedisStore(own.url, max_connections=1, timeout=0.3)
    store.check()
    with own.frozen():
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(outcome(store, new_record("x")))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert answers == ["unavailable"] * 3
    assert store.get("session", new_record("x").id, NOW) is None
    store.close()


def test_while_connections_are_killed_no_acknowledged_write_is_lost(single, server):
    acknowledged = write_during(single, lambda: server.execute_command("CLIENT KILL TYPE normal SKIPME yes"))
    assert [one for one in acknowledged if single.get("session", one.id, NOW) is None] == []


# -- servers of a special kind


class OwnRedisWithPassword(OwnRedis):
    options = (*OwnRedis.options, "--requirepass", "s:cret/")

    def client(self):
        return redis.Redis(port=self.port, password="s:cret/")


class OwnRedisOnSocket(OwnRedis):
    def arguments(self):
        return [*super().arguments(), "--unixsocket", f"{self.folder}/socket", "--unixsocketperm", "777"]


class OwnRedisWithTLS(OwnRedis):
    """Its certificate is for 127.0.0.1, made by an authority of its own."""

    def prepare(self):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jam's tests")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        (self.folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / "key.pem").write_bytes(secret)
        self.folder.chmod(0o755)

    def arguments(self):
        arguments = super().arguments()
        arguments[arguments.index("--port") + 1] = "0"
        files = ["--tls-cert-file", "ca.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem"]
        return [*arguments, "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]

    def client(self):
        return redis.Redis(host="127.0.0.1", port=self.port, ssl=True, ssl_ca_certs=str(self.folder / "ca.pem"))
