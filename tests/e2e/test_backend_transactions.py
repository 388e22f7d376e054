# SPDX-License-Identifier: Apache-2.0
"""MULTI, WATCH and what may happen meanwhile, on weir-backend beside a redis-server: the same steps of several
clients, reply for reply."""

import contextlib
import signal
import time

import pytest

import differential
from weirtest import wait_for

OK = (b"+", b"OK")


class Clients:
    """Steps of several clients to both servers: do("a", "GET", "k") compares the replies."""

    def __init__(self, ours, theirs):
        self.ports = ours.port, theirs.port
        self.clients = {}

    def of(self, name):
        if name not in self.clients:
            self.clients[name] = [differential.Client(port) for port in self.ports]
        return self.clients[name]

    def do(self, name, *words):
        ours, theirs = (client.ask(*words) for client in self.of(name))
        assert ours == theirs, f"{name}: {words}"
        return theirs

    def lines(self, text):
        """a: SET k v; one step a line."""
        for line in text.strip().splitlines():
            name, words = line.strip().split(": ", 1)
            self.do(name, *words.split())

    def drop(self, name):
        for client in self.clients.pop(name):
            client.close()

    def wait(self, name, *words):
        """It waits for a key; read() has the reply."""
        for client, asker in zip(self.of(name), self.of("asker")):
            client.send([[word.encode() for word in words]])
            wait_for(lambda: b"blocked_clients:1\r\n" in asker.ask("INFO", "clients")[1], f"{name} waits")

    def read(self, name):
        ours, theirs = (client.read() for client in self.of(name))
        assert ours == theirs, name
        return theirs

    def spill(self):
        """Values of ours go cold."""
        assert self.of("spiller")[0].ask("DEBUG", "SPILL") == OK


@pytest.fixture
def clients(weir_backend, redis_server):
    both = Clients(weir_backend(), redis_server())
    yield both
    for name in list(both.clients):
        both.drop(name)


def test_cold_keys_in_exec(clients):
    """Every type, read and changed by one EXEC; values that only a command in the middle makes needed."""
    clients.do("a", "SET", "string", "x" * 5000)
    for i in range(200):
        clients.do("a", "RPUSH", "list", f"element {i} " + "x" * 50)
        clients.do("a", "HSET", "hash", f"field {i}", "x" * 70)
        clients.do("a", "SADD", "set", i)
        clients.do("a", "ZADD", "zset", i, f"member {i}")
        clients.do("a", "SET", f"weight_{i}", 1000 - i)
    clients.spill()
    clients.do("a", "MULTI")
    for words in (("STRLEN", "string"), ("APPEND", "string", "y"), ("LRANGE", "list", "0", "2"), ("LPOP", "list"),
                  ("HGET", "hash", "field 7"), ("HDEL", "hash", "field 7"), ("SISMEMBER", "set", "4"),
                  ("ZRANGE", "zset", "0", "3"), ("RENAME", "string", "other"), ("STRLEN", "other"),
                  ("SORT", "set", "BY", "weight_*", "LIMIT", "0", "3"), ("COPY", "list", "copy"), ("LLEN", "copy"),
                  ("LPUSH", "hash", "wrong"), ("SELECT", "1"), ("SET", "k", "v"), ("SELECT", "0"), ("DBSIZE",)):
        clients.do("a", *words)
    reply = clients.do("a", "EXEC")
    assert len(reply[1]) == 18
    ours, theirs = (differential.snapshot(port) for port in clients.ports)
    differential.compare_snapshots(ours, theirs)


@pytest.mark.parametrize("is_cold", (False, True))
@pytest.mark.parametrize("change", [
    "SET k v", "SET k w", "APPEND k x", "DEL k", "UNLINK k", "EXPIRE k 100", "PERSIST k", "FLUSHDB", "FLUSHALL",
    "GET k", "EXISTS k", "TOUCH k", "RENAME k m", "RENAME other k", "MOVE k 1", "COPY other k REPLACE",
    "SWAPDB 0 1", "SWAPDB 1 2", "SETRANGE k 0 v", "GETEX k PERSIST", "GETEX k EX 100", "SETNX k x", "LPUSH k x",
    "EXPIRE none 100", "SET none x", "DEL none", "SORT list STORE k", "SORT none STORE none", "EXPIRE k -1"])
def test_watch_sees_what_redis_sees(clients, change, is_cold):
    clients.lines("""
        a: SET k v
        a: SET other o
        a: WATCH k none
    """)
    if is_cold:
        clients.spill()
    clients.do("b", *change.split())
    clients.lines("""
        a: MULTI
        a: PING
        a: EXEC
    """)


@pytest.mark.parametrize("size", (1, 2000, 20000))
def test_watch_sees_changes_of_parts(clients, size):
    """However the value is kept; those that change nothing too."""
    for change in ("APPEND k x", "APPEND k {empty}", "SETRANGE k 0 v", "SETRANGE k 0 w", "SETRANGE k 0 {empty}", "SETBIT k 1 1",
                   "SETBIT k 1 0", "BITFIELD k SET u8 0 118", "BITFIELD k SET u8 0 119", "BITFIELD k INCRBY u8 0 0",
                   "BITFIELD k GET u8 0", "PFMERGE h", "PFADD h a", "PFADD h b", "PFCOUNT h"):
        clients.do("a", "FLUSHALL")
        clients.do("a", "SET", "k", "v" * size)
        clients.do("a", "PFADD", "h", "a")
        if size > 1:
            clients.do("a", "PFDEBUG", "TODENSE", "h")
        clients.do("a", "PFMERGE", "h")
        clients.do("a", "WATCH", "k", "h")
        clients.do("b", *(word.replace("{empty}", "") for word in change.split()))
        clients.do("a", "MULTI")
        clients.do("a", "ECHO", change)
        clients.do("a", "EXEC")


COLLECTIONS = ("RPUSH list a b", "HSET hash a 1", "SADD set a", "ZADD zset 1 a", "GEOADD geo 1 1 a")


@pytest.mark.parametrize("is_cold", (False, True))
def test_watch_sees_changes_of_collections(clients, is_cold):
    """Those that change nothing too: Redis tells some of them, and not others."""
    for change in """
            LTRIM list 0 -1|LTRIM list 0 5|LTRIM list 0 0|LTRIM list 5 9|LTRIM none 0 -1|LSET list 0 a|LREM list 0 none|LREM list 0 a
            LMOVE list list LEFT LEFT|LMOVE list list LEFT RIGHT|LINSERT list BEFORE none x|LINSERT list BEFORE a x|LPUSHX none x
            LPUSHX list x|LPOP list 0|LPOP list|LMPOP 1 none LEFT|RPOPLPUSH list list|LINDEX list 0|SORT list ALPHA STORE list
            HSET hash a 1|HSETNX hash a 2|HSETNX hash b 2|HDEL hash none|HDEL hash a|HINCRBY hash a 0|HINCRBYFLOAT hash a 0
            HMSET hash a 1|HRANDFIELD hash|SADD set a|SADD set b|SREM set none|SREM set a|SPOP set 0|SPOP set|SMOVE set set a
            SMOVE set none a|SMOVE set none b|SDIFFSTORE set none|SINTERSTORE set set|SUNIONSTORE set set none|SRANDMEMBER set 0
            ZADD zset 1 a|ZADD zset NX 2 a|ZADD zset XX 2 b|ZADD zset GT 0 a|ZADD zset CH 2 a|ZINCRBY zset 0 a|ZREM zset none
            ZREM zset a|ZREMRANGEBYRANK zset 5 6|ZREMRANGEBYSCORE zset 5 6|ZREMRANGEBYLEX zset [x [y|ZPOPMIN zset 0|ZPOPMIN zset
            ZRANGESTORE zset none 0 -1|ZRANGESTORE zset zset 0 -1|ZUNIONSTORE zset 1 zset|ZINTERSTORE zset 1 none|ZMPOP 1 none MIN
            GEOADD geo 1 1 a|GEOADD geo NX 2 2 a|GEOADD geo 2 2 a|GEOSEARCHSTORE geo none FROMLONLAT 0 0 BYRADIUS 1 m
            RENAME list list|RENAMENX list hash|COPY list hash|COPY list none|EXPIRE list 100 XX|EXPIRE list 100|PERSIST list
            TOUCH list|MOVE list 1|OBJECT ENCODING list|DBSIZE|SWAPDB 1 2""".strip().replace("\n", "|").split("|"):
        clients.do("a", "FLUSHALL")
        for made in COLLECTIONS:
            clients.do("a", *made.split())
        clients.do("a", "WATCH", "list", "hash", "set", "zset", "geo", "none")
        if is_cold:
            clients.spill()
        clients.do("b", *change.split())
        clients.do("a", "MULTI")
        clients.do("a", "ECHO", change)
        clients.do("a", "EXEC")


@pytest.mark.parametrize("when", ("before WATCH", "before MULTI", "before EXEC", "unwatched"))
def test_watched_keys_expire(clients, when):
    for px in (60, 600, 6000):  # long enough for both to be asked in time
        clients.do("a", "SET", "k", "v", "PX", px)
        if when == "before WATCH":
            time.sleep(0.1)
        clients.do("a", "WATCH", "k")
        if when == "before WATCH" or all(client.ask("EXISTS", "k") == (b":", b"1") for client in clients.of("a")):
            break
        clients.do("a", "UNWATCH")
    over = px / 1000 + 0.04
    if when == "unwatched":
        clients.do("a", "UNWATCH")
    if when == "before MULTI":
        time.sleep(over)
    clients.do("a", "MULTI")
    clients.do("a", "SET", "k", "w")
    if when in ("before EXEC", "unwatched"):
        time.sleep(over)
    clients.do("a", "EXEC")
    clients.do("a", "GET", "k")


def test_flush_of_watched_keys(clients):
    """A key that was not there is not touched by a flush; one that was, is; a flush and a new key are a change."""
    clients.lines("""
        a: WATCH none
        b: FLUSHALL
        a: MULTI
        a: PING
        a: EXEC
        a: SELECT 3
        a: SET k v
        a: WATCH k
        b: FLUSHDB
        a: MULTI
        a: PING
        a: EXEC
        a: WATCH k
        b: FLUSHALL ASYNC
        a: MULTI
        a: PING
        a: EXEC
        a: WATCH none
        b: SELECT 3
        b: SET none x
        b: FLUSHDB
        a: MULTI
        a: PING
        a: EXEC
    """)


def test_blocking_commands_in_multi(clients):
    """They do not wait: what is not there is answered as after the time."""
    clients.lines("""
        a: RPUSH l x y z
        a: ZADD z 1 a 2 b
        a: MULTI
        a: BLPOP none 0
        a: BRPOP l 0
        a: BLMOVE l m LEFT RIGHT 0
        a: BLMOVE none m LEFT RIGHT 0
        a: BRPOPLPUSH none m 0
        a: BLMPOP 0 1 none LEFT
        a: BLMPOP 0 2 none l LEFT COUNT 10
        a: BZPOPMIN z 0
        a: BZPOPMAX none 0
        a: BZMPOP 0 1 z MAX
        a: WAIT 0 100
        a: EXEC
        a: LRANGE m 0 -1
    """)


def test_exec_feeds_those_who_wait(clients):
    """Who waits is served after EXEC, with what is left then."""
    clients.wait("waits", "BLPOP", "l", "0")
    clients.lines("""
        a: MULTI
        a: RPUSH l one
        a: DEL l
        a: EXEC
        a: MULTI
        a: LPUSH l two
        a: LPUSH l three
        a: EXEC
    """)
    clients.read("waits")
    clients.do("a", "LRANGE", "l", "0", "-1")


def test_errors_while_queueing(clients):
    clients.lines("""
        a: MULTI
        a: NOSUCH
        a: SET k
        a: SET k v
        a: EXEC
        a: GET k
        a: MULTI
        a: WATCH k
        a: MULTI
        a: SET k v
        a: EXEC
        a: EXEC
        a: DISCARD
        a: MULTI
        a: SET k w
        a: DISCARD
        a: GET k
        a: MULTI
        a: LPUSH k x
        a: SET k z
        a: EXEC
        a: GET k
        a: MULTI
        a: SUBSCRIBE c
        a: UNSUBSCRIBE c
        a: EXEC
        a: WATCH k
        b: SET k other
        a: MULTI
        a: SET k mine
        a: NOSUCH
        a: EXEC
        a: GET k
        a: UNWATCH
        a: MULTI
        a: UNWATCH
        a: EXEC
    """)


def test_a_client_killed_in_multi(clients):
    """Nothing of its queue happens, its watches go, and who waits behind its EXEC does not hang."""
    clients.lines("""
        a: SET k v
        b: WATCH k
        b: MULTI
        b: SET k b
    """)
    clients.do("a", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for side in clients.of("b"):
        with pytest.raises((ConnectionError, OSError)):
            side.ask("EXEC")
    clients.drop("b")
    clients.do("a", "GET", "k")
    clients.do("c", "WATCH", "k")
    clients.do("c", "MULTI")
    clients.do("c", "SET", "k", "c")
    clients.drop("c")
    clients.do("a", "GET", "k")
    clients.do("a", "SET", "k", "w")


def test_a_client_gone_while_exec_waits_for_the_disk(weir_backend):
    """Its EXEC was sent: all of it happens or nothing, and others go on."""
    server = weir_backend()
    with differential.Client(server.port) as a:
        for i in range(300):
            a.ask("SET", f"k{i}", "x" * 3000)
        for _ in range(20):
            a.ask("DEBUG", "SPILL")
            with differential.Client(server.port) as b:
                b.send([[b"MULTI"]] + [[b"APPEND", b"k%d" % i, b"y"] for i in range(300)] + [[b"EXEC"]])
            assert a.ask("PING") == (b"+", b"PONG")
        a.send([[b"MULTI"]] + [[b"STRLEN", b"k%d" % i] for i in range(300)] + [[b"EXEC"]])  # the last one may still wait
        lengths = {length for _, length in [a.read() for _ in range(302)][-1][1]}
        assert len(lengths) == 1, lengths


@pytest.mark.parametrize("end", ("reset", "killed by its own command", "SIGTERM", "SIGKILL"))
def test_left_between_two_commands_of_exec(weir_backend, end):
    """SORT ... BY finds out in the middle that it needs hundreds of values from the disk. The client, or the whole
    node, goes meanwhile: both counters or none have been added to, also after a restart."""
    server = weir_backend()
    with differential.Client(server.port) as a:
        a.send([[b"SADD", b"set", *(b"%d" % i for i in range(1000))]] +
               [[b"SET", b"weight%d" % i, b"%04d" % i + b"x" * 2000] for i in range(1000)])
        for _ in range(1001):
            a.read()
    for turn in range(4):
        with differential.Client(server.port) as a:
            a.ask("DEBUG", "SPILL")
        b = differential.Client(server.port)
        suicide = [[b"CLIENT", b"KILL", b"ID", b.ask("CLIENT", "ID")[1], b"SKIPME", b"no"]] if "own" in end else []
        # Closed with answers unread, so that the end of the connection is a reset.
        b.send([[b"GET", b"weight1"], [b"MULTI"], [b"INCR", b"before"], *suicide,
                [b"SORT", b"set", b"BY", b"weight*", b"LIMIT", b"0", b"1"], [b"INCR", b"after"], [b"EXEC"]])
        time.sleep(0.002 * turn)
        if end.startswith("SIG"):
            server.restart(getattr(signal, end))
        with contextlib.suppress(ConnectionError):
            while suicide and b.sock.recv(1 << 16):  # when it is closed all of EXEC has happened
                pass
        b.close()
        with differential.Client(server.port) as a:
            counts = a.ask("MGET", "before", "after")[1]
            assert counts[0] == counts[1], counts
    if end == "killed by its own command":
        assert counts[0] == (b"$", b"4"), counts
    server.restart(signal.SIGKILL)
    with differential.Client(server.port) as a:
        assert a.ask("MGET", "before", "after")[1] == counts


def test_no_memory_for_a_transaction(clients):
    """maxmemory below what is used: who grows is refused at MULTI's queue, which EXEC then says."""
    clients.do("a", "SET", "k", "x" * 100)
    clients.do("a", "CONFIG", "SET", "maxmemory", "1")
    clients.lines("""
        a: SET k v
        a: GET k
        a: MULTI
        a: GET k
        a: EXEC
        a: MULTI
        a: SET k v
        a: EXEC
        a: DEL k
    """)
    clients.do("a", "CONFIG", "SET", "maxmemory", "0")
    clients.lines("""
        a: SET k v
        a: MULTI
        a: SET k w
    """)
    clients.do("b", "CONFIG", "SET", "maxmemory", "1")
    clients.lines("""
        a: EXEC
        a: GET k
    """)
    clients.do("b", "CONFIG", "SET", "maxmemory", "0")


def test_replicas_that_are_wanted_and_not_there(clients):
    """Writes are refused, in MULTI and by EXEC too; min-replicas-max-lag 0 switches it off."""
    clients.lines("""
        a: SET k v
        c: MULTI
        c: SET k w
        a: CONFIG SET min-slaves-to-write 1
        a: SET k x
        a: DEL k
        a: DEL
        a: GET k
        a: PFCOUNT k
        a: PUBLISH ch m
        a: MULTI
        a: GET k
        a: SET k x
        a: EXEC
        c: EXEC
        a: GET k
        a: CONFIG SET min-replicas-max-lag 0
        a: SET k x
        a: CONFIG SET min-replicas-max-lag 10 min-replicas-to-write 0
        a: SET k y
        a: GET k
    """)


def test_swapdb(clients):
    """Of watched keys and of clients that wait."""
    clients.wait("waits", "BLPOP", "l", "0")
    clients.lines("""
        a: SET k zero
        a: SELECT 1
        a: RPUSH l one two
        a: SET k one
        b: WATCH none
        c: WATCH k
        a: MULTI
        a: SWAPDB 0 1
        a: DBSIZE
        a: SELECT 0
        a: GET k
        a: EXEC
        b: MULTI
        b: PING
        b: EXEC
        c: MULTI
        c: PING
        c: EXEC
        a: LRANGE l 0 -1
    """)
    clients.read("waits")


def test_collections_take_other_names_after_swapdb(clients):
    """And other databases; nothing of them is left behind, and nothing is counted twice."""
    clients.lines("""
        a: SET k one
        a: SWAPDB 0 1
        a: RPUSH list a b
        a: RENAME list other
        a: EXISTS list other
        a: RENAMENX other list
        a: EXISTS list other
        a: HSET hash f v
        a: MOVE hash 2
        a: EXISTS hash
        a: ZADD zset 1 m
        a: RENAME zset list
        a: KEYS *
        a: TYPE list
        a: SELECT 2
        a: HGETALL hash
        a: SWAPDB 2 3
        a: DBSIZE
        a: SELECT 3
        a: RENAME hash new
        a: DBSIZE
        a: HGETALL new
    """)
    assert clients.of("a")[0].ask("DEBUG", "AUDIT") == OK


def test_shutdown_stops_the_node(weir_backend):
    """The connection closes without a word, the process ends with 0, and the data is there again."""
    server = weir_backend()
    with differential.Client(server.port) as a:
        a.ask("SET", "k", "v")
        assert a.ask("SHUTDOWN", "ABORT")[0] == b"-"
        with pytest.raises((ConnectionError, OSError)):
            a.ask("SHUTDOWN", "NOSAVE", "NOW")
    assert server.popen.wait(20) == 0
    server.__init__(server.directory, port=server.port)
    with differential.Client(server.port) as a:
        assert a.ask("GET", "k") == (b"$", b"v")
