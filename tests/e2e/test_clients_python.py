# SPDX-License-Identifier: Apache-2.0
"""python3-redis, pymemcache and pylibmc through the proxy, over two real servers of each kind.

One test per family of commands. Keys spread over both servers; where a command needs its keys together,
they share a {tag}.
"""

import threading

import pylibmc
import pymemcache
import pytest
import redis

from weirtest import DEADLINE, LOOPBACK, memcache_pool, redis_pool, wait_for


@pytest.fixture(scope="module")
def proxy(module_stage):
    return module_stage.weir_proxy(
        redis_pool(module_stage.redis_server(2), name="alpha", hash_tag="'{}'", hash="md5") +
        memcache_pool(module_stage.memcached(2), name="beta"), workers=2)


@pytest.fixture
def r(proxy):
    client = proxy.redis("alpha", decode_responses=True, client_name="tests")
    client.flushall()
    yield client
    client.close()


# python3-redis

def test_redis_strings(r):
    assert r.set("a", "1") and r.get("a") == "1" and r.get("none") is None
    assert r.set("a", "2", nx=True) is None and r.set("a", "3", get=True) == "1"
    assert r.append("a", "45") == 3 and r.strlen("a") == 3 and r.getrange("a", 1, 2) == "45"
    assert r.setrange("a", 1, "99") == 3 and r.getdel("a") == "399" and r.exists("a") == 0
    assert r.incr("n") == 1 and r.incrbyfloat("n", 1.5) == 2.5 and r.setnx("n", 1) is False
    assert r.setex("e", 100, "v") and 0 < r.ttl("e") <= 100 and r.getex("e", persist=True) == "v"
    assert r.ttl("e") == -1 and r.psetex("e", 100000, "v") and r.pttl("e") > 0
    assert r.setbit("bits", 7, 1) == 0 and r.bitcount("bits") == 1 and r.bitpos("bits", 1) == 7
    assert r.bitfield("bits").get("u8", 0).execute() == [1]
    assert r.set("{t}a", "x") and r.set("{t}b", "y") and r.bitop("OR", "{t}c", "{t}a", "{t}b") == 1
    assert r.execute_command("LCS", "{t}a", "{t}c") == ""


def test_redis_many_keys(r):
    pairs = {f"k{i}": str(i) for i in range(300)}
    assert r.mset(pairs) is True
    asked = [*pairs, "none", "k7", "k7"]
    assert r.mget(asked) == [pairs.get(k) for k in asked]
    assert r.exists("k1", "k2", "k1", "none") == 3
    assert r.touch("k1", "k2", "none") == 2
    assert r.dbsize() == 300 and len(r.keys("k*")) == 300
    assert r.unlink("k0", "k1") == 2 and r.delete(*pairs) == 298
    assert r.randomkey() is None


def test_redis_keys(r):
    r.set("a", "1")
    assert r.type("a") == "string" and r.expire("a", 100) and r.persist("a") and r.expireat("a", 4102444800)
    assert r.object("encoding", "a") == "int"
    assert r.set("{t}x", "1") and r.rename("{t}x", "{t}y") and r.copy("{t}y", "{t}z")
    with pytest.raises(redis.ResponseError, match="slot"):
        for i in range(50):
            r.set(f"a long name {i}", "1")
            r.rename(f"a long name {i}", f"{i} names of another kind")


def test_redis_dump_restore(proxy):
    with proxy.redis("alpha") as raw:
        raw.set("dumped", "value")
        payload = raw.dump("dumped")
        raw.restore("restored", 0, payload, replace=True)
        assert raw.get("restored") == b"value"


def test_redis_hashes(r):
    assert r.hset("h", mapping={"f": 1, "g": 2}) == 2 and r.hgetall("h") == {"f": "1", "g": "2"}
    assert r.hincrby("h", "f", 4) == 5 and r.hincrbyfloat("h", "f", 0.5) == 5.5
    assert r.hmget("h", "f", "none", "g") == ["5.5", None, "2"] and r.hlen("h") == 2
    assert sorted(r.hkeys("h")) == ["f", "g"] and r.hexists("h", "f") and r.hstrlen("h", "g") == 1
    assert dict(r.hscan_iter("h")) == {"f": "5.5", "g": "2"} and r.hrandfield("h") in ("f", "g")
    assert r.hdel("h", "f") == 1 and r.hsetnx("h", "f", 1) == 1 and r.hvals("h") == ["2", "1"]


def test_redis_lists(r):
    assert r.rpush("l", 1, 2, 3) == 3 and r.lpush("l", 0) == 4 and r.lrange("l", 0, -1) == ["0", "1", "2", "3"]
    assert r.lindex("l", 1) == "1" and r.linsert("l", "before", "1", "x") == 5 and r.lset("l", 0, "y")
    assert r.lrem("l", 1, "x") == 1 and r.ltrim("l", 0, 2) and r.llen("l") == 3 and r.lpos("l", "2") == 2
    assert r.lpop("l") == "y" and r.rpop("l", 2) == ["2", "1"] and r.lpushx("none", 1) == 0
    r.rpush("{t}1", "a", "b")
    assert r.rpoplpush("{t}1", "{t}2") == "b" and r.lmove("{t}1", "{t}2", "LEFT", "RIGHT") == "a"
    assert r.lmpop(2, "{t}1", "{t}2", direction="LEFT") == ["{t}2", ["b"]]


def test_redis_sets(r):
    assert r.sadd("s", 1, 2, 3) == 3 and r.smembers("s") == {"1", "2", "3"} and r.scard("s") == 3
    assert r.sismember("s", 1) and r.smismember("s", 1, 9) == [1, 0] and r.srem("s", 1) == 1
    assert set(r.sscan_iter("s")) == {"2", "3"} and r.srandmember("s") in ("2", "3") and r.spop("s") in ("2", "3")
    r.sadd("{t}1", 1, 2)
    r.sadd("{t}2", 2, 3)
    assert r.sinter("{t}1", "{t}2") == {"2"} and r.sunion("{t}1", "{t}2") == {"1", "2", "3"}
    assert r.sdiffstore("{t}3", "{t}1", "{t}2") == 1 and r.smove("{t}1", "{t}2", "1")
    assert r.sintercard(2, ["{t}1", "{t}2"]) == 1


def test_redis_sorted_sets(r):
    assert r.zadd("z", {"a": 1, "b": 2.5, "c": 3}) == 3 and r.zscore("z", "b") == 2.5
    assert r.zrange("z", 0, -1, withscores=True) == [("a", 1.0), ("b", 2.5), ("c", 3.0)]
    assert r.zrangebyscore("z", 1, 3, start=1, num=1) == ["b"] and r.zrank("z", "c") == 2
    assert r.zincrby("z", 10, "a") == 11 and r.zrevrange("z", 0, 0) == ["a"] and r.zcount("z", 0, 5) == 2
    assert r.zmscore("z", ["a", "none"]) == [11.0, None] and r.zpopmin("z") == [("b", 2.5)]
    assert dict(r.zscan_iter("z")) == {"a": 11.0, "c": 3.0} and r.zremrangebyscore("z", 3, 3) == 1
    r.zadd("{t}1", {"x": 1})
    r.zadd("{t}2", {"x": 2, "y": 3})
    assert r.zunionstore("{t}3", ["{t}1", "{t}2"]) == 2
    assert r.zinter(["{t}1", "{t}2"], withscores=True) == [("x", 3.0)] and r.zdiff(["{t}2", "{t}1"]) == ["y"]


def test_redis_others(r):
    assert r.pfadd("p", 1, 2, 3) == 1 and r.pfcount("p") == 3
    assert r.pfadd("{t}p", 4) and r.pfadd("{t}q", 5) and r.pfmerge("{t}r", "{t}p", "{t}q")
    assert r.pfcount("{t}p", "{t}q") == 2
    assert r.geoadd("g", [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"]) == 2
    assert round(r.geodist("g", "Palermo", "Catania", "km")) == 166
    assert r.geosearch("g", member="Palermo", radius=10, unit="km") == ["Palermo"]
    r.rpush("sort", 3, 1, 2)
    assert r.sort("sort") == ["1", "2", "3"]
    first = r.xadd("x", {"f": "v"})
    assert r.xlen("x") == 1 and r.xrange("x") == [(first, {"f": "v"})]
    assert r.xread({"x": "0"}) == [["x", [(first, {"f": "v"})]]]
    assert r.xgroup_create("x", "group", "0") and r.xreadgroup("group", "me", {"x": ">"}) == [["x", [(first, {"f": "v"})]]]
    assert r.xack("x", "group", first) == 1 and r.xinfo_stream("x")["length"] == 1


def test_redis_connection(r):
    assert r.ping() and r.echo("hello") == "hello" and r.client_getname() == "tests"
    assert r.client_id() > 0 and r.client_list() and r.client_info()["name"] == "tests"
    assert r.info()["redis_version"].startswith("7.") and "db0" not in r.info("server")
    assert r.time() and r.command_count() > 200 and r.command_getkeys("MGET", "a", "b") == ["a", "b"]
    r.set("counted", 1)
    assert r.info("keyspace")["db0"]["keys"] == 1


def test_redis_pipelines(r):
    """10,000 commands over both servers: every reply in its place."""
    with r.pipeline(transaction=False) as p:
        for i in range(5000):
            p.set(f"k{i}", i).get(f"k{i}")
        replies = p.execute()
    assert replies == [reply for i in range(5000) for reply in (True, str(i))]
    with r.pipeline(transaction=False) as p:
        p.set("a", "1").lpush("a", 1).mget("a", "none").ping().get("a")
        replies = p.execute(raise_on_error=False)
    assert isinstance(replies[1], redis.ResponseError)
    assert replies[0] is True and replies[2:] == [["1", None], True, "1"]


def test_redis_transactions(proxy, r):
    with r.pipeline() as p:
        assert p.set("t", 5).incr("t").get("t").execute() == [True, 6, "6"]
    with r.pipeline() as p:
        p.watch("t")
        value = int(p.get("t"))
        p.multi()
        p.set("t", value * 2)
        assert p.execute() == [True]
    with r.pipeline() as p:
        p.watch("t")
        r.set("t", "changed")
        p.multi()
        p.set("t", "lost")
        with pytest.raises(redis.WatchError):
            p.execute()
    assert r.get("t") == "changed"
    for i in range(30):  # one connection, a server after the other
        name = f"a counter with the number {i}"
        assert r.transaction(lambda p: (p.multi(), p.incr(name)), name) == [1]
    with r.pipeline() as p:
        p.set("{t}a", 1).set("{t}b", 2).mget("{t}a", "{t}b")
        assert p.execute() == [True, True, ["1", "2"]]


def test_redis_lock(r):
    with r.lock("lock", timeout=10):
        assert not r.lock("lock").acquire(blocking=False)


def test_redis_pubsub(r):
    with r.pubsub() as p:
        p.subscribe("c1", "c2", "c3")
        p.psubscribe("p*")
        for _ in range(4):
            assert p.get_message(timeout=DEADLINE)["type"] in ("subscribe", "psubscribe")
        assert r.publish("c1", "one") == 1 and r.publish("pattern", "two") == 1
        got = [p.get_message(timeout=DEADLINE) for _ in range(2)]
        assert {(m["type"], m["channel"], m["data"]) for m in got} == {
            ("message", "c1", "one"), ("pmessage", "pattern", "two")}
        p.ping()
        assert p.get_message(timeout=DEADLINE)["type"] == "pong"
        p.unsubscribe("c1")
        assert p.get_message(timeout=DEADLINE)["type"] == "unsubscribe"
        assert r.publish("c1", "nobody") == 0


def test_redis_blocking(proxy, r):
    got = []
    with proxy.redis("alpha", decode_responses=True) as other:
        waiter = threading.Thread(target=lambda: got.append(other.blpop(["{t}l1", "{t}l2"], timeout=10)))
        waiter.start()
        r.rpush("{t}l2", "x")
        waiter.join(DEADLINE)
    assert got == [("{t}l2", "x")]
    r.zadd("z", {"a": 1})
    assert r.bzpopmin("z", timeout=5) == ("z", "a", 1.0)
    r.rpush("{t}from", "1")
    assert r.blmove("{t}from", "{t}to", 5) == "1" and r.brpoplpush("{t}to", "{t}from", 5) == "1"
    assert r.xread({"stream": "$"}, block=10) == []


def test_redis_scan_iter(r):
    with r.pipeline(transaction=False) as p:
        for i in range(2000):
            p.set(f"k{i}", i)
        p.execute()
    seen = list(r.scan_iter(match="k*", count=100))
    assert len(seen) == 2000 == len(set(seen))
    assert set(r.scan_iter(_type="list")) == set()


def test_redis_scripts(r):
    script = r.register_script("return {KEYS[1], ARGV[1]}")
    for i in range(40):  # EVALSHA, loaded on each server at need
        assert script(keys=[f"k{i}"], args=["x"]) == [f"k{i}", "x"]
    sha = r.script_load("return 1")
    assert r.script_exists(sha) == [True]
    assert all(r.evalsha(sha, 1, f"k{i}") == 1 for i in range(20))
    assert r.eval("return redis.call('incr', KEYS[1])", 1, "n") == 1
    assert r.script_flush()
    assert r.script_exists(sha) == [False]
    with pytest.raises(redis.exceptions.NoScriptError):
        r.evalsha(sha, 1, "k")


def test_redis_errors(r):
    r.set("a", "x")
    for call, match in ((lambda: r.lpush("a", 1), "WRONGTYPE"), (lambda: r.incr("a"), "not an integer"),
                        (lambda: r.config_get("*"), "denied"), (lambda: r.execute_command("NOPE"), "unknown")):
        with pytest.raises(redis.ResponseError) as caught:
            call()
        assert match in str(caught.value) or type(caught.value).__name__ == "ResponseError" and \
            match in repr(caught.value)
    assert r.get("a") == "x"


def test_redis_values(proxy):
    """Every size around the buffers' edges, every byte."""
    with proxy.redis("alpha") as raw:
        everything = bytes(range(256))
        for size in (0, 1, 72, 4095, 4096, 16383, 16384, 65535, 65536, 65537, 1 << 20, 5 << 20):
            value = (everything * (size // 256 + 1))[:size]
            raw.set(f"size{size}", value)
            assert raw.get(f"size{size}") == value, size
        assert raw.mget("size1", "size65536", "size0") == [b"\0", (everything * 257)[:65536], b""]
        raw.set(everything, b"binary key")
        assert raw.get(everything) == b"binary key"


# pymemcache

@pytest.fixture
def m(proxy):
    client = pymemcache.Client((LOOPBACK, proxy.ports["beta"]), timeout=DEADLINE, connect_timeout=DEADLINE)
    yield client
    client.close()


def test_pymemcache(m):
    assert m.set("a", b"1", noreply=False) and m.get("a") == b"1" and m.get("none") is None
    assert m.add("a", b"2", noreply=False) is False and m.replace("a", b"2", noreply=False)
    assert m.append("a", b"3", noreply=False) and m.prepend("a", b"1", noreply=False) and m.get("a") == b"123"
    value, token = m.gets("a")
    assert m.cas("a", b"9", token, noreply=False) is True and m.cas("a", b"8", token, noreply=False) is False
    assert m.cas("none", b"8", token, noreply=False) is None
    assert m.incr("a", 3, noreply=False) == 12 and m.decr("a", 2, noreply=False) == 10
    assert m.touch("a", 100, noreply=False) and m.get("a") == b"10"
    assert m.delete("a", noreply=False) and not m.delete("a", noreply=False)
    assert m.version().startswith(b"1.6") and m.stats()[b"curr_items"] >= 0
    pairs = {f"k{i}": str(i).encode() for i in range(500)}
    assert m.set_many(pairs, noreply=False) == []
    assert m.get_many([*pairs, "none"]) == pairs and len(m.gets_many(list(pairs))) == 500
    assert m.delete_many(list(pairs), noreply=False)
    assert m.flush_all(noreply=False) and m.get("k1") is None
    m.quit()


def test_pymemcache_noreply(m):
    """noreply by default: nothing comes back, the order holds."""
    for i in range(300):
        m.set(f"n{i}", str(i).encode())
        m.incr(f"n{i}", 1, noreply=True)
        if i % 3 == 0:
            m.delete(f"n{i}")
    assert all(m.get(f"n{i}") == (None if i % 3 == 0 else str(i + 1).encode()) for i in range(300))


def test_pymemcache_errors(m):
    with pytest.raises(pymemcache.exceptions.MemcacheServerError):
        m.set("big", b"x" * (2 << 20), noreply=False)
    with pytest.raises(pymemcache.exceptions.MemcacheError):
        m.set("a", b"x", noreply=False)
        m.incr("a", 1, noreply=False)


# pylibmc

@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_pylibmc(proxy, binary):
    client = pylibmc.Client([f"{LOOPBACK}:{proxy.ports['beta']}"], binary=binary,
                            behaviors={"cas": True, "no_block": False, "tcp_nodelay": True})
    assert client.set("a", "1") and client.get("a") == "1" and client.get("none") is None
    assert not client.add("a", "2") and client.replace("a", "2") and client.append("a", "3")
    assert client.get("a") == "23" and client.prepend("a", "1") and client.get("a") == "123"
    value, token = client.gets("a")
    assert client.cas("a", "9", token) and not client.cas("a", "8", token)
    client.set("n", 10)
    assert client.incr("n", 5) == 15 and client.decr("n", 1) == 14
    assert client.touch("a", 100)
    pairs = {f"k{i}": i for i in range(300)}
    assert client.set_multi(pairs) == [] and client.get_multi([*pairs, "none"]) == pairs
    assert client.delete_multi(list(pairs)) and client.get_multi(list(pairs)) == {}
    assert client.set("big", b"x" * 900000) and len(client.get("big")) == 900000
    assert client.delete("a") and not client.delete("a")
    assert client.get_stats() and client.flush_all()
    wait_for(lambda: client.get("n") is None, "flushed")
    client.disconnect_all()


def test_pylibmc_pipelined(proxy):
    """libmemcached's no-block mode."""
    client = pylibmc.Client([f"{LOOPBACK}:{proxy.ports['beta']}"], binary=False,
                            behaviors={"no_block": True})
    for i in range(500):
        client.set(f"b{i}", i)
    assert client.get_multi([f"b{i}" for i in range(500)]) == {f"b{i}": i for i in range(500)}
    client.disconnect_all()
