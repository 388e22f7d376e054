# SPDX-License-Identifier: Apache-2.0
"""weir-backend beside what is there already: its directory, its ring, its ports; and what it says to those who err."""

import os
import pwd
import resource
import signal
import struct
import subprocess
import tempfile

import pytest
import redis

from weirtest import (LOOPBACK, Conn, WeirBackend, children_of, cmdline_of, free_port, program, resp, simulated_instead,
                      wait_for)


def client(server):
    return redis.Redis(LOOPBACK, server.port)


def processes_of(server):
    """The worker and the stats process."""
    return wait_for(lambda: len(there := children_of(server.pid)) == 2 and there, "both are there")


def ring_of(server, shard=0):
    with open(os.path.join(server.data, "node.id"), encoding="ascii") as f:
        return f"/dev/shm/weir-{f.read()}-{shard}"


def run(*args, timeout=120, files_max=None, file_bytes_max=None):
    """Starts one that is to fail: (exit code, what it printed)."""
    def limit():
        if files_max is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
        if file_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    done = subprocess.run([program("weir-backend"), *map(str, args)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, preexec_fn=limit)
    assert "Sanitizer" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def start_beside(server, *args):
    return run("--listen", f"{LOOPBACK}:{free_port()}", "--stats", f"{LOOPBACK}:{free_port()}",
               "--dir", server.data, *args)


# The directory

def test_clean_stop_removes_the_ring_and_a_kill_leaves_it(weir_backend):
    server = weir_backend()
    ring = ring_of(server)
    client(server).set("a", "1")
    assert os.path.exists(ring)
    server.restart(signal.SIGKILL)
    assert client(server).get("a") == b"1" and os.path.exists(ring)
    client(server).set("a", "2")
    server.stop()
    assert not os.path.exists(ring)
    server.restart()
    assert client(server).get("a") == b"2" and os.path.exists(ring)


def test_a_ring_that_is_gone_after_a_kill_is_told(weir_backend):
    """In the log, INFO and the stats; not after a kill with the ring there, nor after a clean stop."""
    def told():
        info = client(server).info("persistence")
        lines = server.text().count("its log ring is gone")
        assert lines == info["log_ring_lost"]
        wait_for(lambda: f'"ring_lost": {lines}' in server.http("/stats").replace('":', '": ').replace("  ", " "),
                 "the stats port says the same")
        return lines, info["recovered_lsn"]

    server = weir_backend(None, "--fsync", "always")
    assert told() == (0, 0)
    for i in range(10):
        client(server).set(f"a{i}", "1")
    server.restart(signal.SIGKILL)
    first, lsn = told()
    assert first == 0 and lsn > 0
    server.stop(signal.SIGKILL)
    os.remove(ring_of(server))
    server.restart()
    assert told() == (1, lsn) and client(server).get("a9") == b"1"
    line = next(line for line in server.text().splitlines() if "its log ring is gone" in line)
    assert "with fsync always, all that was answered had been flushed to its files; whether the newest" in line
    assert ring_of(server) in line and line.endswith(f"recovered_lsn={lsn}"), line
    server.restart(signal.SIGKILL)
    assert told()[0] == 0
    server.restart()
    assert told()[0] == 0


def refused(server, *args):
    """What a start on its directory says that is to fail for its ring."""
    code, text = start_beside(server, *args)
    assert code == 1, text
    line = next(line for line in text.splitlines() if "the log ring is not to be trusted" in line)
    assert ring_of(server) in line and "chown and chmod it, or remove it to go on without them" in line
    return line


def has_all_of_the_ring(server):
    c = client(server)
    assert c.mget([f"k{i}" for i in range(200)]) == [b"v%d" % i for i in range(200)]
    assert c.info("persistence")["log_ring_lost"] == 0


@pytest.mark.parametrize("how", ["mode", "owner", "link", "directory"])
def test_a_ring_that_others_could_write_ends_the_start_and_stays(weir_backend, how):
    """Killed before the first flush: only the ring has what was answered. The start says what it met and what it wants; the
    ring is there, whole, for the one that comes when it has been put right."""
    if how == "owner" and os.geteuid() != 0:
        simulated_instead("test_log_recover", "only root gives files away")
        return
    server = weir_backend(None, "--fsync", "no")
    client(server).mset({f"k{i}": f"v{i}" for i in range(200)})
    server.kill_all()
    ring, uid = ring_of(server), os.geteuid()
    met = {"mode": f"a file of uid {uid} with mode 0644", "owner": "a file of uid 65534 with mode 0600",
           "link": f"a symbolic link of uid {uid}", "directory": f"a directory of uid {uid}"}[how]
    if how == "mode":
        os.chmod(ring, 0o644)
    elif how == "owner":
        os.chown(ring, 65534, -1)
    elif how == "link":
        os.rename(ring, ring + ".away")
        os.symlink(ring + ".away", ring)
    elif how == "directory":
        os.rename(ring, ring + ".away")
        os.mkdir(ring)
    for _ in range(2):
        assert met in refused(server)
    if how in ("link", "directory"):
        (os.unlink if how == "link" else os.rmdir)(ring)
        os.rename(ring + ".away", ring)
    os.chown(ring, uid, -1)
    os.chmod(ring, 0o600)
    server.restart()
    has_all_of_the_ring(server)


@pytest.mark.parametrize("how", ["magic", "version", "shard", "boot", "uuid", "size in it", "hash", "no magic", "no header",
                                 "shorter", "longer"])
def test_a_damaged_ring_ends_the_start_and_stays(weir_backend, how):
    """Killed before the first flush. Until somebody removes the ring no start goes on without it; verify says so."""
    server = weir_backend(None, "--fsync", "no")
    client(server).mset({f"k{i}": f"v{i}" for i in range(200)})
    server.kill_all()
    ring = ring_of(server)
    with open(ring, "rb") as f:
        whole = f.read()
    at = {"magic": 1, "version": 8, "shard": 12, "boot": 20, "uuid": 40, "size in it": 49, "hash": 80}.get(how)
    zeroes = {"no magic": 8, "no header": 4096}.get(how)
    damaged = (whole[:-1] if how == "shorter" else whole + b"x" if how == "longer" else
               bytes(zeroes) + whole[zeroes:] if zeroes else whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1:])

    def put(data):
        with open(ring, "r+b") as f:
            f.write(data)
            f.truncate(len(data))
    put(damaged)

    def verified():  # what the kernel has not ended yet of a killed process may have the lock for a moment
        done = subprocess.run([program("weirctl"), "verify", server.data], capture_output=True, text=True, timeout=30)
        return done if "in use by a node" not in done.stdout else None
    verify = wait_for(verified, "the killed one has gone")
    assert verify.returncode == 1 and ring in verify.stdout and "header or size is damaged" in verify.stdout
    for _ in range(2):
        code, text = start_beside(server)
        assert code == 1 and f"ring={ring}" in text and "remove it to go on without them" in text, text
        with open(ring, "rb") as f:
            assert f.read() == damaged
    put(whole)
    server.restart()
    has_all_of_the_ring(server)


def test_a_ring_of_the_version_before_is_read(weir_backend):
    """It has no hash, and is whole."""
    server = weir_backend(None, "--fsync", "no")
    client(server).mset({f"k{i}": f"v{i}" for i in range(200)})
    server.kill_all()
    with open(ring_of(server), "r+b") as f:
        for at, value in ((8, struct.pack("<I", 1)), (80, bytes(8))):
            f.seek(at)
            f.write(value)
    for _ in range(2):
        server.restart(signal.SIGKILL)
        has_all_of_the_ring(server)


@pytest.mark.parametrize("how", ["blank", "begun"])
def test_a_ring_whose_making_was_interrupted_is_none(weir_backend, how):
    """Nothing was answered with it."""
    server = weir_backend(None, "--fsync", "always")
    client(server).set("a", "1")
    server.kill_all()
    with open(ring_of(server), "r+b") as f:
        head, size = f.read(56), os.fstat(f.fileno()).st_size
        f.seek(0)
        f.write((head if how == "begun" else b"").ljust(size, b"\0"))
    server.restart()
    assert client(server).get("a") == b"1" and client(server).info("persistence")["log_ring_lost"] == 1


def test_a_killed_node_goes_to_another_user_with_its_ring(stage):
    """Its directory alone is not enough, and nothing is lost by that."""
    if os.geteuid() != 0:
        simulated_instead("test_log_recover", "only root gives files away")
        return
    with tempfile.TemporaryDirectory(prefix="weir-user-") as top:
        os.chmod(top, 0o755)
        server = stage._add(WeirBackend(top, "--fsync", "no"))
        client(server).mset({f"k{i}": f"v{i}" for i in range(200)})
        server.kill_all()
        nobody = pwd.getpwnam("nobody").pw_uid
        for parent, _, names in os.walk(server.data):
            for path in (parent, *(os.path.join(parent, name) for name in names)):
                os.chown(path, nobody, -1)
        line = refused(server, "--user", "nobody")
        assert f"a file of uid 0 with mode 0600, wanted is a file of uid {nobody} with mode 0600" in line
        os.chown(ring_of(server), nobody, -1)
        assert f"a file of uid {nobody} with mode 0600, wanted is a file of uid 0 with mode 0600" in refused(server)
        server.options += ("--user", "nobody")
        server.restart()
        has_all_of_the_ring(server)
        server.stop()


def test_second_node_on_a_directory_is_told_who_is_there(weir_backend):
    server = weir_backend()
    code, text = start_beside(server)
    assert code == 1 and "the directory is in use" in text, text
    assert client(server).ping()


@pytest.mark.parametrize("workers", [1, 3])
def test_another_count_of_workers_is_refused_and_leaves_nothing(weir_backend, workers):
    server = weir_backend(None, "--workers", "2")
    client(server).set("a", "1")
    server.stop()
    before = sorted(os.listdir(server.data))
    code, text = start_beside(server, "--workers", workers)
    assert code == 1 and "has the data of 2 shards: start with workers 2" in text, text
    assert sorted(os.listdir(server.data)) == before
    server.restart()
    assert client(server).get("a") == b"1"


def test_directories_that_cannot_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for path, why in (("/proc/weir", "cannot make /proc/weir"), (file, "Not a directory")):
        code, text = run("--listen", f"{LOOPBACK}:{free_port()}", "--stats", f"{LOOPBACK}:{free_port()}", "--dir", path)
        assert code == 1 and why in text, text


# Options

@pytest.mark.parametrize("args, text", [
    (["--memroy", "1gb"], 'did you mean "memory"?'),
    (["--memory", "1xb"], "write bytes (65536) or a size with its unit"),
    (["--memory"], "option --memory has no value"),
    (["--workers", "0"], "it takes 1 to 128"),
    (["--fsync", "sometimes"], "none of no, everysec, always"),
    (["--segment-size", "1500000"], "it takes a multiple of 4096 bytes"),
    (["--rlimit-nofile", "1"], "it takes 0, or 256 to"),
    (["--namespaces", "1=cache,1=store"], "has database 1 twice"),
    (["-x"], "weir-backend -h lists them"),
    (["words"], "weir-backend -h lists them"),
])
def test_wrong_options_are_named(args, text):
    code, said = run(*args)
    assert code == 1 and text in said and said.count("\n") == 1, said


@pytest.mark.parametrize("key, value, text", [
    ("--user", "nosuch", 'user: there is no user "nosuch"'),
    ("--listen", "127.0.0.1:12345:1", '"127.0.0.1:12345" is no IPv6 address'),
    ("--listen", "nosuch.invalid:12345", 'the name "nosuch.invalid" has no address'),
    ("--dir", "none/dir", "cannot make"), ("--dir", "file", "Not a directory"), ("--dir", "damaged", "node.id is damaged"),
    ("--dir", "shards", "has the data of 2 shards"),
    ("--log_file", "none/log", "none/log"), ("--log_file", "folder", "Is a directory"),
    ("--pid_file", "none/pid", "none/pid"), ("--pid_file", "folder", "Is a directory"),
])
def test_a_test_of_the_settings_refuses_what_the_start_does(tmp_path, key, value, text):
    """-t, and changes nothing."""
    if key == "--user" and os.geteuid() != 0:
        return  # nobody else can change: there the wish is void
    for path in ("damaged", "shards/shard-0", "shards/shard-1", "folder"):
        os.makedirs(tmp_path / path)
    for path in ("file", "damaged/node.id", "shards/shard-1/x"):
        (tmp_path / path).write_text("x")
    (tmp_path / "shards" / "node.id").write_text("0" * 32)
    os.chdir(tmp_path)
    args = {"--listen": f"{LOOPBACK}:{free_port()}", "--stats": f"{LOOPBACK}:{free_port()}", "--dir": "new", "--workers": 1,
            "--insecure": "true"}
    good = [word for pair in args.items() for word in pair]
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert run("-t", *good)[0] == 0
    args[key] = value
    bad = [word for pair in args.items() for word in pair]
    code, said = run("-t", *bad)
    assert code == 1 and text in said and said.count("\n") == 1, said
    assert before == sorted(str(path) for path in tmp_path.rglob("*"))
    code, said = run(*bad)
    assert code == 1 and text in said, said


def test_a_test_of_the_settings_refuses_a_directory_that_cannot_be_written_to(weir_backend):
    """One with data, whose file system is read-only now: for root a folder's mode says nothing."""
    server = weir_backend()
    client(server).set("a", "1")
    server.stop()
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, server.data]
    if os.geteuid() != 0:
        os.chmod(os.path.join(server.data, "shard-0"), 0o500)
        command = []
    is_read_only = os.geteuid() != 0 or subprocess.run([*command, "true"], check=False).returncode == 0
    if not is_read_only:
        print("NOT READ-ONLY HERE: root without mounts of its own can write to all; what is left is that -t says so")
    for test in (["-t"], []) if is_read_only else ():
        done = subprocess.run([*command, *server.argv, *test], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1 and ("Read-only file system" in done.stderr or "Permission denied" in done.stderr), done
    os.chmod(os.path.join(server.data, "shard-0"), 0o700)
    assert subprocess.run([*server.argv, "-t"], timeout=30, check=False).returncode == 0
    server.restart()
    assert client(server).get("a") == b"1"


def test_too_few_files_are_named_as_the_cause(tmp_path):
    code, said = run("--listen", f"{LOOPBACK}:{free_port()}", "--stats", f"{LOOPBACK}:{free_port()}", "--dir", tmp_path,
                     files_max=40)
    assert code == 1 and "Too many open files (raise rlimit_nofile" in said, said


# Limits

def test_files_that_may_not_grow_are_an_error_and_no_death(tmp_path):
    """RLIMIT_FSIZE, whose signal ends who does not ignore it."""
    code, printed = run("--dir", tmp_path / "d", "--listen", f"{LOOPBACK}:{free_port()}", "--stats",
                        f"{LOOPBACK}:{free_port()}", file_bytes_max=1 << 20)
    assert code == 1 and "start failed" in printed and "File too large" in printed


def test_a_limit_on_files_that_comes_later_is_told(weir_backend):
    """It ends nobody: writes are refused, no room or a failed write, reads go on, and a start without it has all of it."""
    server = weir_backend(None, "--segment_size", "1mb")
    assert client(server).set("before", "1")
    worker = next(pid for pid in children_of(server.pid) if "worker 0" in cmdline_of(pid))
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def is_refused():
        try:
            client(server).set("k", os.urandom(200000))
            return False
        except redis.exceptions.ResponseError as error:
            return str(error).startswith("MISCONF")
    wait_for(is_refused, "it is told")
    assert client(server).get("before") == b"1"
    assert worker in children_of(server.pid)
    server.restart()
    assert client(server).get("before") == b"1"
    assert client(server).set("k", os.urandom(200000))


def test_key_that_is_too_long_is_an_error_and_no_death(weir_backend):
    server = weir_backend()
    c = client(server)
    there = processes_of(server)
    longest, more = b"k" * 65535, b"k" * 65536
    error = "key is longer than 65535 bytes"
    assert c.set(longest, "1") and c.get(longest) == b"1"
    assert c.get(more) is None and c.exists(more) == 0 and c.delete(longest) == 1
    for words in (["SET", more, "1"], ["MSET", "a", "1", more, "2"], ["LPUSH", more, "1"], ["RENAME", "a", more],
                  ["COPY", "a", more], ["SORT", "l", "STORE", more], ["ZUNIONSTORE", more, "1", "z"],
                  ["GEOSEARCHSTORE", more, "g", "FROMLONLAT", "0", "0", "BYRADIUS", "1", "m"], ["BLPOP", more, "1"]):
        with pytest.raises(redis.ResponseError, match=error):
            c.execute_command(*words)
    assert c.get("a") is None
    with pytest.raises(redis.ResponseError, match=error):
        pipe = c.pipeline()
        pipe.set("b", "1")
        pipe.set(more, "1")
        pipe.execute()
    assert c.get("b") is None
    assert children_of(server.pid) == there


def test_long_command_is_waited_for(weir_backend):
    """A command that takes longer than five seconds is not taken for a loop that stands still."""
    server = weir_backend()
    there = processes_of(server)
    with Conn(server.port, timeout=30) as c:
        c.ask(resp("DEBUG", "SLEEP", "6"), b"+OK\r\n")
        c.ask(resp("PING"), b"+PONG\r\n")
    assert children_of(server.pid) == there


def test_log_says_what_clients_get_as_errors(weir_backend):
    server = weir_backend(None, "--clients_max", "2", "--memory", "3mb")
    c = client(server)
    c.ping()
    for _ in range(3):
        with Conn(server.port) as refused, Conn(server.port) as also:
            refused.is_quiet()
            also.is_quiet()
    wait_for(lambda: "as many as clients_max allows" in server.text(), "the log speaks of clients")
    with pytest.raises(redis.ResponseError, match="OOM"):
        for first in range(0, 200000, 1000):
            c.mset({f"key:{i}": "1" for i in range(first, first + 1000)})
    wait_for(lambda: "the keys and what clients hold need more than its memory" in server.text(), "the log speaks of memory")
    wait_for(lambda: len(children_of(server.pid)) == 2, "nobody died")
    assert any("worker 0" in cmdline_of(pid) for pid in children_of(server.pid))
