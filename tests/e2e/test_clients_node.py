# SPDX-License-Identifier: Apache-2.0
"""Real client programs directly on a storage node: with the data in memory, and with every value sent to disk again
and again while they run. test_clients.py and test_clients_python.py have the same through the proxy."""

import os
import threading
import time

import pylibmc
import pymemcache
import pytest
import redis

import differential
from test_clients import run, script
from weirtest import DEADLINE, LOOPBACK, resp, wait_for


class Spiller(threading.Thread):
    """Sends all values to disk, as often as it can."""

    def __init__(self, port):
        super().__init__()
        self.port, self.is_over, self.count = port, False, 0

    def run(self):
        with differential.Client(self.port) as client:
            while not self.is_over:
                assert client.ask("DEBUG", "SPILL") == (b"+", b"OK")
                self.count += 1
                time.sleep(0.002)


@pytest.fixture(params=("hot", "cold"))
def node(request, weir_backend):
    server = weir_backend()
    spiller = Spiller(server.port) if request.param == "cold" else None
    if spiller:
        spiller.start()
    yield server
    if spiller:
        spiller.is_over = True
        spiller.join()
        assert spiller.count > 0


@pytest.mark.parametrize("version", [2, 3])
def test_node_redis(node, version):
    script(["node"], "node_redis.js", node.port, version, "node")


def test_ioredis(node):
    script(["node"], "ioredis.js", node.port, "node")


def test_php_redis(node):
    script(["php"], "redis.php", node.port, "node")


@pytest.mark.parametrize("protocol", ["text", "binary"])
def test_php_memcached(node, protocol):
    script(["php"], "memcached.php", node.port, protocol)


@pytest.mark.parametrize("protocol", ["binary", "meta"])
def test_ruby_dalli(node, protocol):
    script(["ruby"], "dalli.rb", node.port, protocol)


def test_python_redis(node):
    """Every type, a pipeline, a transaction that is watched, blocking, pub/sub, scans, a lock without scripts."""
    r = redis.Redis(LOOPBACK, node.port, decode_responses=True, client_name="tests", socket_timeout=DEADLINE)
    assert r.ping() and r.client_getname() == "tests" and r.info()["redis_version"].startswith("7.")
    long = "x" * 3000
    assert r.set("s", long) and r.get("s") == long and r.append("s", "y") == 3001
    assert r.hset("h", mapping={str(i): long for i in range(50)}) == 50 and len(r.hgetall("h")) == 50
    assert r.rpush("l", *range(500)) == 500 and r.lrange("l", 0, -1) == [str(i) for i in range(500)]
    assert r.sadd("set", *range(1000)) == 1000 and len(r.smembers("set")) == 1000
    assert r.zadd("z", {f"m{i}": i for i in range(300)}) == 300 and r.zrevrange("z", 0, 1) == ["m299", "m298"]
    assert r.pfadd("hll", *range(1000)) == 1 and abs(r.pfcount("hll") - 1000) < 50
    assert r.geoadd("g", (13.361389, 38.115556, "Palermo")) == 1 and r.geohash("g", "Palermo") == ["sqc8b49rny0"]
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"k{i}", f"{i}" * 30).get(f"k{i}")
        assert p.execute()[1999] == "999" * 30
    with r.pipeline() as p:
        p.watch("k1")
        value = p.get("k1")
        p.multi()
        p.set("k2", value).incr("n").sort("set", by="k*", get="k*", start=0, num=2)
        done = p.execute()
    assert done[:2] == [True, 1] and len(done[2]) == 2
    assert set(r.scan_iter("k*", count=100)) == {f"k{i}" for i in range(1000)}
    assert len(dict(r.hscan_iter("h"))) == 50 and len(list(r.sscan_iter("set"))) == 1000
    assert r.blpop(["none", "l"], 1) == ("l", "0")
    with r.pubsub() as channel:
        channel.subscribe("c")
        wait_for(lambda: r.publish("c", "hello") == 1, "a subscriber")
        wait_for(lambda: (channel.get_message(timeout=1) or {}).get("data") == "hello", "the message")
    assert r.expire("s", 100) and 0 < r.ttl("s") <= 100 and r.rename("s", "t") and r.copy("t", "u")
    assert r.strlen("u") == 3001 and r.object("encoding", "u") == "raw" and r.memory_usage("u") > 3000
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        r.lpush("h", "x")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        r.eval("return 1", 0)
    assert r.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"} and r.flushall()


def test_pymemcache(node):
    c = pymemcache.Client((LOOPBACK, node.port), timeout=DEADLINE, default_noreply=False)
    many = {f"k{i}": b"v%d" % i * 200 for i in range(200)}
    assert c.set_many(many) == [] and c.get_many([*many, "none"]) == many
    assert c.add("k1", b"x") is False and c.replace("k1", b"y") and c.append("k1", b"z") and c.get("k1") == b"yz"
    value, cas = c.gets("k1")
    assert c.cas("k1", b"new", cas) is True and c.cas("k1", b"newer", cas) is False
    assert c.set("n", b"10") and c.incr("n", 5) == 15 and c.decr("n", 20) == 0
    assert c.touch("k2", 100) and c.delete("k2") and c.get("k2") is None
    assert c.set("big", b"x" * 900000) and len(c.get("big")) == 900000
    assert int(c.stats()[b"curr_items"]) > 100 and c.version().startswith(b"1.6") and c.flush_all()


@pytest.mark.parametrize("binary", [True, False])
def test_pylibmc(node, binary):
    c = pylibmc.Client([f"{LOOPBACK}:{node.port}"], binary=binary)
    many = {f"k{i}": f"v{i}" * 200 for i in range(200)}
    assert c.set_multi(many) == [] and c.get_multi([*many, "none"]) == many
    assert c.set("object", {"a": [1, 2]}) and c.get("object") == {"a": [1, 2]}
    assert c.set("n", 1) and c.incr("n", 41) == 42 and c.delete("n") and c.get("n") is None


# redis-cli and redis-benchmark

def cli(node, *args, stdin=None, status=0):
    done = run(["redis-cli", "-p", node.port, *args], input=stdin)
    assert done.returncode == status, done
    return done.stdout.decode() + done.stderr.decode()


def test_redis_cli_pipe(node):
    """RESP, lines in capital letters, and lines that a memcached might take for its own."""
    data = b"".join(resp("SET", f"pipe:{i}", f"{i}" * 30) for i in range(20000))
    assert "errors: 0, replies: 20000" in cli(node, "--pipe", stdin=data)
    for verb in (b"SET", b"set"):
        lines = b"".join(b"%s line%d %d\n" % (verb, i, i) for i in range(1000))
        assert "errors: 0, replies: 1000" in cli(node, "--pipe", stdin=lines)
    assert cli(node, "mget", "pipe:19999", "line999") == "19999" * 30 + "\n999\n"


def test_redis_cli_tools(node):
    with differential.Client(node.port) as c:
        c.send([[b"SET", b"key%d" % i, b"x" * 100] for i in range(1000)] +
               [[b"RPUSH", b"list", *[b"e"] * 500], [b"SET", b"big", b"x" * 20000]])
        for _ in range(1002):
            c.read()
    assert len(cli(node, "--scan", "--pattern", "key*").split()) == 1000
    said = cli(node, "--bigkeys")
    assert "'\"big\"' has 20000 bytes" in said and "'\"list\"' has 500 items" in said
    assert "Biggest string found '\"big\"'" in cli(node, "--memkeys")
    assert "LFU" in cli(node, "--hotkeys", status=1)
    for option in ("--rdb", "--functions-rdb"):
        assert "unknown command 'REPLCONF'" in cli(node, option, os.path.join(node.directory, "dump"), status=1)
    assert cli(node, "-3", "--json", "object", "encoding", "list") == '"quicklist"\n'
    assert "unknown command 'EVAL'" in cli(node, "--eval", "/dev/null")


def test_redis_benchmark(node):
    """Its whole default suite, then pipelined and over RESP3."""
    for args in ((), ("-P", "16", "-r", "1000"), ("-3", "-t", "set,get,lrange")):
        done = run(["redis-benchmark", "-p", node.port, "-n", 400, "-c", 20, "--csv", *args])
        assert done.returncode == 0 and b"rror" not in done.stderr + done.stdout, done
        assert b"GET" in done.stdout


SECRETS = """AUTH x|auth user x|HELLO 3 AUTH user x|hello 2 setname auth AUTH user x
    HELLO 3 SETNAME auth|CONFIG SET requirepass ""|config set masterauth x maxclients 10000 MASTERUSER y
    CONFIG SET maxclients 9999|CONFIG GET requirepass|PING|ECHO auth"""


def test_passwords_are_not_shown(node, redis_server):
    """By MONITOR and SLOWLOG: the words that a redis-server hides."""
    said = []
    for port in (node.port, redis_server().port):
        with differential.Client(port) as monitor, differential.Client(port) as c:
            c.ask("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "100000")  # each SPILL is in it, too
            c.ask("SLOWLOG", "RESET")
            assert monitor.ask("MONITOR") == (b"+", b"OK")
            for line in SECRETS.replace("\n", "|").split("|"):
                c.ask(*line.replace('""', "none").split())
                c.ask("CONFIG", "SET", "requirepass", "")
            slow = [[word[1] for word in entry[1][3][1]] for entry in c.ask("SLOWLOG", "GET", "-1")[1]]
            slow = [words for words in slow if words != [b"DEBUG", b"SPILL"]]
            c.ask("PING", "end")
            lines = []
            while not lines or b'"PING" "end"' not in lines[-1]:
                lines.append(monitor.read()[1])
            said.append((slow, [line.split(b"] ", 1)[1] for line in lines]))
            c.ask("CONFIG", "SET", "slowlog-log-slower-than", "10000")
    assert said[0] == said[1]
    assert [b"AUTH", b"(redacted)"] in said[0][0] and b'"AUTH" "(redacted)"' in said[0][1]


def test_monitor_shows_each_command_once(node, redis_server):
    """A command that waits for the disk, one that blocks, an EXEC: as a redis-server shows them."""
    said = []
    for port in (node.port, redis_server().port):
        with differential.Client(port) as monitor, differential.Client(port) as a, differential.Client(port) as b:
            a.ask("SET", "k", "x" * 1000)
            a.ask("SELECT", "3")
            assert monitor.ask("MONITOR") == (b"+", b"OK")
            b.send([[b"BLPOP", b"list", b"0"]])
            lines = [monitor.read()[1]]  # it came first
            for words in ("SELECT 0", "GET k", "STRLEN k", "APPEND k y", "MULTI", "SET a 1", "GET k", "SELECT 1", "EXEC",
                          "SELECT 0", "NOSUCH", "GET", "LPUSH k x", "RPUSH list x", "CONFIG GET port", "PING end"):
                a.ask(*words.split())
            b.read()
            while b'"PING" "end"' not in lines[-1]:
                lines.append(monitor.read()[1])
            said.append([b"%s %s" % (line.split(b" ")[1], line.split(b"] ", 1)[1]) for line in lines])
    assert said[0] == said[1]
