# SPDX-License-Identifier: Apache-2.0
"""The stats port: twemproxy's JSON, HTTP, figures that are right and never go back."""

import json
import os
import signal
import subprocess
import time

import pytest

from weirtest import (DEADLINE, Closed, Conn, Delta, memcache_pool, pids_of_session, pool, read_stats,
                      redis_pool, resp, wait_for)

# twemproxy 0.5, in its order.
GLOBAL = ["service", "source", "version", "uptime", "timestamp", "total_connections", "curr_connections"]
POOL = ["client_eof", "client_err", "client_connections", "server_ejects", "forward_error", "fragments"]
SERVER = ["server_eof", "server_err", "server_timedout", "server_connections", "server_ejected_at", "requests",
          "request_bytes", "responses", "response_bytes", "in_queue", "in_queue_bytes", "out_queue",
          "out_queue_bytes"]

CONF = "weir:\n  version: 1\n  workers: {workers}\n{extra}"


def weir(workers=1, extra=""):
    return CONF.format(workers=workers, extra=extra)


def run(connection, count, key="k"):
    for i in range(count):
        connection.ask(resp("SET", f"{key}{i}", "v"), b"+OK\r\n")


def full(proxy):
    return json.loads(proxy.http("/stats"))


# What twemproxy's readers see

def test_fields_are_twemproxy_s_in_its_order(redis_server, memcached, weir_proxy):
    r, m = redis_server(2), memcached()
    proxy = weir_proxy(redis_pool(r) + memcache_pool([f"{m.address}:1 cache-a"]))
    stats = proxy.stats()
    assert list(stats)[:7] == GLOBAL
    assert list(stats["alpha"])[:6] == POOL
    assert list(stats["alpha"])[6:8] == sorted((s.address for s in r), key=lambda a: (len(a), a))
    assert list(stats["alpha"][r[0].address])[:13] == SERVER
    assert list(stats["beta"])[6] == "cache-a"
    # Where it has more than twemproxy it has scalars: its readers take every object for a pool or a server.
    assert [k for k, v in stats.items() if isinstance(v, dict)] == ["beta", "alpha"]
    assert [k for k, v in stats["beta"].items() if isinstance(v, dict)] == ["cache-a"]
    assert not any(isinstance(v, (dict, list)) for v in stats["beta"]["cache-a"].values())


def test_the_same_fields_as_the_real_nutcracker(redis_server, nutcracker, weir_proxy):
    server = redis_server()
    theirs = nutcracker(redis_pool(server)).stats()
    ours = weir_proxy(redis_pool(server)).stats()
    assert list(ours)[:len(GLOBAL)] == [k for k, v in theirs.items() if not isinstance(v, dict)]
    for there, here in [(theirs["alpha"], ours["alpha"]),
                        (theirs["alpha"][server.address], ours["alpha"][server.address])]:
        names = [k for k, v in there.items() if not isinstance(v, dict)]
        assert list(here)[:len(names)] == names


def test_counts_are_exact(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(redis_pool(server), workers=2)
    frames = [resp("SET", f"k{i}", "v" * i) for i in range(50)]
    wait_for(lambda: proxy.stats()["alpha"]["client_eof"] == 1, "who looked whether it listens is gone")
    with Delta(proxy.stats) as d:
        with proxy.connect() as a, proxy.connect() as b:
            for i, frame in enumerate(frames):
                (a if i % 2 else b).ask(frame, b"+OK\r\n")
            a.ask(resp("GET", "nothing"), b"$-1\r\n")
        wait_for(lambda: proxy.stats()["alpha"]["client_connections"] == 0, "both are gone")
    size = sum(map(len, frames)) + len(resp("GET", "nothing"))
    replies = 50 * len(b"+OK\r\n") + len(b"$-1\r\n")
    assert d("alpha", server.address, "requests") == 51
    assert d("alpha", server.address, "responses") == 51
    assert d("alpha", server.address, "request_bytes") == size
    assert d("alpha", server.address, "response_bytes") == replies
    assert d("alpha", "client_requests") == 51
    assert d("alpha", "client_responses") == 51
    assert d("alpha", "client_request_bytes") == size
    assert d("alpha", "client_response_bytes") == replies
    assert d("alpha", "client_accepted") == 2
    assert d("alpha", "client_eof") == 2
    assert d("total_connections") >= 2


@pytest.mark.parametrize("opening", [b"", b"\n", b"stats\r\n", b"\0\xff garbage"])
def test_whoever_speaks_no_http_gets_the_json(redis_server, weir_proxy, opening):
    proxy = weir_proxy(redis_pool(redis_server()))
    with Conn(proxy.stats_port) as c:
        c.send(opening)
        assert json.loads(c.recv_eof())["service"] == "weir-proxy"
    with Conn(proxy.stats_port) as c:
        c.send(opening).shutdown_write()
        assert json.loads(c.recv_eof())["service"] == "weir-proxy"


# HTTP

def http(proxy, head, end=b"\r\n\r\n"):
    with Conn(proxy.stats_port) as c:
        c.send(head + end)
        answer = c.recv_eof()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


def test_http_answers(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    for path, status, kind in [(b"/", "200", "text/plain"), (b"/stats", "200", "application/json"),
                               (b"/stats?x=1", "200", "application/json"), (b"/metrics", "200", "version=0.0.4"),
                               (b"/healthz", "200", "text/plain"), (b"/nothing", "404", "text/plain")]:
        head, body = http(proxy, b"GET " + path + b" HTTP/1.1\r\nHost: x")
        assert head.startswith(f"HTTP/1.1 {status} "), path
        assert kind in head
        assert f"Content-Length: {len(body)}\r\n" in head
        again, nothing = http(proxy, b"HEAD " + path + b" HTTP/1.1\r\nHost: x")
        assert again.startswith(f"HTTP/1.1 {status} ")
        assert nothing == b""
    for method in [b"POST", b"PUT", b"DELETE", b"OPTIONS"]:
        head, _ = http(proxy, method + b" /stats HTTP/1.1\r\nContent-Length: 0")
        assert head.startswith("HTTP/1.1 405 ")
        assert "Allow: GET, HEAD" in head
    assert http(proxy, b"GET stats HTTP/1.1")[0].startswith("HTTP/1.1 400 ")
    assert http(proxy, b"GET /healthz HTTP/1.0")[0].startswith("HTTP/1.1 200 ")
    assert http(proxy, b"GET /healthz", b"\n\n")[0].startswith("HTTP/1.1 200 ")
    assert http(proxy, b"GET /stats HTTP/1.1\r\nX: " + b"y" * 20000)[0].startswith("HTTP/1.1 431 ")


def test_a_request_may_come_in_pieces(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    wire = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for cut in (1, 3, 4, 10, len(wire) - 2):
        with Conn(proxy.stats_port) as c:
            c.send_pieces(wire, [cut], pause=0.15)  # longer than the silence that asks for the JSON
            assert c.recv_eof().endswith(b"\r\n\r\nok\n")


def test_a_cut_request_is_an_error(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    with Conn(proxy.stats_port) as c:
        c.send(b"GET /stats HTTP/1.1\r\nHo").shutdown_write()
        assert c.recv_eof().startswith(b"HTTP/1.1 400 ")


# Many that only hold on to their connection do not shut anybody out.
def test_idle_connections_make_room(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    held = []
    for _ in range(60):
        held.append(Conn(proxy.stats_port).send(b"GET /stats HTTP"))
        if len(held) % 10 == 0:
            assert proxy.stats()["service"] == "weir-proxy"
    for c in held:
        c.close()
    assert proxy.http("/healthz") == "ok\n"


def test_a_slow_reader_hurts_nobody(redis_server, weir_proxy):
    pools = "".join(redis_pool(redis_server(), name=f"pool{i}") for i in range(1)) + "".join(
        pool(f"p{i}", servers=[f"127.0.0.1:{7000 + n}" for n in range(40)], redis=True) for i in range(20))
    proxy = weir_proxy(pools)
    slow = Conn(proxy.stats_port, rcvbuf=2048)
    slow.send(b"GET /stats HTTP/1.1\r\n\r\n")
    for _ in range(20):
        assert len(read_stats(proxy.stats_port)) > 20
    slow.close()


# Figures

def test_metrics_say_what_the_json_says(redis_server, memcached, weir_proxy):
    r, m = redis_server(), memcached()
    proxy = weir_proxy(redis_pool(r) + memcache_pool(m))
    with proxy.connect("alpha") as c, proxy.connect("beta") as d:
        run(c, 20)
        c.ask(resp("GET", "nothing"), b"$-1\r\n")
        c.ask(resp("LPUSH", "k1", "x"), b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n")
        d.ask(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n")
        d.ask(b"get b\r\n", b"END\r\n")
        stats, metrics = proxy.stats(), proxy.metrics()
    done = subprocess.run(["promtool", "check", "metrics"], input=proxy.http("/metrics"), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout
    at = f'{{pool="alpha",server="{r.address}"}}'
    assert metrics["weir_server_requests_total" + at] == stats["alpha"][r.address]["requests"] == 22
    assert metrics["weir_server_request_bytes_total" + at] == stats["alpha"][r.address]["request_bytes"]
    assert metrics["weir_server_connections" + at] == 1
    assert metrics["weir_server_up" + at] == 1
    assert metrics['weir_pool_client_connections{pool="alpha"}'] == 1
    assert metrics['weir_command_request_seconds_count{pool="alpha",command="set"}'] == 20
    assert metrics['weir_command_request_seconds_bucket{pool="alpha",command="set",le="+Inf"}'] == 20
    assert metrics['weir_command_misses_total{pool="alpha",command="get"}'] == 1
    assert metrics['weir_command_errors_total{pool="alpha",command="lpush"}'] == 1
    assert metrics['weir_command_misses_total{pool="beta",command="get"}'] == 1
    assert metrics['weir_server_request_seconds_count' + at] == 22
    assert metrics['weir_pool_client_queue_seconds_count{pool="alpha"}'] == 22
    assert metrics["weir_clients"] == 2


def test_percentiles_of_everything(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(redis_pool(server), workers=2)
    with proxy.connect() as c:
        run(c, 100)
    stats = full(proxy)["pools"]["alpha"]
    for times in (stats["latency_us"], stats["commands"]["set"]["latency_us"],
                  stats["servers"][server.address]["latency_us"]):
        assert times["count"] == 100
        assert 0 < times["p50"] <= times["p90"] <= times["p95"] <= times["p98"] <= times["p99"] \
            <= times["p99_9"] <= times["max"]
    assert stats["client_queue_us"]["count"] == stats["upstream_queue_us"]["count"] == 100


# A stopped server answers nothing: what was sent waits in the out queue, what the kernel did not take in the
# in queue.
def test_queues_of_a_stopped_server(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(redis_pool(server))
    small = resp("SET", "a", "v")
    large = resp("SET", "b", "v" * 60000)

    def queues():
        s = proxy.stats()["alpha"][server.address]
        return s["in_queue"], s["in_queue_bytes"], s["out_queue"], s["out_queue_bytes"]

    with proxy.connect() as c:
        c.ask(small, b"+OK\r\n")
        assert queues() == (0, 0, 0, 0)
        server.send_signal(signal.SIGSTOP)
        c.send(small * 10)
        wait_for(lambda: queues() == (0, 0, 10, 10 * len(small)), "ten requests in the out queue")
        with proxy.connect() as d:
            d.send(large * 200)
            wait_for(lambda: queues()[0] > 0 and queues()[1] > 60000, "requests in the in queue")
            wait_for(lambda: sum(queues()[::2]) == 210, "all requests are somewhere")
            server.send_signal(signal.SIGCONT)
            c.expect(b"+OK\r\n" * 10)
            d.expect(b"+OK\r\n" * 200)
        wait_for(lambda: queues() == (0, 0, 0, 0), "the queues are empty")


# A reply that is there before its turn waits with the client's other requests, and is counted as waiting.
def test_waiting_for_another_reply(redis_server, weir_proxy):
    servers = redis_server(2)
    proxy = weir_proxy(redis_pool(servers, hash="md5"))
    with proxy.connect() as c:
        for i in range(40):
            c.ask(resp("SET", f"k{i}", "v"), b"+OK\r\n")
        slow, fast = [s.client().keys()[0].decode() for s in servers]
        before = full(proxy)["pools"]["alpha"]
        servers[0].send_signal(signal.SIGSTOP)
        c.send(resp("GET", slow) + resp("GET", fast))
        wait_for(lambda: proxy.stats()["alpha"][servers[1].address]["responses"] >
                 before["servers"][servers[1].address]["responses"], "the second reply is there")
        servers[0].send_signal(signal.SIGCONT)
        c.expect(b"$1\r\nv\r\n" * 2)
        after = full(proxy)["pools"]["alpha"]
    assert before["client_queue_us"]["max"] == 0
    assert after["client_queue_us"]["max"] > 0
    assert after["client_queue_us"]["count"] == after["latency_us"]["count"] == 42


# Without a connection requests wait for one.
def test_waiting_for_a_connection(weir_proxy, fake):
    server = fake()
    proxy = weir_proxy(redis_pool([server.address], redis_auth="secret"))
    with proxy.connect() as c:
        c.ask(resp("AUTH", "secret"), b"+OK\r\n")
        c.send(resp("GET", "a"))
        peer = server.accept()
        peer.expect(resp("AUTH", "secret"))
        time.sleep(0.05)
        peer.send(b"+OK\r\n")
        peer.expect(resp("GET", "a"))
        peer.send(b"$-1\r\n")
        c.expect(b"$-1\r\n")
        times = full(proxy)["pools"]["alpha"]
        assert times["upstream_queue_us"]["max"] >= 40000
        assert times["latency_us"]["max"] >= times["upstream_queue_us"]["max"]
        assert times["servers"][server.address]["latency_us"]["max"] < times["latency_us"]["max"]


def test_ejection_is_to_be_seen(redis_server, weir_proxy):
    servers = redis_server(2)
    proxy = weir_proxy(redis_pool(servers, hash="md5", auto_eject_hosts=True, server_failure_limit=1,
                                  server_retry_timeout=600000, timeout=15000))
    servers[0].kill()
    with proxy.connect() as c:
        for i in range(40):
            c.resp("GET", f"key{i}")
    stats = proxy.stats()["alpha"]
    assert stats["server_ejects"] == 1
    assert stats["forward_error"] > 0
    assert abs(stats[servers[0].address]["server_ejected_at"] / 1e6 - time.time()) < 600
    assert stats[servers[1].address]["server_ejected_at"] == 0
    assert proxy.metrics()[f'weir_server_up{{pool="alpha",server="{servers[0].address}"}}'] == 0
    assert full(proxy)["pools"]["alpha"]["servers"][servers[0].address]["ejected"] is True


# Every worker, dead or alive, counts once: through crashes, reloads, an upgrade.
def test_totals_never_go_back_nor_miss_one(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(redis_pool(server), workers=2)
    done = 0

    def batch():
        nonlocal done
        with proxy.connect() as c:
            run(c, 25)
        done += 25

    def totals():
        s = proxy.stats()
        return s["alpha"]["client_requests"], s["alpha"][server.address]["requests"], s["alpha"]["client_accepted"]

    def command_count():
        return proxy.metrics().get('weir_command_request_seconds_count{pool="alpha",command="set"}', 0)

    for step in ("start", "crash", "reload", "reload", "crash", "upgrade"):
        before = totals()
        if step == "crash":
            pid = proxy.worker_pids()[0]
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: len(proxy.worker_pids()) == 2 and pid not in proxy.worker_pids(), "a new worker")
        elif step == "reload":
            generation = proxy.stats()["weir_generation"]
            proxy.reload()
            wait_for(lambda: proxy.stats()["weir_generation"] == generation + 1, "the new configuration")
        elif step == "upgrade":
            old = proxy.master_pid()
            os.kill(old, signal.SIGUSR2)
            wait_for(lambda: proxy.master_pid() != old, "the new master")
            os.kill(old, signal.SIGQUIT)
            wait_for(lambda: old not in pids_of_session(proxy.pid), "the old master is gone")
        assert all(a >= b for a, b in zip(totals(), before)), step
        assert command_count() == done, step
        batch()
        wait_for(lambda: totals()[0] == done, f"{step}: all {done} requests are counted")
        assert totals()[1] == done
        assert command_count() == done
    wait_for(lambda: full(proxy)["pools"]["alpha"]["client_connections"] == 0, "the last one is gone")


def test_gauges_of_a_killed_worker_are_gone(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    with proxy.connect() as c:
        c.ask(resp("PING"), b"+PONG\r\n")
        assert proxy.stats()["alpha"]["client_connections"] == 1
        os.kill(proxy.worker_pids()[0], signal.SIGKILL)
        wait_for(lambda: proxy.stats()["alpha"]["client_connections"] == 0, "the client is not counted")
    assert wait_for(lambda: proxy.stats()["weir_worker_crashes"], "the crash is counted") == 1


def test_pools_of_a_new_configuration(redis_server, weir_proxy):
    servers = redis_server(2)
    one = redis_pool(servers[0], name="alpha")
    proxy = weir_proxy(weir() + one)
    with proxy.connect() as c:
        run(c, 5)
    proxy.reload(weir() + one + redis_pool(servers[1], name="gamma"))
    wait_for(lambda: "gamma" in proxy.stats(), "the new pool")
    assert proxy.stats()["alpha"]["client_requests"] == 5
    proxy.reload(weir() + redis_pool(servers[1], name="gamma"))
    wait_for(lambda: "alpha" not in proxy.stats(), "the old pool is gone")
    proxy.reload(weir() + one)
    wait_for(lambda: "alpha" in proxy.stats(), "the old pool is back")
    assert proxy.stats()["alpha"]["client_requests"] == 5


# Lists

def test_slow_requests_are_kept(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(weir(extra="  slowlog:\n    threshold: 0\n    entries: 10\n") + redis_pool(server))
    with proxy.connect() as c:
        address = "%s:%d" % c.sock.getsockname()
        run(c, 30)
        c.ask(resp("GET", "k\n\"\\\x7f"), b"$-1\r\n")
        c.ask(resp("GET", b"\xff\xfe"), b"$-1\r\n")
        slow = full(proxy)["slowlog"]
    assert len(slow) == 10
    assert [s["key"] for s in slow[:3]] == ["ÿþ", "k\n\"\\\x7f", "k29"]
    assert slow[0]["command"] == "get" and slow[2]["command"] == "set"
    assert {s["client"] for s in slow} == {address}
    assert {s["server"] for s in slow} == {server.address}
    assert all(s["total_us"] == s["queue_us"] + s["backend_us"] for s in slow)
    assert slow[0]["reply_bytes"] in (0, 5)
    # A reload does not forget them.
    proxy.reload()
    wait_for(lambda: proxy.stats()["weir_generation"] == 2, "the new configuration")
    wait_for(lambda: len(full(proxy)["slowlog"]) == 10, "the log of the old worker")


def test_a_timeout_is_slow(redis_server, weir_proxy):
    server = redis_server()
    proxy = weir_proxy(redis_pool(server, timeout=3000))
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        server.send_signal(signal.SIGSTOP)
        c.ask(resp("GET", "late"), b"-ERR Connection timed out\r\n")
        server.send_signal(signal.SIGCONT)
    slow = [s for s in full(proxy)["slowlog"] if s["key"] == "late"]
    assert len(slow) == 1
    assert slow[0]["failed"] is True
    assert slow[0]["server"] == server.address
    assert slow[0]["total_us"] >= 3000000


def test_hot_keys_are_found(redis_server, weir_proxy):
    proxy = weir_proxy(weir(2, "  hotkeys:\n    sample: 1\n    entries: 8\n") + redis_pool(redis_server()))
    with proxy.connect() as a, proxy.connect() as b:
        for i in range(300):
            a.ask(resp("GET", "hot"), b"$-1\r\n")
            b.ask(resp("GET", f"cold{i}"), b"$-1\r\n")
        hot = full(proxy)["hotkeys"]
    assert hot[0]["key"] == "hot"
    assert hot[0]["pool"] == "alpha"
    assert 0.4 < hot[0]["share"] < 0.7
    assert all(h["share"] < 0.3 for h in hot[1:])


# A sample of 1 takes every key; one of 1000 two of these 2000, more or less: never twenty.
def test_hot_keys_of_split_requests_are_counted(redis_server, weir_proxy):
    keys = [f"k{i}" for i in range(10)]
    for sample in (1, 1000):
        proxy = weir_proxy(weir(1, f"  hotkeys:\n    sample: {sample}\n    entries: 16\n") +
                           redis_pool(redis_server(2)))
        with proxy.connect() as c:
            for _ in range(200):
                c.ask(resp("MGET", *keys), b"*10\r\n" + b"$-1\r\n" * 10)
            hot = {h["key"]: h["requests"] for h in full(proxy)["hotkeys"]}
        if sample == 1:
            assert hot == {key: 200 for key in keys}
        else:
            assert set(hot) <= set(keys) and sum(hot.values()) <= 20 * sample


def test_big_keys_are_found(redis_server, memcached, weir_proxy):
    proxy = weir_proxy(weir(extra="  bigkeys:\n    size: 10k\n") + redis_pool(redis_server()) +
                       memcache_pool(memcached()))
    with proxy.connect("alpha") as c, proxy.connect("beta") as d:
        c.ask(resp("SET", "small", "v" * 1000), b"+OK\r\n")
        c.ask(resp("SET", "middle", "v" * 20000), b"+OK\r\n")
        c.ask(resp("SET", "large", "v" * 200000), b"+OK\r\n")
        c.ask(resp("GET", "middle"), b"$20000\r\n" + b"v" * 20000 + b"\r\n")
        d.ask(b"set mc 0 0 30000\r\n" + b"v" * 30000 + b"\r\n", b"STORED\r\n")
        big = {b["key"]: b for b in full(proxy)["bigkeys"]}
    assert set(big) == {"middle", "large", "mc"}
    assert big["middle"]["count"] == 2
    assert big["large"]["bytes"] >= 200000
    assert big["mc"]["pool"] == "beta"
    assert proxy.stats()["alpha"]["bigkeys"] == 3


def test_the_stats_process_is_forked_again(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    with proxy.connect() as c:
        run(c, 5)
        pid = [p for p, title in proxy.children().items() if "stats" in title][0]
        os.kill(pid, signal.SIGKILL)

        def requests():
            try:
                return proxy.stats()["alpha"]["client_requests"]
            except (OSError, ValueError, Closed):
                return None

        assert wait_for(requests, "the stats are back") == 5
        run(c, 1)
        assert requests() == 6
