# SPDX-License-Identifier: Apache-2.0
"""USR2: another binary takes over, nobody notices; one that is broken changes nothing."""

import os
import shutil
import signal
import time

import pytest

from bystanders import Bystanders
from loadtest import Load, fd_count, is_alive, reload, workers_of
from weirtest import LOOPBACK, Conn, can_connect, children_of, cmdline_of, free_port, memcache_pool, pid_in, program, redis_pool, \
    replace_binary, resp, wait_for

WORKERS = 2


@pytest.fixture(scope="module")
def servers(module_stage):
    return module_stage.redis_server(2), module_stage.memcached(1)


@pytest.fixture
def tier(servers, weir_proxy, tmp_path, monkeypatch):
    """A proxy whose binary is a copy that the test may replace: proxy.binary."""
    binary = str(tmp_path / "weir-proxy")
    shutil.copy(program("weir-proxy"), binary)
    monkeypatch.setattr("weirtest.program", lambda name: binary if name == "weir-proxy" else program(name))
    listen = [f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"]
    proxy = weir_proxy(f"weir:\n  version: 1\n  workers: {WORKERS}\n" +
                       redis_pool(servers[0], "alpha", listen=listen[0]) +
                       memcache_pool(servers[1], "beta", listen=listen[1]))
    proxy.binary = binary
    return proxy


def replace(path, text=None, mode=0o755):
    replace_binary(path, program("weir-proxy"), text, mode)


def upgrade(proxy, old):
    """USR2; returns the pid of the new master, which serves."""
    os.kill(old, signal.SIGUSR2)
    return wait_for(lambda: pid_in(proxy.pid_path) not in (0, old) and pid_in(proxy.pid_path),
                    "the new master serves")


def leave(pid, how=signal.SIGQUIT):
    os.kill(pid, how)
    wait_for(lambda: not is_alive(pid), f"{pid} leaves")


def failed_upgrade(proxy, master):
    before = len(proxy.log_text())
    os.kill(master, signal.SIGUSR2)
    wait_for(lambda: "upgrade failed" in proxy.log_text()[before:], "the upgrade fails", deadline=40)
    return proxy.log_text()[before:]


def test_upgrade_goes_through(tier):
    """Both serve until the old one is told to leave; pid files say who is who."""
    proxy = tier
    old_workers = workers_of(proxy.pid)
    with proxy.connect("alpha") as c:
        c.ask(resp("CLIENT", "SETNAME", "anna"), b"+OK\r\n")
        replace(proxy.binary)
        new = upgrade(proxy, proxy.pid)
        assert pid_in(proxy.pid_path + ".oldbin") == proxy.pid
        assert set(old_workers) <= set(workers_of(proxy.pid))
        assert len(workers_of(new)) == WORKERS
        c.ask(resp("PING"), b"+PONG\r\n")
        proxy.send_signal(signal.SIGQUIT)
        assert proxy.wait() == 0
        assert not any(is_alive(pid) for pid in old_workers)
        assert c.resp("CLIENT", "GETNAME") == b"$4\r\nanna\r\n"
        assert pid_in(proxy.pid_path) == new and not os.path.exists(proxy.pid_path + ".oldbin")
        assert "done" in reload(proxy, master=new)
        c.ask(resp("PING"), b"+PONG\r\n")
    leave(new, signal.SIGTERM)
    assert not os.path.exists(proxy.pid_path)
    assert not can_connect(proxy.port)


@pytest.mark.seconds_max(1800)
@pytest.mark.parametrize("count", [pytest.param(10, id="10"),
                                   pytest.param(50, id="50", marks=pytest.mark.nightly)])
def test_upgrades_under_load(stage, tier, count):
    """Good binaries, broken ones between them, some that are backed out."""
    proxy, master, gone, done = tier, tier.pid, None, 0
    with Load(stage, proxy.ports["alpha"], short=300, pipelining=20, idle=20) as alpha, \
            Load(stage, proxy.ports["beta"], memcache=True, short=100) as beta, \
            Bystanders(proxy.ports["alpha"], proxy.ports["beta"]) as crowd:
        for number in range(count):
            crowd.before(number)
            if number % 5 == 1:
                replace(proxy.binary, "#!/bin/sh\nexit 3\n")
                assert "code=3" in failed_upgrade(proxy, master)
                replace(proxy.binary)
            elif number % 5 == 3:
                new = upgrade(proxy, master)
                leave(new)
                wait_for(lambda m=master: pid_in(proxy.pid_path) == m, "the old one has its pid file back")
            else:
                gone, master = master, upgrade(proxy, master)
                os.kill(gone, signal.SIGQUIT)  # it leaves when the crowd has got what it waits for
                done += 1
            crowd.after(number)
            wait_for(lambda: gone is None or not is_alive(gone), f"{gone} leaves")
    alpha.clean(requests=1000, connections=100)
    beta.clean(requests=1000)
    proxy.popen.poll()
    assert done >= count / 2
    print(f"{count} upgrades:", alpha.result, beta.result)
    leave(master, signal.SIGTERM)
    wait_for(lambda: not can_connect(proxy.port), "nobody is left")


BROKEN = {
    "exits at once": ("#!/bin/sh\nexit 1\n", 0o755),
    "says done at once": ("#!/bin/sh\nexit 0\n", 0o755),
    "is killed": ("#!/bin/sh\nkill -9 $$\n", 0o755),
    "is not executable": ("#!/bin/sh\nexit 0\n", 0o644),
    "is garbage": ("garbage\n", 0o755),
    "is an older program": ("#!/bin/sh\nexec /bin/cat /nonexistent\n", 0o755),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_binary_changes_nothing(tier, how):
    proxy = tier
    workers, fds = workers_of(proxy.pid), fd_count(proxy.pid)
    replace(proxy.binary, *BROKEN[how])
    with proxy.connect("alpha") as c:
        for _ in range(3):
            failed_upgrade(proxy, proxy.pid)
            c.ask(resp("PING"), b"+PONG\r\n")
            assert pid_in(proxy.pid_path) == proxy.pid
            assert not os.path.exists(proxy.pid_path + ".oldbin")
        assert workers_of(proxy.pid) == workers
        wait_for(lambda: fd_count(proxy.pid) == fds, "as many descriptors as before")
        replace(proxy.binary)
        new = upgrade(proxy, proxy.pid)
        proxy.send_signal(signal.SIGQUIT)
        assert proxy.wait() == 0
        c.ask(resp("PING"), b"+PONG\r\n")
    leave(new, signal.SIGTERM)


def test_missing_binary(tier):
    os.unlink(tier.binary)
    assert "cannot execute" in failed_upgrade(tier, tier.pid)
    with tier.connect("alpha") as c:
        c.ask(resp("PING"), b"+PONG\r\n")


def test_binary_that_hangs(stage, tier):
    """It is ended after a while; meanwhile all goes on, and reloads too."""
    proxy = tier
    replace(proxy.binary, "#!/bin/sh\nexec sleep 600\n")
    with Load(stage, proxy.ports["alpha"]) as load:
        os.kill(proxy.pid, signal.SIGUSR2)
        wait_for(lambda: pid_in(proxy.pid_path + ".oldbin") == proxy.pid, "it began")
        assert "done" in reload(proxy, master=proxy.pid)
        os.kill(proxy.pid, signal.SIGUSR2)
        wait_for(lambda: "one is under way" in proxy.log_text(), "a second attempt is refused")
        wait_for(lambda: "upgrade failed" in proxy.log_text(), "it is given up", deadline=40)
    load.clean()
    assert pid_in(proxy.pid_path) == proxy.pid


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGQUIT])
def test_binary_that_hangs_ends_with_the_master(tier, signo):
    """It has the listeners, so that the next start would find them held by somebody who does not answer."""
    proxy = tier
    replace(proxy.binary, "#!/bin/sh\nexec sleep 600\n")
    before = set(children_of(proxy.pid))
    os.kill(proxy.pid, signal.SIGUSR2)
    wait_for(lambda: any("sleep" in cmdline_of(pid) for pid in set(children_of(proxy.pid)) - before), "it hangs")
    hanging = next(pid for pid in set(children_of(proxy.pid)) - before if "sleep" in cmdline_of(pid))
    proxy.send_signal(signo)
    assert proxy.wait() == 0
    wait_for(lambda: not is_alive(hanging), "it is gone")
    assert "has said nothing yet" in proxy.log_text()
    assert not can_connect(proxy.port)


def test_new_binary_with_a_broken_file(tier):
    """The new binary refuses the configuration: the old one goes on, with its reason in the log."""
    proxy = tier
    good = proxy.conf_text
    proxy.write_conf(good + "nonsense: [\n")
    failed_upgrade(proxy, proxy.pid)
    assert "conf.yml:" in proxy.log_text() + proxy.text()
    assert pid_in(proxy.pid_path) == proxy.pid
    proxy.write_conf(good)
    with proxy.connect("alpha") as c:
        c.ask(resp("PING"), b"+PONG\r\n")


def test_back_out_after_winch(stage, tier):
    """nginx's way: WINCH to the old master, a look at the new one, and back."""
    proxy = tier
    with Load(stage, proxy.ports["alpha"]) as load:
        new = upgrade(proxy, proxy.pid)
        os.kill(proxy.pid, signal.SIGWINCH)
        wait_for(lambda: workers_of(proxy.pid) == [], "the old workers leave")
        for i in range(20):
            with proxy.connect("alpha") as c:
                c.ask(resp("ECHO", i), b"$%d\r\n%d\r\n" % (len(str(i)), i))
        assert "done" in reload(proxy, master=proxy.pid)
        leave(new)
        wait_for(lambda: pid_in(proxy.pid_path) == proxy.pid, "the pid file is the old one's again")
    load.clean()


@pytest.mark.parametrize("which", ["old", "new"])
def test_master_killed_after_an_upgrade(stage, tier, which):
    """The other one sees its workers out, and they hand over."""
    proxy = tier
    with Load(stage, proxy.ports["alpha"]) as load, Bystanders(proxy.ports["alpha"]) as crowd:
        new = upgrade(proxy, proxy.pid)
        crowd.before(0)
        victim, other = (proxy.pid, new) if which == "old" else (new, proxy.pid)
        orphans = workers_of(victim)
        proxy._sent.add(signal.SIGKILL)
        os.kill(victim, signal.SIGKILL)
        crowd.after(0)
        proxy.popen.poll()
        wait_for(lambda: not any(is_alive(pid) for pid in orphans), "the orphans leave")
        crowd.before(1)
        assert "done" in reload(proxy, master=other)
        crowd.after(1)
    load.clean()
    leave(other, signal.SIGTERM)
    proxy.popen.poll()


def test_clients_on_their_way_to_killed_workers(tier):
    """The new workers stand still while the old ones pass clients on, and are killed before they look."""
    proxy = tier
    conns = [proxy.connect("alpha") for _ in range(50)]
    for c in conns:
        c.ask(resp("PING"), b"+PONG\r\n")
    new = upgrade(proxy, proxy.pid)
    fresh = workers_of(new)
    for pid in fresh:
        os.kill(pid, signal.SIGSTOP)
    proxy.send_signal(signal.SIGQUIT)
    time.sleep(0.3)
    for pid in fresh:
        os.kill(pid, signal.SIGKILL)
    for i, c in enumerate(conns):
        c.ask(resp("ECHO", i), b"$%d\r\n%d\r\n" % (len(str(i)), i))
        c.close()
    assert proxy.wait() == 0
    leave(new, signal.SIGTERM)


def test_counters_go_on(tier):
    """Totals never fall: the new master's stats process takes the old one's numbers over."""
    proxy = tier

    def requests():
        return sum(server["requests"] for server in proxy.stats()["alpha"].values() if isinstance(server, dict))

    with proxy.connect("alpha") as c:
        for i in range(100):
            c.ask(resp("SET", f"key-{i}", "1"), b"+OK\r\n")
        before = wait_for(lambda: requests() >= 100 and requests(), "all are counted")
        new = upgrade(proxy, proxy.pid)
        assert requests() >= before
        proxy.send_signal(signal.SIGQUIT)
        assert proxy.wait() == 0
        assert requests() >= before
        c.ask(resp("SET", "key", "1"), b"+OK\r\n")
        wait_for(lambda: requests() > before, "it goes on")
    leave(new, signal.SIGTERM)


def test_unix_socket_is_inherited(servers, weir_proxy, tmp_path):
    path = str(tmp_path / "alpha.sock")
    proxy = weir_proxy("weir:\n  version: 1\n  workers: 2\n" + redis_pool(servers[0], "alpha", listen=path) +
                       memcache_pool(servers[1], "beta"))
    with Conn(path=path) as c:
        c.ask(resp("PING"), b"+PONG\r\n")
        inode = os.stat(path).st_ino
        new = upgrade(proxy, proxy.pid)
        proxy.send_signal(signal.SIGQUIT)
        assert proxy.wait() == 0
        c.ask(resp("PING"), b"+PONG\r\n")
    assert os.stat(path).st_ino == inode
    with Conn(path=path) as c:
        c.ask(resp("PING"), b"+PONG\r\n")
    leave(new, signal.SIGTERM)
    assert not os.path.exists(path)


__all__ = ["children_of"]
