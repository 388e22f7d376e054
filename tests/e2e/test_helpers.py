# SPDX-License-Identifier: Apache-2.0
"""The helpers themselves, against real servers and the real nutcracker: what a test relies on must hold."""

import contextlib
import os
import re
import signal

import pytest

import acknowledged
import differential
import weirtest
from weirtest import Closed, Conn, Delta, Process, memcache_pool, redis_pool, resp


def test_redis_through_nutcracker_by_raw_bytes(redis_server, nutcracker):
    servers = redis_server(2)
    proxy = nutcracker(redis_pool(servers, hash="md5"))  # fnv puts keys so alike side by side

    def requests():
        return {"n": sum(s["requests"] for s in proxy.stats()["alpha"].values()
                         if isinstance(s, dict))}

    with Delta(requests) as delta:
        with proxy.connect() as c:
            c.ask(resp("SET", "a", "1"), b"+OK\r\n")
            assert c.resp("GET", "a") == b"$1\r\n1\r\n"
            keys = [f"none-{i}" for i in range(64)]
            assert c.resp("MGET", "a", *keys) == b"*65\r\n$1\r\n1\r\n" + 64 * b"$-1\r\n"
        weirtest.wait_for(lambda: requests()["n"] >= 4)
    assert delta("n") == 4  # the MGET asks both, with 65 keys over two servers
    assert sum(s.client().dbsize() for s in servers) == 1


def test_memcached_and_its_stats(memcached, nutcracker):
    server = memcached()
    proxy = nutcracker(memcache_pool([server]))
    with Delta(server.stats) as delta, proxy.connect() as c:
        c.ask(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n")
        c.ask(b"get a\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n")
    assert delta("cmd_get") == 1
    assert delta("cmd_set") == 1


def test_a_fake_backend_sees_what_the_proxy_sends(fake, nutcracker):
    backend = fake()
    proxy = nutcracker(redis_pool([backend.address]))
    with proxy.connect() as c:
        c.send(resp("GET", "a"))
        peer = backend.accept()
        peer.expect(resp("GET", "a"))
        peer.send(b"$2\r\nhi\r\n")
        c.expect(b"$2\r\nhi\r\n")
        peer.close()


def test_conn_tells_close_from_silence(fake):
    backend = fake()
    with Conn(backend.port) as c:
        peer = backend.accept()
        assert c.is_quiet(0.05)
        peer.send(b"ab\r\ncd")
        assert c.recv_line() == b"ab\r\n"
        peer.close()
        with pytest.raises(Closed) as caught:
            c.recv_until(b"\r\n")
        assert caught.value.got == b"cd"


def test_resp3_replies_are_framed(fake):
    replies = [b"%1\r\n+a\r\n*2\r\n:1\r\n_\r\n", b"~2\r\n#t\r\n,1.5\r\n", b"=6\r\ntxt:hi\r\n",
               b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n", b">2\r\n+invalidate\r\n*-1\r\n", b"*0\r\n"]
    backend = fake()
    with Conn(backend.port) as c:
        peer = backend.accept()
        peer.send(b"".join(replies))
        for reply in replies:
            assert c.recv_resp() == reply
        peer.close()


def test_a_crash_is_a_trouble_and_a_kill_by_the_test_is_not(tmp_path):
    crashed = Process(["sh", "-c", "echo assertion failed: x at y:1; kill -SEGV $$"], str(tmp_path), "a")
    crashed.wait()
    assert len(crashed.troubles()) == 2
    killed = Process(["sleep", "60"], str(tmp_path), "b")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert killed.troubles() == []


def test_a_stopped_process_leaves_no_orphans(tmp_path):
    parent = Process(["sh", "-c", "sleep 60 & sleep 60 & echo up; wait"], str(tmp_path), "parent")
    weirtest.wait_for(lambda: "up" in parent.text() and len(weirtest.pids_of_session(parent.pid)) == 3)
    orphans = [pid for pid in weirtest.pids_of_session(parent.pid) if pid != parent.pid]
    parent.stop()
    for pid in orphans:
        assert not os.path.exists(f"/proc/{pid}") or weirtest.cmdline_of(pid) == ""


def test_listen_ports_of_a_configuration():
    text = ("weir:\n  version: 1\n" + redis_pool(["127.0.0.1:1"], name="b", listen="127.0.0.1:2001") +
            redis_pool(["127.0.0.1:1"], name="a", listen="127.0.0.1:2000") +
            redis_pool(["127.0.0.1:1"], name="u", listen="/tmp/x.sock 0666"))
    assert weirtest.listen_ports(text) == {"b": 2001, "a": 2000}


def lived(number, *commands):
    """A writer that has sent them: key, number, when it was sent, when it was acknowledged."""
    writer = acknowledged.Writer(number, 0)
    for key, of_key, sent, answered in commands:
        writer.history.append(acknowledged.Command(key, of_key))
        writer.history[-1].sent, writer.history[-1].acknowledged = sent, answered
        writer.sent[key] = of_key
    return writer


@pytest.mark.parametrize("found, promised, why", [
    (({"a": 2, "b": 1}, {"c": 1}), None, None),
    (({"a": 1, "b": 0}, {"c": 0}), 2, None),
    (({"a": 0, "b": 0}, {"c": 0}), 0, None),
    (({"a": 1, "b": 1}, {"c": 0}), 0, None),  # c was not answered when b was sent
    (({"a": 2, "b": 1}, {"c": 0}), 0, "c:1 is not there, but a:2"),
    (({"a": 2, "b": 0}, {"c": 1}), 0, "b:1 is not there"),  # a hole
    (({"a": 0, "b": 0}, {"c": 1}), 0, "a:1 is not there, but c:1"),
    (({"a": 1, "b": 0}, {"c": 0}), 4, "b:1 is not there, acknowledged"),
    (({"a": 1, "b": 1}, {"c": 1}), None, "a:2 was acknowledged"),
    (({"a": 3, "b": 1}, {"c": 1}), 0, "3 is there, which was not sent"),
])
def test_a_reckoning_sees(monkeypatch, found, promised, why):
    """What is lost, and what is kept although something before it is lost."""
    first = lived(0, ("a", 1, 0, 1), ("b", 1, 2, 3), ("a", 2, 6, 7))
    second = lived(1, ("c", 1, 2, 5))
    second.history[0].sent = 1.5
    monkeypatch.setattr(acknowledged, "Conn", lambda *_, **__: contextlib.nullcontext(Ponger()))
    monkeypatch.setattr(acknowledged.Writer, "look", lambda w, c: found[w.number])
    if why is None:
        acknowledged.reckon([first, second], 0, promised)
        return
    with pytest.raises(AssertionError, match=re.escape(why)):
        acknowledged.reckon([first, second], 0, promised)


class Ponger:
    def resp(self, *words):
        return b"+PONG\r\n"


def test_a_stream_leaves_no_settings_behind(weir_backend, redis_server):
    """A min-slaves-to-write would refuse the next one's FLUSHALL."""
    ports = weir_backend().port, redis_server().port

    def set_both(_):
        for port in ports:
            with differential.Client(port) as c:
                assert c.ask("CONFIG", "SET", "min-slaves-to-write", "2", "timeout", "100") == (b"+", b"OK")

    before = [differential.settings(port) for port in ports]
    for seed in range(2):
        differential.run(*ports, ["strings"], seed=seed, count=40, each_time=set_both)
        assert before == [differential.settings(port) for port in ports]
