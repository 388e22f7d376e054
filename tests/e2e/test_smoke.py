# SPDX-License-Identifier: Apache-2.0
"""The first session: both protocols, several workers, real servers, and an end that leaves nothing."""

import os
import re
import signal

import pytest

import weirtest
from weirtest import memcache_pool, redis_pool, resp, wait_for


@pytest.fixture
def tier(redis_server, memcached, weir_proxy):
    """Two redis-server and two memcached behind a proxy with two workers."""
    return weir_proxy(redis_pool(redis_server(2), name="alpha") +
                      memcache_pool(memcached(2), name="beta"), workers=2)


def test_redis_and_memcache_at_once(tier):
    with tier.connect("alpha") as r, tier.connect("beta") as m:
        for i in range(100):
            r.ask(resp("SET", f"key-{i}", i), b"+OK\r\n")
            m.ask(b"set key-%d 0 0 3\r\n%03d\r\n" % (i, i), b"STORED\r\n")
        for i in range(100):
            assert r.resp("GET", f"key-{i}") == b"$%d\r\n%d\r\n" % (len(str(i)), i)
            m.ask(b"get key-%d\r\n" % i, b"VALUE key-%d 0 3\r\n%03d\r\nEND\r\n" % (i, i))
        keys = [f"key-{i}" for i in range(100)]
        assert r.resp("DEL", *keys) == b":100\r\n"


def test_keys_spread_and_come_back_in_order(redis_server, weir_proxy):
    servers = redis_server(3)
    proxy = weir_proxy(redis_pool(servers, hash="md5"))  # fnv puts keys so alike side by side
    with proxy.connect() as c:
        for i in range(300):
            c.send(resp("SET", f"k{i}", f"v{i}"))
        for i in range(300):
            c.expect(b"+OK\r\n")
        values = b"".join(b"$%d\r\nv%d\r\n" % (len(str(i)) + 1, i) for i in range(300))
        c.ask(resp("MGET", *(f"k{i}" for i in range(300))), b"*300\r\n" + values)
    sizes = [server.client().dbsize() for server in servers]
    assert sum(sizes) == 300
    assert min(sizes) > 0


def test_redis_py_speaks_to_it(tier):
    client = tier.redis("alpha")
    client.set("greeting", "hello")
    assert client.get("greeting") == b"hello"
    with client.pipeline(transaction=False) as pipe:
        for i in range(50):
            pipe.incr("counter")
        assert pipe.execute() == list(range(1, 51))
    client.close()


def test_a_dead_server_is_an_error_and_the_others_serve(redis_server, weir_proxy):
    servers = redis_server(2)
    proxy = weir_proxy(redis_pool(servers, timeout=15000))
    with proxy.connect() as c:
        keys = [f"k{i}" for i in range(50)]
        for key in keys:
            c.ask(resp("SET", key, "1"), b"+OK\r\n")
        lost = {key.decode() for key in servers[0].client().keys()}
        servers[0].kill()
        for key in keys:
            reply = c.resp("GET", key)
            assert reply.startswith(b"-") if key in lost else reply == b"$1\r\n1\r\n"


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_stops_and_leaves_nothing(redis_server, weir_proxy, signo):
    proxy = weir_proxy(redis_pool(redis_server(1)), workers=2)
    pids = weirtest.pids_of_session(proxy.pid)
    assert len(pids) >= 3  # a master and two workers
    with proxy.connect() as c:
        c.ask(resp("PING"), b"+PONG\r\n")
    proxy.send_signal(signo)
    assert proxy.wait() == 0
    wait_for(lambda: not weirtest.pids_of_session(proxy.pid), "all of the session is gone")
    assert not os.path.exists(proxy.pid_path)


def test_wrong_configuration_is_refused_with_its_place(stage, tmp_path):
    conf = tmp_path / "wrong.yml"
    conf.write_text("alpha:\n  listen: 127.0.0.1:1\n  hsah: md5\n  servers:\n    - 127.0.0.1:2:1\n")
    process = stage.process([weirtest.program("weir-proxy"), "-t", "-c", conf], "check")
    assert process.wait() == 1
    assert re.search(r"wrong\.yml:3:\d+: .*hsah", process.text())
