# SPDX-License-Identifier: Apache-2.0
"""weir-backend, USR2: the new binary's workers take the shards over, one owner at a time, and no client notices; a
binary that is broken changes nothing."""

import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from loadtest import fd_count, is_alive
from weirtest import LOOPBACK, children_of, cmdline_of, free_port, pid_in, program, replace_binary, resp, wait_for

SHARDS = 2


def port_pair():
    """Shards listen on neighbours."""
    while True:
        port = free_port()
        with socket.socket() as s:
            try:
                s.bind((LOOPBACK, port + 1))
                return port
            except OSError:
                continue


@pytest.fixture
def start(weir_backend, tmp_path, monkeypatch):
    """start(*options): a node whose binary is a copy that the test may replace: node.binary."""
    def run(*options):
        binary, pid_path, log_path = (str(tmp_path / name) for name in ("weir-backend", "pid", "log"))
        shutil.copy(program("weir-backend"), binary)
        monkeypatch.setattr("weirtest.program", lambda name: binary if name == "weir-backend" else program(name))
        node = weir_backend(None, "--workers", str(SHARDS), "--pid_file", pid_path, "--log_file", log_path, *options,
                            port=port_pair())
        node.binary, node.pid_path, node.log_text = binary, pid_path, lambda: text_of(log_path)
        wait_for(lambda: len(workers(node.pid)) == SHARDS and
                 any(": stats" in cmdline_of(pid) for pid in children_of(node.pid)), "all have their titles")
        return node
    masters = []
    run.masters = masters
    yield run
    for pid in masters:
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda p=pid: not is_alive(p), f"{pid} leaves")


def replace(path, text=None, mode=0o755):
    replace_binary(path, program("weir-backend"), text, mode)


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def upgrade(node, start, master=None):
    """USR2; returns the pid of the new master when it serves and the old one has left by itself."""
    old = master or node.pid
    os.kill(old, signal.SIGUSR2)
    new = wait_for(lambda: pid_in(node.pid_path) not in (0, old) and pid_in(node.pid_path), "the new master serves",
                   deadline=30)
    start.masters.append(new)
    if old == node.pid:
        assert node.wait() == 0
    wait_for(lambda: not is_alive(old), "the old master leaves")
    return new


def failed_upgrade(node, master=None, deadline=40):
    before = len(node.log_text())
    os.kill(master or node.pid, signal.SIGUSR2)
    wait_for(lambda: "upgrade failed" in node.log_text()[before:], "the upgrade fails", deadline=deadline)
    return node.log_text()[before:]


def workers(master):
    """In the order of their shards, whatever numbers the kernel gave them."""
    titles = {pid: re.search(r"worker (\d+)", cmdline_of(pid)) for pid in children_of(master)}
    return sorted((pid for pid, title in titles.items() if title), key=lambda pid: int(titles[pid][1]))


class Sock:
    """A client by hand."""

    def __init__(self, port):
        self.s = socket.create_connection((LOOPBACK, port), timeout=30)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data):
        self.s.sendall(data)

    def expect(self, want):
        while len(self.rest) < len(want):
            piece = self.s.recv(65536)
            assert piece, f"closed after {self.rest[:80]!r}, wanted {want[:80]!r}"
            self.rest += piece
        assert self.rest[:len(want)] == want
        self.rest = self.rest[len(want):]

    def ask(self, data, want):
        self.send(data)
        self.expect(want)

    def close(self):
        self.s.close()


class Load:
    """Writers that check each answer: pipelined INCRs and SETs, memcache sets and gets, connections that come and
    go. One that fails says why."""

    def __init__(self, ports):
        self.stop, self.errors, self.count = False, [], 0
        self.counters = {}
        self.threads = []
        for port in ports:
            for i in range(3):
                self.start(self.pipeline, port, i)
            self.start(self.memcache, port, 0)
            self.start(self.short, port, 0)
            self.start(self.large, port, 0)

    def check(self):
        """Each write that was answered is there."""
        for (port, key), done in self.counters.items():
            c = Sock(port)
            c.ask(resp("GET", key), b"$%d\r\n%d\r\n" % (len(str(done)), done))
            c.send(b"".join(resp("GET", f"{key}-{i}") for i in range(done)))
            c.expect(b"".join(b"$%d\r\nv%d\r\n" % (len(str(i % 16)) + 1, i % 16) for i in range(done)))
            c.close()

    def start(self, what, port, number):
        def run():
            try:
                what(port, number)
            except Exception as e:  # pylint: disable=broad-except
                self.errors.append(f"{what.__name__} {port}: {e!r}")
        self.threads.append(threading.Thread(target=run))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *what):
        self.stop = True
        for thread in self.threads:
            thread.join()

    def pipeline(self, port, number):
        c, key, done = Sock(port), f"count-{number}", 0
        while not self.stop:
            c.send(b"".join(resp("INCR", key) + resp("SET", f"{key}-{done + i}", f"v{i}") for i in range(16)))
            c.expect(b"".join(b":%d\r\n+OK\r\n" % (done + i + 1) for i in range(16)))
            done += 16
            self.count += 32
        self.counters[port, key] = done
        c.close()

    def memcache(self, port, _number):
        c, i = Sock(port), 0
        while not self.stop:
            value = b"%d" % i
            c.ask(b"set mc 5 0 %d\r\n%s\r\nget mc\r\n" % (len(value), value),
                  b"STORED\r\nVALUE mc 5 %d\r\n%s\r\nEND\r\n" % (len(value), value))
            i += 1
            self.count += 2
        c.close()

    def short(self, port, _number):
        while not self.stop:
            c = Sock(port)
            c.ask(resp("PING"), b"+PONG\r\n")
            c.close()
            self.count += 1
            time.sleep(0.005)

    def large(self, port, _number):
        """Requests that are far from whole at any moment."""
        c, value = Sock(port), os.urandom(300000)
        while not self.stop:
            data = resp("SET", "large", value)
            for at in range(0, len(data), 50000):
                c.send(data[at:at + 50000])
                time.sleep(0.002)
            c.expect(b"+OK\r\n")
            c.ask(resp("STRLEN", "large"), b":300000\r\n")
            self.count += 2
            time.sleep(0.1)  # the log is to stay small
        c.close()


@pytest.mark.seconds_max(300)
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_upgrades_under_load(start, fsync):
    """Good binaries, and between them ones that fail at each step: at once, with their options, with a shard."""
    node = start("--fsync", fsync)
    ports, master = [node.port, node.port + 1], node.pid
    named = Sock(node.port)
    named.ask(resp("CLIENT", "SETNAME", "anna") + resp("SELECT", "3") + resp("SET", "a", "1"), b"+OK\r\n" * 3)
    shutil.copy(node.binary, node.binary + ".real")
    with Load(ports) as load:
        for number in range(10):
            time.sleep(0.2)
            if number % 2 == 1:
                replace(node.binary, FAILING[number // 2 % len(FAILING)])
                failed_upgrade(node, master)
                wait_for(lambda m=master: pid_in(node.pid_path) == m, "the old one has its pid file back")
                assert len(workers(master)) == SHARDS
                continue
            replace(node.binary)
            old = workers(master)
            master = upgrade(node, start, master)
            wait_for(lambda o=old: not any(is_alive(pid) for pid in o), "the old workers leave")
            assert len(workers(master)) == SHARDS
        time.sleep(0.2)
    assert not load.errors, load.errors
    assert load.count > 1000
    named.ask(resp("CLIENT", "GETNAME") + resp("GET", "a"), b"$4\r\nanna\r\n$1\r\n1\r\n")
    load.check()
    assert "not closed in order" not in node.log_text()


FAILING = [
    "#!/bin/sh\nexit 3\n",
    '#!/bin/sh\nexec "$0.real" "$@" --nonsense\n',
    # The log rings do not fit into what a file may have: each new worker has its shard already, and dies (SIGXFSZ).
    '#!/bin/sh\nulimit -f 4000\nexec "$0.real" "$@"\n',
]


BROKEN = {
    "exits at once": "#!/bin/sh\nexit 1\n",
    "is garbage": "garbage\n",
    "is another program": "#!/bin/sh\nexec /bin/cat /nonexistent\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_binary_changes_nothing(start, how):
    node = start()
    before = workers(node.pid)
    c = Sock(node.port)
    c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    replace(node.binary, BROKEN[how])
    for _ in range(2):
        failed_upgrade(node)
        c.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    assert workers(node.pid) == before
    replace(node.binary)
    upgrade(node, start)
    c.ask(resp("GET", "a"), b"$1\r\n1\r\n")


@pytest.mark.seconds_max(120)
def test_binary_that_hangs(start):
    node = start()
    replace(node.binary, "#!/bin/sh\nexec sleep 600\n")
    with Load([node.port, node.port + 1]) as load:
        failed_upgrade(node)
    assert not load.errors, load.errors
    wait_for(lambda: pid_in(node.pid_path) == node.pid, "the old one has its pid file back")


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGQUIT])
def test_binary_that_hangs_ends_with_the_master(start, signo):
    """It has the listeners, so that the next start would find them held by somebody who does not answer."""
    node = start()
    replace(node.binary, "#!/bin/sh\nexec sleep 600\n")
    hanging = upgrade_stopped(node)
    wait_for(lambda: "sleep" in cmdline_of(hanging), "it hangs")
    node.send_signal(signo)
    assert node.wait() == 0
    wait_for(lambda: not is_alive(hanging), "it is gone")
    replace(node.binary)
    node.restart()
    Sock(node.port).ask(resp("SET", "a", "1"), b"+OK\r\n")


def upgrade_stopped(node):
    """USR2, and the new workers are caught on their way: stopped before they are through."""
    before = set(children_of(node.pid))
    os.kill(node.pid, signal.SIGUSR2)
    return wait_for(lambda: next((pid for pid in children_of(node.pid) if pid not in before), None),
                    "the new master is there")


@pytest.mark.seconds_max(120)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_new_workers_fail_halfway(start, how):
    """The old ones have let go of their shards already: they open them again and go on with their clients."""
    node = start()
    hangs = SHARDS - 1
    lock_holder = Sock(node.port + hangs)
    lock_holder.ask(resp("SET", "a", "1"), b"+OK\r\n")
    old = workers(node.pid)
    with Load([node.port, node.port + 1]) as load:
        os.kill(old[hangs], signal.SIGSTOP)  # shard 1 is not handed over: shard 0 waits for it, handed over
        new = upgrade_stopped(node)
        fresh = wait_for(lambda: len(workers(new)) == SHARDS and workers(new), "the new workers are there")
        wait_for(lambda: f"/0[{fresh[0]}] notice: shard: open" in node.log_text(), "shard 0 is open in the new one")
        if how == "stopped":
            for pid in [new] + fresh:
                os.kill(pid, signal.SIGSTOP)
        else:
            for pid in [new] + fresh:
                os.kill(pid, signal.SIGKILL)
        os.kill(old[hangs], signal.SIGCONT)
        wait_for(lambda: "the old one goes on" in node.log_text(), "the shard is taken back", deadline=40)
        wait_for(lambda: "upgrade failed" in node.log_text(), "the upgrade fails", deadline=40)
        time.sleep(0.5)
    assert not load.errors, load.errors
    assert sorted(workers(node.pid)) == sorted(old)
    lock_holder.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    replace(node.binary)
    upgrade(node, start)
    lock_holder.ask(resp("GET", "a"), b"$1\r\n1\r\n")


def test_what_clients_are_in_the_middle_of(start):
    """MULTI, WATCH, BLPOP, subscriptions, half a request, RESP3, memcache: all go on."""
    node = start()
    port = node.port
    multi, watch, dirty, spoiled, pop, sub, half, three, text, other = (Sock(port) for _ in range(10))
    other.ask(resp("SET", "w", "0") + resp("SET", "d", "0"), b"+OK\r\n" * 2)
    multi.ask(resp("MULTI") + resp("SET", "m", "1") + resp("INCR", "m"), b"+OK\r\n+QUEUED\r\n+QUEUED\r\n")
    watch.ask(resp("WATCH", "w") + resp("MULTI") + resp("GET", "w"), b"+OK\r\n+OK\r\n+QUEUED\r\n")
    dirty.ask(resp("WATCH", "d"), b"+OK\r\n")
    other.ask(resp("SET", "d", "1"), b"+OK\r\n")
    dirty.ask(resp("MULTI") + resp("GET", "d"), b"+OK\r\n+QUEUED\r\n")
    spoiled.ask(resp("MULTI"), b"+OK\r\n")
    spoiled.send(resp("NOSUCH"))
    assert spoiled.s.recv(1000).startswith(b"-ERR unknown command")
    pop.send(resp("BLPOP", "list", "0") + resp("PING"))
    sub.ask(resp("SUBSCRIBE", "c"), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    sub.ask(resp("PSUBSCRIBE", "p*"), b"*3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:2\r\n")
    half.send(resp("SET", "h", "x" * 200000)[:150000])
    three.send(resp("HELLO", "3"))
    wait_for(lambda: three.s.recv(65536), "HELLO is answered")
    text.ask(b"set t 1 0 1\r\nx\r\n", b"STORED\r\n")
    text.send(b"set t 1 0 5\r\nab")
    time.sleep(0.2)
    replace(node.binary)
    upgrade(node, start)
    multi.ask(resp("EXEC"), b"*2\r\n+OK\r\n:2\r\n")
    watch.ask(resp("EXEC"), b"*1\r\n$1\r\n0\r\n")
    dirty.ask(resp("EXEC"), b"*-1\r\n")
    spoiled.ask(resp("EXEC"), b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    other.ask(resp("RPUSH", "list", "v"), b":1\r\n")
    pop.expect(b"*2\r\n$4\r\nlist\r\n$1\r\nv\r\n+PONG\r\n")
    other.ask(resp("PUBLISH", "c", "hi") + resp("PUBLISH", "px", "ho"), b":1\r\n:1\r\n")
    sub.expect(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$2\r\npx\r\n$2\r\nho\r\n")
    half.ask(resp("SET", "h", "x" * 200000)[150000:], b"+OK\r\n")
    three.ask(resp("GET", "none"), b"_\r\n")
    text.ask(b"cde\r\nget t\r\n", b"STORED\r\nVALUE t 1 5\r\nabcde\r\nEND\r\n")


def test_who_is_subscribed_misses_nothing(start):
    """Those who publish have connected first, and go over first, and others come new meanwhile: none of them is executed
    before who is subscribed is there, too."""
    node = start()
    first = [Sock(node.port) for _ in range(4)]
    for publisher in first:
        publisher.ask(resp("PING"), b"+PONG\r\n")
    sub = Sock(node.port)
    sub.ask(resp("SUBSCRIBE", "c"), b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
    stop, wrong = threading.Event(), []

    def publish(old):
        while not stop.is_set():
            publisher = old or Sock(node.port)
            publisher.s.sendall(resp("PUBLISH", "c", "x"))
            answer = publisher.s.recv(100)
            if answer != b":1\r\n":
                wrong.append(answer)
            if not old:
                publisher.s.close()
    threads = [threading.Thread(target=publish, args=(old,), daemon=True) for old in [*first, None, None]]
    threads.append(threading.Thread(target=lambda: [None for _ in iter(lambda: sub.s.recv(1 << 20), b"")], daemon=True))
    for thread in threads:
        thread.start()
    master = None
    for _ in range(8):
        replace(node.binary)
        master = upgrade(node, start, master)
    stop.set()
    for thread in threads[:-1]:
        thread.join(20)
        assert not thread.is_alive()
    assert not wrong


def test_password_is_not_asked_again(start):
    node = start("--password", "secret")
    c, stranger = Sock(node.port), Sock(node.port)
    c.ask(resp("AUTH", "secret") + resp("SET", "a", "1"), b"+OK\r\n+OK\r\n")
    upgrade(node, start)
    c.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    stranger.ask(resp("GET", "a"), b"-NOAUTH Authentication required.\r\n")


def test_settings_survive_a_failed_upgrade(start, tmp_path):
    """What HUP and CONFIG SET changed since the start still holds when the old workers go on."""
    node = start()
    c = Sock(node.port)
    c.ask(resp("CONFIG", "SET", "slowlog-max-len", "77", "maxmemory", "99999999"), b"+OK\r\n")
    shutil.copy(node.binary, node.binary + ".real")
    replace(node.binary, FAILING[2])
    failed_upgrade(node)
    assert "the old one goes on" in node.log_text()
    c.ask(resp("CONFIG", "GET", "slowlog-max-len"), b"*2\r\n$15\r\nslowlog-max-len\r\n$2\r\n77\r\n")
    c.ask(resp("CONFIG", "GET", "maxmemory"), b"*2\r\n$9\r\nmaxmemory\r\n$8\r\n99999999\r\n")


def test_reply_that_is_not_read(start):
    """Megabytes of answers that wait for their reader, and requests behind them, go over."""
    node = start()
    value, count = os.urandom(100000), 200
    c = Sock(node.port)
    c.ask(resp("SET", "a", value), b"+OK\r\n")
    c.send(resp("GET", "a") * count + resp("INCR", "n"))
    time.sleep(0.2)
    for _ in range(3):
        upgrade(node, start, start.masters[-1] if start.masters else None)
    c.expect((b"$100000\r\n" + value + b"\r\n") * count + b":1\r\n")
    c.ask(resp("INCR", "n"), b":2\r\n")


def stalled_upgrade(node):
    """USR2, with shard 0 handed over and waiting, as shard 1 does not come. Returns the new master, its workers and the
    old worker that stands still."""
    old = workers(node.pid)
    os.kill(old[1], signal.SIGSTOP)
    new = upgrade_stopped(node)
    fresh = wait_for(lambda: len(workers(new)) == SHARDS and workers(new), "the new workers are there")
    wait_for(lambda: f"/0[{fresh[0]}] notice: shard: open" in node.log_text(), "shard 0 is open in the new one")
    return new, fresh, old


def test_old_worker_that_hangs(start):
    """The new worker gives up after a while, so the others' clients need not wait for it."""
    node = start()
    with Load([node.port]) as load:
        old = workers(node.pid)
        os.kill(old[1], signal.SIGSTOP)
        assert "it is silent" in failed_upgrade(node)
        os.kill(old[1], signal.SIGCONT)
        time.sleep(0.3)
    assert not load.errors, load.errors
    load.check()
    assert workers(node.pid) == old
    c = Sock(node.port + 1)
    c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    upgrade(node, start)
    c.ask(resp("GET", "a"), b"$1\r\n1\r\n")


@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_old_master_ends_in_the_middle(start, how):
    """There is nobody any more who would go on with the old binary: the new one gets all that is there."""
    node = start()
    c = Sock(node.port)
    c.ask(resp("MULTI") + resp("SET", "a", "1"), b"+OK\r\n+QUEUED\r\n")
    new, fresh, old = stalled_upgrade(node)
    start.masters.append(new)
    if how == "killed":
        node.send_signal(signal.SIGKILL)
    else:
        node.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    os.kill(old[1], signal.SIGCONT)
    wait_for(lambda: pid_in(node.pid_path) == new, "the new master serves")
    wait_for(lambda: not any(is_alive(pid) for pid in old), "the old workers leave")
    assert node.wait() == (-signal.SIGKILL if how == "killed" else 0)
    c.ask(resp("EXEC"), b"*1\r\n+OK\r\n")
    assert workers(new) == fresh
    other = Sock(node.port + 1)
    other.ask(resp("SET", "b", "1"), b"+OK\r\n")


def test_next_upgrade_comes_while_clients_do(start):
    """The newest worker claims shard 0 from one that has not got all of its clients yet: it waits until that has."""
    node = start()
    c, other = Sock(node.port), Sock(node.port + 1)
    c.ask(resp("MULTI") + resp("SET", "a", "1"), b"+OK\r\n+QUEUED\r\n")
    new, _, old = stalled_upgrade(node)
    os.kill(old[0], signal.SIGSTOP)  # when it has let go
    os.kill(old[1], signal.SIGCONT)
    wait_for(lambda: pid_in(node.pid_path) == new, "the new master serves")
    wait_for(lambda: f"/1[{old[1]}] notice: shard: is handed over" in node.log_text(), "shard 1 is the new worker's")
    before = len(node.log_text())
    os.kill(new, signal.SIGUSR2)
    wait_for(lambda: "notice: shard: a new worker claims it shard=1" in node.log_text()[before:], "the newest one claims")
    time.sleep(0.2)
    os.kill(old[0], signal.SIGCONT)
    newest = wait_for(lambda: pid_in(node.pid_path) not in (0, new) and pid_in(node.pid_path), "the newest master serves")
    start.masters.append(newest)
    wait_for(lambda: not is_alive(new), "the one between leaves")
    assert node.wait() == 0 and "upgrade failed" not in node.log_text()
    c.ask(resp("EXEC"), b"*1\r\n+OK\r\n")
    other.ask(resp("SET", "b", "1"), b"+OK\r\n")


def test_winch_is_not_heeded(start):
    """There are no other workers that could serve meanwhile; before, while it starts, and in the middle of an upgrade."""
    node = start()
    c = Sock(node.port)
    os.kill(node.pid, signal.SIGWINCH)
    wait_for(lambda: "WINCH is not heeded" in node.log_text(), "it is told")
    new, fresh, old = stalled_upgrade(node)
    start.masters.append(new)
    for count, pid in enumerate((node.pid, new), 2):
        os.kill(pid, signal.SIGWINCH)
        wait_for(lambda n=count: node.log_text().count("WINCH is not heeded") == n, "it is told")
    os.kill(old[1], signal.SIGCONT)
    wait_for(lambda: pid_in(node.pid_path) == new, "the new master serves")
    assert node.wait() == 0 and workers(new) == fresh
    c.ask(resp("SET", "a", "1"), b"+OK\r\n")


@pytest.mark.parametrize("when", ["before it is parked", "when it has let go"])
def test_old_worker_is_killed(start, when):
    """Its clients are lost, nothing else."""
    node = start()
    c = Sock(node.port)
    c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    other = Sock(node.port + 1)
    other.ask(resp("SET", "b", "1"), b"+OK\r\n")
    new, _, old = stalled_upgrade(node)
    start.masters.append(new)
    if when == "before it is parked":
        os.kill(old[1], signal.SIGKILL)
    else:
        os.kill(old[0], signal.SIGKILL)
        os.kill(old[1], signal.SIGCONT)
    wait_for(lambda: pid_in(node.pid_path) == new, "the new master serves")
    assert node.wait() == 0
    for port, key in ((node.port, "a"), (node.port + 1, "b")):
        fresh = Sock(port)
        fresh.ask(resp("GET", key), b"$1\r\n1\r\n")
    (c if when == "before it is parked" else other).ask(resp("PING"), b"+PONG\r\n")
    assert "stays down" not in node.log_text()


def test_old_worker_is_killed_and_the_new_binary_fails(start):
    """The one that the old master forks in its place waits until the shard is free."""
    node = start()
    c = Sock(node.port)
    c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    new, _, old = stalled_upgrade(node)
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: "is tried again" in node.log_text(), "the one in its place finds the shard taken")
    os.kill(new, signal.SIGKILL)
    os.kill(old[1], signal.SIGCONT)

    def is_served():
        try:
            fresh = Sock(node.port)
            fresh.ask(resp("GET", "a"), b"$1\r\n1\r\n")
            return True
        except (OSError, AssertionError):
            return False
    wait_for(is_served, "the shard is served again")
    wait_for(lambda: pid_in(node.pid_path) == node.pid, "the old one has its pid file back")
    assert len(workers(node.pid)) == SHARDS


def test_new_worker_is_killed_while_clients_come(start):
    """Those that were still on their way reach the one in its place. The two run in turns, in each of which come as many as fit
    into the socket between them: some have come, and not all."""
    node = start()
    count = 1500
    clients = [Sock(node.port) for _ in range(count)]
    for c in clients:
        c.send(resp("SET", "half", "x" * 20000)[:15000])
    new, fresh, old = stalled_upgrade(node)
    start.masters.append(new)
    victim = fresh[0]
    os.kill(old[0], signal.SIGSTOP)  # when it has let go
    os.kill(old[1], signal.SIGCONT)
    wait_for(lambda: pid_in(node.pid_path) == new, "the new master serves")
    come = fd_count(victim)

    def have_some_come():
        for runs, stands in ((old[0], victim), (victim, old[0])):
            os.kill(stands, signal.SIGSTOP)
            os.kill(runs, signal.SIGCONT)
            time.sleep(0.02)
        return fd_count(victim) > come + 10
    wait_for(have_some_come, "some have come")
    os.kill(victim, signal.SIGKILL)
    os.kill(old[0], signal.SIGCONT)
    assert node.wait() == 0
    wait_for(lambda: len(workers(new)) == SHARDS and victim not in workers(new), "there is one in its place")
    served = 0
    for c in clients:
        try:
            c.ask(resp("SET", "half", "x" * 20000)[15000:], b"+OK\r\n")
            served += 1
        except (OSError, AssertionError):
            pass
    print(f"{served} of {count} clients were still on their way")
    assert count / 2 < served < count


@pytest.mark.parametrize("how", ["another", "moved"])
def test_another_directory_is_refused(stage, tmp_path, how):
    """The new binary would serve an empty one, or a copy that is behind, to clients that notice nothing."""
    conf, pid_path = tmp_path / "node.yml", str(tmp_path / "pid")
    data, other = str(tmp_path / "data"), str(tmp_path / "other")

    ports = {"listen": free_port(), "stats": free_port()}

    def write(directory):
        conf.write_text(f"version: 1\ndir: {directory}\npid_file: {pid_path}\n" +
                        "".join(f"{key}: {LOOPBACK}:{port}\n" for key, port in ports.items()))
    write(data)
    node = stage.process([program("weir-backend"), "-c", str(conf)], "node")
    node.wait_listening(ports["listen"])
    with socket.create_connection((LOOPBACK, ports["listen"]), timeout=20) as s:
        s.sendall(resp("SET", "k", "v"))
        assert s.recv(100) == b"+OK\r\n"
        if how == "moved":  # has the same node.id
            shutil.copytree(data, other)
        write(other)
        node.send_signal(signal.SIGUSR2)
        wait_for(lambda: "upgrade failed" in node.text(), "it is refused")
        assert "its dir is another one" in node.text()
        s.sendall(resp("GET", "k"))
        assert s.recv(100) == b"$1\r\nv\r\n"
    assert pid_in(pid_path) == node.pid
