"""Redis and Redis Cluster, through redis-py.

Each verb is one server-side script, and so one atomic step and one trip. Jam's clock decides about life and death,
as on every engine; Redis's own expiry only collects what has been dead for a day. The server must run with
``maxmemory-policy noeviction``: an evicted mark would bring back what was revoked.

The keys, ``jam`` being the prefix and ``3fa9`` the bucket of a subject in hexadecimal:

- ``jam:{3fa}9:session:<id>``: a record (see ``_HEAD`` for its form), which Redis forgets a day after its death.
- ``jam:{3fa}9:marks``: a hash of the bucket's subjects; each one's generations as JSON.
- ``jam:{3fa}9:index``: a sorted set of the bucket's records by kind, subject and id, for ``list``.
- ``jam:{3fa}9:count/<name>``: a count and when it ends.
- ``jam:deaths``: a sorted set of records and counts by the time of their death, for ``purge``.
- ``jam:everyone``: everyone's generations.

In a cluster a script reaches only the keys of one slot, which what is between the braces decides. So there the last
two exist 4096 times, as ``jam:{3fa}:deaths`` and ``jam:{3fa}:everyone``: ``advance(None, ...)`` and ``purge`` go
through all of them, everything else stays one trip, and revoking everyone holds at once there too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import re
import struct
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from jam.crypto.handles import ID, bucket_of, bucket_of_id
from jam.errors import ConfigError, GenerationOutdated, RecordExists, StoreUnavailable
from jam.stores.base import (
    COLLECT_AFTER,
    MAX_LIST,
    REVOKED_TOKEN,
    Counted,
    Found,
    Marks,
    Problem,
    Record,
    Store,
    add_up,
    check_kinds,
    check_record,
    check_swap,
    clock_problem,
    decode_data,
    decode_marks,
    unreadable,
)
from jam.stores.forks import Gate, around_forks

__all__ = ["RedisStore"]

logger = logging.getLogger("jam.stores.redis")

# A record: last use, making, idle time (infinite for none), end, generation, version; the lengths of check and
# subject; then check, subject and data. The last use comes first, so that a touch changes eight bytes.
_HEAD = struct.Struct(">ddddddBH")
_TIMES = struct.Struct(">dddd")
_DOUBLE = struct.Struct(">d")
_NO_MARKS: Mapping[str, int] = {}
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_OUTDATED, _EXISTS = 1, 2
_TROUBLE = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)  # the second is no RedisError
_MAX_ATTEMPTS = 4
_COLLECT_EVERY = 16  # adds; then at most twice as many of the dead go
_GROUPS = [f"{number:03x}" for number in range(4096)]  # what may stand between the braces
_GROUPS_AT_ONCE = 1024
_OPTIONS = {"timeout", "prefix", "max_connections", "ssl_ca_certs", "db"}

_PRELUDE = f"""
local DAY = {COLLECT_AFTER:.0f}

local function parse(value)
  local touched, _, idle, ends, generation, version, check, subject, at = struct.unpack('{_HEAD.format}', value)
  return {{touched = touched, dies = math.min(ends, touched + idle), generation = generation, version = version,
          subject = string.sub(value, at + check, at + check + subject - 1)}}
end

local function parse_count(value)
  return struct.unpack('>dd', value)
end

local function marks_of(subject, marks, everyone)
  return subject ~= '' and redis.call('HGET', marks, subject), redis.call('GET', everyone)
end

local function generation_of(kind, mine, all)
  local sum = 0
  if mine then sum = sum + (cjson.decode(mine)[kind] or 0) end
  if all then sum = sum + (cjson.decode(all)[kind] or 0) end
  return sum
end

local function is_live(value, kind, now, marks, everyone)
  local record = parse(value)
  if record.dies <= now then return false end
  return record.generation >= generation_of(kind, marks_of(record.subject, marks, everyone))
end

local function milliseconds_left(dies, now)
  return string.format('%.0f', math.min(math.max(dies - now, 0) + DAY, 1e12) * 1000)
end

local function outlives(key, milliseconds)
  if redis.call('PTTL', key) < tonumber(milliseconds) then redis.call('PEXPIRE', key, milliseconds) end
end

local function forget(value, key, kind, id, index, deaths)
  local member = kind .. '\\0' .. parse(value).subject .. '\\0' .. id
  redis.call('DEL', key)
  redis.call('ZREM', index, member)
  redis.call('ZREM', deaths, member)
end

local function keep(value, key, kind, id, now, index, deaths)
  local record = parse(value)
  local member = kind .. '\\0' .. record.subject .. '\\0' .. id
  local left = milliseconds_left(record.dies, now)
  local kept = redis.pcall('SET', key, value, 'PX', left)
  if kept.err then return kept end
  redis.call('ZADD', index, 0, member)
  redis.call('ZADD', deaths, string.format('%.17g', record.dies), member)
  outlives(index, left)
  outlives(deaths, left)
  return kept
end
"""

_ADD = """
local key, marks, index, deaths, everyone = unpack(KEYS)
local kind, id, value, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local record = parse(value)
if record.generation < generation_of(kind, marks_of(record.subject, marks, everyone)) then return 1 end
local old = redis.call('GET', key)
if old then
  if is_live(old, kind, now, marks, everyone) then return 2 end
  forget(old, key, kind, id, index, deaths)
end
local kept = keep(value, key, kind, id, now, index, deaths)
if kept.err then return kept end
return 0
"""

_GET = """
local key, marks, index, deaths, everyone = unpack(KEYS)
local kind, id, now, touch_after = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local value = redis.call('GET', key)
if not value then return false end
local record = parse(value)
if record.dies <= now then return false end
local mine, all = marks_of(record.subject, marks, everyone)
if record.generation < generation_of(kind, mine, all) then return false end
if touch_after and now - record.touched > touch_after and now > record.touched then
  local touched = struct.pack('>d', now) .. string.sub(value, 9)
  -- A server that is full, or only reads, still says who is calling; the use is not noted.
  if not keep(touched, key, kind, id, now, index, deaths).err then value = touched end
end
return {value, mine, all}
"""

_MARKS = """
local key, marks, everyone = unpack(KEYS)
return {redis.call('GETRANGE', key, 0, 31), marks_of(ARGV[1], marks, everyone)}
"""

_SWAP = """
local key, marks, index, deaths, everyone, new_key = unpack(KEYS)
local kind, id, new_id, value, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local old = redis.call('GET', key)
if not old then return 0 end
local was, record = parse(old), parse(value)
local generation = generation_of(kind, marks_of(record.subject, marks, everyone))
if was.dies <= now or was.generation < generation or was.subject ~= record.subject
   or was.version + 1 ~= record.version then return 0 end
if record.generation < generation then return 1 end
local other = new_key ~= key and redis.call('GET', new_key)
if other and is_live(other, kind, now, marks, everyone) then return 2 end
if other then forget(other, new_key, kind, new_id, index, deaths) end
local kept = keep(string.sub(old, 1, 8) .. string.sub(value, 9), new_key, kind, new_id, now, index, deaths)
if kept.err then return kept end
if new_key ~= key then forget(old, key, kind, id, index, deaths) end
return string.sub(old, 1, 8)
"""

_TAKE = """
local key, marks, index, deaths, everyone = unpack(KEYS)
local kind, id, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local value = redis.call('GET', key)
if not value or not is_live(value, kind, now, marks, everyone) then return false end
forget(value, key, kind, id, index, deaths)
return value
"""

_REMOVE = """
local key, index, deaths = unpack(KEYS)
local value = redis.call('GET', key)
if value then forget(value, key, ARGV[1], ARGV[2], index, deaths) end
"""

_ADVANCE = """
local marks, everyone = unpack(KEYS)
local subject = ARGV[1]
local mine, all = marks_of(subject, marks, everyone)
local before = all
if subject ~= '' then before = mine end
local after = before and cjson.decode(before) or {}
for n = 2, #ARGV do after[ARGV[n]] = (after[ARGV[n]] or 0) + 1 end
if #ARGV == 1 then return {mine, all} end
after = cjson.encode(after)
if subject == '' then
  redis.call('SET', everyone, after)
  return {mine, after}
end
redis.call('HSET', marks, subject, after)
return {after, all}
"""

# Everyone's generations in one more slot: never back, so that it can be done twice and in any order. Tells what was
# there before. Sent whole, since redis-py's pipelines for clusters know no EVALSHA.
_RAISE = """
local before = redis.call('GET', KEYS[1])
local known = before and cjson.decode(before) or {}
for kind, generation in pairs(cjson.decode(ARGV[1])) do known[kind] = math.max(known[kind] or 0, generation) end
redis.call('SET', KEYS[1], cjson.encode(known))
return before
"""

# The records' own keys are not among KEYS, because only the index knows them; they are in the index's slot.
# What is dead for ever, because its generation is over, leaves the index here, and costs the next list nothing.
_LIST = """
local index, marks, everyone, deaths = unpack(KEYS)
local stem, kind, subject, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local generation = generation_of(kind, marks_of(subject, marks, everyone))
local start = kind .. '\\0' .. subject .. '\\0'
local from, to = '(' .. start .. after, '(' .. kind .. '\\0' .. subject .. '\\1'
local found = {}
while #found < limit * 2 do
  local members = redis.call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, 100)
  if #members == 0 then break end
  for _, member in ipairs(members) do
    local id = string.sub(member, #start + 1)
    local value = redis.call('GET', stem .. id)
    local record = value and parse(value)
    local is_its = record and record.subject == subject
    if not is_its or record.generation < generation then
      if is_its then redis.call('DEL', stem .. id) end
      redis.call('ZREM', index, member)
      redis.call('ZREM', deaths, member)
    elseif record.dies > now and #found < limit * 2 then
      found[#found + 1] = id
      found[#found + 1] = value
    end
  end
  from = '(' .. members[#members]
end
return found
"""

_COUNT_UP = """
local key, deaths = unpack(KEYS)
local name, now, window = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local value, count, ends = redis.call('GET', key), 0, 0
if value then count, ends = parse_count(value) end
if ends <= now then count, ends = 0, now + window end
count, ends = count + 1, math.min(ends, now + window)
local left = milliseconds_left(ends, now)
redis.call('SET', key, struct.pack('>dd', count, ends), 'PX', left)
redis.call('ZADD', deaths, string.format('%.17g', ends), '\\0' .. name)
outlives(deaths, left)
return {count, struct.pack('>d', ends)}
"""

_COUNT_BACK = """
local key, now = KEYS[1], tonumber(ARGV[1])
local value = redis.call('GET', key)
if not value then return end
local count, ends = parse_count(value)
-- Only the count's own eight bytes: its window and what Redis knows of its expiry stay.
if count > 0 and ends > now then redis.call('SETRANGE', key, 0, struct.pack('>d', count - 1)) end
"""

_COUNT_RESET = """
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], '\\0' .. ARGV[1])
"""

# Each of ARGV's members from the second on is in the key and the index at twice its place in KEYS.
_COLLECT = """
local deaths, past = KEYS[1], tonumber(ARGV[1])
local gone = 0
for n = 2, #ARGV do
  local member, key, index = ARGV[n], KEYS[2 * n - 2], KEYS[2 * n - 1]
  local score = redis.call('ZSCORE', deaths, member)
  if score and tonumber(score) <= past then
    local value = redis.call('GET', key)
    local is_count = string.sub(member, 1, 1) == '\\0'
    local is_readable, record, ends = pcall(is_count and parse_count or parse, value)
    if value and not is_readable then
      redis.call('DEL', key)
    elseif value and is_count then
      if ends <= past then redis.call('DEL', key) end
    elseif value and record.dies <= past and string.find(member, '\\0' .. record.subject .. '\\0', 1, true) then
      redis.call('DEL', key)  -- and not if somebody else has the id since Redis forgot it
    end
    redis.call('ZREM', index, member)
    redis.call('ZREM', deaths, member)
    gone = gone + 1
  end
end
return gone
"""


class _Script:
    """A script and the name under which a server that has seen it knows it."""

    def __init__(self, text: str) -> None:
        self.text = _PRELUDE + text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()  # what EVALSHA wants


_add, _get, _marks, _swap, _take, _remove, _advance, _list, _count_up, _count_back, _count_reset, _collect = map(
    _Script,
    (_ADD, _GET, _MARKS, _SWAP, _TAKE, _REMOVE, _ADVANCE, _LIST, _COUNT_UP, _COUNT_BACK, _COUNT_RESET, _COLLECT),
)


class RedisStore(Store):
    """See ``jam.stores.base.Store`` for the promises of each method.

    Args:
        source: A URL: ``redis://user:password@host:6379/0``, ``rediss://...`` (TLS, certificate and host name
            verified), ``unix:///path/to/socket?db=0``, ``redis+cluster://host:7000,host:7001``,
            ``rediss+cluster://...``; with ``?timeout=``, ``?prefix=``, ``?max_connections=`` and, for TLS,
            ``?ssl_ca_certs=FILE``. Or a ``redis.Redis`` or ``RedisCluster`` of the app's own, such as a Sentinel's
            ``master_for(...)``; it must not send a command twice (``retry=Retry(NoBackoff(), 0)``).
        timeout: How long to wait for the server to connect, to answer and for a free connection, in seconds.
        prefix: What all keys begin with, for servers that several apps share.
        max_connections: How many connections to a server at most.

    Raises:
        ConfigError: If the source cannot be used.
    """

    def __init__(self, source: Any, *, timeout: float = 5.0, prefix: str = "jam", max_connections: int = 50) -> None:
        self._options = _Options(timeout, prefix, max_connections)
        self._own: Callable[[], Any] | None = None
        self._client: Any = None
        self._gate = Gate()
        if isinstance(source, str):
            self._own, self._is_cluster = _from_url(source, self._options, lambda: self._gate)
        else:
            _check_client(source)
            self._client, self._is_cluster = source, isinstance(source, RedisCluster)
        _check_options(self._options)
        self._prefix = self._options.prefix
        self._connecting = threading.Lock()
        self._adds = 0
        self._next_group = 0
        _all_stores.add(self)

    # -- the verbs ------------------------------------------------------------------------------------------

    def add(self, record: Record, now: float) -> None:
        value = _encode(record, check_record(record))
        bucket = _bucket_of_id(record.id)
        reply = self._call(_add, self._keys(bucket, record.kind, record.id), record.kind, record.id, value, now)
        if reply == _OUTDATED:
            raise GenerationOutdated
        if reply == _EXISTS:
            raise RecordExists
        self._adds += 1
        if self._adds % _COLLECT_EVERY == 0:
            with contextlib.suppress(StoreUnavailable):  # the record is kept, whatever becomes of the dead
                self._collect_group(bucket, now - COLLECT_AFTER, 2 * _COLLECT_EVERY)

    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:
        if not ID.fullmatch(record_id):
            return None
        keys = self._keys(_bucket_of_id(record_id), kind, record_id)
        touch = "" if touch_after is None else touch_after
        reply = self._call(_get, keys, kind, record_id, now, touch, again=True)
        if reply is None:
            return None
        value, mine, all_ = reply
        record = _decode(kind, record_id, value)
        return Found(record, _generations(mine, all_))

    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        known = ID.fullmatch(revocation_id)
        bucket = _bucket_of(subject) if subject or not known else _bucket_of_id(revocation_id)
        keys = [
            self._key(bucket, f"{REVOKED_TOKEN}:{revocation_id if known else ''}"), self._key(bucket, "marks"),
            self._everyone(bucket),
        ]  # fmt: skip
        times, mine, all_ = self._call(_marks, keys, subject, again=True)
        return Marks(bool(times) and _death(times) > now, _generations(mine, all_))

    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        data = check_swap(old, new)
        kept = msgspec.structs.replace(new, version=old.version + 1)
        keys = [
            *self._keys(bucket := _bucket_of_id(old.id), old.kind, old.id),
            self._key(bucket, f"{new.kind}:{new.id}"),
        ]
        reply = self._call(_swap, keys, old.kind, old.id, new.id, _encode(kept, data), now)
        if reply == _OUTDATED:
            raise GenerationOutdated
        if reply == _EXISTS:
            raise RecordExists
        if not reply:
            return None
        return msgspec.structs.replace(kept, touched_at=_DOUBLE.unpack(reply)[0], data=decode_data(data))

    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        if not ID.fullmatch(record_id):
            return None
        value = self._call(_take, self._keys(_bucket_of_id(record_id), kind, record_id), kind, record_id, now)
        return None if value is None else _decode(kind, record_id, value)

    def remove(self, kind: str, record_id: str) -> None:
        if not ID.fullmatch(record_id):
            return
        key, _, index, deaths, _ = self._keys(_bucket_of_id(record_id), kind, record_id)
        self._call(_remove, [key, index, deaths], kind, record_id, again=True)

    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:  # noqa: ARG002
        name = check_kinds(subject, kinds)
        bucket = _bucket_of(name)
        keys = [self._key(bucket, "marks"), self._everyone(bucket)]
        for _ in range(_MAX_ATTEMPTS):
            mine, all_ = self._call(_advance, keys, name, *sorted(set(kinds)))
            generations = _generations(mine, all_)
            if name or not kinds or not self._is_cluster or self._bring_to_all(generations, kinds):
                return generations
        raise _unavailable(RuntimeError("the groups of the cluster do not agree on everyone's generations"))

    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        bounded = max(0, min(limit, MAX_LIST))
        if not subject or not bounded:
            return []
        bucket = _bucket_of(subject)
        keys = [self._key(bucket, "index"), self._key(bucket, "marks"), self._everyone(bucket), self._deaths(bucket)]
        stem = self._key(bucket, f"{kind}:")
        found = self._call(_list, keys, stem, kind, subject, after, now, bounded, again=True)
        return [_decode(kind, found[n].decode(), found[n + 1]) for n in range(0, len(found), 2)]

    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:
        keys = self._count_keys(name)
        count, ends_at = self._call(_count_up, keys, name, now, window)
        allowed = count <= limit
        return Counted(allowed, count, 0.0 if allowed else max(0.0, _DOUBLE.unpack(ends_at)[0] - now))

    def count_back(self, name: str, now: float) -> None:
        self._call(_count_back, self._count_keys(name)[:1], now)

    def count_reset(self, name: str) -> None:
        self._call(_count_reset, self._count_keys(name), name, again=True)

    def purge(self, now: float, limit: int = 1000) -> int:
        """See ``Store.purge``. Two trips for every thousand: which are dead, and removing them."""
        until = now - COLLECT_AFTER
        gone = 0
        for group in self._groups_to_collect(until):
            while gone < limit:
                wanted = min(limit - gone, MAX_LIST)
                removed = self._collect_group(group, until, wanted)
                gone += removed
                if removed < wanted:
                    break
            if gone >= limit:
                break
        return gone

    # -- the server -----------------------------------------------------------------------------------------

    def check(self) -> None:
        self.marks("", "", 0.0)  # needs a script, as every verb does

    def problems(self, now: float) -> Sequence[Problem]:
        found: dict[str, Problem] = {}  # the servers of a cluster are mostly alike
        for memory, (seconds, microseconds) in self._run(self._condition, again=True):
            policy = memory.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                found["policy"] = Problem(
                    f"Redis may evict keys (maxmemory-policy {policy}), and with them revocations.",
                    "Set maxmemory-policy noeviction; use a server of its own for caches.",
                )
            if (skew := clock_problem(seconds + microseconds / 1e6, now)) is not None:
                found["clock"] = skew
        return tuple(found.values())

    def close(self) -> None:
        if self._own is not None:
            client, self._client = self._client, None
            if client is not None:
                client.close()  # who is in the middle of a verb is told that the store is unavailable

    def _condition(self, client: Any) -> Sequence[tuple[Mapping[str, Any], tuple[int, int]]]:
        """How much memory each server may use, and what time it has."""
        if not self._is_cluster:
            return [(client.info("memory"), client.time())]
        return [
            (client.info("memory", target_nodes=node), client.time(target_nodes=node))
            for node in client.get_primaries()
        ]

    def _call(self, script: _Script, keys: Sequence[str], *arguments: Any, again: bool = False) -> Any:
        """Run a script.

        Args:
            script: Which.
            keys: Its keys, all in one slot.
            arguments: Texts, bytes and numbers.
            again: Whether it may run twice, if the connection was lost and nobody knows whether it ran.

        Raises:
            StoreUnavailable: If the server cannot be asked.
        """
        plain = [repr(one) if isinstance(one, float) else one for one in arguments]

        def evaluate(client: Any) -> Any:
            try:
                return client.evalsha(script.sha, len(keys), *keys, *plain)
            except redis.exceptions.NoScriptError:  # a server that started anew; it did not run
                return client.eval(script.text, len(keys), *keys, *plain)

        return self._run(evaluate, again=again)

    def _run(self, act: Callable[[Any], Any], *, again: bool = False) -> Any:
        client = self._connected()
        start = time.monotonic()
        try:
            try:
                return act(client)
            except redis.exceptions.ConnectionError:
                if not again or time.monotonic() - start > self._options.timeout / 2:
                    raise
                return act(client)
        except (ValueError, AttributeError) as error:
            if self._client is client:
                raise
            raise _unavailable(error) from error  # another thread closed the store
        except _TROUBLE as error:
            elsewhere = isinstance(error, (redis.exceptions.MovedError, redis.exceptions.ClusterCrossSlotError))
            if elsewhere and not self._is_cluster:
                raise ConfigError(
                    "The Redis server is one of a cluster.", hint="Use redis+cluster://... instead of redis://..."
                ) from error
            lost = isinstance(error, redis.exceptions.RedisClusterException)
            if lost and self._own is not None and self._client is client:
                self._client = None  # redis-py forgets the nodes it could not reach, and would never find them again
            raise _unavailable(error) from error

    def _connected(self) -> Any:
        client = self._client
        if client is not None:
            return client
        # A cluster is explored at once, which takes time if nobody answers; the others do not wait for ever.
        if not self._connecting.acquire(timeout=self._options.timeout):
            raise _unavailable(TimeoutError("another thread is still connecting"))
        try:
            client = self._client
            if client is None:
                assert self._own is not None  # an app's own client stays  # noqa: S101
                client = self._client = self._own()
        except redis.exceptions.RedisClusterException as error:
            if "Cluster mode is not enabled" in str(error):
                raise ConfigError(
                    "The Redis server is not one of a cluster.", hint="Use redis://... instead of redis+cluster://..."
                ) from error
            raise _unavailable(error) from error
        except _TROUBLE as error:
            raise _unavailable(error) from error
        else:
            return client
        finally:
            self._connecting.release()

    # -- keys -----------------------------------------------------------------------------------------------

    def _key(self, bucket: str, name: str) -> str:
        return f"{self._prefix}:{{{bucket[:3]}}}{bucket[3:]}:{name}"

    def _keys(self, bucket: str, kind: str, record_id: str) -> Sequence[str]:
        """What a verb on one record needs: the record, the marks, the index, the deaths and everyone's mark."""
        return [
            self._key(bucket, f"{kind}:{record_id}"), self._key(bucket, "marks"), self._key(bucket, "index"),
            self._deaths(bucket), self._everyone(bucket),
        ]  # fmt: skip

    def _count_keys(self, name: str) -> Sequence[str]:
        bucket = _bucket_of(name)
        return [self._key(bucket, f"count/{name}"), self._deaths(bucket)]

    def _everyone(self, bucket: str) -> str:
        return self._key(bucket[:3], "everyone") if self._is_cluster else f"{self._prefix}:everyone"

    def _deaths(self, bucket: str) -> str:
        return self._key(bucket[:3], "deaths") if self._is_cluster else f"{self._prefix}:deaths"

    # -- all groups of buckets ------------------------------------------------------------------------------

    def _bring_to_all(self, generations: Mapping[str, int], kinds: Collection[str]) -> bool:
        """Bring everyone's generations from the first group to all others.

        Returns:
            Whether they are new everywhere. If not, the first group had lost what it knew, to a fail-over for
            example; now it knows again, and ``advance`` must be done once more.
        """
        known = self._raise(_GROUPS[1:], generations)
        now = decode_marks(self._run(lambda client: client.get(self._everyone(_GROUPS[0])), again=True) or b"{}")
        # More than ours is another advance at the same moment, if the first group knows of it.
        if all(known.get(kind, 0) != generations[kind] and known.get(kind, 0) <= now.get(kind, 0) for kind in kinds):
            return True
        self._raise(_GROUPS[:1], known)
        return False

    def _raise(self, groups: Sequence[str], generations: Mapping[str, int]) -> Mapping[str, int]:
        """Raise everyone's generations in these groups to at least these; returns the highest from before."""
        mark = msgspec.json.encode(generations)
        highest: dict[str, int] = {}
        for start in range(0, len(groups), _GROUPS_AT_ONCE):

            def send(client: Any, some: Sequence[str] = groups[start : start + _GROUPS_AT_ONCE]) -> Any:
                with client.pipeline() as pipe:
                    for group in some:
                        pipe.execute_command("EVAL", _RAISE, 1, self._everyone(group), mark)
                    return pipe.execute()

            for before in self._run(send, again=True):
                for kind, generation in decode_marks(before or b"{}").items():
                    highest[kind] = max(highest.get(kind, 0), generation)
        return highest

    def _groups_to_collect(self, until: float) -> Iterator[str]:
        """The groups that have something to collect; goes on where the last purge stopped."""
        if not self._is_cluster:
            yield _GROUPS[0]
            return
        first = self._next_group
        order = _GROUPS[first:] + _GROUPS[:first]
        for start in range(0, len(order), _GROUPS_AT_ONCE):
            some = order[start : start + _GROUPS_AT_ONCE]

            def ask(client: Any, some: Sequence[str] = some) -> Any:
                with client.pipeline() as pipe:
                    for group in some:
                        pipe.zcount(self._deaths(group), "-inf", until)
                    return pipe.execute()

            for place, (group, dead) in enumerate(zip(some, self._run(ask, again=True), strict=True)):
                if dead:
                    self._next_group = (first + start + place) % len(_GROUPS)
                    yield group

    def _collect_group(self, group: str, until: float, limit: int) -> int:
        deaths = self._deaths(group)
        members = self._run(
            lambda client: client.zrangebyscore(deaths, "-inf", repr(until), start=0, num=limit), again=True
        )
        if not members:
            return 0
        keys, readable, junk = [deaths], [], []
        for member in members:
            try:
                keys += self._keys_of_member(member)
            except ValueError:  # nothing that a store has written
                junk.append(member)
            else:
                readable.append(member)
        if junk:
            self._run(lambda client: client.zrem(deaths, *junk))
        gone: int = self._call(_collect, keys, until, *readable)
        return gone

    def _keys_of_member(self, member: bytes) -> Sequence[str]:
        """The key and the index of what a member of the deaths is about.

        Raises:
            ValueError: If it is about nothing.
        """
        kind, _, rest = member.decode().partition("\0")
        if not kind:
            bucket = _bucket_of(rest)
            return self._key(bucket, f"count/{rest}"), self._key(bucket, "index")
        record_id = rest.rpartition("\0")[2]
        bucket = _bucket_of_id(record_id)
        return self._key(bucket, f"{kind}:{record_id}"), self._key(bucket, "index")

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See ``around_forks``: a child that is born while OpenSSL makes a connection waits for ever on its locks."""
        self._gate.close(self._options.timeout)

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``: the child must not talk on the parent's sockets. redis-py sees to an app's client."""
        self._connecting = threading.Lock()
        self._gate = Gate()
        if self._own is not None and self._client is not None:
            _inherited.append(self._client)  # letting it go would close it
            self._client = None


class _Options(msgspec.Struct):
    """What can be said in the URL's query or by argument; the URL has the last word."""

    timeout: float
    prefix: str
    max_connections: int


def _check_options(options: _Options) -> None:
    if not 0 < options.timeout <= 60:  # noqa: PLR2004
        raise ConfigError("Redis's timeout is more than 0 and at most 60 seconds.")
    if not _PREFIX.fullmatch(options.prefix):
        raise ConfigError("Redis's prefix has 1 to 64 characters of letters, digits, dot, dash, colon and underscore.")
    if options.max_connections < 1:
        raise ConfigError("Redis's max_connections is at least 1.")


def _check_client(client: Any) -> None:
    if not isinstance(client, (redis.Redis, RedisCluster)):
        raise ConfigError("The store needs a Redis URL, a redis.Redis or a RedisCluster.")
    encoder = client.get_encoder()
    if encoder.decode_responses:
        raise ConfigError("The Redis client decodes responses; records are bytes.", hint="Leave decode_responses out.")
    retry = client.retry if isinstance(client, RedisCluster) else client.get_retry()
    if retry is not None and retry.get_retries() > 0:
        raise ConfigError(
            "The Redis client sends a command again when its answer is lost. Who had won would be told they lost.",
            hint="Make it with retry=Retry(NoBackoff(), 0).",
        )


def _from_url(url: str, options: _Options, gate: Callable[[], Gate]) -> tuple[Callable[[], Any], bool]:
    """How to make the client a URL asks for, and whether it is a cluster's."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        unknown = query.keys() - _OPTIONS
        if unknown or parts.fragment:  # which may be a part of a password: it is not repeated
            raise ConfigError(
                "The Redis URL has a part or an option that Jam does not know.",
                hint=f"Options are {', '.join(sorted(_OPTIONS))}. In a password, write ?, # and / as %3F, %23 and %2F.",
            )
        options.timeout = float(query.get("timeout", options.timeout))
        options.max_connections = int(query.get("max_connections", options.max_connections))
        options.prefix = query.get("prefix", options.prefix)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        settings: dict[str, Any] = {
            "socket_timeout": options.timeout, "socket_connect_timeout": options.timeout, "protocol": 2,
            "username": unquote(username) or None, "password": unquote(password) or None,
        }  # fmt: skip
        if parts.scheme.startswith("rediss"):
            settings |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
            if "ssl_ca_certs" in query:
                if not Path(query["ssl_ca_certs"]).is_file():
                    raise ConfigError("There is no file that ssl_ca_certs names.")
                settings["ssl_ca_certs"] = query["ssl_ca_certs"]
        elif "ssl_ca_certs" in query:
            raise ConfigError("ssl_ca_certs is for rediss:// URLs.")
        if parts.scheme == "unix":
            if hosts or not parts.path:
                raise ConfigError("A URL of a socket is unix:///path/to/socket.")
            return _on_one_server(options, redis.UnixDomainSocketConnection, settings | {
                "path": unquote(parts.path), "db": int(query.get("db", 0)),
            }), False  # fmt: skip
        database = int(parts.path.strip("/") or query.get("db", "0"))
        addresses = [urlsplit(f"redis://{host}") for host in hosts.split(",")]
        nodes = [
            (address.hostname or "127.0.0.1", 6379 if address.port is None else address.port) for address in addresses
        ]
    except (ValueError, TypeError):
        raise ConfigError("The store's URL cannot be read.") from None  # it may hold a password
    connection = _connection_within(gate) if parts.scheme.startswith("rediss") else redis.Connection
    if not all(port for _, port in nodes):
        raise ConfigError("Nobody listens on port 0.")
    if parts.scheme.endswith("+cluster"):
        if database:
            raise ConfigError("A Redis Cluster has no databases but 0.")
        return _on_a_cluster(options, connection, nodes, settings), True
    if len(nodes) != 1:
        raise ConfigError("Several Redis servers are a cluster.", hint="Use redis+cluster://...")
    host, port = nodes[0]
    return _on_one_server(options, connection, settings | {"host": host, "port": port, "db": database}), False


def _on_one_server(options: _Options, connection: Any, settings: Mapping[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        return redis.Redis.from_pool(_pool(options, connection)(retry=_never_again(), **settings))

    return make


def _on_a_cluster(
    options: _Options, connection: Any, nodes: Sequence[tuple[str, int]], settings: Mapping[str, Any]
) -> Callable[[], Any]:
    def make() -> Any:
        return RedisCluster(
            url="redis://{}:{}".format(*nodes[0]),  # only with a URL may the pool be chosen
            startup_nodes=[ClusterNode(*node) for node in nodes[1:]],  # type: ignore[no-untyped-call]
            retry=_never_again(),
            require_full_coverage=False,
            connection_pool_class=_pool(options, connection),
            **settings,
        )

    return make


def _pool(options: _Options, connection: Any) -> Callable[..., Any]:
    """Makes pools that wait for a free connection, but not for ever."""
    return functools.partial(
        redis.BlockingConnectionPool,
        connection_class=connection,
        max_connections=options.max_connections,
        timeout=options.timeout,
    )


def _connection_within(gate: Callable[[], Gate]) -> Any:
    """The class of TLS connections that are made within a gate: see ``RedisStore.before_fork``."""

    class ConnectionWithinGate(redis.SSLConnection):
        def connect(self, *arguments: Any, **named: Any) -> Any:
            with gate():
                return super().connect(*arguments, **named)  # type: ignore[no-untyped-call]

    return ConnectionWithinGate


def _never_again() -> Retry:
    """No command is sent twice by redis-py: it cannot know which may be."""
    return Retry(NoBackoff(), 0)


def _unavailable(error: Exception) -> StoreUnavailable:
    logger.error("The Redis store failed: %s: %s", type(error).__name__, error)
    return StoreUnavailable(hint=f"Redis says: {type(error).__name__}.")


def _bucket_of(subject: str) -> str:
    return bucket_of(subject).hex() if subject else "0000"


def _bucket_of_id(record_id: str) -> str:
    return bucket_of_id(record_id).hex()


def _encode(record: Record, data: bytes) -> bytes:
    subject = record.subject.encode()
    idle_for = math.inf if record.idle_for is None else record.idle_for
    head = _HEAD.pack(
        record.touched_at, record.created_at, idle_for, record.ends_at, record.generation, record.version,
        len(record.check), len(subject),
    )  # fmt: skip
    return b"".join((head, record.check, subject, data))


def _decode(kind: str, record_id: str, value: bytes) -> Record:
    try:
        touched_at, created_at, idle_for, ends_at, generation, version, check, subject = _HEAD.unpack_from(value)
        at = _HEAD.size
        return Record(
            kind=kind, id=record_id, check=value[at : at + check],
            subject=value[at + check : at + check + subject].decode(),
            data=decode_data(value[at + check + subject :]), generation=int(generation), version=int(version),
            created_at=created_at, touched_at=touched_at, idle_for=None if idle_for == math.inf else idle_for,
            ends_at=ends_at,
        )  # fmt: skip
    except (struct.error, ValueError) as error:
        raise unreadable(error) from error


def _death(times: bytes) -> float:
    """When a record dies, from the first four numbers of its head."""
    try:
        touched_at, _, idle_for, ends_at = _TIMES.unpack(times)
    except struct.error as error:
        raise unreadable(error) from error
    death: float = min(ends_at, touched_at + idle_for)
    return death


def _generations(mine: bytes | None, all_: bytes | None) -> Mapping[str, int]:
    if mine is None and all_ is None:
        return _NO_MARKS
    return add_up(_NO_MARKS if mine is None else decode_marks(mine), _NO_MARKS if all_ is None else decode_marks(all_))


_all_stores: weakref.WeakSet[RedisStore] = weakref.WeakSet()
_inherited: list[Any] = []

around_forks(
    _all_stores,
    before=RedisStore.before_fork,
    after_in_parent=RedisStore.after_fork_in_parent,
    after_in_child=RedisStore.after_fork_in_child,
)
