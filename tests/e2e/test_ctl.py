# SPDX-License-Identifier: Apache-2.0
"""weirctl and the control socket behind it."""

import json
import os
import re
import signal
import socket
import stat
import subprocess

import pytest

from weirtest import (Conn, free_port, memcache_pool, pids_of_session, pool, program, redis_pool, resp,
                      wait_for)


class Ctl:
    """weirctl for one proxy, whose socket is in the test's own folder."""

    def __init__(self, path):
        self.path = path

    def run(self, *words, options=None):
        options = ["--control", self.path] if options is None else options
        return subprocess.run([program("weirctl"), *options, *map(str, words)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)

    def __call__(self, *words):
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert done.stderr == ""
        return done.stdout

    def fails(self, code, *words):
        done = self.run(*words)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        return done.stderr


@pytest.fixture
def start(weir_proxy, tmp_path):
    """start(pools, workers, keys of weir) -> (proxy, ctl)"""
    def go(pools, workers=1, extra=""):
        path = str(tmp_path / f"control-{free_port()}")
        proxy = weir_proxy(f"weir:\n  version: 1\n  workers: {workers}\n  control: {path}\n{extra}{pools}")
        return proxy, Ctl(path)
    return go


def test_the_socket_is_its_owner_s_alone(redis_server, start):
    _, ctl = start(redis_pool(redis_server()))
    mode = os.stat(ctl.path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_status_says_who_serves(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()), workers=2)
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        status = wait_for(lambda: re.search(r"(?s).*pool alpha .* 1 clients, 1 requests.*", ctl("status")),
                          "who looked whether it listens is gone")[0]
    assert f"master pid {proxy.master_pid()} " in status
    assert proxy.conf_path in status
    for pid in proxy.worker_pids():
        assert re.search(rf"worker \d+ +pid {pid} +serving", status)


def test_status_names_ejected_servers(redis_server, start):
    servers = redis_server(2)
    proxy, ctl = start(redis_pool(servers, hash="md5", auto_eject_hosts=True, server_failure_limit=1,
                                  timeout=15000, server_retry_timeout=600000))
    servers[1].kill()
    with proxy.connect() as c:
        for i in range(40):
            c.resp("GET", f"key{i}")
    assert f"server {servers[1].address} is ejected" in ctl("status")
    where = [ctl("where", f"key{i}") for i in range(40)]
    moved = [w for w in where if f"address   {servers[1].address}" in w]
    assert moved
    assert all(f"it is ejected: the key is on {servers[0].address}" in w for w in moved)


# Wherever weirctl says a key is, there it is.
@pytest.mark.parametrize("distribution", ["ketama", "modula", "jump", "slots"])
def test_where_is_right(redis_server, start, distribution):
    servers = redis_server(3)
    keys = {} if distribution == "slots" else {"hash": "murmur", "hash_tag": '"{}"'}  # slots have their own
    proxy, ctl = start(pool(servers=servers, redis=True, distribution=distribution, **keys))
    keys = [f"key-{i}" for i in range(20)] + ["{tag}a", "{tag}b", "a b", "-x"]
    with proxy.connect() as c:
        for key in keys:
            c.ask(resp("SET", key, "1"), b"+OK\r\n")
    holds = {key.decode(): server.address for server in servers for key in server.client().keys()}
    for key in keys:
        live = ctl("where", "--", key)
        assert f"address   {holds[key]}\n" in live, key
        done = ctl.run("where", "--", key, options=["-c", proxy.conf_path])
        assert done.stdout == live
    assert "its hash tag" in ctl("where", "{tag}a")


def test_where_in_one_of_several_pools(redis_server, memcached, start):
    proxy, ctl = start(redis_pool(redis_server()) + memcache_pool(memcached()))
    both = ctl("where", "key")
    assert "pool alpha " in both and "pool beta " in both
    one = ctl("where", "beta", "key")
    assert "pool alpha" not in one and '"key"' in one
    # What is no pool is a part of the key.
    assert '"gamma key"' in ctl("where", "gamma", "key")
    done = ctl.run("where", "beta", "key", options=["-c", proxy.conf_path])
    assert done.stdout == one


def test_where_of_a_broken_file(tmp_path):
    path = tmp_path / "broken.yml"
    path.write_text("alpha:\n  listen: 127.0.0.1:1\n  nonsense: 1\n")
    done = Ctl("").run("where", "key", options=["-c", str(path)])
    assert done.returncode == 1
    assert f"{path}:3:" in done.stderr and "nonsense" in done.stderr


def test_where_in_a_cluster_names_the_slot(tmp_path):
    path = tmp_path / "cluster.yml"
    path.write_text(pool(servers=["127.0.0.1:7001"], redis=True, members="redis-cluster"))
    done = Ctl("").run("where", "{user1000}.following", options=["-c", str(path)])
    assert done.returncode == 0, done.stderr
    assert "slot      3443 of 16384" in done.stdout


# A value that is set is in force at once, in every worker, and until the next reload.
def test_set_a_timeout(redis_server, start):
    server = redis_server()
    proxy, ctl = start(redis_pool(server), workers=2)
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        assert ctl("set", "pool.alpha.timeout", "150ms") == ""
        assert "set pool.alpha.timeout 150ms  (the file says off" in ctl("status")
        assert "pool.alpha.reply_timeout 150ms\n" in ctl("set")
        server.send_signal(signal.SIGSTOP)
        c.ask(resp("GET", "a"), b"-ERR Connection timed out\r\n")
        server.send_signal(signal.SIGCONT)
    ctl("set", "pool.*.timeout", "off")
    assert "pool.alpha.timeout off\n" in ctl("set")
    ctl("set", "pool.alpha.timeout", "5s")
    ctl("reload")
    wait_for(lambda: "pool.alpha.timeout off\n" in ctl("set"), "the file's value is back")
    assert "set pool" not in ctl("status")


def test_set_survives_a_crash(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()))
    ctl("set", "slowlog.threshold", "0")
    for pid in list(proxy.children()):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: ctl.run("status").returncode == 0, "the stats process is back")
    wait_for(lambda: "slowlog.threshold 0ms\n" in ctl("set"), "it knows what was set")
    assert "set slowlog.threshold 0ms  (the file says 10ms" in ctl("status")

    def slow():
        with proxy.connect() as c:
            c.resp("GET", "a")
        return re.search(r" get .* a\n", ctl("slowlog"))

    wait_for(slow, "the new worker knows it too")


def test_set_refuses(redis_server, start):
    _, ctl = start(redis_pool(redis_server()))
    assert "cannot be set" in ctl.fails(1, "set", "workers", "3")
    assert "cannot be set" in ctl.fails(1, "set", "pool.alpha.hash", "md5")
    assert '"gamma" is no pool' in ctl.fails(1, "set", "pool.gamma.timeout", "3")
    assert "write milliseconds" in ctl.fails(1, "set", "pool.alpha.timeout", "soon")
    assert "it takes" in ctl.fails(1, "set", "hotkeys.sample", "0")
    assert ctl("set").startswith("slowlog.threshold 10ms\n")


def test_lists(redis_server, start):
    server = redis_server()
    proxy, ctl = start(redis_pool(server), extra="  slowlog:\n    threshold: 0\n  hotkeys:\n    sample: 1\n"
                                                 "  bigkeys:\n    size: 1k\n")
    with proxy.connect() as c:
        address = "%s:%d" % c.sock.getsockname()
        c.ask(resp("CLIENT", "SETNAME", "tester"), b"+OK\r\n")
        for _ in range(20):
            c.ask(resp("GET", "a b\n"), b"$-1\r\n")
        c.ask(resp("SET", "big", "v" * 5000), b"+OK\r\n")
        slow = ctl("slowlog", 3).splitlines()
        hot = ctl("hotkeys").splitlines()
        big = ctl("bigkeys").splitlines()
        clients = ctl("clients").splitlines()
    assert len(slow) == 5 and slow[1].endswith(f"{server.address:20} {address:22} big")
    assert slow[2].endswith(r"a\x20b\x0a")
    assert re.match(r" *9\d\.\d\d% +20  alpha +a\\x20b\\x0a$", hot[1])
    assert re.match(r" +50\d\d +1 .* set +alpha ", big[1])
    line = [row for row in clients if address in row]
    assert len(line) == 1 and line[0].endswith("tester") and "resp2" in line[0]


def test_stats_and_config(redis_server, start, tmp_path):
    proxy, ctl = start(redis_pool(redis_server(), redis_auth="very-secret"))
    assert json.loads(ctl("stats"))["pools"]["alpha"]["protocol"] == "redis"
    config = ctl("config")
    assert "very-secret" not in config
    again = tmp_path / "again.yml"
    again.write_text(config)
    done = subprocess.run([program("weir-proxy"), "-t", "-c", str(again)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def busy_screens(ctl, names):
    """What top shows, if the last screen has a rate for each; the load may stand still for as long as one lasts."""
    screens = ctl("top", "-n", "2", "-i", "0.3")
    rows = [line.split() for line in screens.splitlines()]
    rates = {row[0]: float(row[1]) for row in rows if row and row[0] in names}
    assert set(rates) == names
    return screens if min(rates.values()) > 100 else None


def test_top_shows_what_happens(redis_server, start):
    server = redis_server()
    proxy, ctl = start(redis_pool(server))
    load = subprocess.Popen(["redis-benchmark", "-p", str(proxy.port), "-t", "get", "-n", "100000000", "-q"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: proxy.stats()["alpha"]["client_requests"] > 1000, "load")
        screens = wait_for(lambda: busy_screens(ctl, {"alpha", server.address, "get"}), "a screen with the load")
    finally:
        load.kill()
        load.wait()
    assert screens.count("weir-proxy ") == 2
    assert "\033" not in screens  # no terminal


def test_reload_good_and_broken(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()))
    good = proxy.conf_text
    assert ctl("reload") == ""
    wait_for(lambda: "configuration 2 of" in ctl("status"), "the new configuration")
    proxy.write_conf(good + "  nonsense: 1\n")
    said = ctl.fails(1, "reload")
    assert f"{proxy.conf_path}:" in said and "nonsense" in said
    assert "reloads 1 (1 refused)" in ctl("status")
    with proxy.connect() as c:
        c.ask(resp("PING"), b"+PONG\r\n")


def test_upgrade(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()))
    old = proxy.master_pid()
    assert "/nonexistent" in ctl.fails(1, "upgrade", "/nonexistent")
    assert "(1 backed out)" in ctl("status")
    assert ctl("upgrade") == ""
    wait_for(lambda: proxy.master_pid() != old, "the new master")
    wait_for(lambda: f"master {old} serves as well" in ctl("status"), "status tells of the old one")
    os.kill(old, signal.SIGQUIT)
    wait_for(lambda: old not in pids_of_session(proxy.pid), "the old master is gone")
    assert f"master pid {proxy.master_pid()} " in ctl("status")


def test_log_level(redis_server, start):
    _, ctl = start(redis_pool(redis_server()))
    ctl("log-level", "7")
    wait_for(lambda: "log level 7" in ctl("status"), "the level")
    ctl("log-level", "-")
    wait_for(lambda: "log level 6" in ctl("status"), "one less")
    assert "0 (emerg) to 11" in ctl.fails(1, "log-level", "12")
    assert "0 (emerg) to 11" in ctl.fails(1, "log-level", "loud")


@pytest.mark.parametrize("verb", ["stop", "quit"])
def test_it_ends_when_told(redis_server, start, verb):
    proxy, ctl = start(redis_pool(redis_server()))
    assert ctl(verb) == ""
    assert proxy.wait() == 0
    assert "no weir-proxy listens there" in ctl.fails(3, "status")


def test_usage():
    ctl = Ctl("/nonexistent/control")
    assert "Usage: weirctl" in ctl.run("--help").stdout
    assert ctl.run("--help").returncode == 0
    assert ctl.run("--version").stdout.startswith("weirctl ")
    assert "Usage" in ctl.fails(2)
    assert 'no command "bogus"' in ctl.fails(2, "bogus")
    assert "weirctl set [KEY VALUE]" in ctl.fails(2, "set", "a", "b", "c")
    assert "weirctl where [POOL] KEY" in ctl.fails(2, "where")
    assert "takes a port" in ctl.fails(2, "-s", "x", "status")
    assert "no weir-proxy listens there" in ctl.fails(3, "status")
    assert "line break" in ctl.fails(2, "where", "a\nstop")


def test_an_option_of_another_command_is_refused(tmp_path):
    """All that a command does not heed, before anything is done."""
    for words, name in ((["backup", "127.0.0.1:1", tmp_path / "b", "--until", "lsn:1"], "backup takes no --until"),
                        (["restore", tmp_path, tmp_path / "r", "-n", "1"], "restore takes no --count"),
                        (["verify", "--copy", tmp_path], "verify takes no --copy"),
                        (["salvage", tmp_path, tmp_path / "s", "--copy"], "salvage takes no --copy"),
                        (["status", "-i", "2"], "status takes no --interval"),
                        (["verify", "--control", "x", tmp_path], "verify takes no --control"),
                        (["set", "-n", "3", "-n", "4"], "set takes no --count")):
        done = subprocess.run([program("weirctl"), *map(str, words)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and name in done.stderr, done
    assert os.listdir(tmp_path) == []


# The socket's own protocol: one line, one answer, then it is closed.
def ask(path, data, shutdown=False):
    with Conn(path=path) as c:
        c.send(data)
        if shutdown:
            c.shutdown_write()
        return c.recv_eof()


def test_what_else_comes_over_the_socket(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()))
    assert ask(ctl.path, b"status\n").startswith(b"ok\nweir-proxy ")
    assert ask(ctl.path, b"  status  \r\nstop\n").startswith(b"ok\n")  # only the first line counts
    assert ask(ctl.path, b"\n") == b"error: no such verb; help lists them\n"
    assert ask(ctl.path, b"GET / HTTP/1.1\r\n\r\n") == b"error: no such verb; help lists them\n"
    assert ask(ctl.path, b"slowlog 1 2\n") == b"error: it is slowlog [COUNT]\n"
    assert ask(ctl.path, b"slowlog -1\n").startswith(b"ok\n")
    assert ask(ctl.path, b"sta", shutdown=True) == b""
    assert ask(ctl.path, b"x" * 20000) == b""
    assert ask(ctl.path, b"where " + b"\xff\0\x01" + b"\n").startswith(b"ok\npool alpha")
    assert b"reload" in ask(ctl.path, b"help\n")
    held = [Conn(path=ctl.path) for _ in range(40)]
    assert ctl("status")
    for c in held:
        c.close()
    assert proxy.is_running()


# -t tells what a new file would do to the keys that are there: counted here, key by key.
def test_what_a_file_would_move(redis_server, start, tmp_path):
    servers = redis_server(4)
    proxy, ctl = start(redis_pool(servers[:3], hash="md5") + redis_pool(servers[:1], name="old"))

    def check(pools):
        path = tmp_path / "new.yml"
        path.write_text(f"weir:\n  version: 1\n  control: {ctl.path}\n{pools}")
        done = subprocess.run([program("weir-proxy"), "-t", "-c", str(path)], capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    same = check(redis_pool(servers[:3], hash="md5") + redis_pool(servers[:1], name="old"))
    assert same.count("no key moves") == 2
    said = check(redis_pool(servers, hash="md5") + redis_pool(servers[:1], name="fresh"))
    share = float(re.search(r"pool alpha: ([0-9.]+) % of the keys move", said).group(1))
    assert "pool fresh: is new" in said
    assert "pool old: is gone" in said

    def where(conf_path):
        keys = [f"some-key-{i}" for i in range(200)]
        return [Ctl("").run("where", "alpha", key, options=["-c", conf_path]).stdout.split("address")[1]
                for key in keys]

    before, after = where(proxy.conf_path), where(str(tmp_path / "new.yml"))
    moved = sum(a != b for a, b in zip(before, after)) / 2.0
    assert abs(moved - share) < 20  # the standard deviation of 200 keys is 3
    proxy.stop()
    assert "running" not in check(redis_pool(servers, hash="md5"))


# Without a path the socket lies in a folder of the user's own, named by the stats port.
def test_the_default_path(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server()))
    done = Ctl("").run("status", options=["-s", str(proxy.stats_port)])
    assert done.returncode == 0, done.stderr
    assert f"master pid {proxy.pid} " in done.stdout
    proxy.stop()
    done = Ctl("").run("status", options=["-s", str(proxy.stats_port)])
    assert done.returncode == 3


# The workers go on without a master, and what they do can still be seen. A new one has its own stats.
def test_without_a_master(redis_server, start):
    proxy, ctl = start(redis_pool(redis_server()))
    ctl("status")  # its stats process is there: a master that dies before leaves none behind
    proxy.kill()
    wait_for(lambda: "the master is gone" in ctl("status"), "status says so")
    assert "there is no master" in ctl.fails(1, "reload")
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        assert proxy.stats()["alpha"]["client_requests"] == 1
    for pid in pids_of_session(proxy.pid):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not pids_of_session(proxy.pid), "everything has ended")


def test_a_stranger_s_file_is_no_socket(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    done = Ctl(str(path)).run("status")
    assert done.returncode == 3
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "deaf"))
    done = Ctl(str(tmp_path / "deaf")).run("status")
    assert done.returncode == 3
    listener.close()
