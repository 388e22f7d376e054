# SPDX-License-Identifier: Apache-2.0
"""kill -9 of workers and of the master, crashes, too few descriptors, and how connections are shared out."""

import collections
import os
import re
import resource
import signal
import stat
import threading
import time

import pytest

import bystanders
from bystanders import Bystanders
from loadtest import Load, cpu_seconds, fd_count, is_alive, reload, settle, workers_of
from weirtest import LOOPBACK, Closed, Conn, can_connect, memcache_pool, program, redis_pool, resp, wait_for


@pytest.fixture(scope="module")
def servers(module_stage):
    return module_stage.redis_server(2), module_stage.memcached(1)


@pytest.fixture
def tier(servers, weir_proxy):
    """tier(workers=2, **keys of `weir:`): a proxy with the pools alpha (Redis) and beta (memcache)."""
    def make(workers=2, listen=None, **keys):
        text = f"weir:\n  version: 1\n  workers: {workers}\n"
        text += "".join(f"  {key}: {value}\n" for key, value in keys.items())
        text += redis_pool(servers[0], "alpha", **({"listen": listen} if listen else {}))
        return weir_proxy(text + memcache_pool(servers[1], "beta"))
    return make


def served_by(conn):
    """The worker's pid."""
    return int(re.search(rb"process_id:(\d+)", conn.resp("INFO", "server")).group(1))


def spread(conns):
    """{pid: how many of the connections it has}."""
    return collections.Counter(served_by(c) for c in conns)


# Workers

def test_killed_worker_hurts_only_its_own(tier):
    proxy = tier(workers=4)
    conns = [proxy.connect("alpha") for _ in range(40)]
    took = []
    for number in range(8):
        where = {c: served_by(c) for c in conns}
        victim = where[conns[number]]
        before = len(proxy.log_text())
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        wait_for(lambda b=before: re.search(r"worker \d started", proxy.log_text()[b:]), "respawn", step=0.001)
        took.append(time.monotonic() - start)
        for c in list(conns):
            if where[c] != victim:
                c.ask(resp("SET", "a", number), b"+OK\r\n")
                continue
            with pytest.raises((Closed, OSError)):
                c.resp("PING")
            c.close()
            conns.remove(c)
            conns.append(proxy.connect("alpha"))
        for c in conns:
            c.ask(resp("PING"), b"+PONG\r\n")
        settle(proxy, 4, [victim])
    print("respawn after at most", f"{max(took) * 1000:.1f} ms")


@pytest.mark.seconds_max(1800)
@pytest.mark.parametrize("count", [pytest.param(10, id="10"),
                                   pytest.param(100, id="100", marks=pytest.mark.nightly)])
def test_others_have_no_errors_while_workers_are_killed(tier, count):
    """Requests of other workers' clients go on; new connections are never refused."""
    proxy = tier(workers=3)
    done, trouble, rounds = threading.Event(), [], [0]
    victims = set()

    def persistent(index):
        conn = proxy.connect("alpha")
        mine, count = served_by(conn), 0
        while not done.is_set():
            try:
                value = f"{index}-{count}".encode()
                conn.ask(resp("SET", f"key-{index}", value) + resp("GET", f"key-{index}"),
                         b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value))
                count += 1
                rounds[0] += 1
            except (AssertionError, OSError) as error:
                if mine not in victims:
                    trouble.append(f"{index}: {error!r}")
                conn.close()
                try:
                    conn = proxy.connect("alpha")
                    mine = served_by(conn)
                except (Closed, AssertionError, OSError) as error:
                    if isinstance(error, ConnectionRefusedError):
                        trouble.append(f"{index}: {error!r}")

    threads = [threading.Thread(target=persistent, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for number in range(count):
        time.sleep(0.2)
        # Killed this often they come back with a delay; somebody is to be left.
        pids = wait_for(lambda: len(workers_of(proxy.pid)) > 1 and workers_of(proxy.pid), "two serve")
        victim = pids[number % len(pids)]
        victims.add(victim)
        os.kill(victim, signal.SIGKILL)
    time.sleep(0.2)
    done.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert rounds[0] > 100
    settle(proxy, 3)


@pytest.mark.parametrize("accept", ["reuseport", "exclusive", "mutex"])
def test_queued_connections_of_a_killed_worker_are_served(tier, accept):
    """Neither what it had not accepted nor what was passed to it is lost with it."""
    proxy = tier(workers=2, accept=accept)
    proxy.connect("alpha").ask(resp("PING"), b"+PONG\r\n").close()
    for victim in workers_of(proxy.pid):
        os.kill(victim, signal.SIGSTOP)
        conns = [proxy.connect("alpha").send(resp("ECHO", i)) for i in range(40)]
        time.sleep(0.2)
        os.kill(victim, signal.SIGKILL)
        for i, c in enumerate(conns):
            c.expect(b"$%d\r\n%d\r\n" % (len(str(i)), i))
            c.close()
        settle(proxy, 2, [victim])


def test_all_workers_killed_at_once(tier):
    proxy = tier(workers=3)
    old = workers_of(proxy.pid)
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    conns = [proxy.connect("alpha").send(resp("ECHO", i)) for i in range(60)]
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    for i, c in enumerate(conns):
        c.expect(b"$%d\r\n%d\r\n" % (len(str(i)), i))
        c.close()
    settle(proxy, 3, old)


def test_counters_survive_a_killed_worker(tier):
    """Totals go on from where they were; gauges of the dead are gone."""
    proxy = tier(workers=2)
    conns = [proxy.connect("alpha") for _ in range(20)]
    for c in conns:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")

    def total(name):
        return proxy.stats()["alpha"][name]
    wait_for(lambda: total("client_connections") == 20, "all are counted")
    bytes_before = sum(server["requests"] for server in proxy.stats()["alpha"].values()
                       if isinstance(server, dict))
    victim = served_by(conns[0])
    lost = sum(1 for c in conns if served_by(c) == victim)
    os.kill(victim, signal.SIGKILL)
    settle(proxy, 2, [victim])
    wait_for(lambda: total("client_connections") == 20 - lost, "the dead one's clients are not counted")
    now = sum(server["requests"] for server in proxy.stats()["alpha"].values() if isinstance(server, dict))
    assert now >= bytes_before
    for c in conns:
        c.close()


def test_crash_loop_backs_off(tier):
    """The sibling serves meanwhile."""
    proxy = tier(workers=2)
    sibling = workers_of(proxy.pid)[0]
    end = time.monotonic() + 20
    while "dies in a loop" not in proxy.log_text() and time.monotonic() < end:
        for pid in workers_of(proxy.pid):
            if pid != sibling:
                os.kill(pid, signal.SIGKILL)
        with proxy.connect("alpha") as c:
            c.send(resp("PING"))
        time.sleep(0.002)
    assert "dies in a loop" in proxy.log_text()
    settle(proxy, 2)
    for _ in range(20):
        with proxy.connect("alpha") as c:
            c.ask(resp("PING"), b"+PONG\r\n")
    assert sibling in workers_of(proxy.pid)


def test_crash_report_names_the_command(tier):
    """version, signal, what was being done, and where."""
    proxy = tier(workers=1)
    proxy.forgiven = r"signal="
    batch = resp("ECHO", "x") * 50000  # tens of milliseconds of work
    for number in range(60):
        with proxy.connect("alpha") as c:
            c.sock.setblocking(False)
            c.sock.send(batch)
            time.sleep(number % 8 * 0.001)
            for pid in workers_of(proxy.pid):
                os.kill(pid, signal.SIGSEGV)
        settle(proxy, 1)
        if "command in execution: echo" in proxy.log_text():
            break
        proxy.connect("alpha").ask(resp("PING"), b"+PONG\r\n").close()
    assert "command in execution: echo" in proxy.log_text()
    report = re.search(r"crash: weir-proxy: worker 0 version=\S+ [^\n]*", proxy.log_text()).group(0)
    assert "signal=SIGSEGV" in report
    assert re.search(r"crash:   #\d", proxy.log_text())


def test_stuck_worker_is_ended_and_replaced(tier):
    """It stands still: the watchdog ends it; who waits on its socket is served."""
    proxy = tier(workers=2)
    proxy.forgiven = r"signal=(SIGABRT|6|9)"
    victim = workers_of(proxy.pid)[0]
    os.kill(victim, signal.SIGSTOP)
    conns = [proxy.connect("alpha").send(resp("PING")) for _ in range(30)]
    for c in conns:
        c.expect(b"+PONG\r\n")
    assert not is_alive(victim)
    assert "is stuck" in proxy.log_text()


# The master

def start_again(stage, proxy, name="successor"):
    """A new master with the same file and the same pid file."""
    process = stage.process(proxy.argv, name)
    wait_for(lambda: not process.is_running() or proxy.master_pid() == process.pid, "the new master serves")
    assert process.is_running(), process.tail() + proxy.tail()
    return process


def test_master_killed_and_replaced_unnoticed(stage, tier):
    proxy = tier(workers=2)
    old = workers_of(proxy.pid)
    ports = proxy.ports
    with Load(stage, ports["alpha"], short=300, idle=20) as alpha, \
            Load(stage, ports["beta"], memcache=True) as beta, \
            Bystanders(ports["alpha"], ports["beta"]) as crowd:
        crowd.before(0)
        proxy.send_signal(signal.SIGKILL)
        proxy.wait()
        crowd.after(0)
        # Nobody's children now: they serve old and new connections.
        time.sleep(0.5)
        assert all(is_alive(pid) for pid in old)
        for _ in range(30):
            with proxy.connect("alpha") as c:
                assert served_by(c) in old
        crowd.before(1)
        new = start_again(stage, proxy)
        crowd.after(1)
        wait_for(lambda: not any(is_alive(pid) for pid in old), "the orphans leave")
        crowd.before(2)
        assert "done" in reload(proxy, master=new.pid)
        crowd.after(2)
    alpha.clean(requests=1000, connections=100)
    beta.clean(requests=1000)
    wait_for(lambda: len(workers_of(new.pid)) == 2, "only the newest are left")
    assert new.stop() == 0
    assert not can_connect(ports["alpha"])


def test_orphans_survive_each_other(tier):
    """Without a master a killed worker's queue goes to its siblings."""
    proxy = tier(workers=3)
    old = workers_of(proxy.pid)
    proxy.send_signal(signal.SIGKILL)
    proxy.wait()
    time.sleep(0.2)
    os.kill(old[0], signal.SIGKILL)
    for i in range(60):
        with proxy.connect("alpha") as c:
            c.ask(resp("ECHO", i), b"$%d\r\n%d\r\n" % (len(str(i)), i))
    # An operator ends them.
    for pid in old[1:]:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not any(is_alive(pid) for pid in old), "they leave")
    assert not can_connect(proxy.port)


@pytest.mark.parametrize("accept", ["exclusive", "mutex"])
def test_shared_sockets_without_a_master(stage, tier, accept):
    proxy = tier(workers=2, accept=accept)
    with Load(stage, proxy.ports["alpha"], short=200) as load:
        proxy.send_signal(signal.SIGKILL)
        proxy.wait()
        time.sleep(0.3)
        new = start_again(stage, proxy)
        time.sleep(0.3)
    load.clean(requests=100, connections=20)
    assert new.stop() == 0


def test_second_master_is_refused(stage, tier):
    proxy = tier()
    process = stage.process(proxy.argv, "second")
    assert process.wait() == 1
    assert f"is served already, by the master pid {proxy.pid}" in process.text()
    assert proxy.master_pid() == proxy.pid
    with proxy.connect("alpha") as c:
        c.ask(resp("PING"), b"+PONG\r\n")


# Descriptors

def test_too_few_descriptors_pause_accepting(tier):
    """Who is connected is served, who waits waits, nobody spins, and it goes on when there is room."""
    proxy = tier(workers=1)
    pid = workers_of(proxy.pid)[0]
    first = proxy.connect("alpha")
    for i in range(20):
        first.ask(resp("SET", f"key-{i}", "1"), b"+OK\r\n")  # connections to both servers are there
    limit = fd_count(pid) + 30
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    conns = [proxy.connect("alpha").send(resp("PING")) for _ in range(80)]
    wait_for(lambda: fd_count(pid) >= limit, "no descriptor is left")
    time.sleep(0.3)
    before = cpu_seconds(pid)
    for i in range(10):
        first.ask(resp("SET", f"key-{i}", "1"), b"+OK\r\n")
        time.sleep(0.1)
    assert cpu_seconds(pid) - before < 0.5  # of a second: a loop would take all of it
    served = [c for c in conns if not c.is_quiet(0.01)]
    assert 10 < len(served) < 60
    for c in served:
        c.expect(b"+PONG\r\n").close()
    for c in conns:
        if c not in served:
            c.expect(b"+PONG\r\n").close()
    assert workers_of(proxy.pid) == [pid]


# Who gets which connection

@pytest.mark.parametrize("accept", ["reuseport", "exclusive", "mutex", "unix"])
def test_connections_are_shared_out(tier, tmp_path, accept):
    """400 that stay, over 4 workers: none has more than an eighth above another. Each is served before the next one comes:
    what a worker has just passed on, nobody has counted yet."""
    path = str(tmp_path / "alpha.sock")
    proxy = tier(workers=4, **({"listen": path} if accept == "unix" else {"accept": accept}))

    def come(count):
        for _ in range(count):
            conns.append(Conn(path=path) if accept == "unix" else proxy.connect("alpha"))
            served_by(conns[-1])

    conns = []
    come(400)
    counts = spread(conns)
    print(accept, sorted(counts.values()))
    assert sum(counts.values()) == 400 and len(counts) == 4
    assert max(counts.values()) <= min(counts.values()) * 9 / 8 + 1, counts
    # Half of them leave, all from two workers; those who come then even it out.
    fullest = {pid for pid, _ in counts.most_common(2)}
    leaving = [c for c in conns if served_by(c) in fullest]
    for c in leaving:
        c.close()
    conns = [c for c in conns if c not in leaving]
    wait_for(lambda: proxy.stats()["alpha"]["client_connections"] == len(conns), "the workers know that they left")
    come(200)
    counts = spread(conns)
    assert len(counts) == 4
    assert max(counts.values()) <= min(counts.values()) * 9 / 8 + 2, counts
    for c in conns:
        c.close()


@pytest.mark.parametrize("accept", ["reuseport", "exclusive", "mutex"])
def test_accept_kinds_under_load(stage, tier, accept):
    """Many short connections, and the kind is changed meanwhile."""
    proxy = tier(workers=3, accept=accept)
    with Load(stage, proxy.ports["alpha"], short=500) as load:
        time.sleep(0.5)
        for kind in ("exclusive", "mutex", "reuseport"):
            conf = re.sub(r"accept: \w+", f"accept: {kind}", proxy.conf_text)
            assert "done" in reload(proxy, conf)
            time.sleep(0.2)
    load.clean(requests=1000, connections=100)


def test_unix_socket_has_the_mode_asked_for(tier, tmp_path):
    path = str(tmp_path / "alpha.sock")
    proxy = tier(listen=f"{path} 0600")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with Conn(path=path) as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        old = workers_of(proxy.pid)
        reload(proxy, proxy.conf_text.replace("0600", "0666"))
        settle(proxy, 2, old)
        c.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    assert proxy.stop() == 0
    assert not os.path.exists(path)


def test_unix_socket_of_a_dead_proxy_is_replaced(stage, tier, tmp_path):
    path = str(tmp_path / "alpha.sock")
    proxy = tier(listen=path)
    for pid in [proxy.pid, *workers_of(proxy.pid)]:
        os.kill(pid, signal.SIGKILL)
    proxy._sent.add(signal.SIGKILL)
    proxy.wait()
    assert os.path.exists(path)
    wait_for(lambda: not can_connect(proxy.ports["beta"]), "all are gone")
    new = start_again(stage, proxy)
    with Conn(path=path) as c:
        c.ask(resp("PING"), b"+PONG\r\n")
    assert new.stop() == 0


__all__ = ["LOOPBACK", "bystanders", "program"]
