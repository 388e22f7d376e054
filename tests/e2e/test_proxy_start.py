# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping: options, -t, -d, pid file, log, signals that change the log, another user."""

import fcntl
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import termios
import time

import pytest

from loadtest import is_alive, reload, settle, workers_of
from masterdemo import has_open
from weirtest import LOOPBACK, Conn, Fake, can_connect, children_of, cmdline_of, free_port, program, redis_pool, \
    resp, wait_for


@pytest.fixture(scope="module")
def redis(module_stage):
    return module_stage.redis_server()


def run(*options, cwd=None, env=None):
    """(exit code, stdout, stderr) of a weir-proxy that ends by itself."""
    done = subprocess.run([program("weir-proxy"), *map(str, options)], capture_output=True, text=True,
                          timeout=120, cwd=cwd, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return str(path)


# Options

@pytest.mark.parametrize("options, words", [
    (["-x"], "invalid option"), (["--nonsense"], "unrecognized option"), (["-c"], "requires an argument"),
    (["-v", "12"], "from 0 to 11"), (["-v", "loud"], "from 0 to 11"), (["-v", ""], "from 0 to 11"),
    (["-s", "0"], "from 1 to 65535"), (["-s", "65536"], "from 1 to 65535"), (["-s", "22222x"], "not \"22222x\""),
    (["-i", "0"], "-i takes a number"), (["-i", "-5"], "-i takes a number"),
    (["-m", "511"], "from 512 to 16777216"), (["-m", "99999999999999999999"], "from 512"),
    (["conf.yml"], "\"conf.yml\" is not an option"),
])
def test_wrong_options(options, words):
    code, out, err = run(*options)
    assert code == 1 and words in err and out == "", (code, out, err)


def test_help_version_and_stats_description():
    code, out, err = run("--help")
    assert code == 0 and "Usage: weir-proxy" in out + err
    code, out, err = run("-V")
    assert code == 0 and re.match(r"This is weir-proxy-\d", out)
    code, out, err = run("--describe-stats")
    assert code == 0 and "client_connections" in out and "server_eof" in out


def test_test_conf(tmp_path):
    good = write(tmp_path / "good.yml", redis_pool(["127.0.0.1:1"]))
    code, out, err = run("-t", "-c", good)
    assert code == 0 and f"weir-proxy: configuration file '{good}' syntax is ok\n" in err
    bad = write(tmp_path / "bad.yml", "alpha:\n  listen: 127.0.0.1:22121\n  nonsense: 1\n")
    code, out, err = run("--test-conf", "-c", bad)
    assert code == 1 and f"{bad}:3:3: " in err
    assert run("-t", "-c", tmp_path / "none.yml")[0] == 1
    assert run("-t", "-c", tmp_path)[0] == 1


@pytest.mark.parametrize("key, text", [
    ("user: nosuch", 'user: there is no user "nosuch"'),
    ("log: {file: none/log}", "none/log"),
    ("pid_file: none/pid", "none/pid"),
    ("stats: {listen: nosuch.invalid:22222, insecure: true}", 'the name "nosuch.invalid" has no address'),
    ("", "none/socket"),
])
def test_test_conf_refuses_what_the_start_does(tmp_path, key, text):
    """Without making anything."""
    if "user" in key and os.geteuid() != 0:
        return  # nobody else can change: there the wish is void
    conf = write(tmp_path / "conf.yml", f"weir:\n  version: 1\n  {key}\n" +
                 redis_pool(["127.0.0.1:1"], listen=f"{LOOPBACK}:{free_port()}" if key else str(tmp_path / "none/socket")))
    options = ["-c", conf, *([] if "stats" in key else ["-s", free_port()])]
    code, _, err = run("-t", *options, cwd=tmp_path)
    assert code == 1 and text in err, err
    assert os.listdir(tmp_path) == ["conf.yml"]
    code, _, err = run(*options, cwd=tmp_path)
    assert code == 1 and text in err, err


def test_default_file_is_twemproxys(tmp_path):
    os.mkdir(tmp_path / "conf")
    write(tmp_path / "conf" / "nutcracker.yml", redis_pool(["127.0.0.1:1"]))
    assert run("-t", cwd=tmp_path)[0] == 0


@pytest.mark.parametrize("text, words", [
    ("alpha:\n  listen: 127.0.0.1:22121\n", "servers"),
    ("alpha: [\n", "conf.yml:"),
    ("", "conf.yml"),
])
def test_start_with_a_broken_file(tmp_path, text, words):
    conf = write(tmp_path / "conf.yml", text)
    code, _, err = run("-c", conf, "-s", free_port())
    assert code == 1 and words in err, err
    code, _, err = run("-d", "-c", conf, "-s", free_port())
    assert code == 1 and words in err, err


@pytest.mark.parametrize("daemon", [[], ["-d"]], ids=["foreground", "daemon"])
def test_start_that_cannot_succeed(tmp_path, daemon):
    """A reason, and exit code 1, also from a daemon."""
    port, stats_port = free_port(), free_port()
    conf = write(tmp_path / "conf.yml", redis_pool(["127.0.0.1:1"], listen=f"{LOOPBACK}:{port}"))
    log = tmp_path / "log"
    with Fake(port):
        code, _, err = run("-c", conf, "-s", stats_port, "-o", log, *daemon)
        assert code == 1 and f"127.0.0.1:{port}" in err and "in use" in err, err
        assert f"127.0.0.1:{port}" in log.read_text()
    with Fake(stats_port):
        code, _, err = run("-c", conf, "-s", stats_port, *daemon)
        assert code == 1 and f"127.0.0.1:{stats_port}" in err, err
    code, _, err = run("-c", conf, "-s", stats_port, "-o", tmp_path / "none" / "log", *daemon)
    assert code == 1 and "none/log" in err, err
    code, _, err = run("-c", conf, "-s", stats_port, "-p", tmp_path / "none" / "pid", *daemon)
    assert code == 1 and "none/pid" in err, err
    assert not can_connect(port)


# The daemon

def test_daemon(redis, tmp_path):
    """The command returns when it serves; relative paths are those of the start; the end leaves nothing."""
    port = free_port()
    write(tmp_path / "conf.yml", "weir:\n  version: 1\n  workers: 2\n" +
          redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    code, out, err = run("-d", "-c", "conf.yml", "-o", "log", "-p", "pid", "-s", free_port(), cwd=tmp_path)
    assert code == 0, err
    pid = int((tmp_path / "pid").read_text())
    try:
        with Conn(port) as c:  # at once
            c.ask(resp("SET", "a", "1"), b"+OK\r\n")
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
            assert os.getsid(pid) != os.getsid(0) and os.getsid(pid) != pid
            os.rename(tmp_path / "log", tmp_path / "log.1")
            before = len((tmp_path / "log.1").read_text())
            os.kill(pid, signal.SIGHUP)
            wait_for(lambda: os.path.exists(tmp_path / "log") and "reload done" in (tmp_path / "log").read_text(),
                     "the new log, in the directory of the start")
            assert "reload done" not in (tmp_path / "log.1").read_text()[before:]
            c.ask(resp("GET", "a"), b"$1\r\n1\r\n")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not is_alive(pid) and not can_connect(port), "it ends")
    assert not os.path.exists(tmp_path / "pid")


def test_daemon_without_a_log_lets_go_of_stderr(redis, tmp_path):
    port = free_port()
    conf = write(tmp_path / "conf.yml", redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    assert run("-d", "-c", conf, "-p", tmp_path / "pid", "-s", free_port())[0] == 0
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not is_alive(pid) and not can_connect(port), "it ends")


def test_daemon_upgrades(redis, tmp_path):
    port = free_port()
    write(tmp_path / "conf.yml", "weir:\n  version: 1\n  workers: 1\n" +
          redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    assert run("-d", "-c", "conf.yml", "-o", "log", "-p", "pid", "-s", free_port(), cwd=tmp_path)[0] == 0

    def pid_now():
        try:
            return int((tmp_path / "pid").read_text() or 0)
        except OSError:
            return 0
    old = pid_now()
    with Conn(port) as c:
        os.kill(old, signal.SIGUSR2)
        new = wait_for(lambda: pid_now() not in (0, old) and pid_now(), "the new master serves")
        os.kill(old, signal.SIGQUIT)
        wait_for(lambda: not is_alive(old), "the old one leaves")
        c.ask(resp("PING"), b"+PONG\r\n")
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: not is_alive(new) and not can_connect(port), "it ends")
    assert not os.path.exists(tmp_path / "pid") and not os.path.exists(tmp_path / "pid.oldbin")


# Signals

@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_end_by_signal(redis, weir_proxy, signo):
    proxy = weir_proxy(redis_pool([redis]), workers=2)
    pids = children_of(proxy.pid)
    with proxy.connect() as c:
        c.ask(resp("PING"), b"+PONG\r\n")
        proxy.send_signal(signo)
        assert proxy.wait() == 0
        assert c.recv_eof() == b""
    assert not any(is_alive(pid) for pid in pids)
    assert not os.path.exists(proxy.pid_path)
    assert not can_connect(proxy.port)


def test_quit_lets_requests_finish(weir_proxy, fake):
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]), workers=2)
    with proxy.connect() as busy, proxy.connect() as idle:
        idle.ask(resp("PING"), b"+PONG\r\n")
        busy.send(resp("GET", "a"))
        peer = server.accept()
        peer.recv_exact(len(resp("GET", "a")))
        proxy.send_signal(signal.SIGQUIT)
        assert idle.recv_eof() == b""
        wait_for(lambda: not can_connect(proxy.port), "nobody is accepted any more")
        assert proxy.is_running()
        peer.send(b"$1\r\n1\r\n")
        busy.expect(b"$1\r\n1\r\n")
        assert busy.recv_eof() == b""
    assert proxy.wait() == 0


@pytest.mark.parametrize("signo", [signal.SIGHUP, signal.SIGUSR1])
def test_log_rotation(redis, weir_proxy, signo):
    """twemproxy's scripts send HUP, nginx's USR1; nothing is lost and nobody writes to the old file."""
    proxy = weir_proxy(redis_pool([redis]), workers=2)
    workers = workers_of(proxy.pid)
    os.rename(proxy.log_path, proxy.log_path + ".1")
    proxy.send_signal(signo)
    wait_for(lambda: os.path.exists(proxy.log_path), "a new log")
    if signo == signal.SIGHUP:
        proxy.wait_log("reload done")
    else:
        assert workers_of(proxy.pid) == workers
    victim = workers_of(proxy.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    proxy.wait_log("worker . died")
    with open(proxy.log_path + ".1", encoding="utf-8") as f:
        assert "died" not in f.read()
    pids = [proxy.pid, *settle(proxy, 2, [victim])]
    wait_for(lambda: all(has_open(pid, proxy.log_path) for pid in pids) and
             not any(has_open(pid, proxy.log_path + ".1") for pid in pids), "all processes hold the new file")


def test_log_level_by_signal(redis, weir_proxy):
    proxy = weir_proxy(redis_pool([redis]), workers=1, verbosity=5)
    for signo, level in [(signal.SIGTTIN, 6), (signal.SIGTTIN, 7), (signal.SIGTTOU, 6), (signal.SIGTTOU, 5)]:
        before = len(proxy.log_text())
        os.kill(proxy.pid, signo)
        wait_for(lambda b=before, n=level: f"log level is {n}" in proxy.log_text()[b:], f"level {level}")


def test_terminal_may_be_resized(redis, stage, tmp_path):
    """The kernel sends WINCH to who is in the foreground of a terminal then; that is no word of an operator's."""
    port = free_port()
    conf = write(tmp_path / "conf.yml", "weir:\n  version: 1\n  workers: 1\n" +
                 redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    log = str(tmp_path / "log")
    terminal, end = pty.openpty()
    with subprocess.Popen([program("weir-proxy"), "-c", conf, "-s", str(free_port()), "-o", log],
                          stdin=end, stdout=end, stderr=end, start_new_session=True,
                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as process:
        os.close(end)
        try:
            wait_for(lambda: can_connect(port), "up")
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
            for level in (6, 7):  # when the second is done the signals that came before the first are, too
                process.send_signal(signal.SIGTTIN)
                wait_for(lambda n=level: f"log level is {n}" in open(log, encoding="utf-8").read(), f"level {level}")
            assert "draining" not in open(log, encoding="utf-8").read()
            with Conn(port) as c:
                c.ask(resp("PING"), b"+PONG\r\n")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            os.close(terminal)


def test_pipe_on_stderr_that_nobody_reads(redis, stage, tmp_path):
    """The log never holds traffic up."""
    port = free_port()
    conf = write(tmp_path / "conf.yml", "weir:\n  version: 1\n  workers: 1\n" +
                 redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    reader, writer = os.pipe()
    with subprocess.Popen([program("weir-proxy"), "-c", conf, "-s", str(free_port()), "-v", "11"],
                          stderr=writer, stdout=writer, start_new_session=True) as process:
        os.close(writer)
        wait_for(lambda: can_connect(port), "it serves")
        with Conn(port) as c:
            for i in range(5000):
                c.send(resp("NONSENSE", i) + resp("SET", "a", i))
                assert c.recv_line().startswith(b"-ERR unknown command")
                c.expect(b"+OK\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(reader)


# Another user

def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def is_nobody(pid):
    status = status_of(pid)
    return status["Uid"].split() == ["65534"] * 4 and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"


def test_workers_become_another_user(redis, weir_proxy, tmp_path):
    """Root binds, nobody serves: TCP and unix sockets, reloads, a rotated log, kills, the end."""
    if os.getuid() != 0:
        return  # only root can change
    run_dir = tmp_path / "run"
    os.mkdir(run_dir, 0o755)
    path = str(run_dir / "alpha.sock")
    conf = "weir:\n  version: 1\n  workers: 2\n  user: nobody\n" + \
        redis_pool([redis], "alpha", listen=f"{path} 0660") + \
        redis_pool([redis], "beta", listen=f"{LOOPBACK}:{free_port()}")
    proxy = weir_proxy(conf)

    def check():
        assert status_of(proxy.pid)["Uid"].split()[0] == "0"
        # A process that was forked just now has no title yet.
        wait_for(lambda: all("master" not in cmdline_of(pid) for pid in children_of(proxy.pid)), "all have begun")
        wait_for(lambda: all(is_nobody(pid) for pid in children_of(proxy.pid)), "all are nobody, for good")
    check()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with Conn(path=path) as u, proxy.connect("beta") as t:
        for number in range(2):
            u.ask(resp("SET", "a", number), b"+OK\r\n")
            t.ask(resp("GET", "a"), b"$1\r\n%d\r\n" % number)
            old = workers_of(proxy.pid)
            os.rename(proxy.log_path, f"{proxy.log_path}.{number}")
            os.kill(proxy.pid, signal.SIGHUP)
            wait_for(lambda: "reload done" in proxy.log_text(), "reloaded, in a new log")
            settle(proxy, 2, old)
            check()
    victim = workers_of(proxy.pid)[0]
    os.kill(victim, signal.SIGKILL)
    settle(proxy, 2, [victim])
    check()
    with Conn(path=path) as u:
        u.ask(resp("PING"), b"+PONG\r\n")
    assert "there is no user" in reload(proxy, conf.replace("user: nobody", "user: no-such-user"))
    proxy.write_conf(conf)
    assert proxy.stop() == 0
    assert not os.path.exists(path)


def test_user_wish_of_somebody_else_than_root(redis, stage, tmp_path):
    """As nginx: void, not an error."""
    if os.getuid() != 0:
        return
    port = free_port()
    os.chmod(tmp_path, 0o777)
    conf = write(tmp_path / "conf.yml", "weir:\n  version: 1\n  workers: 1\n  user: daemon\n" +
                 redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    process = stage.process(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                             program("weir-proxy"), "-c", conf, "-s", free_port(), "-o", tmp_path / "log"], "other")
    wait_for(lambda: can_connect(port) or not process.is_running(), "it serves")
    with Conn(port) as c:
        c.ask(resp("PING"), b"+PONG\r\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_no_place_is_needed_but_the_file(redis, stage, tmp_path):
    """An empty directory, no HOME, no TERM, a closed stdin."""
    port = free_port()
    conf = write(tmp_path / "conf.yml", redis_pool([redis], listen=f"{LOOPBACK}:{port}"))
    os.mkdir(tmp_path / "empty")
    process = stage.process(["env", "-i", program("weir-proxy"), "-c", conf, "-s", free_port()], "bare",
                            cwd=str(tmp_path / "empty"))
    wait_for(lambda: can_connect(port) or not process.is_running(), "it serves")
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert os.listdir(tmp_path / "empty") == []
