# SPDX-License-Identifier: Apache-2.0
"""HUP under load: nobody notices anything.

Zero failed requests, zero resets, zero refused connects, whatever a client is in the middle of.
"""

import os
import random
import signal
import time

import pytest

import bystanders
from bystanders import Bystanders
from loadtest import Load, Watcher, fd_count, fd_names, is_alive, is_sanitized, open_fds, reload, rss_kib, settle, workers_of
from weirtest import LOOPBACK, Conn, Fake, can_connect, free_port, memcache_pool, redis_pool, resp, wait_for

WORKERS = 2

BROKEN = [
    "alpha:\n  listen: 127.0.0.1:1\n\tredis: true\n",
    "alpha: [\n",
    "",
    "alpha:\n  listen: 127.0.0.1:99999\n  servers:\n    - 127.0.0.1:1:1\n",
    "alpha:\n  listen: 127.0.0.1:{port}\n  hash: nonsense\n  servers:\n    - 127.0.0.1:1:1\n",
    "alpha:\n  listen: 127.0.0.1:{port}\n  servers:\n    - 127.0.0.1:1:1\n    - 127.0.0.1:1:1\n",
    "weir:\n  version: 1\n  workers: 100000\nalpha:\n  listen: 127.0.0.1:{port}\n  servers:\n    - 127.0.0.1:1:1\n",
]


def weir(workers=WORKERS, **keys):
    lines = "".join(f"  {key}: {value}\n" for key, value in keys.items())
    return f"weir:\n  version: 1\n  workers: {workers}\n{lines}"


class Tier:
    """Pools alpha (Redis) and beta (memcache) stay as they are; gamma gets and loses a server, delta comes
    and goes, and sometimes there is one worker more."""

    def __init__(self, redis, memcached):
        self.redis, self.memcached = redis, memcached
        self.ports = {name: free_port() for name in ("alpha", "beta", "gamma", "delta")}

    def conf(self, gamma=2, delta=False, workers=WORKERS, **keys):
        text = weir(workers, **keys)
        text += redis_pool(self.redis[:2], "alpha", listen=f"{LOOPBACK}:{self.ports['alpha']}")
        text += memcache_pool(self.memcached, "beta", listen=f"{LOOPBACK}:{self.ports['beta']}")
        text += redis_pool(self.redis[:gamma], "gamma", listen=f"{LOOPBACK}:{self.ports['gamma']}", hash="md5")
        if delta:
            text += redis_pool(self.redis[:1], "delta", listen=f"{LOOPBACK}:{self.ports['delta']}")
        return text


@pytest.fixture(scope="module")
def servers(module_stage):
    return module_stage.redis_server(3), module_stage.memcached(2)


@pytest.fixture
def tier(servers):
    for server in servers[0]:
        server.client().flushall()
    return Tier(*servers)


@pytest.mark.parametrize("kind", bystanders.REDIS + bystanders.MEMCACHE, ids=lambda kind: kind.__name__)
def test_one_client_notices_nothing(tier, weir_proxy, kind):
    """Each kind alone: its old worker leaves long before the drain's time is over."""
    proxy = weir_proxy(tier.conf())
    who = kind(tier.ports["beta" if kind in bystanders.MEMCACHE else "alpha"])
    for number in range(3):
        old = workers_of(proxy.pid)
        who.before(number)
        assert "done" in reload(proxy)
        who.after(number)
        settle(proxy, WORKERS, old)
    who.close()


@pytest.mark.parametrize("kind", [bystanders.Idle, bystanders.Half, bystanders.Blocked, bystanders.Subscriber,
                                  bystanders.Transaction, bystanders.WatchHolds, bystanders.WatchFails,
                                  bystanders.Resp3, bystanders.Mute], ids=lambda kind: kind.__name__)
def test_client_moves_at_once(tier, weir_proxy, kind):
    """The old worker has left before the client does anything more."""
    proxy = weir_proxy(tier.conf())
    who = kind(tier.ports["alpha"])
    for number in range(3):
        old = workers_of(proxy.pid)
        who.before(number)
        assert "done" in reload(proxy)
        settle(proxy, WORKERS, old)
        who.after(number)
    who.close()


@pytest.mark.seconds_max(3600)
@pytest.mark.parametrize("count", [pytest.param(20, id="20"),
                                   pytest.param(200, id="200", marks=pytest.mark.nightly)])
def test_reloads_under_load(stage, tier, weir_proxy, count):
    proxy = weir_proxy(tier.conf())
    rng = random.Random(count)
    # What is allocated once is; and a worker more means a socket more, which is never closed again.
    for workers in (WORKERS + 1, WORKERS, WORKERS):
        old = workers_of(proxy.pid)
        reload(proxy, tier.conf(workers=workers, delta=True, gamma=3))
        settle(proxy, workers, old)
    old = workers_of(proxy.pid)
    reload(proxy, tier.conf())
    settle(proxy, WORKERS, old)
    fds, names, rss = fd_count(proxy.pid), fd_names(proxy.pid), rss_kib(proxy.pid)
    ports = tier.ports
    big = {"short": 1000, "pipelining": 200, "idle": 200} if count > 100 else {"short": 400, "pipelining": 20}
    with Load(stage, ports["alpha"], **big) as alpha, \
            Load(stage, ports["beta"], memcache=True, short=100) as beta, \
            Load(stage, ports["gamma"], misses=True, short=50) as gamma, \
            Bystanders(ports["alpha"], ports["beta"]) as crowd, Watcher(proxy) as watcher:
        for number in range(count):
            crowd.before(number)
            if number % 4 == 3:
                before = workers_of(proxy.pid)
                assert "refused" in reload(proxy, BROKEN[number // 4 % len(BROKEN)].format(port=free_port()))
                assert set(before) >= set(workers_of(proxy.pid))
            else:
                conf = tier.conf(gamma=rng.choice([2, 3]), delta=rng.random() < 0.5,
                                 workers=rng.choice([WORKERS, WORKERS, WORKERS + 1]))
                assert "done" in reload(proxy, conf)
            crowd.after(number)
        reload(proxy, tier.conf())
    for load in (alpha, beta, gamma):
        load.clean(requests=count, connections=count)
    assert watcher.most <= 3 * (WORKERS + 1)
    settle(proxy, WORKERS)
    wait_for(lambda: fd_count(proxy.pid) == fds, f"{fd_names(proxy.pid)} becomes {names}")
    # The sanitizer keeps what is freed.
    assert is_sanitized(proxy.pid) or rss_kib(proxy.pid) < rss + 2048
    print(f"{count} reloads:", alpha.result, beta.result, gamma.result, "most workers", watcher.most)


def test_storm_of_reloads(stage, tier, weir_proxy):
    """Signals that come faster than reloads are merged; never more than three generations."""
    proxy = weir_proxy(tier.conf())
    with Load(stage, tier.ports["alpha"], idle=500) as load, Watcher(proxy) as watcher:
        for number in range(400):
            os.kill(proxy.pid, signal.SIGHUP)
            time.sleep(0.001 * (number % 8))
        old = workers_of(proxy.pid)
        assert "done" in reload(proxy)
        settle(proxy, WORKERS, old)
    load.clean()
    assert watcher.most <= 3 * WORKERS


def test_client_that_is_never_idle_moves(weir_proxy, fake):
    """There is always a request in flight: the worker stops reading until there is none, then passes it on."""
    server = fake()
    proxy = weir_proxy(weir() + redis_pool([server.address]))
    with Conn(proxy.port) as c:
        c.send(resp("GET", "a") + resp("GET", "b"))
        peer = server.accept()
        peer.recv_exact(2 * len(resp("GET", "a")))
        old = workers_of(proxy.pid)
        fds = {pid: fd_count(pid) for pid in old}
        assert "done" in reload(proxy)
        # Who drains has closed its sockets.
        wait_for(lambda: all(not is_alive(pid) or open_fds(pid) < fds[pid] for pid in old), "the old workers drain")
        c.send(resp("GET", "c"))  # not read by the old worker any more
        assert peer.is_quiet()
        peer.send(b"$1\r\n1\r\n")
        c.expect(b"$1\r\n1\r\n")
        assert peer.is_quiet()
        peer.send(b"$1\r\n2\r\n")
        c.expect(b"$1\r\n2\r\n")
        fresh = server.accept()
        assert fresh.recv_exact(len(resp("GET", "c"))) == resp("GET", "c")
        settle(proxy, WORKERS, old)
        fresh.send(b"$1\r\n3\r\n")
        c.expect(b"$1\r\n3\r\n")


def test_large_sessions_move(redis_server, weir_proxy):
    """A pattern on eight servers, and a transaction of many commands."""
    proxy = weir_proxy(weir() + redis_pool(redis_server(8)))
    with Conn(proxy.port) as subscriber, Conn(proxy.port) as writer, Conn(proxy.port) as other:
        assert subscriber.resp("PSUBSCRIBE", "a*").endswith(b":1\r\n")
        writer.ask(resp("MULTI"), b"+OK\r\n")
        for i in range(500):
            writer.ask(resp("RPUSH", "list", f"a value of some length, which is number {i}"), b"+QUEUED\r\n")
        for number in range(3):
            old = workers_of(proxy.pid)
            assert "done" in reload(proxy)
            settle(proxy, WORKERS, old)
            for i in range(20):
                other.ask(resp("PUBLISH", f"a-{i}", number), b":1\r\n")
                assert subscriber.recv_resp().endswith(b"a-%d\r\n$1\r\n%d\r\n" % (i, number))
        writer.send(resp("EXEC")).expect(b"*500\r\n" + b"".join(b":%d\r\n" % (i + 1) for i in range(500)))


def test_request_in_flight_is_answered_by_the_old_worker(weir_proxy, fake):
    server = fake()
    conf = weir() + redis_pool([server.address], timeout=30000)
    proxy = weir_proxy(conf)
    with Conn(proxy.port) as c:
        c.send(resp("GET", "a"))
        peer = server.accept()
        peer.recv_exact(len(resp("GET", "a")))
        for _ in range(3):
            reload(proxy)
            if len(workers_of(proxy.pid)) > 2 * WORKERS:
                break
        peer.send(b"$1\r\n1\r\n")
        c.expect(b"$1\r\n1\r\n")


def test_drain_timeout_bounds_the_old_generation(weir_proxy, fake):
    """Who does not answer in time loses its connection, not before."""
    server = fake()
    proxy = weir_proxy(weir(drain_timeout=4000) + redis_pool([server.address]))
    with Conn(proxy.port) as c:
        c.send(resp("GET", "a"))
        server.accept().recv_exact(len(resp("GET", "a")))
        old = workers_of(proxy.pid)
        reload(proxy)
        assert set(old) & set(workers_of(proxy.pid))
        settle(proxy, WORKERS, old)
        assert c.recv_eof() == b""


def test_pool_and_server_come_and_go(tier, weir_proxy):
    proxy = weir_proxy(tier.conf())
    reload(proxy, tier.conf(delta=True, gamma=3))
    with Conn(tier.ports["delta"]) as c, Conn(tier.ports["gamma"]) as g:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        for i in range(100):
            g.ask(resp("SET", f"g{i}", "1"), b"+OK\r\n")
        for server in tier.redis:
            assert server.client().dbsize() > 0
        old = workers_of(proxy.pid)
        reload(proxy, tier.conf())
        assert g.resp("PING") == b"+PONG\r\n"
        assert c.recv_eof() == b""  # nobody serves its pool any more
        settle(proxy, WORKERS, old)
    wait_for(lambda: not can_connect(tier.ports["delta"]), "nobody listens there any more")


def test_broken_file_names_line_and_changes_nothing(tier, weir_proxy):
    proxy = weir_proxy(tier.conf())
    pids, fds = workers_of(proxy.pid), fd_count(proxy.pid)
    for text in BROKEN:
        reload(proxy, text.format(port=free_port()))
    assert "conf.yml:3:1: " in proxy.log_text()
    os.unlink(proxy.conf_path)
    assert "refused" in reload(proxy)
    assert workers_of(proxy.pid) == pids
    wait_for(lambda: fd_count(proxy.pid) == fds, "as many descriptors as before")
    assert "done" in reload(proxy, tier.conf())


def test_port_in_use_refuses_the_reload(tier, weir_proxy):
    proxy = weir_proxy(tier.conf())
    pids = workers_of(proxy.pid)
    with Fake(tier.ports["delta"]):
        assert f"127.0.0.1:{tier.ports['delta']}" in reload(proxy, tier.conf(delta=True))
    assert workers_of(proxy.pid) == pids
    assert "done" in reload(proxy, tier.conf(delta=True))


def accepted(proxy):
    """A connection that is not one too many: the last one's end may not have been seen yet."""
    def attempt():
        c = Conn(proxy.port)
        return c if c.resp("PING") == b"+PONG\r\n" else c.close()
    return wait_for(attempt, "there is room for one more")


def test_clients_over_the_limit_are_not_those_that_move(redis_server, weir_proxy):
    """client_connections counts a client that is handed over once."""
    server = redis_server()
    proxy = weir_proxy(weir() + redis_pool([server], client_connections=10))
    conns = [accepted(proxy) for _ in range(10)]
    for number in range(3):
        for c in conns:
            c.ask(resp("SET", "a", number), b"+OK\r\n")
        old = workers_of(proxy.pid)
        reload(proxy)
        settle(proxy, WORKERS, old)
    with Conn(proxy.port) as extra:
        assert extra.recv_eof() == b"-ERR max number of clients reached\r\n"
    for c in conns:
        c.ask(resp("PING"), b"+PONG\r\n")
        c.close()


def test_password_is_asked_once(redis_server, weir_proxy):
    server = redis_server(None, "--requirepass", "secret")
    proxy = weir_proxy(weir() + redis_pool([server], redis_auth="secret"))
    with Conn(proxy.port) as known, Conn(proxy.port) as unknown:
        known.ask(resp("AUTH", "secret"), b"+OK\r\n")
        assert unknown.resp("GET", "a").startswith(b"-NOAUTH")
        for _ in range(2):
            old = workers_of(proxy.pid)
            reload(proxy)
            settle(proxy, WORKERS, old)
            known.ask(resp("SET", "a", "1"), b"+OK\r\n")
            assert unknown.resp("GET", "a").startswith(b"-NOAUTH")


def test_ids_are_never_given_twice(tier, weir_proxy):
    proxy = weir_proxy(tier.conf())
    conns, ids = [], set()
    for _ in range(3):
        for _ in range(20):
            conns.append(Conn(tier.ports["alpha"]))
            ids.add(conns[-1].resp("CLIENT", "ID"))
        old = workers_of(proxy.pid)
        reload(proxy)
        settle(proxy, WORKERS, old)
    assert len(ids) == 60
    assert {c.resp("CLIENT", "ID") for c in conns} == ids
