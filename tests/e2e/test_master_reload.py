# SPDX-License-Identifier: Apache-2.0
"""nginx-style-master: reload, hand-over of clients, upgrade, and life without a master."""

import os
import shutil
import signal
import socket
import time

import pytest

from masterdemo import Demo, Lines, Load, demo_program, fd_count
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


# Reload

def test_reload_hands_idle_clients_over(demo):
    d = demo()
    d.start()
    with d.connect() as named, d.connect() as half:
        assert named.ask("name anna") == "ok"
        half.send("echo un")  # unparsed input moves too
        old = named.who()
        time.sleep(0.05)
        assert "done" in d.reload()
        wait_for(lambda: named.who()["generation"] == old["generation"] + 1, "moved")
        assert named.ask("name?") == "anna"
        half.send("finished\n")
        assert half.line() == "unfinished"
        wait_for(lambda: half.who()["generation"] == old["generation"] + 1, "moved")
        assert named.who()["tag"] == 0
    d.settle()


def test_reload_changes_configuration_and_health_is_handed_on(demo):
    d = demo(greeting="one")
    d.start()
    with d.connect() as c:
        assert (c.ask("greeting"), c.ask("health")) == ("one", "1")
        d.write(greeting="two", workers=3)
        d.reload()
        wait_for(lambda: c.ask("greeting") == "two", "moved")
        assert c.ask("health") == "2"
    d.settle()
    assert len(d.worker_pids()) == 3


@pytest.mark.parametrize("count", [(4, 1), (1, 4)])
def test_worker_count_changes_without_loss(demo, count):
    """A socket for each worker: those that are too many go to siblings, none is closed."""
    before, after = count
    d = demo(workers=before)
    d.start()
    with Load(d) as load:
        for workers in (after, before, after):
            d.write(workers=workers)
            assert "done" in d.reload()
            d.settle()
            assert len(d.worker_pids()) == workers
    assert load.troubles == []


def test_addresses_come_and_go(demo, tmp_path):
    d = demo()
    master = d.start()
    fds = fd_count(master.pid)
    port, path = free_port(), str(tmp_path / "y.sock")
    d.extra = [f"listen {LOOPBACK}:{port}", f"listen {path} 0666"]
    d.write()
    d.reload()
    with Lines(port) as c, Lines(path) as u:
        assert c.who()["tag"] == 2 and u.who()["tag"] == 3
        d.extra = [f"listen {path} 0600"]
        d.write()
        d.reload()
        d.settle()
        # Its client lives on, though nobody listens there any more.
        assert c.who()["tag"] == 99
        assert u.who()["tag"] == 2
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(ConnectionRefusedError):
        Lines(port)
    d.extra = []
    d.write()
    d.reload()
    d.settle()
    assert not os.path.exists(path)
    wait_for(lambda: fd_count(master.pid) == fds, "as many descriptors as before")


def test_accept_kind_changes_without_loss(demo):
    d = demo(workers=3)
    d.start()
    with Load(d) as load:
        for kind in ("exclusive", "reuseport", "mutex", "reuseport"):
            d.write(accept=kind)
            assert "done" in d.reload()
    assert load.troubles == []


def test_failed_reloads_change_nothing_and_leak_nothing(demo, tmp_path):
    d = demo()
    master = d.start()
    pids, fds = d.worker_pids(), fd_count(master.pid)
    taken = socket.create_server((LOOPBACK, free_port()))
    good = dict(d.conf)
    with Load(d, persistent=3, short=1) as load, d.connect() as idle:
        assert idle.ask("name idle") == "ok"
        for round_number in range(3):
            for what, text in [
                    (dict(mode="exit"), "left before it was ready"),
                    (dict(mode="crash"), "left before it was ready"),
                    (dict(mode="fatal"), "left before it was ready"),
                    (dict(mode="hang", ready_ms=500), "not ready within 500 ms"),
                    (dict(raw="broken\n"), "demo.conf:1:1"),
                    (dict(workers=4000), "workers: 4000 are too many"),
                    (dict(extra=f"listen {LOOPBACK}:{taken.getsockname()[1]}"), "cannot bind"),
                    (dict(extra=f"listen {tmp_path}/none/x.sock 0600"), "cannot bind"),
                    (dict(extra=f"listen {LOOPBACK}:{free_port()}", mode="exit", workers=4),
                     "left before"),
            ]:
                what = dict(what)
                d.extra = [what.pop("extra")] if "extra" in what else []
                d.conf = dict(good)
                d.write(**what)
                assert "refused" in (line := d.reload()) and text in line, (line, round_number)
        d.extra, d.conf = [], dict(good)
        d.write()
        assert d.worker_pids() == pids
        wait_for(lambda: fd_count(master.pid) == fds, "the master's descriptors are as before")
        assert idle.ask("name?") == "idle"
        assert "done" in d.reload()
    assert load.troubles == []
    taken.close()
    assert d.stats()["failed"] == 27


def test_hanging_clients_of_a_failed_reload_wait_in_no_queue(demo):
    """Sockets that a failed attempt bound must not have swallowed connections."""
    d = demo(workers=1)
    d.start()
    for _ in range(5):
        d.write(workers=4, mode="hang", ready_ms=300)
        d.signal(signal.SIGHUP)
        clients = [d.connect() for _ in range(20)]
        for c in clients:
            assert c.ask("echo x") == "x"
            c.close()
        before = len(d.log())
        d.wait_log("reload refused", max(0, before - 2000))


@pytest.mark.parametrize("count", [pytest.param(25, id="25"),
                                   pytest.param(200, marks=pytest.mark.nightly, id="200")])
def test_many_reloads_under_load(demo, count):
    d = demo(workers=2)
    master = d.start()
    broken = 0
    with Load(d) as load:
        for i in range(count):
            if i % 5 == 4:
                d.write(raw="what is this\n")
                assert "refused" in d.reload()
                broken += 1
            else:
                d.write()
                assert "done" in d.reload()
            slots = d.stats()["slots"]
            assert len({s["generation"] for s in slots}) <= 3, slots
    assert load.troubles == []
    assert load.requests > count and load.connections > count
    d.settle()
    stats = d.stats()
    assert stats["reloads"] == count - broken
    # Every request of every generation is still counted.
    assert stats["requests"] >= load.requests
    wait_for(lambda: len(children_of(master.pid)) == 3, "older generations have left")


def test_reload_storm_is_merged(demo):
    """More HUPs than generations fit: they wait, and the last one's configuration is what serves."""
    d = demo(greeting="old")
    d.start()
    with Load(d) as load:
        for i in range(30):
            d.write(greeting=f"g{i}")
            d.signal(signal.SIGHUP)
        def newest():
            with d.connect() as c:
                return c.ask("greeting") == "g29"
        wait_for(newest, "the last one serves")
    assert load.troubles == []
    d.settle()


def test_counters_never_fall(demo):
    d = demo()
    d.start()
    last = 0
    with Load(d, persistent=2, short=1):
        for i in range(12):
            if i % 4 == 1:
                d.reload()
            if i % 4 == 3:
                os.kill(d.worker_pids()[0], signal.SIGTERM)
            now = d.stats()["requests"]
            assert now >= last, (i, last, now)
            last = now
            time.sleep(0.02)


def test_worker_killed_during_reload(demo):
    """Old and new workers die in the middle of it: it ends as done or refused, and it serves."""
    d = demo(workers=3)
    master = d.start()
    for i in range(8):
        d.signal(signal.SIGHUP)
        time.sleep(0.001 * i)
        for pid in children_of(master.pid)[i % 3:i % 3 + 2]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    wait_for(lambda: len(d.worker_pids()) == 3, "all serve")
    d.settle()
    with d.connect() as c:
        assert c.ask("echo x") == "x"


def test_client_passed_to_a_dead_worker_is_served(demo):
    """What waits in the hand-over socket when its reader dies is read by its successor or a sibling."""
    for mode in ("serve", "once"):
        d = demo(workers=2, mode=mode)
        d.start()
        victim = d.worker_pids()[0]
        os.kill(victim, signal.SIGSTOP)
        fresh = []

        def are_passed():
            """The kernel gives about half to either, and the other one some of its own to the one that stands still."""
            fresh.extend(d.connect() for _ in range(10))
            return len(fresh) >= 40 and d.stats()["passed"] > 5
        wait_for(are_passed, "some wait in the hand-over socket", step=0.05)
        os.kill(victim, signal.SIGKILL)
        for c in fresh:
            assert c.ask("echo x") == "x"
        d.close()


def test_drain_time_is_bounded(demo, tmp_path):
    """A worker that does not leave is ended after drain_timeout, and the next reload goes on."""
    d = demo(drain_ms=300)
    d.start()
    old = d.worker_pids()
    os.kill(old[0], signal.SIGSTOP)
    assert "done" in d.reload()
    d.settle()
    assert not set(old) & set(d.worker_pids())


def test_request_over_the_control_port(demo):
    d = demo()
    d.start()
    assert d.control("reload") == "ok \n"
    wait_for(lambda: d.stats()["generation"] == 2, "the new generation's stats process")
    d.write(raw="broken\n")
    assert "demo.conf:1:1: no such key" in d.control("reload")
    d.write()
    assert d.control("reopen") == "ok \n"
    assert d.control("upgrade /nonexistent/binary").startswith("invalid")
    assert d.control("quit") == "ok \n"
    wait_for(lambda: not d.masters[0].is_running(), "it left")
    assert d.masters[0].wait() == 0


def test_reload_in_place(demo):
    """The workers stay; what needs other sockets or workers is refused."""
    d = demo(in_place=1, greeting="one")
    d.start()
    pids = d.worker_pids()
    with d.connect() as c:
        assert c.ask("greeting") == "one"
        d.write(greeting="two")
        assert "done in place" in d.reload()
        wait_for(lambda: c.ask("greeting") == "two", "applied")
        for changes in (dict(workers=3), dict(workers=2, raw="broken\n")):
            d.write(**changes)
            assert "refused" in d.reload()
        d.extra = [f"listen {LOOPBACK}:{free_port()}"]
        d.write()
        assert "refused" in d.reload()
        assert c.ask("greeting") == "two" and d.worker_pids() == pids
        os.kill(c.who()["pid"], signal.SIGKILL)
    wait_for(lambda: len(d.worker_pids()) == 2, "respawn")
    with d.connect() as c:
        assert c.ask("greeting") == "two"


# Upgrade

def upgraded(d, load_old_pid):
    """The pid of the new master, once it serves."""
    return wait_for(lambda: d.pid() not in (0, load_old_pid) and d.pid(), "the new master serves")


def quit_master(pid):
    os.kill(pid, signal.SIGQUIT)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}/fd") or not os.listdir(f"/proc/{pid}/fd"), "it left")


def test_upgrade_moves_everything(demo):
    d = demo()
    old = d.start()
    with d.connect() as c:
        c.ask("name anna")
        who = c.who()
        before = d.stats()
        d.signal(signal.SIGUSR2)
        new = upgraded(d, old.pid)
        assert d.pid(".oldbin") == old.pid
        # Both serve until the old one is told to leave.
        assert c.who()["pid"] == who["pid"]
        wait_for(lambda: d.stats()["generation"] > who["generation"], "the new stats process answers")
        assert d.stats()["requests"] >= before["requests"]
        os.kill(old.pid, signal.SIGQUIT)
        assert old.wait() == 0
        assert c.ask("name?") == "anna"
        assert c.who()["generation"] == who["generation"] + 1
    assert d.pid() == new and d.pid(".oldbin") == 0
    assert d.stats()["requests"] > before["requests"]
    os.kill(new, signal.SIGHUP)
    d.wait_log("reload done")
    os.kill(new, signal.SIGQUIT)
    wait_for(lambda: pids_of_session(old.pid) == [], "all left")
    assert d.pid() == 0


def test_upgrade_is_backed_out(demo):
    d = demo()
    old = d.start()
    with Load(d) as load:
        for _ in range(2):
            d.signal(signal.SIGUSR2)
            new = upgraded(d, old.pid)
            os.kill(old.pid, signal.SIGWINCH)
            time.sleep(0.2)
            before = len(d.log())
            os.kill(old.pid, signal.SIGHUP)  # brings the old workers back
            d.wait_log("reload done", before)
            os.kill(new, signal.SIGQUIT)
            wait_for(lambda: d.pid() == old.pid, "the pid file is the old one's again")
            assert d.pid(".oldbin") == 0
        d.settle()
    assert load.troubles == []


def test_new_master_dies_at_once(demo):
    d = demo()
    old = d.start()
    with Load(d) as load:
        d.signal(signal.SIGUSR2)
        new = upgraded(d, old.pid)
        os.kill(new, signal.SIGKILL)
        wait_for(lambda: d.pid() == old.pid, "the pid file is the old one's again")
        # Its workers are orphans of a newer generation: told to leave, they hand over to the old one's.
        wait_for(lambda: {s["generation"] for s in d.stats()["slots"]} == {1}, "they left")
    assert load.troubles == []


@pytest.mark.parametrize("binary", ["/bin/true", "/bin/false", "/nonexistent", "/etc/passwd", "hang", "other"])
def test_broken_binary_leaves_the_old_untouched(demo, tmp_path, binary):
    d = demo()
    target = str(tmp_path / "binary")
    shutil.copy(demo_program(), target)
    os.chmod(target, 0o755)
    old = d.start(binary=target)
    pids, fds = d.worker_pids(), fd_count(old.pid)
    if binary == "hang":
        text = "#!/bin/sh\nexec sleep 60\n"
    elif binary == "other":
        text = f"#!/bin/sh\nprintf 'weir-inherit 99\\n' > {tmp_path}/x\nexec 9<{tmp_path}/x\n" \
               f"WEIR_INHERIT=9 exec {demo_program()} -c {d.conf_path} -l {d.log_path}\n"
    else:
        text = None
    with Load(d, persistent=3, short=1) as load:
        os.unlink(target)
        if text is not None:
            with open(target, "w", encoding="ascii") as f:
                f.write(text)
            os.chmod(target, 0o755)
        elif os.path.exists(binary):
            os.symlink(binary, target)
        d.signal(signal.SIGUSR2)
        wait_for(lambda: "upgrade failed, the old binary goes on" in d.log(), "it gave up", deadline=40)
        if binary == "other":
            assert "speaks \"weir-inherit 99\"" in d.log()
        assert d.pid() == old.pid and d.pid(".oldbin") == 0
        assert d.worker_pids() == pids
        wait_for(lambda: fd_count(old.pid) == fds, "no descriptor more")
        if os.path.lexists(target):
            os.unlink(target)
        shutil.copy(demo_program(), target)
        d.signal(signal.SIGUSR2)
        new = upgraded(d, old.pid)
        os.kill(old.pid, signal.SIGQUIT)
        assert old.wait() == 0
    assert load.troubles == []
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: d.pid() == 0, "ended")


@pytest.mark.parametrize("count", [pytest.param(4, id="4"),
                                   pytest.param(20, marks=pytest.mark.nightly, id="20")])
def test_upgrades_under_load(demo, count):
    d = demo()
    first = d.start()
    current = first.pid
    with Load(d) as load:
        for i in range(count):
            os.kill(current, signal.SIGUSR2)
            new = upgraded(d, current)
            os.kill(current, signal.SIGQUIT)
            wait_for(lambda pid=current: d.pid(".oldbin") != pid, "the old one left")
            current = new
            if i % 2:
                os.kill(current, signal.SIGHUP)
                wait_for(lambda: d.stats()["reloads"] == 1, "reloaded")
    assert load.troubles == []
    assert d.stats()["requests"] >= load.requests
    os.kill(current, signal.SIGTERM)
    wait_for(lambda: d.pid() == 0, "ended")


# No master

def test_workers_serve_without_a_master_and_a_new_one_takes_over(demo):
    d = demo(workers=3)
    old = d.start()
    with Load(d) as load, d.connect() as c:
        c.ask("name anna")
        before = c.who()
        os.kill(old.pid, signal.SIGKILL)
        old.popen.wait()
        assert c.who()["pid"] == before["pid"]
        for _ in range(20):
            with d.connect() as other:
                assert other.ask("echo x") == "x"
        new = d.start()
        assert "taking over from the workers" in d.log()
        wait_for(lambda: c.who()["generation"] > before["generation"], "handed over")
        assert c.ask("name?") == "anna"
        d.settle()
        wait_for(lambda: d.stats()["requests"] >= 20, "requests are counted")
        assert "done" in d.reload()
    assert load.troubles == []
    wait_for(lambda: pids_of_session(old.pid) == [], "the orphans have left")
    assert new.stop() == 0


def test_orphans_take_each_others_sockets(demo):
    """Without a master, a worker dies: the others accept from its socket."""
    d = demo(workers=3)
    old = d.start()
    victim = d.worker_pids()[0]
    os.kill(old.pid, signal.SIGKILL)
    old.popen.wait()
    os.kill(victim, signal.SIGSTOP)
    clients = [d.connect() for _ in range(30)]
    os.kill(victim, signal.SIGKILL)
    for c in clients:
        assert c.ask("echo x") == "x"
        c.close()
    d.start()
    d.settle()


def test_failed_start_leaves_orphans_serving(demo):
    d = demo()
    old = d.start()
    with Load(d, persistent=2, short=1) as load:
        os.kill(old.pid, signal.SIGKILL)
        old.popen.wait()
        d.write(mode="exit", ready_ms=300)
        assert d.start(wait=False).wait() == 1
        with d.connect() as c:
            assert c.who()["generation"] == 1
        d.write(mode="serve", ready_ms=None)
        d.start()
        d.settle()
    assert load.troubles == []


def test_master_killed_during_upgrade(demo):
    """The old master dies while both serve: the new one tells its orphans to leave."""
    d = demo()
    old = d.start()
    with Load(d) as load:
        d.signal(signal.SIGUSR2)
        new = upgraded(d, old.pid)
        os.kill(old.pid, signal.SIGKILL)
        old.popen.wait()
        d.settle()
    assert load.troubles == []
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: d.pid() == 0 and pids_of_session(old.pid) == [], "ended")


def test_orphans_end_by_signal(demo):
    d = demo()
    old = d.start()
    pids = d.worker_pids()
    os.kill(old.pid, signal.SIGKILL)
    old.popen.wait()
    for pid, signo in zip(pids, (signal.SIGTERM, signal.SIGQUIT)):
        os.kill(pid, signo)
    wait_for(lambda: pids_of_session(old.pid) == [], "ended")


def test_kills_of_everything_at_random(demo):
    """Masters and workers die again and again; connections that are made are answered or closed, and
    in the end all is well."""
    import random
    rnd = random.Random(7)
    d = demo(workers=3)
    master = d.start()
    for _ in range(10):
        what = rnd.choice(["worker", "master", "reload", "worker"])
        if what == "reload":
            d.signal(signal.SIGHUP)
        elif what == "worker":
            pids = children_of(master.pid)
            if pids:
                os.kill(rnd.choice(pids), signal.SIGKILL)
        else:
            os.kill(master.pid, signal.SIGKILL)
            master.popen.wait()
            master = d.start()
        time.sleep(rnd.random() * 0.05)
    wait_for(lambda: len(d.worker_pids()) == 3, "all serve")
    d.settle()
    clients = [d.connect() for _ in range(30)]
    assert all(c.ask("echo x") == "x" for c in clients)
