# SPDX-License-Identifier: Apache-2.0
"""nginx-style-master with real processes: start, signals, deaths, listeners, privileges, crash reports.

The server is tests/e2e/master_demo, which speaks lines: "who" says which process answers.
"""

import os
import re
import signal
import socket
import stat
import subprocess

import pytest

from masterdemo import Demo, Lines, fd_count, has_open, title_of
from weirtest import LOOPBACK, become_subreaper, children_of, free_port, pids_of_session, wait_for

become_subreaper()


@pytest.fixture
def demo(tmp_path):
    made = []

    def make(**conf):
        made.append(Demo(tmp_path, **conf))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_starts_serves_and_leaves_nothing(demo, tmp_path):
    d = demo()
    path = str(tmp_path / "x.sock")
    d.extra = [f"listen {path} 0640", f"listen @weir-test-{d.port}"]
    d.write()
    master = d.start()
    assert title_of(master.pid) == "demo: master"
    titles = sorted(title_of(p) for p in children_of(master.pid))
    assert titles == ["demo: stats", "demo: worker 0", "demo: worker 1"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    for address in (d.port, path, f"\0weir-test-{d.port}"):
        with Lines(address) as c:
            assert c.ask("echo hello") == "hello"
    assert d.pid() == master.pid
    assert master.stop(signal.SIGTERM) == 0
    assert not os.path.exists(path) and d.pid() == 0
    assert pids_of_session(master.pid) == []


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_signal_ends_all(demo, signo):
    d = demo()
    master = d.start()
    assert master.stop(signo) == 0
    assert "stopped" in d.log()


def test_start_fails_with_a_reason(demo):
    d = demo()
    d.write(raw="listen 127.0.0.1:1 x\nnonsense\n")
    p = d.start(wait=False)
    assert p.wait() == 1
    assert "demo.conf:2:1: no such key" in p.text()
    d.write(mode="exit", ready_ms=500)
    p = d.start(wait=False)
    assert p.wait() == 1
    assert "start failed" in p.text()
    d.write(mode="fatal")
    p = d.start(wait=False)
    assert p.wait() == 1
    d.write(mode="hang")
    p = d.start(wait=False)
    assert p.wait() == 1
    assert d.pid() == 0


def test_second_master_is_refused(demo):
    d = demo()
    master = d.start()
    second = d.start(wait=False)
    assert second.wait() == 1
    assert f"served already, by the master pid {master.pid}" in second.text()
    assert d.pid() == master.pid
    with d.connect() as c:
        assert c.ask("echo x") == "x"
    d.masters.pop()


def test_foreign_listener_is_an_error(demo):
    d = demo()
    with socket.create_server((LOOPBACK, d.port)):
        p = d.start(wait=False)
        assert p.wait() == 1
        assert f"cannot bind {LOOPBACK}:{d.port}" in p.text()


def test_unix_socket_of_others_is_left_alone(demo, tmp_path):
    d = demo()
    path = str(tmp_path / "x.sock")
    d.extra = [f"listen {path} 0600"]
    d.write()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        p = d.start(wait=False)
        assert p.wait() == 1
        assert os.path.exists(path)
    p = d.start()  # nobody listens any more: the stale file is replaced
    with Lines(path) as c:
        assert c.ask("echo x") == "x"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        p.stop()
        assert os.path.exists(path)  # not our socket
    os.unlink(path)
    with open(path, "w", encoding="ascii"):
        pass
    p = d.start(wait=False)
    assert p.wait() == 1
    assert os.path.isfile(path)


def test_killed_worker_is_replaced_and_hurts_only_its_own(demo):
    d = demo()
    d.start()
    clients = [d.connect() for _ in range(20)]
    before = [c.who() for c in clients]
    victim = before[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    for c, who in zip(clients, before):
        if who["pid"] == victim:
            with pytest.raises((EOFError, ConnectionError)):
                c.ask("who")
        else:
            assert c.who()["pid"] == who["pid"]
    wait_for(lambda: len(d.worker_pids()) == 2 and victim not in d.worker_pids(), "respawn")
    # It is there before it accepts, and until then the other takes all.
    wait_for(lambda: len({c.who()["pid"] for c in [d.connect() for _ in range(20)]}) == 2, "the successor serves nobody")


def test_queued_connections_of_a_killed_worker_are_served_by_siblings(demo):
    """The successor leaves at once, so that only siblings can have answered."""
    d = demo(mode="once", workers=3)
    d.start()
    victim = d.workers()[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    # One third of these wait in the queue of the stopped worker.
    clients = [d.connect() for _ in range(30)]
    for c in clients:
        c.send("who\n")
    os.kill(victim, signal.SIGKILL)
    for c in clients:
        assert f"pid={victim}" not in c.line()
    wait_for(lambda: len(d.worker_pids()) == 2, "no successor stays")


def test_many_kills_refuse_nobody(demo):
    d = demo(workers=3)
    d.start()
    for i in range(12):
        pids = d.worker_pids()
        victim = pids[i % len(pids)]
        os.kill(victim, signal.SIGSTOP)
        waiting = [d.connect() for _ in range(9)]
        os.kill(victim, signal.SIGKILL)
        for c in waiting:
            assert c.ask("echo y") == "y"
            c.close()
        wait_for(lambda: len(d.worker_pids()) == 3, "respawn")
    assert d.stats()["respawns"] >= 12


def test_crash_loop_backs_off_and_the_rest_serves(demo):
    d = demo(workers=2, mode="once")
    d.start()
    os.kill(d.workers()[0]["pid"], signal.SIGKILL)
    d.wait_log(r"dies in a loop, next start later deaths=5")
    for _ in range(10):
        with d.connect() as c:
            assert c.ask("echo x") == "x"
    wait_for(lambda: len(d.worker_pids()) == 1, "the one that dies is not there")


def test_exit_code_2_is_final(demo):
    d = demo(workers=2)
    d.start()
    with d.connect() as c:
        gone = c.who()["pid"]
        c.send("fatal\n")
        d.wait_log(r"is not started again")
    for _ in range(20):
        with d.connect() as c:
            assert c.who()["pid"] != gone
    assert len(d.worker_pids()) == 1
    d.reload()
    assert len(d.worker_pids()) == 2


def test_stuck_worker_is_ended_and_says_where(demo):
    d = demo(watchdog_ms=1000)
    d.start()
    with d.connect() as c:
        stuck = c.who()["pid"]
        c.send("spin\n")
        d.wait_log(rf"is stuck, ends it pid={stuck}")
        d.wait_log(rf"pid={stuck} [^\n]*signal=SIGABRT")
        d.wait_log(r"client_command")
    wait_for(lambda: stuck not in d.worker_pids() and len(d.worker_pids()) == 2, "respawn")


def test_stopped_worker_is_ended(demo):
    d = demo(watchdog_ms=1000)
    d.start()
    victim = d.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    wait_for(lambda: victim not in d.worker_pids() and len(d.worker_pids()) == 2, "respawn")


def test_crash_report(demo):
    d = demo()
    d.start()
    with d.connect() as c:
        pid = c.who()["pid"]
        c.send("crash\n")
        report = d.wait_log(rf"crash: demo: worker \d version=1.0 pid={pid} [^\n]*\n[^\n]*\n")
        assert "signal=SIGSEGV address=0x10" in report and "demo_crash" in report
        assert "command in execution: crash (a command)" in report
        d.wait_log(r"crash:   #\d+ 0x[0-9a-f]+ client_command\+0x")  # a static function
        d.wait_log(rf"died pid={pid} signal=11")


def test_assertion_report(demo):
    d = demo()
    p = d.start()
    with d.connect() as c:
        c.send("abort\n")
        d.wait_log(r"signal=SIGABRT")
        wait_for(lambda: "assertion failed: demo == NULL" in p.text(), "the assertion's text")


@pytest.mark.parametrize("accept", ["reuseport", "exclusive", "mutex"])
def test_connections_are_balanced(demo, accept):
    """200 connections that stay: no worker has more than an eighth above another."""
    d = demo(workers=4, accept=accept)
    d.start()
    clients = []
    for _ in range(200):
        clients.append(d.connect())
        assert clients[-1].ask("echo x") == "x"
    loads = [w["load"] for w in d.workers()]
    assert sum(loads) == 200 and len(loads) == 4
    assert max(loads) <= min(loads) * 9 / 8 + 1, loads
    for c in clients:
        c.close()


def test_cpu_affinity(demo):
    d = demo()
    d.extra = ["cpu 0"]
    d.write()
    d.start()
    for pid in d.worker_pids():
        assert os.sched_getaffinity(pid) == {0}


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def test_rights_are_dropped(demo):
    if os.getuid() != 0:
        return
    d = demo(user="nobody")
    master = d.start()
    for pid in children_of(master.pid):
        status = status_of(pid)
        assert status["Uid"].split() == ["65534"] * 4
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
    assert status_of(master.pid)["Uid"].split()[0] == "0"
    d.write(user="no-such-user")
    assert "there is no user" in d.reload()


def test_sandboxed_worker_serves_and_changes_no_file(demo):
    d = demo(sandbox=1, **({"user": "nobody"} if os.getuid() == 0 else {}))
    d.start()
    wait_for(lambda: "sandbox: seccomp" in d.log() or "no sandbox here" in d.log(), "it is told")
    with d.connect() as c:
        if "no sandbox here" not in d.log():
            assert c.ask("misbehave") == "create=-1 exec=-1"
        assert c.ask("name anna") == "ok"
        assert "done" in d.reload()
        wait_for(lambda: c.who()["generation"] == 2, "moved")
        assert c.ask("name?") == "anna"
        c.send("crash\n")
        d.wait_log("crash: demo: worker [^\n]*demo_crash")


def test_log_reopen_with_dropped_rights(demo):
    d = demo(**({"user": "nobody"} if os.getuid() == 0 else {}))
    d.start()
    for signo in (signal.SIGUSR1, signal.SIGHUP):
        os.rename(d.log_path, d.log_path + ".1")
        d.signal(signo)
        wait_for(lambda: os.path.exists(d.log_path), "a new log")
        if signo == signal.SIGHUP:
            d.wait_log("reload done")
        wait_for(lambda: len(d.worker_pids()) == 2 and all(has_open(pid, d.log_path) for pid in d.worker_pids()),
                 "the workers have it")
        with d.connect() as c:
            c.send("crash\n")
            d.wait_log("crash: demo: worker")  # the worker writes to the new file too
        wait_for(lambda: len(d.worker_pids()) == 2, "respawn")


def test_log_level_by_signal_and_request(demo):
    d = demo()
    d.start("-v", "5")
    d.signal(signal.SIGTTIN)
    wait_for(lambda: d.stats()["level"] == 6, "TTIN")
    d.signal(signal.SIGTTOU)
    wait_for(lambda: d.stats()["level"] == 5, "TTOU")
    assert d.control("level 11") == "ok \n"
    assert d.stats()["level"] == 11
    assert d.control("level 12").startswith("invalid")


def test_set_reaches_all_and_lasts_until_hup(demo):
    d = demo(workers=3)
    d.start()
    assert d.control("set blue") == "ok \n"

    def values():
        found = {}
        for _ in range(60):
            with d.connect() as c:
                found[c.who()["pid"]] = c.ask("value")
        return found

    wait_for(lambda: set(values().values()) == {"blue"}, "set")
    victim = d.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(d.worker_pids()) == 3, "respawn")
    wait_for(lambda: set(values().values()) == {"blue"}, "its successor knows too")
    d.reload()
    d.settle()
    assert set(values().values()) == {""}


def test_winch_drains_and_hup_brings_back(demo):
    d = demo()
    master = d.start()
    d.signal(signal.SIGWINCH)
    wait_for(lambda: children_of(master.pid) == [], "the workers left")
    assert master.is_running()
    waiting = d.connect()  # its queue is still there
    d.reload()
    assert waiting.ask("echo x") == "x"
    waiting.close()


def test_worker_told_by_an_operator(demo):
    """TERM or QUIT to a worker, not to the master: it leaves, another comes, nobody is refused."""
    d = demo()
    d.start()
    for signo in (signal.SIGTERM, signal.SIGQUIT):
        victim = d.worker_pids()[0]
        os.kill(victim, signo)
        wait_for(lambda: victim not in d.worker_pids() and len(d.worker_pids()) == 2, "replaced")
        for _ in range(10):
            with d.connect() as c:
                assert c.ask("echo x") == "x"


def test_stats_process_is_replaced(demo):
    d = demo()
    master = d.start()
    stats = wait_for(lambda: [p for p in children_of(master.pid) if title_of(p) == "demo: stats"], "it has its title")
    with d.connect() as c:
        for _ in range(10):
            c.ask("echo x")
        before = d.stats()["requests"]
        os.kill(stats[0], signal.SIGKILL)
        assert d.stats()["requests"] == before  # waits in the queue until the next one is there
    assert title_of([p for p in children_of(master.pid) if p not in d.worker_pids()][0]) == "demo: stats"


def test_stopped_stats_process_is_replaced(demo):
    d = demo(watchdog_ms=1000)
    master = d.start()
    d.stats()
    stats = [p for p in children_of(master.pid) if title_of(p) == "demo: stats"][0]
    os.kill(stats, signal.SIGSTOP)
    assert d.stats()["pid"] == master.pid
    d.wait_log(rf"stats process is stuck, ends it pid={stats}")


def test_daemon(demo):
    """The first process waits until all serve, and its exit code says whether they do."""
    d = demo()
    d.conf_path = os.path.relpath(d.conf_path, d.directory)  # relative: chdir("/") must not matter
    os.chdir(d.directory)
    p = d.start("-d", wait=False)
    assert p.wait() == 0
    pid = d.pid()
    try:
        assert pid != p.pid and os.getsid(pid) != pid and os.readlink(f"/proc/{pid}/cwd") == "/"
        with d.connect() as c:
            assert c.ask("echo x") == "x"
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
        os.kill(pid, signal.SIGHUP)
        d.wait_log("reload done")
        second = subprocess.run(d.argv("-d"), cwd=d.directory, capture_output=True, text=True, timeout=20,
                                check=False)
        assert second.returncode == 1 and "served already" in second.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}") or status_of(pid)["State"][0] == "Z", "ended")
    assert d.pid() == 0
    d.write(mode="exit", ready_ms=300)
    failed = subprocess.run(d.argv("-d"), cwd=d.directory, capture_output=True, text=True, timeout=20,
                            check=False)
    assert failed.returncode == 1 and "start failed" in failed.stderr


def test_listener_of_one_address_twice_is_refused(demo):
    d = demo()
    d.extra = [f"listen {LOOPBACK}:{d.port}"]
    d.write()
    p = d.start(wait=False)
    assert p.wait() == 1 and "is given twice" in p.text()


def test_ipv6_and_names(demo):
    d = demo()
    port = free_port()
    d.extra = [f"listen localhost:{port}"]
    has_v6 = os.path.exists("/proc/net/if_inet6") and "00000001" in open("/proc/net/if_inet6").read()
    if has_v6:
        d.extra.append(f"listen ::1:{port}")
    d.write()
    d.start()
    with Lines(port) as c:
        assert c.ask("echo x") == "x"
    if has_v6:
        with socket.create_connection(("::1", port), timeout=20) as s:
            s.sendall(b"echo y\n")
            assert s.recv(100) == b"y\n"


def test_no_descriptor_reaches_another_program(demo):
    """All of the master's descriptors are closed by exec, but those of an upgrade."""
    d = demo()
    master = d.start()
    for name in os.listdir(f"/proc/{master.pid}/fd"):
        if int(name) > 2:
            with open(f"/proc/{master.pid}/fdinfo/{name}", encoding="ascii") as f:
                flags = int(re.search(r"flags:\s*(\d+)", f.read()).group(1), 8)
            assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{master.pid}/fd/{name}")


def test_worker_fds_do_not_grow_with_respawns(demo):
    d = demo()
    master = d.start()
    first = fd_count(master.pid)
    for _ in range(6):
        before = d.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(d.worker_pids()) == 2 and before[0] not in d.worker_pids(), "respawn")
    wait_for(lambda: fd_count(master.pid) == first, "as many as before")
