# SPDX-License-Identifier: Apache-2.0
"""Hashes and sets of weir-backend: beside a redis-server, over restarts, and what is random or takes many steps."""

import collections
import os
import signal

import pytest

import differential
from differential import SEED, over_seeds
from weirtest import LOOPBACK, Server, free_port, program

FAMILIES = ["hashes", "sets", "wrong-types"]


class Node:
    """A storage node on a directory that outlives it."""

    def __init__(self, stage):
        self.stage, self.directory = stage, os.path.join(stage.directory, "data")
        self.process = None
        self.start()

    def start(self):
        port, stats = free_port(), free_port()
        self.process = Server(
            [program("weir-backend"), "--listen", f"{LOOPBACK}:{port}", "--stats", f"{LOOPBACK}:{stats}",
             "--dir", self.directory, "--segment_size", "1mb"], self.stage.directory, f"weir-backend-{port}", port)
        self.stage.processes.append(self.process)
        self.port = port

    def restart(self, signo=signal.SIGTERM):
        self.process.stop(signo)
        self.start()

    def client(self, resp=2):
        return differential.Client(self.port, resp=resp)


@pytest.fixture
def node(stage):
    return Node(stage)


def words(reply):
    return [content for _, content in reply[1]]


def fill_set(client, key, count):
    """Returns the members; integers where the key's name says so."""
    members = [b"%d" % (i * 7) if key.startswith(b"int") else b"member:%d" % i for i in range(count)]
    assert client.ask("SADD", key, *members)[1] == b"%d" % count
    return members


def fill_hash(client, key, count):
    pairs = {b"field:%d" % i: b"value:%d" % i for i in range(count)}
    assert client.ask("HSET", key, *[word for pair in pairs.items() for word in pair])[1] == b"%d" % count
    return pairs


@over_seeds(3, 99 + SEED)
@pytest.mark.parametrize("resp", (2, 3))
def test_replies_are_those_of_redis(node, redis_server, seeds, resp):
    redis = redis_server()
    for seed in seeds:
        differential.run(node.port, redis.port, FAMILIES, seed, count=8000, resp=resp)


@over_seeds(4, 6 + SEED)
@pytest.mark.parametrize("signo", (signal.SIGTERM, signal.SIGKILL))
def test_values_survive_a_restart(node, redis_server, signo, seeds):
    """The same commands to both, ours restarted in between: the log says what they did, also SPOP and increments."""
    redis = redis_server()
    differential.run(node.port, redis.port, FAMILIES, seeds[0], count=5000)
    for seed, resp in zip(seeds[1:], (3, 2, 3)):
        node.restart(signo)
        differential.compare_snapshots(differential.snapshot(node.port), differential.snapshot(redis.port))
        differential.run(node.port, redis.port, FAMILIES, seed, count=3000, resp=resp, flush=False)


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
def test_cold_values_read_as_hot_ones(weir_backend, redis_server, resp, seeds):
    ours, theirs = weir_backend(None, "--memory", "4mb"), redis_server()
    differential.run_and_fill(ours.port, theirs.port, FAMILIES, seeds, count=3000, resp=resp)


@over_seeds(2)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("signo", (None, signal.SIGTERM, signal.SIGKILL))
def test_replies_are_the_same_with_all_values_cold(node, redis_server, signo, resp, seeds):
    """Before every pipeline all values go to disk; with a signal, the node starts anew between the streams, too."""
    redis = redis_server()
    for seed in seeds:
        fetched = differential.run_cold(node.port, redis.port, FAMILIES, seed, count=2500, resp=resp)
        assert fetched > 100
        if signo is not None:
            node.restart(signo)
        differential.compare_snapshots(differential.snapshot(node.port), differential.snapshot(redis.port))


SETS = [(b"ints", 300), (b"small", 60), (b"large", 3000)]
HASHES = [(b"few", 60), (b"many", 2000)]


@pytest.mark.parametrize("key,count", SETS)
def test_popped_members_were_there_and_are_gone(node, key, count):
    with node.client() as c:
        left = set(fill_set(c, key, count))
        for wanted in (None, 1, 5, count // 3, None):
            reply = c.ask("SPOP", key) if wanted is None else c.ask("SPOP", key, wanted)
            popped = [reply[1]] if wanted is None else words(reply)
            assert len(set(popped)) == len(popped) == (wanted or 1)
            assert set(popped) <= left
            left -= set(popped)
            assert set(words(c.ask("SMEMBERS", key))) == left
    node.restart(signal.SIGKILL)
    with node.client() as c:
        assert set(words(c.ask("SMEMBERS", key))) == left
        assert set(words(c.ask("SPOP", key, count))) == left
        assert c.ask("EXISTS", key)[1] == b"0"


@pytest.mark.parametrize("key,count", SETS)
def test_random_members_are_members(node, key, count):
    with node.client() as c:
        members = set(fill_set(c, key, count))
        for wanted in (1, 5, count // 2, count - 1, count, count + 1):
            drawn = words(c.ask("SRANDMEMBER", key, wanted))
            assert len(set(drawn)) == len(drawn) == min(wanted, count)
            assert set(drawn) <= members
        drawn = words(c.ask("SRANDMEMBER", key, -3 * count))
        assert len(drawn) == 3 * count and set(drawn) <= members
        assert c.ask("SRANDMEMBER", key)[1] in members


@pytest.mark.parametrize("key,count", HASHES)
def test_random_fields_come_with_their_values(node, key, count):
    with node.client() as c, node.client(resp=3) as c3:
        pairs = fill_hash(c, key, count)
        for wanted in (1, 5, count // 2, count, count + 1, -2 * count):
            flat = words(c.ask("HRANDFIELD", key, wanted, "WITHVALUES"))
            drawn = list(zip(flat[::2], flat[1::2]))
            assert all(pairs[field] == value for field, value in drawn)
            assert len(drawn) == (min(wanted, count) if wanted > 0 else -wanted)
            assert wanted < 0 or len(dict(drawn)) == len(drawn)
            nested = [words(pair) for pair in c3.ask("HRANDFIELD", key, wanted, "WITHVALUES")[1]]
            assert all(pairs[field] == value for field, value in nested) and len(nested) == len(drawn)


@pytest.mark.parametrize("command,fill,key,count", [
    ("SRANDMEMBER", fill_set, b"ints", 50), ("SRANDMEMBER", fill_set, b"small", 50),
    ("SRANDMEMBER", fill_set, b"large", 500), ("HRANDFIELD", fill_hash, b"few", 50),
    ("HRANDFIELD", fill_hash, b"many", 500),
])
def test_draws_are_fair(node, command, fill, key, count):
    """400 draws for each element: the standard deviation is 20. One of 2300 is seven of them away once in 10^8 runs."""
    with node.client() as c:
        fill(c, key, count)
        for wanted in (-400 * count, count // 10):
            seen = collections.Counter()
            for _ in range(1 if wanted < 0 else 4000):
                seen.update(words(c.ask(command, key, wanted)))
            assert len(seen) == count
            assert 260 <= min(seen.values()) and max(seen.values()) <= 540


@pytest.mark.parametrize("command,grow", [("HSCAN", True), ("HSCAN", False), ("SSCAN", True), ("SSCAN", False)])
def test_scan_sees_what_stays(node, command, grow):
    """The table grows to many times its size, or shrinks, while it is scanned."""
    def change(c, numbers):
        names = [b"x%d" % i for i in numbers]
        if command == "SSCAN":
            c.ask("SADD" if grow else "SREM", "k", *names)
        elif grow:
            c.ask("HSET", "k", *[word for name in names for word in (name, b"v")])
        else:
            c.ask("HDEL", "k", *names)

    with node.client() as c:
        stay = set(fill_set(c, b"k", 600) if command == "SSCAN" else fill_hash(c, b"k", 600))
        others = iter(range(20000))
        if not grow:
            names = [b"x%d" % i for i in range(20000)]
            c.ask("SADD", "k", *names) if command == "SSCAN" else \
                c.ask("HSET", "k", *[word for name in names for word in (name, b"v")])
        seen, cursor = set(), b"0"
        while True:
            (_, cursor), page = c.ask(command, "k", cursor)[1]
            found = words(page)
            seen.update(found if command == "SSCAN" else found[::2])
            if cursor == b"0":
                break
            change(c, [i for _, i in zip(range(500), others)] or [0])
        assert stay <= seen


def test_scan_goes_in_pages(node):
    with node.client() as c:
        pairs = fill_hash(c, b"many", 5000)
        seen, cursor, pages = {}, b"0", 0
        while pages == 0 or cursor != b"0":
            (_, cursor), page = c.ask("HSCAN", "many", cursor, "COUNT", 100)[1]
            found = words(page)
            assert len(found) <= 2 * 200
            seen.update(zip(found[::2], found[1::2]))
            pages += 1
        assert seen == pairs and 20 <= pages <= 60


def test_scan_of_small_values_is_whole(node):
    with node.client() as c:
        members = fill_set(c, b"ints", 500)
        (_, cursor), page = c.ask("SSCAN", "ints", 0, "COUNT", 1)[1]
        assert cursor == b"0" and sorted(words(page)) == sorted(members)
        pairs = fill_hash(c, b"few", 512)
        (_, cursor), page = c.ask("HSCAN", "few", 0, "COUNT", 1)[1]
        assert cursor == b"0" and len(words(page)) == 2 * len(pairs)


def test_limits_of_compact_forms_are_settings(node, redis_server):
    """Raised, lowered and 0, for values that are there and for new ones, written by each way of making one."""
    with node.client() as ours, differential.Client(redis_server().port) as redis:
        def both(*request):
            said = ours.ask(*request)
            assert said == redis.ask(*request), request
            return said

        def look(*names):
            for name in names:
                both("OBJECT", "ENCODING", name)

        for turn, (count, size) in enumerate(((600, 100), (10, 10), (0, 64), (3, 0), (2000, 2000), (512, 64))):
            for name in ("hash-max-listpack-entries", "zset-max-ziplist-entries", "set-max-intset-entries"):
                both("CONFIG", "SET", name, count)
            for name in ("hash-max-ziplist-value", "zset-max-listpack-value"):
                both("CONFIG", "SET", name, size)
            for name in ("hash-max-listpack-entries", "zset-max-ziplist-value", "set-max-intset-entries"):
                both("CONFIG", "GET", name)
            look("h", "z", "s", "h0", "z0")
            both("HSET", "h", "field", f"value{turn}")
            both("ZADD", "z", turn, "member")
            both("SADD", "s", 1)
            look("h", "z", "s")
            for i in {1, 2, 3, 4, 9, 10, 11, 520, 599, 600, 601, 700}:
                both("DEL", "h", "z", "s")
                both("HSET", "h", *(word for n in range(i) for word in (f"f{n}", "v")))
                both("ZADD", "z", *(word for n in range(i) for word in (n, f"m{n}")))
                both("SADD", "s", *range(i))
                look("h", "z", "s")
                both("ZREVRANGE", "z", 0, -1)
                both("ZREVRANGEBYSCORE", "z", 300, 10, "LIMIT", 5, 200)
                both("ZRANGE", "z", 3, 210, "REV", "WITHSCORES")
                both("ZUNIONSTORE", "zu", 1, "z")
                both("ZRANGESTORE", "zr", "z", 0, 9)
                both("SUNIONSTORE", "su", "s")
                both("COPY", "h", "hc", "REPLACE")
                look("zu", "zr", "su", "hc")
            for i in {9, 10, 11, 64, 65, 99, 100, 101}:
                both("DEL", "h0", "z0")
                both("HSET", "h0", "x" * i, "v")
                both("ZADD", "z0", 1, "x" * i)
                look("h0", "z0")
                both("HSET", "h1", "f", "x" * i)
                look("h1")
                both("HDEL", "h1", "f")
        both("CONFIG", "SET", "hash-max-listpack-entries", 2000)
        both("HSET", "h", *(word for n in range(1500) for word in (f"f{n}", "v")))
        look("h")
        ours.ask("DEBUG", "SPILL")
        both("HGET", "h", "f777")
        both("HSET", "h", "more", "v")
        look("h")


def test_encodings_of_strings_that_were_changed(node, redis_server):
    with node.client() as ours, differential.Client(redis_server().port) as redis:
        for way in """APPEND k x|APPEND k 1|APPEND k {empty}|SETRANGE k 0 1|SETRANGE k 0 {empty}|SETBIT k 7 0|SETBIT k 1 1
                      BITFIELD k SET u8 0 49|BITFIELD k GET u8 0|BITOP NOT k k|BITOP OR k k|INCRBYFLOAT k 1|INCRBYFLOAT k 1.5
                      INCR k|INCRBY k 0|DECR k|GETSET k 12|SET k 12|SET k 12 KEEPTTL|SETNX k 5|PFADD k a|GETEX k EX 1000
                      EXPIRE k 1000|PERSIST k|RENAME k k2|COPY k k2|MOVE k 1|MSET k 7|SETEX k 100 7|PFCOUNT k
                      PFMERGE k""".replace("\n", "|").split("|"):
            for start in (None, "12", "a", "x" * 44, "x" * 45, "1" * 20):
                for then in (None, "EXPIRE k 1000", "RENAME k k2", "COPY k k2", "INCR k", "APPEND k 1", "GET k", "SET k 12"):
                    for request in (["FLUSHALL"], *([["SET", "k", start]] if start else []), way.split(),
                                    then.split() if then else ["PING"], ["OBJECT", "ENCODING", "k"],
                                    ["OBJECT", "ENCODING", "k2"]):
                        request = [word.replace("{empty}", "") for word in request]
                        said, wanted = ours.ask(*request), redis.ask(*request)
                        assert said == wanted, (start, way, then, request, said, wanted)


def test_encodings_change_where_redis_changes_them(node, redis_server):
    with node.client() as ours, differential.Client(redis_server().port) as redis:
        def both(*request):
            said = ours.ask(*request)
            assert said == redis.ask(*request), request
            return said

        for i in range(514):
            both("HSET", "h", f"f{i}", "v")
            both("OBJECT", "ENCODING", "h")
        for i in range(514):
            both("SADD", "s", i)
            both("OBJECT", "ENCODING", "s")
        for size in (63, 64, 65):
            both("HSET", f"v{size}", "f", "x" * size)
            both("HSET", f"f{size}", "x" * size, "v")
            both("OBJECT", "ENCODING", f"v{size}")
            both("OBJECT", "ENCODING", f"f{size}")
        both("SADD", "mixed", 1, 2, 3)
        both("OBJECT", "ENCODING", "mixed")
        both("SADD", "mixed", "x")
        both("SREM", "mixed", "x")
        assert both("OBJECT", "ENCODING", "mixed")[1] == b"hashtable"
