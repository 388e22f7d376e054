# SPDX-License-Identifier: Apache-2.0
"""What re-implementers of a cache proxy get wrong, number by number: each is tested, here or elsewhere.

Elsewhere:
   1-8    placement (sorting, labels, float rounding, ties, signed bytes, tags, one server, empty key):
          test_placement.py, the unit tests of common/ring
   14     CROSSSLOT: test_vectors.py r8
   22     HELLO, RESP2 and RESP3 side by side: test_opening_bytes.py
   38     restarting a parse: test_vectors.py cuts every input at every byte and sends it byte by byte;
          the unit tests of common/proto count what is scanned
   39     malformed frames, lengths, line ends, base64 keys, quiet forms: test_vectors.py
   43     accept queues over a reload: test_reload.py, test_master_reload.py
   45     counters over reloads: the stats process's tests
   48     HUP reloads, TERM stops: test_reload.py, test_master.py
   49     what belongs to a client lives in its worker: test_clients_python.py (pub/sub, WATCH, 2 workers)
Not applicable:
   5      other clients' label formats: the ring is twemproxy's; a label is what the file says
   42     remaining lifetimes when items move: nothing is moved or replicated here; expiries pass
          unchanged (test_vectors.py m8, m9)
   50     mirroring: there is none yet
   52     delays of small writes: no test here asserts a time. TCP_NODELAY is set on both sides and a turn
          of the loop writes once; tests/bench measures it
"""

import os
import re
import signal
import socket
import threading

import pytest

from weirtest import (DEADLINE, LOOPBACK, Closed, Conn, free_port, memcache_pool, pool, redis_pool, resp,
                      wait_for)

# Freed memory that AddressSanitizer keeps back would be taken for the proxy's own.
SMALL_QUARANTINE = {"ASAN_OPTIONS": "detect_leaks=1:quarantine_size_mb=1:" + os.environ.get("ASAN_OPTIONS", "")}
REFUSED = b"-ERR Connection refused\r\n"
TIMED_OUT = b"-ERR Connection timed out\r\n"


def ranged(first, second):
    """Server lines: keys below "m" on the first, the others on the second."""
    return [f"{first.address}:1 one range=..m", f"{second.address}:1 two range=m.."]


def range_pool(servers, name="alpha", redis=True, **keys):
    return pool(name, servers=ranged(*servers), redis=redis, distribution="range", **keys)


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+([0-9]+)", f.read())[1])


# Several keys

def test_merge_keeps_order_and_duplicates(redis_server, memcached, weir_proxy):
    """9, 12: MGET and get of many keys on two servers; one END, tokens of gets as the servers gave them."""
    r, m = redis_server(2), memcached(2)
    proxy = weir_proxy(range_pool(r, name="r") +
                       range_pool(m, name="m", redis=False))
    with proxy.connect("r") as c:
        c.ask(resp("MSET", "a", "1", "z", "2"), b"+OK\r\n")
        c.ask(resp("MGET", "z", "a", "a", "no", "z"),
              b"*5\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n")
    with proxy.connect("m") as c, m[0].connect() as direct:
        c.ask(b"set a 7 0 1\r\n1\r\nset z 0 0 1\r\n2\r\n", b"STORED\r\nSTORED\r\n")
        c.ask(b"get z a a no z\r\n", b"VALUE z 0 1\r\n2\r\nVALUE a 7 1\r\n1\r\nVALUE a 7 1\r\n1\r\n"
                                     b"VALUE z 0 1\r\n2\r\nEND\r\n")
        direct.send(b"gets a\r\n")
        line = direct.recv_line()
        direct.expect(b"1\r\nEND\r\n")
        c.ask(b"gets no a\r\n", line + b"1\r\nEND\r\n")


def test_sums_and_atomicity(redis_server, weir_proxy):
    """10: counts are added up; what must be atomic over servers is refused, on one server it works."""
    proxy = weir_proxy(range_pool(redis_server(2)))
    with proxy.connect() as c:
        c.ask(resp("MSET", "a", "1", "b", "1", "y", "1", "z", "1"), b"+OK\r\n")
        c.ask(resp("EXISTS", "a", "z", "a", "no"), b":3\r\n")
        c.ask(resp("TOUCH", "a", "z"), b":2\r\n").ask(resp("UNLINK", "a", "z"), b":2\r\n")
        c.ask(resp("DEL", "b", "y", "y"), b":2\r\n")
        c.ask(resp("MSETNX", "a", "1", "z", "1"), b"-CROSSSLOT Keys in request don't hash to the same slot\r\n")
        c.ask(resp("MSETNX", "a", "1", "b", "1"), b":1\r\n").ask(resp("MSETNX", "a", "1", "c", "1"), b":0\r\n")


def test_one_server_fails_inside_a_merge(redis_server, memcached, weir_proxy):
    """11, 51: one error for the whole, once, before any byte of it was sent; the connection lives, and
    keys of the healthy server are served."""
    r, m = redis_server(2), memcached(2)
    proxy = weir_proxy(range_pool(r, name="r") +
                       range_pool(m, name="m", redis=False))
    with proxy.connect("r") as c, proxy.connect("m") as d:
        c.ask(resp("MSET", "a", "1", "z", "2"), b"+OK\r\n")
        d.ask(b"set a 0 0 1\r\n1\r\nset z 0 0 1\r\n2\r\n", b"STORED\r\nSTORED\r\n")
        r[1].kill()
        m[1].kill()
        for _ in range(3):
            c.send(resp("MGET", "a", "z") + resp("MSET", "a", "1", "z", "2") + resp("DEL", "b", "z") +
                   resp("GET", "a"))
            for _ in range(3):
                assert re.fullmatch(rb"-ERR Connection (refused|reset by peer)\r\n", c.recv_line())
            c.expect(b"$1\r\n1\r\n")
            d.send(b"get a z\r\nget z a\r\nget a\r\n")
            for _ in range(2):
                assert re.fullmatch(rb"SERVER_ERROR Connection (refused|reset by peer)\r\n", d.recv_line())
            d.expect(b"VALUE a 0 1\r\n1\r\nEND\r\n")


def test_keys_that_are_not_the_first_argument(redis_server, weir_proxy):
    """13: the command table knows where keys are: numkeys, STORE, STREAMS, EVAL."""
    r = redis_server(2)
    proxy = weir_proxy(range_pool(r))
    with proxy.connect() as c, r[1].connect() as two:
        c.resp("ZADD", "z1", "1", "m")
        c.resp("ZADD", "z2", "2", "m")
        c.resp("RPUSH", "zl", "2", "1")
        c.resp("XADD", "zx", "1-1", "f", "v")
        c.resp("GEOADD", "zg", "13.36", "38.11", "p")
        assert c.resp("ZUNIONSTORE", "z3", "2", "z1", "z2") == b":1\r\n"
        assert c.resp("ZINTER", "2", "z1", "z2") == b"*1\r\n$1\r\nm\r\n"
        assert c.resp("ZUNIONSTORE", "a3", "2", "z1", "z2").startswith(b"-CROSSSLOT")
        assert c.resp("SORT", "zl", "STORE", "zs") == b":2\r\n"
        assert c.resp("SORT", "zl", "STORE", "as").startswith(b"-CROSSSLOT")
        assert c.resp("GEORADIUS", "zg", "13", "38", "100", "km", "STORE", "zh") == b":1\r\n"
        assert c.resp("GEORADIUS", "zg", "13", "38", "100", "km", "STORE", "ah").startswith(b"-CROSSSLOT")
        assert c.resp("XREAD", "COUNT", "1", "STREAMS", "zx", "0").startswith(b"*1\r\n*2\r\n$2\r\nzx\r\n")
        assert c.resp("EVAL", "return redis.call('set', KEYS[1], 1)", "1", "ze") == b"+OK\r\n"
        assert c.resp("LMPOP", "1", "zl", "LEFT") == b"*2\r\n$2\r\nzl\r\n*1\r\n$1\r\n2\r\n"
        assert c.resp("OBJECT", "ENCODING", "ze").startswith(b"$3\r\nint")
        for key in ("z3", "zs", "zh", "ze"):
            assert two.resp("EXISTS", key) == b":1\r\n", key


# Order

def test_replies_in_order_of_requests(fake, weir_proxy):
    """15, 16: a slow server holds back what was asked for later from a fast one, and what the proxy
    answers itself; errors too wait for their turn."""
    slow, fast = fake(), fake()
    proxy = weir_proxy(range_pool([slow, fast]))
    with proxy.connect() as c:
        c.send(resp("GET", "a") + resp("PING") + resp("GET", "z") + resp("NOPE") + resp("GET", "b"))
        at_slow, at_fast = slow.accept(), fast.accept()
        at_fast.expect(resp("GET", "z")).send(b"$1\r\nz\r\n")
        at_slow.expect(resp("GET", "a") + resp("GET", "b"))
        assert c.is_quiet()
        at_slow.send(b"$1\r\na\r\n")
        c.expect(b"$1\r\na\r\n+PONG\r\n$1\r\nz\r\n-ERR unknown command 'NOPE', with args beginning with: \r\n")
        at_slow.send(b"$1\r\nb\r\n")
        c.expect(b"$1\r\nb\r\n")


def test_reply_of_a_client_that_left(fake, weir_proxy):
    """17, 35: clients leave with requests in flight (closed, reset): their replies come and are nobody's,
    the next client on the same connection gets its own."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]))
    with proxy.connect() as c:
        c.send(resp("GET", "first"))
        peer = server.accept()
        peer.expect(resp("GET", "first")).send(b"$1\r\n1\r\n")
        c.expect(b"$1\r\n1\r\n")
        leaving = [proxy.connect() for _ in range(6)]
        for i, one in enumerate(leaving):
            one.send(resp("GET", f"secret{i}"))
            peer.expect(resp("GET", f"secret{i}"))
            one.reset() if i % 2 else one.close()
        c.send(resp("GET", "mine"))
        peer.expect(resp("GET", "mine"))
        peer.send(b"".join(b"$7\r\nsecret%d\r\n" % i for i in range(6)) + b"$4\r\nmine\r\n")
        c.expect(b"$4\r\nmine\r\n")


@pytest.mark.parametrize("timeout", [None, 15000])
def test_many_replies_of_a_client_that_left(fake, weir_proxy, timeout):
    """17, 23: a client leaves with a long pipeline in flight. The server owes what it owes, and is not late: another
    client's write that waits behind it on the same connection is answered, not failed as if it had timed out."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], **({"timeout": timeout} if timeout else {})))
    with proxy.connect() as c:
        c.send(resp("SET", "first", "1"))
        peer = server.accept()
        peer.expect(resp("SET", "first", "1")).send(b"+OK\r\n")
        c.expect(b"+OK\r\n")
        gets = b"".join(resp("GET", f"secret{i}") for i in range(500))
        leaving = proxy.connect()
        leaving.send(gets)
        peer.expect(gets)
        c.send(resp("SET", "mine", "1"))
        peer.expect(resp("SET", "mine", "1"))
        leaving.reset()
        assert c.is_quiet(0.5)
        peer.send(b"$6\r\nsecret\r\n" * 500 + b"+OK\r\n")
        c.expect(b"+OK\r\n")


def test_late_reply_is_dropped(fake, weir_proxy):
    """17, 23, 24: a reply that comes after its time-out is dropped; requests behind it on the same connection
    get theirs; the connection is kept."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], timeout=4000))
    with proxy.connect() as c, proxy.connect() as d:
        c.send(resp("GET", "late"))
        peer = server.accept()
        peer.expect(resp("GET", "late"))
        c.expect(TIMED_OUT)
        d.send(resp("GET", "other"))
        peer.expect(resp("GET", "other"))
        peer.send(b"$4\r\nlate\r\n$5\r\nother\r\n")
        d.expect(b"$5\r\nother\r\n")
        c.send(resp("GET", "again"))
        peer.expect(resp("GET", "again")).send(b"$5\r\nagain\r\n")
        c.expect(b"$5\r\nagain\r\n")


def test_reply_without_end(fake, weir_proxy):
    """17, 37: half a reply, then nothing: the client's connection ends, the server's serves nobody else."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], timeout=4000))
    with proxy.connect() as c:
        c.send(resp("GET", "a"))
        peer = server.accept()
        peer.expect(resp("GET", "a")).send(b"*2\r\n$1\r\nx\r\n")
        assert c.recv_eof() == b"*2\r\n$1\r\nx\r\n"
        assert peer.recv_eof() == b""
    with proxy.connect() as d:
        d.send(resp("GET", "b"))
        server.accept().expect(resp("GET", "b")).send(b"$1\r\nb\r\n")
        d.expect(b"$1\r\nb\r\n")


def test_noreply_errors(fake, weir_proxy):
    """18: an error to a noreply set is swallowed, and the queue does not shift."""
    server = fake()
    proxy = weir_proxy(memcache_pool([server.address]))
    with proxy.connect() as c:
        c.send(b"set a 0 0 1 noreply\r\nx\r\nget a\r\n")
        peer = server.accept()
        peer.expect(b"set a 0 0 1\r\nx\r\nget a\r\n")
        peer.send(b"SERVER_ERROR out of memory storing object\r\nVALUE a 0 1\r\ny\r\nEND\r\n")
        c.expect(b"VALUE a 0 1\r\ny\r\nEND\r\n")


def test_set_up_comes_first(fake, weir_proxy):
    """19: AUTH and SELECT go ahead of requests that wait, on each new connection, and are answered first."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], redis_auth="secret", redis_db=3))
    with proxy.connect() as c:
        c.ask(resp("AUTH", "secret"), b"+OK\r\n")
        for _ in range(2):
            c.send(resp("GET", "a"))
            peer = server.accept()
            peer.expect(resp("AUTH", "secret") + resp("SELECT", "3"))
            assert peer.is_quiet()  # not a byte of a request before the password was right
            peer.send(b"+OK\r\n+OK\r\n")
            peer.expect(resp("GET", "a")).send(b"$1\r\nx\r\n")
            c.expect(b"$1\r\nx\r\n")
            peer.close()
            wait_for(lambda: c.resp("PING") == b"+PONG\r\n")


def test_wrong_password_for_the_server(redis_server, weir_proxy):
    """19: the user is told that it is the proxy's password, not his; after a reconnect too."""
    server = redis_server(None, "--requirepass", "other")
    proxy = weir_proxy(redis_pool([server], redis_auth="secret"))
    with proxy.connect() as c:
        c.ask(resp("AUTH", "secret"), b"+OK\r\n")
        for _ in range(2):
            c.ask(resp("GET", "a"), b"-ERR backend refused the proxy's password\r\n")
        server.client(password="other").config_set("requirepass", "secret")
        wait_for(lambda: c.resp("GET", "a") == b"$-1\r\n", "the new password is right")


def test_transaction_of_a_client_that_left(redis_server, weir_proxy):
    """20: a client leaves inside MULTI: nothing of it is run, and its connection serves nobody else so."""
    server = redis_server()
    proxy = weir_proxy(redis_pool([server]))
    with proxy.connect() as c:
        c.resp("SET", "a", "0")
        for i in range(20):
            with proxy.connect() as leaving:
                leaving.resp("WATCH", "a")
                leaving.resp("MULTI")
                assert leaving.resp("INCR", "a") == b"+QUEUED\r\n"
                if i % 2:
                    leaving.reset()
            c.ask(resp("GET", "a"), b"$1\r\n0\r\n")
            c.send(resp("MULTI") + resp("GET", "a") + resp("EXEC")).expect(b"+OK\r\n+QUEUED\r\n*1\r\n$1\r\n0\r\n")


def test_subscribed_client(redis_server, weir_proxy):
    """21: while subscribed, RESP2 takes only what Redis takes; others' replies are not disturbed."""
    proxy = weir_proxy(redis_pool(redis_server(2)))
    with proxy.connect() as c, proxy.connect() as d:
        assert c.resp("SUBSCRIBE", "x").endswith(b":1\r\n")
        assert re.match(rb"-ERR Can't execute 'get': only .*allowed in this context\r\n", c.resp("GET", "a"))
        assert c.resp("PING") == b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        for i in range(50):
            d.send(resp("PUBLISH", "x", i) + resp("SET", "a", i) + resp("GET", "a"))
            d.expect(b":1\r\n+OK\r\n$%d\r\n%d\r\n" % (len(str(i)), i))
            assert c.recv_resp().endswith(b"$%d\r\n%d\r\n" % (len(str(i)), i))
        assert c.resp("UNSUBSCRIBE").endswith(b":0\r\n")
        c.ask(resp("GET", "a"), b"$2\r\n49\r\n")


# Servers in trouble

def test_time_out_hurts_only_its_request(redis_server, weir_proxy):
    """23, 24: a stopped server: its keys time out, the other server's and the other pool's go on; when it
    wakes, its late replies are nobody's and the connection goes on."""
    servers = redis_server(2)
    proxy = weir_proxy(range_pool(servers, name="p", timeout=4000) +
                       redis_pool([servers[1]], name="q"))
    with proxy.connect("p") as c, proxy.connect("p") as d, proxy.connect("q") as e:
        c.ask(resp("MSET", "a", "1", "z", "2"), b"+OK\r\n")
        os.kill(servers[0].pid, signal.SIGSTOP)
        try:
            c.send(resp("GET", "a") + resp("GET", "z"))
            d.ask(resp("GET", "z"), b"$1\r\n2\r\n")
            e.ask(resp("GET", "z"), b"$1\r\n2\r\n")
            c.expect(TIMED_OUT + b"$1\r\n2\r\n")
            c.ask(resp("MGET", "a", "z"), TIMED_OUT)
        finally:
            os.kill(servers[0].pid, signal.SIGCONT)
        wait_for(lambda: c.resp("GET", "a") == b"$1\r\n1\r\n", "the server is awake")
        for i in range(20):
            d.ask(resp("SET", f"b{i}", i) + resp("GET", f"b{i}"), b"+OK\r\n$%d\r\n%d\r\n" % (len(str(i)), i))


def test_queue_time_out(fake, weir_proxy):
    """23: a server that accepts nothing: requests that wait for the connection end by the time-out."""
    listener = socket.socket()
    listener.bind((LOOPBACK, free_port()))
    listener.listen(0)
    address = "%s:%d" % listener.getsockname()
    full = []
    for _ in range(3):  # the queue of those not yet accepted is full: another SYN is not answered
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(listener.getsockname())
        full.append(s)
    proxy = weir_proxy(redis_pool([address], timeout=1000))
    with proxy.connect() as c:
        c.ask(resp("GET", "a"), TIMED_OUT)
        c.ask(resp("PING"), b"+PONG\r\n")
    for s in (*full, listener):
        s.close()


def test_servers_own_errors(fake, weir_proxy):
    """25: OOM, BUSY, LOADING, MASTERDOWN, READONLY, MOVED: the text goes to the client who asked, nobody
    else's request fails, the connection is kept."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]))
    texts = [b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
             b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
             b"-LOADING Redis is loading the dataset in memory\r\n",
             b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
             b"-READONLY You can't write against a read only replica.\r\n", b"-MOVED 1 127.0.0.1:1\r\n",
             b"-MISCONF Redis is configured to save RDB snapshots\r\n", b"-ERR anything\r\n"]
    with proxy.connect() as c, proxy.connect() as d:
        c.send(resp("SET", "a", "1"))
        peer = server.accept()
        peer.expect(resp("SET", "a", "1")).send(b"+OK\r\n")
        c.expect(b"+OK\r\n")
        for text in texts:
            c.send(resp("SET", "a", "1"))
            peer.expect(resp("SET", "a", "1"))
            d.send(resp("GET", "b"))
            peer.expect(resp("GET", "b")).send(text + b"$1\r\nb\r\n")
            c.expect(text)
            d.expect(b"$1\r\nb\r\n")


def outage(stage, **keys):
    """Two servers by range, the first dies and comes back: (proxy, the first, what revives it)."""
    servers = stage.redis_server(2)
    proxy = stage.weir_proxy(redis_pool(servers, hash="md5", server_retry_timeout=300, server_failure_limit=2, timeout=15000,
                                        **keys))
    return proxy, servers


def keys_of(proxy, servers):
    """A key on each server, as the proxy places them."""
    found = {}
    with proxy.connect() as c:
        for i in range(500):
            key = f"a key with the number {i}"
            c.resp("SET", key, "old")
            for n, server in enumerate(servers):
                if n not in found and server.client().exists(key):
                    found[n] = key
            if len(found) == len(servers):
                return [found[n] for n in range(len(servers))]
    raise AssertionError("all keys on one server")


def test_ejection_rehash(stage):
    """26: eject: rehash (auto_eject_hosts): after the failures the others answer for the dead server's keys;
    it comes back by itself."""
    proxy, servers = outage(stage, auto_eject_hosts=True)
    lost, kept = keys_of(proxy, servers)
    port = servers[0].port
    servers[0].kill()
    with proxy.connect() as c:
        wait_for(lambda: c.resp("GET", lost) == b"$-1\r\n", "the other server answers")
        for i in range(20):
            c.ask(resp("SET", lost, i), b"+OK\r\n")
            c.ask(resp("GET", kept), b"$3\r\nold\r\n")
        assert servers[1].client().get(lost) == b"19"
        again = stage.redis_server(None, port=port)
        again.client().set(lost, "revived")
        wait_for(lambda: c.resp("GET", lost) == b"$7\r\nrevived\r\n", "it is back")


def test_a_pattern_does_not_miss_a_server_that_comes_back(stage):
    """26, 49: who subscribed to a pattern while a server was out is closed when it is back: it subscribes again
    and misses nothing, where it would have heard nothing of that server for ever."""
    proxy, servers = outage(stage, auto_eject_hosts=True)
    lost, _ = keys_of(proxy, servers)
    port = servers[0].port
    servers[0].kill()
    with proxy.connect() as c, proxy.connect() as subscriber:
        wait_for(lambda: c.resp("GET", lost) == b"$-1\r\n", "the other server answers")
        subscriber.ask(resp("PSUBSCRIBE", "n*"), b"*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:1\r\n")
        stage.redis_server(None, port=port)
        wait_for(lambda: c.resp("GET", lost) == b"$-1\r\n", "it is back")
        subscriber.recv_eof()


def test_ejection_keep(stage):
    """26: eject: keep: its keys get errors, never another server; they work when it is back."""
    proxy, servers = outage(stage, eject="keep")
    lost, kept = keys_of(proxy, servers)
    port = servers[0].port
    servers[0].kill()
    with proxy.connect() as c:
        for _ in range(30):
            assert re.fullmatch(rb"-ERR Connection (refused|reset by peer)\r\n", c.resp("GET", lost))
            c.ask(resp("GET", kept), b"$3\r\nold\r\n")
            assert c.resp("RANDOMKEY").startswith(b"$")  # any server will do: one that lives
        assert not servers[1].client().exists(lost)
        again = stage.redis_server(None, port=port)
        again.client().set(lost, "revived")
        wait_for(lambda: c.resp("GET", lost) == b"$7\r\nrevived\r\n", "it is back")


def test_ejection_spare(stage):
    """26: eject: spare: the spare takes the dead server's keys, nobody else's keys move; then they go home."""
    servers = stage.redis_server(3)
    lines = [f"{servers[0].address}:1 one", f"{servers[1].address}:1 two", f"{servers[2].address}:1 three role=spare"]
    proxy = stage.weir_proxy(redis_pool(lines, hash="md5", eject="spare", server_retry_timeout=300, server_failure_limit=2,
                                        timeout=15000))
    lost, kept = keys_of(proxy, servers[:2])
    assert servers[2].client().dbsize() == 0
    port = servers[0].port
    servers[0].kill()
    with proxy.connect() as c:
        wait_for(lambda: c.resp("GET", lost) == b"$-1\r\n", "the spare answers")
        c.ask(resp("SET", lost, "spare"), b"+OK\r\n")
        c.ask(resp("GET", kept), b"$3\r\nold\r\n")
        assert servers[2].client().get(lost) == b"spare" and not servers[1].client().exists(lost)
        again = stage.redis_server(None, port=port)
        again.client().set(lost, "home")
        wait_for(lambda: c.resp("GET", lost) == b"$4\r\nhome\r\n", "it is back")


def test_all_ejected(stage):
    """53: every server is out: an error at once, the client stays; then all works again."""
    server = stage.redis_server()
    port = server.port
    proxy = stage.weir_proxy(redis_pool([server], auto_eject_hosts=True, server_failure_limit=1,
                                        server_retry_timeout=200, timeout=15000))
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        server.kill()
        for _ in range(10):
            assert c.resp("GET", "a").startswith(b"-ERR ")
        assert c.resp("MGET", "a", "b").startswith(b"-ERR ")
        assert c.resp("PING") == b"+PONG\r\n"
        stage.redis_server(None, port=port)
        wait_for(lambda: c.resp("GET", "a") == b"$-1\r\n", "it is back")


def test_random_distribution(redis_server, weir_proxy):
    """53: distribution random spreads requests over all, and a reload keeps it so."""
    servers = redis_server(3)
    proxy = weir_proxy(redis_pool(servers, distribution="random"))
    for _ in range(2):
        with proxy.connect() as c:
            for i in range(100):
                c.ask(resp("SET", f"k{i}", "1"), b"+OK\r\n")
        assert all(s.client().dbsize() > 0 for s in servers)
        for s in servers:
            s.client().flushall()
        proxy.reload()
        proxy.wait_log(r"reload|started .*generation=2")


def test_writes_are_not_repeated(fake, weir_proxy):
    """27: a connection lost before the answer: a read is sent again, a write is not."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]))
    with proxy.connect() as c:
        c.send(resp("GET", "a"))
        server.accept().expect(resp("GET", "a")).close()
        peer = server.accept()
        peer.expect(resp("GET", "a")).send(b"$1\r\nx\r\n")
        c.expect(b"$1\r\nx\r\n")
        for words in (("INCR", "a"), ("LPUSH", "a", "1"), ("APPEND", "a", "1"), ("SET", "a", "1"),
                      ("EVAL", "return 1", "1", "a"), ("SPOP", "a")):
            c.send(resp(*words))
            peer.expect(resp(*words)).close()
            c.expect(b"-ERR Connection reset by peer\r\n")
            c.send(resp("GET", "b"))
            peer = server.accept()
            peer.expect(resp("GET", "b")).send(b"$1\r\ny\r\n")  # and not the write
            c.expect(b"$1\r\ny\r\n")


def test_readmission(fake, weir_proxy):
    """25, 28: half-open: an ejected server is asked by one probe at a time; LOADING keeps it out, PONG lets it
    in."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], auto_eject_hosts=True, timeout=15000,
                                  server_failure_limit=1, server_retry_timeout=100))
    with proxy.connect() as c:
        c.send(resp("SET", "a", "1"))
        server.accept().expect(resp("SET", "a", "1")).close()
        c.expect(b"-ERR Connection reset by peer\r\n")
        peer = server.accept()
        for _ in range(3):
            peer.expect(resp("PING"))
            c.ask(resp("SET", "a", "2"), REFUSED)  # not to one that is not back
            peer.send(b"-LOADING Redis is loading the dataset in memory\r\n")
            c.ask(resp("SET", "a", "2"), REFUSED)
        peer.expect(resp("PING")).send(b"+PONG\r\n")
        wait_for(lambda: "server is back" in proxy.log_text(), "it is back")
        c.send(resp("SET", "a", "3"))
        peer.expect(resp("SET", "a", "3")).send(b"+OK\r\n")
        c.expect(b"+OK\r\n")


def test_idle_connection_closed_by_the_server(redis_server, memcached, weir_proxy):
    """29: a server closes idle connections: nobody notices."""
    r, m = redis_server(None, "--timeout", "0"), memcached(None, "-o", "idle_timeout=1")
    proxy = weir_proxy(redis_pool([r], name="r") + memcache_pool([m], name="m"))
    with proxy.connect("r") as c, proxy.connect("m") as d:
        d.ask(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n")
        for i in range(20):
            c.ask(resp("SET", "a", i), b"+OK\r\n")
            r.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: int(m.stats()["idle_kicks"]) > 0, "memcached has closed it", step=0.2)
        wait_for(lambda: proxy.stats()["m"][m.address]["server_connections"] == 0, "the proxy has seen it")
        d.ask(b"set a 0 0 1\r\ny\r\n", b"STORED\r\n").ask(b"get a\r\n", b"VALUE a 0 1\r\ny\r\nEND\r\n")


def test_value_too_large_for_the_server(memcached, weir_proxy):
    """30: memcached answers a too large set before its end: the client gets the error, the rest of its value
    is read and dropped, it goes on; others on the same server are not disturbed."""
    server = memcached(None, "-I", "1m")
    proxy = weir_proxy(memcache_pool([server]))
    with proxy.connect() as c, proxy.connect() as d:
        for size in (2 << 20, 8 << 20):
            c.send(b"set big 0 0 %d\r\n" % size)
            for _ in range(size >> 16):
                c.send(b"flush_all\r\n"[:8] * 8192)
                d.ask(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n")
            c.send(b"\r\nget a\r\n")
            c.expect(b"SERVER_ERROR object too large for cache\r\nVALUE a 0 1\r\nx\r\nEND\r\n")


def test_server_that_does_not_understand(fake, weir_proxy):
    """31: "ERROR" from memcached means that the two are not at the same place: passed on, then retired."""
    server = fake()
    proxy = weir_proxy(memcache_pool([server.address]))
    with proxy.connect() as c:
        c.send(b"incr a 1\r\n")
        peer = server.accept()
        peer.expect(b"incr a 1\r\n").send(b"ERROR\r\n")
        c.expect(b"ERROR\r\n")
        assert peer.recv_eof() == b""
        c.send(b"get a\r\n")
        server.accept().expect(b"get a\r\n").send(b"END\r\n")
        c.expect(b"END\r\n")


def test_unsolicited_bytes(fake, weir_proxy):
    """17, 31: a server that speaks unasked loses its connection; nobody gets the words."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]))
    with proxy.connect() as c:
        c.send(resp("GET", "a"))
        peer = server.accept()
        peer.expect(resp("GET", "a")).send(b"$1\r\na\r\n+SURPRISE\r\n")
        c.expect(b"$1\r\na\r\n")
        assert peer.recv_eof() == b""
        c.send(resp("GET", "b"))
        server.accept().expect(resp("GET", "b")).send(b"$1\r\nb\r\n")
        c.expect(b"$1\r\nb\r\n")


def test_names(redis_server, weir_proxy):
    """32: a server by name; a name that is not known gives an error, without holding up anybody."""
    server = redis_server()
    proxy = weir_proxy(redis_pool([f"localhost:{server.port}:1"], name="p") +
                       redis_pool(["name.invalid:6379:1"], name="q"))
    with proxy.connect("p") as c, proxy.connect("q", timeout=120) as d:  # where no name server answers it takes a while
        d.send(resp("GET", "a"))
        for i in range(50):
            c.ask(resp("SET", "a", i), b"+OK\r\n")
        d.expect(b"-ERR Host is down\r\n")
        d.ask(resp("PING"), b"+PONG\r\n")


# Clients

def test_quit(redis_server, memcached, weir_proxy):
    """33: what was asked before quit is answered, then the connection ends; what follows is not heard."""
    proxy = weir_proxy(redis_pool(redis_server(2), name="r") + memcache_pool(memcached(2), name="m"))
    with proxy.connect("r") as c:
        c.resp("SET", "a", "1")
        c.send(resp("GET", "a") * 50 + resp("QUIT") + resp("SET", "a", "2"))
        assert c.recv_eof() == b"$1\r\n1\r\n" * 50 + b"+OK\r\n"
    with proxy.connect("r") as c:
        c.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    with proxy.connect("m") as c:
        c.send(b"set a 0 0 1\r\n1\r\nget a\r\nquit\r\nset a 0 0 1\r\n2\r\n")
        assert c.recv_eof() == b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n"
    with proxy.connect("m") as c:
        c.ask(b"get a\r\n", b"VALUE a 0 1\r\n1\r\nEND\r\n")


def test_half_close(redis_server, memcached, weir_proxy):
    """34: `printf ... | nc -N`: everything is answered, then the proxy closes; half a request is dropped."""
    proxy = weir_proxy(redis_pool(redis_server(2), name="r") + memcache_pool(memcached(2), name="m"))
    with proxy.connect("r") as c:
        c.send(b"".join(resp("SET", f"k{i}", i) + resp("GET", f"k{i}") for i in range(2000)) + b"*2\r\n$3\r\nGE")
        c.shutdown_write()
        assert c.recv_eof() == b"".join(b"+OK\r\n$%d\r\n%d\r\n" % (len(str(i)), i) for i in range(2000))
    with proxy.connect("m") as c:
        c.send(b"set a 0 0 1\r\nx\r\nget a\r\nget ")
        c.shutdown_write()
        assert c.recv_eof() == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"
    with proxy.connect("r") as c:
        c.shutdown_write()
        assert c.recv_eof() == b""


def test_slow_reader(redis_server, weir_proxy):
    """36: a client that asks for 3,000 keys of 10 KB again and again and reads nothing is not read either:
    memory stays bounded, others are served; when it reads, it gets everything."""
    proxy = weir_proxy(redis_pool(redis_server(2)), env=SMALL_QUARANTINE)
    keys = [f"slow{i}" for i in range(3000)]
    value = b"v" * 10000
    with proxy.connect() as c:
        for i in range(0, 3000, 100):
            c.send(b"".join(resp("SET", k, value) for k in keys[i:i + 100])).expect(b"+OK\r\n" * 100)
        worker = proxy.worker_pids()[0]
        before = rss_kib(worker)
        slow = Conn(proxy.port, rcvbuf=4096)
        asked = 0
        slow.sock.settimeout(0.3)
        try:
            for _ in range(16):
                slow.send(resp("MGET", *keys))
                asked += 1
        except (socket.timeout, ConnectionError):
            pass
        for i in range(100):
            c.ask(resp("GET", keys[i]), b"$10000\r\n" + value + b"\r\n")
        assert rss_kib(worker) - before < 200 * 1024, "memory grows with what a client does not read"
        slow.sock.settimeout(DEADLINE)
        want = 7 + sum(len(b"$10000\r\n") + 10002 for _ in keys)  # of one MGET
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for _ in range(asked):
            slow.expect(b"*3000\r\n")
            left, slow.buffer = want - 7 - len(slow.buffer), b""
            while left > 0:
                piece = slow.sock.recv(min(left, 1 << 18))
                assert piece
                left -= len(piece)
        assert rss_kib(worker) - before < 200 * 1024
        slow.close()


def test_slow_reader_gets_everything(redis_server, weir_proxy):
    """36: many small replies, read late: none is lost."""
    proxy = weir_proxy(redis_pool(redis_server(2)))
    with proxy.connect() as c:
        c.resp("SET", "a", "x" * 1000)
        slow = Conn(proxy.port, rcvbuf=4096)
        requests = resp("GET", "a") * 5000
        writer = threading.Thread(target=slow.send, args=(requests,))
        writer.start()
        for _ in range(20):
            c.ask(resp("GET", "a"), b"$1000\r\n" + b"x" * 1000 + b"\r\n")
        slow.expect((b"$1000\r\n" + b"x" * 1000 + b"\r\n") * 5000)
        writer.join(DEADLINE)
        slow.close()


def test_server_dies_inside_a_value(fake, weir_proxy):
    """37: half of a value was passed on when the server died: the connection ends, no error inside it."""
    server = fake()
    proxy = weir_proxy(memcache_pool([server.address]))
    with proxy.connect() as c:
        c.send(b"get a\r\n")
        peer = server.accept()
        peer.expect(b"get a\r\n").send(b"VALUE a 0 100000\r\n" + b"x" * 50000)
        c.recv_exact(40000)
        peer.close()
        rest = c.recv_eof()
        assert set(rest) <= {ord("x")} and len(rest) < 60000
    with proxy.connect() as c:
        c.send(b"get b\r\n")
        server.accept().expect(b"get b\r\n").send(b"END\r\n")
        c.expect(b"END\r\n")


def test_password_changes(redis_server, weir_proxy):
    """40: a reload with another password does not log out who is in; newcomers need the new one."""
    server = redis_server()
    text = redis_pool([server], redis_auth="old")
    server.client().config_set("requirepass", "old")
    proxy = weir_proxy(text)
    with proxy.connect() as c:
        c.ask(resp("GET", "a"), b"-NOAUTH Authentication required.\r\n")
        c.ask(resp("AUTH", "old"), b"+OK\r\n").ask(resp("SET", "a", "1"), b"+OK\r\n")
        server.client(password="old").config_set("requirepass", "new")
        proxy.reload(proxy.conf_text.replace("redis_auth: old", "redis_auth: new"))
        proxy.wait_log(r"worker [0-9]+ started .*generation=2")

        def new_counts():
            with proxy.connect() as fresh:
                return fresh.resp("AUTH", "new") == b"+OK\r\n"
        wait_for(new_counts, "the new password counts")
        c.ask(resp("GET", "a"), b"$1\r\n1\r\n")


def test_fan_out(redis_server, memcached, weir_proxy):
    """41: commands of all servers: FLUSHALL, KEYS, DBSIZE, SCRIPT, PUBLISH, INFO; flush_all, stats, version."""
    r, m = redis_server(3), memcached(3)
    proxy = weir_proxy(redis_pool(r, name="r", hash="md5") + memcache_pool(m, name="m", hash="md5"))
    with proxy.connect("r") as c:
        for i in range(300):
            c.send(resp("SET", f"number {i} of the keys", "1"))
        c.expect(b"+OK\r\n" * 300)
        assert all(s.client().dbsize() > 0 for s in r)
        assert c.resp("DBSIZE") == b":300\r\n"
        assert c.resp("KEYS", "*").startswith(b"*300\r\n")
        assert b"db0:keys=300,expires=0" in c.resp("INFO", "keyspace")
        sha = c.resp("SCRIPT", "LOAD", "return 7")[5:-2]
        assert all(s.client().script_exists(sha.decode()) == [True] for s in r)
        assert c.resp("SCRIPT", "EXISTS", sha) == b"*1\r\n:1\r\n"
        assert c.resp("FLUSHALL") == b"+OK\r\n"
        assert all(s.client().dbsize() == 0 for s in r)
        assert c.resp("DBSIZE") == b":0\r\n"
    with proxy.connect("m") as c:
        for i in range(300):
            c.send(b"set number-%d-of-the-keys 0 0 1\r\n1\r\n" % i)
        c.expect(b"STORED\r\n" * 300)
        assert all(int(s.stats()["curr_items"]) > 0 for s in m)
        c.send(b"stats\r\n")
        assert b"STAT curr_items 300\r\n" in c.recv_until(b"END\r\n")
        assert c.send(b"version\r\n").recv_line().startswith(b"VERSION 1.6")
        c.ask(b"flush_all\r\n", b"OK\r\n")
        c.ask(b"get number-1-of-the-keys number-2-of-the-keys\r\n", b"END\r\n")


def test_scan_over_a_reload(redis_server, weir_proxy):
    """41: a cursor says which server it is of, and lives over a reload; it is a plain unsigned number."""
    proxy = weir_proxy(redis_pool(redis_server(3), hash="md5"), workers=2)
    with proxy.connect() as c:
        for i in range(1000):
            c.send(resp("SET", f"number {i} of the keys", "1"))
        c.expect(b"+OK\r\n" * 1000)
    seen, cursor, steps = set(), b"0", 0
    while True:
        with proxy.connect() as c:
            reply = c.resp("SCAN", cursor, "COUNT", "40")
        words = re.findall(rb"\$[0-9]+\r\n([^\r]*)\r\n", reply)
        cursor = words[0]
        assert re.fullmatch(rb"[0-9]{1,20}", cursor)
        seen.update(words[1:])
        steps += 1
        if steps == 10:
            proxy.reload()
            proxy.wait_log(r"started .*generation=2")
        if cursor == b"0":
            break
    assert len(seen) == 1000


def test_bad_cursors(redis_server, weir_proxy):
    """41: a cursor that is none, or of a server that is not there."""
    proxy = weir_proxy(redis_pool(redis_server(2)))
    with proxy.connect() as c:
        for cursor in ("x", "-1", "18446744073709551616", ""):
            c.ask(resp("SCAN", cursor), b"-ERR invalid cursor\r\n")
        assert c.resp("SCAN", "18446744073709551615")[:1] in b"*-"
        assert c.resp("SCAN", "0", "COUNT", "0").startswith(b"-ERR syntax")


# Processes

def test_unix_sockets(memcached, weir_proxy, stage):
    """44: unix sockets on both sides, shared by the workers, with their mode; gone when the proxy is."""
    path = os.path.join(stage.directory, "redis.sock")
    server = stage.redis_server(None, "--unixsocket", path, "--unixsocketperm", "777")
    listen = os.path.join(stage.directory, "proxy.sock")
    other = free_port()
    proxy = weir_proxy(pool("p", f"{listen} 0600", [f"{path}:1 a"], redis=True) +
                       redis_pool([server], name="q", listen=f"{LOOPBACK}:{other}"), workers=3)
    assert os.stat(listen).st_mode & 0o777 == 0o600
    conns = [Conn(path=listen) for _ in range(30)]
    for i, c in enumerate(conns):
        c.ask(resp("SET", f"k{i}", i), b"+OK\r\n")
    proxy.reload()
    proxy.wait_log(r"started .*generation=2")
    for i, c in enumerate(conns):
        c.ask(resp("GET", f"k{i}"), b"$%d\r\n%d\r\n" % (len(str(i)), i))
        c.close()
    with Conn(path=listen) as c:
        c.ask(resp("PING"), b"+PONG\r\n")
    proxy.stop()
    assert not os.path.exists(listen)


def test_ejection_is_shared(stage):
    """46: four workers learn together that a server is dead: its failures are not counted by each anew."""
    servers = stage.redis_server(2)
    proxy = stage.weir_proxy(redis_pool(servers, hash="md5", auto_eject_hosts=True, server_failure_limit=3,
                                        server_retry_timeout=60000, timeout=2000), workers=4)
    lost, _ = keys_of(proxy, servers)
    servers[0].kill()

    def is_refused():  # on a connection of its own: all workers take part
        with proxy.connect() as c:
            return c.resp("GET", lost).startswith(b"-")

    # Who has just been refused does not try again at once, and tells its clients so: those errors are no
    # failures, and how many there are is a matter of which workers were asked.
    errors = 0
    while is_refused():
        errors += 1
        assert errors < 1000
    assert errors >= 1
    assert not any(is_refused() for _ in range(100))
    assert re.findall(r"server ejected .*failures=(\d+)", proxy.log_text()) == ["3"]


def test_connections_to_servers(redis_server, weir_proxy):
    """47: workers × server_connections is all that a server sees of many clients."""
    server = redis_server()
    proxy = weir_proxy(redis_pool([server], server_connections=2), workers=2)
    conns = [proxy.connect() for _ in range(60)]
    for _ in range(3):
        for c in conns:
            c.send(resp("INCR", "a"))
        for c in conns:
            c.recv_line()
    clients = [c for c in server.client().client_list() if c["cmd"] == "incr"]
    assert 1 <= len(clients) <= 4, len(clients)
    for c in conns:
        c.close()


def test_read_your_writes_over_several_connections(redis_server, weir_proxy):
    """47: server_connections above one: a client still reads what it wrote."""
    proxy = weir_proxy(redis_pool(redis_server(2), server_connections=4), workers=2)
    conns = [proxy.connect() for _ in range(10)]
    for i in range(200):
        for n, c in enumerate(conns):
            c.send(resp("SET", f"key of {n}", i) + resp("GET", f"key of {n}"))
        for c in conns:
            c.expect(b"+OK\r\n$%d\r\n%d\r\n" % (len(str(i)), i))
    for c in conns:
        c.close()


# memcache's quiet forms against the real server

def test_quiet_forms(memcached, weir_proxy):
    """18, 39: quiet gets, sets and deletes over two servers, with their barriers."""
    proxy = weir_proxy(memcache_pool(memcached(2)))
    with proxy.connect() as c:
        c.send(b"".join(b"ms q%d 1 q\r\nx\r\n" % i for i in range(100)) + b"mn\r\n").expect(b"MN\r\n")
        c.send(b"".join(b"mg q%d v q k\r\nmg none%d v q\r\n" % (i, i) for i in range(100)) + b"mn\r\n")
        c.expect(b"".join(b"VA 1 kq%d\r\nx\r\n" % i for i in range(100)) + b"MN\r\n")
        c.send(b"ma q0 q\r\nmd q1 q\r\nmd q1 q\r\nmn\r\n")
        c.expect(b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\nNF\r\nMN\r\n")
        c.ask(b"mg q1\r\n", b"EN\r\n")
