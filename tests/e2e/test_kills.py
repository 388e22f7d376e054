# SPDX-License-Identifier: Apache-2.0
"""Servers and clients that die at the worst moment, while others go on.

Every value is its own key, so that a reply which belongs to another request is seen at once. What may
happen to a request whose server dies: the right answer, one error line, or the end of its own connection.
What may not: another's answer, two answers, none, or anything to those who asked another server.
(test_proxy_kills.py kills the proxy's own processes.)
"""

import os
import random
import re
import signal
import threading
import time

import pytest

from weirtest import LOOPBACK, Closed, Conn, memcache_pool, pool, redis_pool, resp, wait_for

ERROR = re.compile(rb"(?:-ERR|SERVER_ERROR) (?:Connection (?:reset by peer|refused|timed out)|backend protocol error)\r\n")


def range_pool(servers, name="alpha", redis=True, **keys):
    lines = [f"{servers[0].address}:1 one range=..m", f"{servers[1].address}:1 two range=m.."]
    return pool(name, servers=lines, redis=redis, distribution="range", **keys)


def get(kind, key):
    return resp("GET", key) if kind == "redis" else b"get %s\r\n" % key


def value(kind, key):
    if kind == "redis":
        return b"$%d\r\n%s\r\n" % (len(key), key)
    return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key)


# A server's end at each byte

@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["redis", "memcache"])
def test_server_ends_at_each_byte(fake, weir_proxy, kind, how):
    """Of three pipelined replies, the server sends so many bytes and ends: whole replies arrive, what is
    left of them becomes an error or the end of the client's connection; reads may be asked again."""
    server = fake()
    proxy = weir_proxy(pool("alpha", servers=[server.address], redis=kind == "redis"))
    keys = [b"key-%d" % i for i in range(3)]
    replies = b"".join(value(kind, key) for key in keys)
    for cut in range(len(replies) + 1):
        with proxy.connect() as c:
            # One write, one read: a read is sent again once, and then answered.
            c.send(b"".join(get(kind, key) for key in keys))
            peer = server.accept()
            asked = peer.recv_exact(sum(len(get(kind, key)) for key in keys))
            peer.send(replies[:cut])
            if how == "reset":
                time.sleep(0.001)  # a reset may overtake what was sent
                peer.reset()
            else:
                peer.close()
            assert asked == b"".join(get(kind, key) for key in keys)
            again = None
            if cut < len(replies):
                again = threading.Thread(target=answer_again, args=(server, kind))
                again.start()
            judge_pipeline(c, kind, keys)
            if again is not None:
                with proxy.connect() as d:  # ends the helper, if nothing was asked again
                    d.ask(get(kind, b"last"), value(kind, b"last"))
                again.join(20)


def answer_again(server, kind):
    """Answers what comes on new connections, until key "last" was asked for."""
    while True:
        peer = server.accept()
        data = b""
        try:
            while True:
                peer._fill()
                data += peer._take(len(peer.buffer))
                pattern = rb"GET\r\n\$[0-9]+\r\n([^\r]+)\r\n" if kind == "redis" else rb"get ([^\r]+)\r\n"
                found = list(re.finditer(pattern, data))
                if found:
                    data = data[found[-1].end():]
                    peer.send(b"".join(value(kind, match[1]) for match in found))
                if any(match[1] == b"last" for match in found):
                    peer.close()
                    return
        except Closed:
            continue


def judge_pipeline(c, kind, keys):
    """Each key has its value or an error, in order; or the connection ended, in the middle of the right one."""
    rest = b""
    for key in keys:
        want = value(kind, key)
        try:
            while not rest.startswith(want) and not ERROR.match(rest):
                rest += c.recv_exact(1)
                assert want.startswith(rest) or rest[:1] == b"-" or b"SERVER_ERROR".startswith(rest[:12]), rest
        except Closed as e:
            rest += e.got
            assert want.startswith(rest), rest
            return
        match = ERROR.match(rest)
        rest = rest[match.end() if match else len(want):]
    assert rest == b""


# Clients that end anywhere

def test_clients_end_at_any_byte(redis_server, weir_proxy):
    """Clients close or reset anywhere in a pipeline of writes: nothing half is run, others lose nothing."""
    server = redis_server()
    proxy = weir_proxy(redis_pool([server]))
    rng = random.Random(5)
    request = resp("SET", "half", "x" * 300) + resp("INCR", "count") + resp("SET", "half", "y" * 300)
    with proxy.connect() as other:
        for i in range(400):
            with proxy.connect() as c:
                c.send(request[:rng.randrange(len(request))])
                if rng.randrange(2):
                    c.reset()
            key = b"other-%d" % i
            other.ask(resp("SET", key, key) + resp("GET", key), b"+OK\r\n" + value("redis", key))
        assert other.resp("STRLEN", "half") in (b":300\r\n", b":0\r\n")
        assert int(other.resp("GET", "count").split(b"\r\n")[1]) <= 400


@pytest.mark.parametrize("kind", ["redis", "memcache"])
def test_uploads_broken_off(redis_server, memcached, weir_proxy, kind):
    """Clients leave inside values of any size, small ones and those that stream: the server never stores a
    piece, the shared connection is not disturbed."""
    server = redis_server() if kind == "redis" else memcached(None, "-I", "8m", "-m", "256")
    proxy = weir_proxy(pool("alpha", servers=[server.address], redis=kind == "redis"))
    rng = random.Random(7)
    with proxy.connect() as other:
        for i in range(150):
            size = rng.choice([100, 5000, 65535, 65536, 65537, 200000, 1 << 20])
            body = b"z" * size
            request = resp("SET", "upload", body) if kind == "redis" else \
                b"set upload 0 0 %d\r\n%s\r\n" % (size, body)
            cut = rng.choice([rng.randrange(1, len(request)), len(request) - 1, len(request) - 2, len(request) - 3])
            with proxy.connect() as c:
                c.send(request[:cut])
                key = b"other-%d" % i
                store = resp("SET", key, key) if kind == "redis" else b"set %s 0 0 %d\r\n%s\r\n" % (key, len(key), key)
                other.ask(store + get(kind, key), (b"+OK\r\n" if kind == "redis" else b"STORED\r\n") + value(kind, key))
                if rng.randrange(2):
                    c.reset()
        other.ask(get(kind, b"upload"), b"$-1\r\n" if kind == "redis" else b"END\r\n")


# Servers killed under load

class Load(threading.Thread):
    """A client that pipelines gets of keys which are their own values, and counts what it hears."""

    def __init__(self, proxy, kind, first_letter, rng):
        super().__init__(daemon=True)
        self.proxy, self.kind, self.letter, self.rng = proxy, kind, first_letter, rng
        self.is_stopping = threading.Event()
        self.good = self.errors = self.ends = self.misses = 0
        self.trouble = None
        self.start()

    def run(self):
        try:
            while not self.is_stopping.is_set():
                with self.proxy.connect() as c:
                    try:
                        while not self.is_stopping.is_set():
                            self.once(c)
                    except Closed as e:
                        assert e.got == b"" or value(self.kind, self.wanted).startswith(e.got), e.got
                        self.ends += 1
        except BaseException as e:  # noqa: BLE001
            self.trouble = repr(e)

    def once(self, c):
        keys = [b"%s%d" % (self.letter, self.rng.randrange(50)) for _ in range(self.rng.choice([1, 4, 30]))]
        try:
            c.send(b"".join(get(self.kind, key) for key in keys))
        except (BrokenPipeError, ConnectionResetError):
            raise Closed(b"") from None
        for key in keys:
            self.wanted = key
            if self.kind == "redis":
                reply = c.recv_resp()
                miss = b"$-1\r\n"
            else:
                reply = c.recv_line()
                if reply.startswith(b"VALUE"):
                    reply += c.recv_until(b"END\r\n")
                miss = b"END\r\n"
            if reply == value(self.kind, key):
                self.good += 1
            elif reply == miss:
                self.misses += 1
            else:
                assert ERROR.fullmatch(reply), (key, reply)
                self.errors += 1


def fill(server, kind, letter):
    with server.connect() as c:
        for i in range(50):
            key = b"%s%d" % (letter, i)
            if kind == "redis":
                c.ask(resp("SET", key, key), b"+OK\r\n")
            else:
                c.ask(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(key), key), b"STORED\r\n")


@pytest.mark.parametrize("kind", ["redis", "memcache"])
def test_server_killed_under_load(stage, kind):
    """A server is killed and started again, ten times: no reply goes astray, keys of the other server are
    served without one error, the killed one's work again each time."""
    make = stage.redis_server if kind == "redis" else stage.memcached
    servers = make(2)
    proxy = stage.weir_proxy(range_pool(servers, redis=kind == "redis", timeout=15000), workers=2)
    fill(servers[0], kind, b"a")
    fill(servers[1], kind, b"z")
    loads = [Load(proxy, kind, letter, random.Random(i)) for i, letter in enumerate([b"a", b"a", b"z", b"z"])]
    victim = servers[0]
    for _ in range(10):
        good = loads[0].good
        wait_for(lambda: loads[0].good > good + 50 or loads[0].trouble, "load flows")
        victim.kill()
        errors = loads[0].errors + loads[0].ends
        wait_for(lambda: loads[0].errors + loads[0].ends > errors or loads[0].trouble, "the kill was noticed")
        victim = make(None, port=victim.port)
        fill(victim, kind, b"a")
    good = [load.good for load in loads]
    wait_for(lambda: all(load.good > g for load, g in zip(loads, good)) or any(l.trouble for l in loads), "all is well")
    for load in loads:
        load.is_stopping.set()
    for load in loads:
        load.join(30)
        assert load.trouble is None, load.trouble
    for load in loads[2:]:
        assert load.errors == load.ends == load.misses == 0 and load.good > 0


def test_server_stopped_and_resumed_under_load(stage):
    """A server stands still longer than the time-out, again and again: late replies are nobody's."""
    servers = stage.redis_server(2)
    proxy = stage.weir_proxy(range_pool(servers, timeout=100))
    fill(servers[0], "redis", b"a")
    fill(servers[1], "redis", b"z")
    loads = [Load(proxy, "redis", letter, random.Random(i)) for i, letter in enumerate([b"a", b"a", b"a", b"z"])]
    for _ in range(12):
        os.kill(servers[0].pid, signal.SIGSTOP)
        errors = loads[0].errors
        try:
            wait_for(lambda: loads[0].errors > errors or loads[0].trouble, "requests time out")
        finally:
            os.kill(servers[0].pid, signal.SIGCONT)
        good = loads[0].good
        wait_for(lambda: loads[0].good > good + 20 or loads[0].trouble, "it answers again")
    for load in loads:
        load.is_stopping.set()
    for load in loads:
        load.join(30)
        assert load.trouble is None, load.trouble
        assert load.misses == 0
    assert loads[0].good > 0


def test_connections_killed_under_load(stage):
    """The server's own CLIENT KILL, every few milliseconds: reads are asked again, nothing goes astray."""
    server = stage.redis_server()
    proxy = stage.weir_proxy(redis_pool([server]), workers=2)
    fill(server, "redis", b"a")
    loads = [Load(proxy, "redis", b"a", random.Random(i)) for i in range(4)]
    killer = server.client()
    for _ in range(150):
        killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.003)
    wait_for(lambda: all(load.good > 0 or load.trouble for load in loads), "each has heard something")
    for load in loads:
        load.is_stopping.set()
    for load in loads:
        load.join(30)
        assert load.trouble is None, load.trouble
        assert load.good > 0 and load.misses == 0


def test_pubsub_and_transactions_under_kills(stage):
    """Subscribers and transactions whose server dies: an end or an error, and everything works again."""
    server = stage.redis_server()
    port = server.port
    proxy = stage.weir_proxy(redis_pool([server], timeout=15000))
    for _ in range(5):
        sub, tx, watch, block = (proxy.connect() for _ in range(4))
        assert sub.resp("SUBSCRIBE", "c").endswith(b":1\r\n")
        tx.ask(resp("MULTI"), b"+OK\r\n").ask(resp("SET", "a", "1"), b"+QUEUED\r\n")
        watch.ask(resp("WATCH", "a"), b"+OK\r\n")
        block.send(resp("BLPOP", "list", "0"))
        wait_for(lambda: any("cmd=blpop" in str(c) or c["cmd"] == "blpop" for c in server.client().client_list()))
        server.kill()
        for conn, words in ((tx, ("EXEC",)), (watch, ("MULTI",)), (block, None)):
            try:
                reply = conn.resp(*words) if words else conn.recv_resp()
                assert reply.startswith((b"-", b"+OK", b"*-1")), reply
                if conn is watch:  # what was watched may have changed: it must not be run
                    conn.send(resp("SET", "a", "2") + resp("EXEC"))
                    assert conn.recv_resp()[:1] in b"-+"
                    assert conn.recv_resp()[:3] in (b"-EX", b"*-1", b"-ER")
            except Closed as e:
                assert e.got == b""
        server = stage.redis_server(None, port=port)
        for conn in (sub, tx, watch, block):
            conn.close()
        with proxy.connect() as c:
            wait_for(lambda: c.resp("SET", "a", "1") == b"+OK\r\n", "it works again")
