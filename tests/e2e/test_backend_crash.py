# SPDX-License-Identifier: Apache-2.0
"""weir-backend killed under load, out of disk, stopped, started twice: what clients were told stays true."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

import acknowledged
from weirtest import (LOOPBACK, Conn, Process, WeirBackend, children_of, cmdline_of, free_port, pids_of_session, program,
                      resp, simulated_instead, wait_for)

SEED = int(os.environ.get("CRASH_SEED", "1"))


def workers_of(node):
    return [pid for pid in children_of(node.pid) if "worker" in cmdline_of(pid)]


def kill(node, what):
    """SIGKILL to the worker, the master, or all of it."""
    if what == "all":
        node.kill_all()
        return
    pids = {"worker": workers_of(node), "master": [node.pid]}[what]
    assert pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def rounds(request, some, nightly):
    return nightly if request.config.getoption("--nightly") else some


def kill_and_reckon(node, rng, count, fsync):
    writers = None
    for number in range(count):
        what = rng.choice(["worker", "master", "all"])
        writers = acknowledged.start(4, node.port, writers)
        wait_for(lambda: sum(w.count for w in writers) > 20, "they write", step=0.001)
        time.sleep(rng.uniform(0, 0.5))
        if what == "worker":
            kill(node, what)
            acknowledged.finish(writers)
            wait_for(lambda: acknowledged.answers(node.port), "a new worker serves", deadline=30)
        else:
            node._sent.add(signal.SIGKILL)
            kill(node, what)
            acknowledged.finish(writers)
            node.restart(signal.SIGKILL)
            wait_for(lambda: acknowledged.answers(node.port), "the node serves", deadline=30)
        try:
            acknowledged.reckon(writers, node.port)
        except AssertionError as e:
            raise AssertionError(f"round {number}, fsync {fsync}, killed: {what}: {e}") from e


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_killed_under_load(weir_backend, request, fsync):
    """Whatever is killed, whenever: everything that was answered is there, in every fsync mode."""
    node = weir_backend(None, "--fsync", fsync, "--segment_size", "1mb", "--memory", "16mb")
    rng = random.Random(f"{SEED} {fsync}")
    kill_and_reckon(node, rng, rounds(request, 4, 34), fsync)


def start_in_short(node, seconds):
    """The node, and SIGKILL for all of it."""
    p = subprocess.Popen(node.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(seconds)
    for pid in pids_of_session(p.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    p.wait(10)
    wait_for(lambda: not pids_of_session(p.pid), "all of it is gone")


def test_another_ring_size_after_a_kill(weir_backend, request):
    """What was answered and is only in the log ring is found by a node whose ring has another size, even if starts
    before it were killed."""
    node = weir_backend(None, "--fsync", "everysec", "--segment_size", "1mb", "--memory", "16mb",
                        "--ring_size", "1mb")
    at = node.argv.index("--ring_size") + 1
    rng = random.Random(SEED)
    writers = None
    for number in range(rounds(request, 4, 20)):
        writers = acknowledged.start(4, node.port, writers)
        time.sleep(rng.uniform(0.05, 0.4))
        node._sent.add(signal.SIGKILL)
        kill(node, "all")
        acknowledged.finish(writers)
        for size in rng.sample(["1mb", "2mb", "5mb", "8mb"], 2 if number % 2 else 1):
            node.argv[at] = size
            if number % 2:
                start_in_short(node, rng.uniform(0.001, 0.08))
        node.restart(signal.SIGKILL)
        wait_for(lambda: acknowledged.answers(node.port), "the node serves", deadline=30)
        acknowledged.reckon(writers, node.port)


def test_killed_while_it_starts(weir_backend):
    """Again and again, before it has opened: each start finds what the one before had not finished."""
    node = weir_backend(None, "--fsync", "everysec", "--segment_size", "1mb")
    writers = acknowledged.start(4, node.port)
    time.sleep(0.5)
    node._sent.add(signal.SIGKILL)
    kill(node, "all")
    acknowledged.finish(writers)
    rng = random.Random(SEED)
    for _ in range(15):
        start_in_short(node, rng.uniform(0.001, 0.08))
    node.restart(signal.SIGKILL)
    wait_for(lambda: acknowledged.answers(node.port), "the node serves", deadline=30)
    acknowledged.reckon(writers, node.port)


def writers_go_on(writers):
    before = [w.count for w in writers]
    wait_for(lambda: all(w.count >= n + 20 for w, n in zip(writers, before)), "each writer goes on", deadline=30)


def test_stopped_and_continued(weir_backend):
    """SIGSTOP of all of it under load: after SIGCONT the writers go on, and nothing is lost or done twice."""
    node = weir_backend(None, "--fsync", "always")
    writers = acknowledged.start(4, node.port)
    writers_go_on(writers)
    for _ in range(3):
        pids = pids_of_session(node.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.7)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        writers_go_on(writers)
    for w in writers:
        w.stop()
    acknowledged.finish(writers)
    acknowledged.reckon(writers, node.port)


def start_beside(node, *options):
    """Another process on the node's directory: its exit code and what it said."""
    argv = [program("weir-backend"), "--listen", f"{LOOPBACK}:{free_port()}", "--stats", f"{LOOPBACK}:{free_port()}",
            "--dir", node.data, *options]
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, text=True)
    return p.returncode, p.stdout


def test_a_second_process_is_refused(weir_backend):
    node = weir_backend()
    with Conn(node.port) as c:
        assert c.resp("SET", "a", "1") == b"+OK\r\n"
        code, said = start_beside(node)
        assert code != 0
        assert node.data in said, said
        assert c.resp("GET", "a") == b"$1\r\n1\r\n"
        assert c.resp("SET", "a", "2") == b"+OK\r\n"
    node.restart()
    with Conn(node.port) as c:
        assert c.resp("GET", "a") == b"$1\r\n2\r\n"


def test_another_count_of_workers_is_refused(weir_backend):
    """And what to do is said."""
    node = weir_backend()
    node.stop()
    code, said = start_beside(node, "--workers", "2")
    assert code != 0
    assert "has the data of 1 shard: start with workers 1" in said, said


# A full disk

def fill(c, prefix, size=20000, most=4000):
    """Until a write is refused: how many were taken."""
    for i in range(most):
        answer = c.resp("SET", f"{prefix}{i}", prefix[0] * size)
        if answer != b"+OK\r\n":
            return i, answer
    return most, b""


def says_that_the_disk_is_full(node, c):
    """To clients of either protocol, in INFO and on the stats port. It serves: what is there, and deletes."""
    with Conn(node.port) as memcache:
        memcache.ask(b"set m 0 0 1\r\nx\r\n", b"SERVER_ERROR out of disk space storing object\r\n")
    told = acknowledged.info(c, "store")
    assert (told[b"disk_full"], told[b"read_only"], told[b"write_errors"]) == (b"1", b"0", b"0")
    wait_for(lambda: json.loads(node.http("/stats"))["shard-0"]["disk_full"] == 1, "the stats port says so")
    assert node.http("/healthz") == "ok\n"


def full_and_back(node, make_room):
    with Conn(node.port, timeout=30) as c:
        assert c.resp("SET", "first", "1") == b"+OK\r\n"
        count, answer = fill(c, "a")
        assert count > 20 and answer == acknowledged.DISK_FULL, answer
        says_that_the_disk_is_full(node, c)
        assert c.resp("GET", "first") == b"$1\r\n1\r\n"
        for i in (0, count // 2, count - 1):
            assert c.resp("GET", f"a{i}") == b"$20000\r\n" + b"a" * 20000 + b"\r\n"
        for i in range(count // 2):
            assert c.resp("DEL", f"a{i}") == b":1\r\n"
        make_room()
        wait_for(lambda: c.resp("SET", "back", "1") == b"+OK\r\n", "writes go on", deadline=20, step=0.1)
        assert acknowledged.info(c, "store")[b"disk_full"] == b"0"
        for i in range(count // 2, count):
            assert c.resp("GET", f"a{i}") == b"$20000\r\n" + b"a" * 20000 + b"\r\n"
    node.restart(signal.SIGKILL)
    with Conn(node.port, timeout=30) as c:
        assert c.resp("GET", "back") == b"$1\r\n1\r\n"
        for i in range(count // 2, count):
            assert c.resp("GET", f"a{i}") == b"$20000\r\n" + b"a" * 20000 + b"\r\n"
        assert c.resp("GET", "a0") == b"$-1\r\n"


def test_the_bound_of_disk_is_reached(weir_backend):
    """--disk: writes are refused, reads and deletes go on, the cleaner makes room, nothing was lost."""
    node = weir_backend(None, "--disk", "16mb", "--segment_size", "1mb", "--memory", "64mb")
    full_and_back(node, lambda: None)


def test_a_refused_rename_has_changed_nothing(weir_backend):
    """Long strings and a list, for whose record under another name there is no room. Then the node is killed."""
    node = weir_backend(None, "--disk", "24mb", "--segment_size", "1mb", "--memory", "64mb")
    where = {}  # (database, name): what is there
    refused = 0
    with Conn(node.port, timeout=30) as c:
        assert c.resp("RPUSH", "list", *(str(i) * 40000 for i in range(10))) == b":10\r\n"
        where["0", "list"] = "list"
        for i in range(47):
            assert c.resp("SET", f"k{i}", f"{i}|" + "x" * 400000) == b"+OK\r\n"
            where["0", f"k{i}"] = i
        for name in ["list", *(f"k{i}" for i in range(6))]:
            for words, there in ((("RENAME", name, "new"), ("0", "new")), (("RENAMENX", name, "new"), ("0", "new")),
                                 (("MOVE", name, "5"), ("5", name)), (("RENAME", name, "k46"), ("0", "k46"))):
                if ("0", name) not in where or (words[0] == "RENAMENX" and there in where):
                    continue
                answer = c.resp(*words)
                if answer == acknowledged.DISK_FULL:
                    refused += 1
                else:
                    assert answer in (b"+OK\r\n", b":1\r\n"), words
                    where[there] = where.pop(("0", name))
                assert c.resp("EXISTS", name) == b":%d\r\n" % (("0", name) in where), words
    assert refused > 5
    node.restart(signal.SIGKILL)
    with Conn(node.port, timeout=30) as c:
        for (db, name), what in where.items():
            assert c.resp("SELECT", db) == b"+OK\r\n"
            if what == "list":
                assert c.resp("LLEN", name) == b":10\r\n"
            else:
                text = f"{what}|".encode() + b"x" * 400000
                assert c.resp("GET", name) == b"$%d\r\n%s\r\n" % (len(text), text), name
        assert c.resp("SELECT", "0") == b"+OK\r\n"
        assert c.resp("DBSIZE") == b":%d\r\n" % sum(db == "0" for db, _ in where)


@pytest.mark.parametrize("seed", (1, 2))
def test_large_values_beside_small_ones_do_not_wait_for_ever(weir_backend, seed):
    """--disk, nearly full of values of 1 byte to 512 KiB, on a node that is idle but for who writes: what a large one gets of
    free segments is not taken for new ones before it comes. Each is answered, OK or no room."""
    node = weir_backend(None, "--disk", "24mb", "--segment_size", "1mb", "--memory", "16mb")
    rng = random.Random(seed)
    sizes, refused = {}, 0
    with Conn(node.port, timeout=30) as c:
        for i in range(12000):
            if i >= 1200 and refused > 10:  # how often depends on how far the cleaner gets meanwhile
                break
            size = int(2 ** rng.uniform(0, 19))
            answer = c.resp("SET", f"k{i}", "x" * size)
            assert answer in (b"+OK\r\n", acknowledged.DISK_FULL)
            if answer == b"+OK\r\n":
                sizes[f"k{i}"] = size
                continue
            refused += 1
            for name in rng.sample(sorted(sizes), len(sizes) // 10):
                assert c.resp("DEL", name) == b":1\r\n"
                del sizes[name]
        assert refused > 10
        for name, size in sizes.items():
            assert c.resp("STRLEN", name) == b":%d\r\n" % size


def test_large_values_in_transactions_wait_for_room(weir_backend):
    """--disk, written over many times by little that lives: EXEC waits for the cleaner as a single command does."""
    node = weir_backend(None, "--disk", "16mb", "--segment_size", "1mb", "--memory", "64mb", "--fsync", "no")
    with Conn(node.port, timeout=30) as c:
        for i in range(200):
            batch = [("SET", f"k{(i + j) % 6}", chr(97 + j) * 180000) for j in range(3)]
            c.send(resp("MULTI") + b"".join(resp(*b) for b in batch) + resp("EXEC"))
            assert [c.recv_resp() for _ in range(4)] == [b"+OK\r\n"] + 3 * [b"+QUEUED\r\n"]
            assert c.recv_resp() == b"*3\r\n" + 3 * b"+OK\r\n", i


@contextlib.contextmanager
def small_file_system(tmp_path):
    """A tmpfs of 16 MiB; None where we may not mount one, and that is said."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "weir-test", str(mount)], capture_output=True,
                          text=True)
    if done.returncode != 0:
        print("no tmpfs can be mounted:", done.stderr.strip())
        yield None
        return
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)
        shutil.rmtree(mount, ignore_errors=True)


def test_a_full_file_system(stage, tmp_path):
    """A small tmpfs; where there is none the directory is bounded by --disk."""
    with small_file_system(tmp_path) as mount:
        if mount is None:
            node = stage.weir_backend(None, "--disk", "16mb", "--segment_size", "1mb", "--memory", "64mb")
            full_and_back(node, lambda: None)
            return
        ballast = mount / "ballast"
        ballast.write_bytes(b"\0" * (3 << 20))
        node = stage._add(WeirBackend(str(mount), "--segment_size", "1mb", "--memory", "64mb"))
        full_and_back(node, ballast.unlink)
        node.stop()


def fill_with_values(c, values, draw):
    """Until the node has refused twenty; values: what it has by name."""
    refused = 0
    while refused < 20:
        name, size = f"k{draw.randrange(100000)}", draw.choice([1000, 20000, 500000])
        size = draw.randrange(1, size)
        reply = c.resp("SET", name, "v" * size)
        if reply == b"+OK\r\n":
            values[name] = size
        else:
            assert reply.startswith(b"-MISCONF No room")
            refused += 1


@pytest.mark.parametrize("seed", (1, 2))
def test_who_has_filled_the_file_system_can_delete(stage, tmp_path, seed):
    """Nobody has said how much of the disk is the node's, and it is filled again and again: deletes are never refused, nor
    after a stop or a kill."""
    draw, values = random.Random(seed), {}
    with small_file_system(tmp_path) as mount:
        if mount is None:
            simulated_instead("test_store_full", "no tmpfs can be mounted")
            return
        node = stage._add(WeirBackend(str(tmp_path), "--segment_size", "1mb", "--memory", "16mb", data=mount / "data"))
        for signo in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with Conn(node.port, timeout=30) as c:
                for _ in range(2):
                    fill_with_values(c, values, draw)
                    for name in draw.sample(sorted(values), len(values) // 10):
                        assert c.resp("DEL", name) == b":1\r\n"
                        del values[name]
                fill_with_values(c, values, draw)
            node.restart(signo)
            with Conn(node.port, timeout=30) as c:
                for name, size in values.items():
                    assert c.resp("STRLEN", name) == b":%d\r\n" % size
                for name in draw.sample(sorted(values), len(values) // 10):
                    assert c.resp("DEL", name) == b":1\r\n"
                    del values[name]
        with Conn(node.port, timeout=30) as c:
            assert c.resp("FLUSHALL") == b"+OK\r\n"
            wait_for(lambda: c.resp("SET", "big", "b" * 3000000) == b"+OK\r\n", "there is room", step=0.1)
        node.stop()


def fill_file_system(path):
    """Until nothing more goes into the file system."""
    with open(path, "wb", buffering=0) as f:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while f.write(b"\0" * size) == size:
                    pass


def ask_to_stop(node, how):
    if how == "SHUTDOWN":
        with Conn(node.port, timeout=30) as c:
            c.send(resp("SHUTDOWN"))
            c.recv_eof()
    else:
        node.send_signal(how)


def stall(node, ballast, value):
    """A large value that waits for room: the file system is filled while it is on its way, behind the node's back. Should the
    node have looked just then the value is refused, and it is tried again. The connection."""
    data = resp("SET", "big", value)
    for _ in range(10):
        big = Conn(node.port, timeout=30)
        big.send(data[:-2])
        time.sleep(0.3)
        fill_file_system(ballast)
        big.send(data[-2:])
        if big.is_quiet(0.5):
            return big
        assert big.recv_resp().startswith(b"-MISCONF No room ")  # for that much, or for any data
        big.close()
        ballast.unlink()
        time.sleep(1.2)  # it looks once a second
    raise AssertionError("the value never waits")


@pytest.mark.parametrize("how, fsync", [(signal.SIGTERM, "no"), (signal.SIGTERM, "everysec"), (signal.SIGTERM, "always"),
                                        (signal.SIGQUIT, "no"), ("SHUTDOWN", "no"), ("room", "everysec")])
def test_a_stop_does_not_wait_for_room(stage, tmp_path, how, fsync):
    """Others have filled the file system, and a value larger than a segment waits for room: the node ends when it is told
    to, without that value, which nobody was told of, and with all that was answered. Where room comes meanwhile nothing
    is missing."""
    with small_file_system(tmp_path) as mount:
        if mount is None:
            simulated_instead("test_store_full", "no tmpfs can be mounted")
            return
        ballast = mount / "ballast"
        node = stage._add(WeirBackend(str(tmp_path), "--segment_size", "1mb", "--memory", "64mb", "--fsync", fsync,
                                      "--drain_timeout", "1s", data=mount / "data"))
        with Conn(node.port, timeout=30) as c:
            for i in range(100):
                assert c.resp("SET", f"a{i}", str(i) * 1000) == b"+OK\r\n"
            acknowledged.wait_until_files_are_made(node.port)
            assert c.resp("SET", "last", "1") == b"+OK\r\n"
            big = stall(node, ballast, "b" * 3000000)
            if how == "room":
                node.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                ballast.unlink()
            else:
                ask_to_stop(node, how)
            assert node.wait() == 0
            assert big.recv_eof() == b""
            big.close()
        assert ("were given up" in node.text()) == (how != "room")
        node.restart()
        assert "did not stop cleanly" not in node.text()
        with Conn(node.port, timeout=30) as c:
            for i in range(100):
                assert c.resp("GET", f"a{i}") == b"$%d\r\n%s\r\n" % (len(str(i)) * 1000, str(i).encode() * 1000)
            assert c.resp("GET", "last") == b"$1\r\n1\r\n"
            assert c.resp("STRLEN", "big") == (b":3000000\r\n" if how == "room" else b":0\r\n")
            ballast.unlink(missing_ok=True)
            wait_for(lambda: c.resp("SET", "back", "1") == b"+OK\r\n", "writes go on", step=0.1)
            wait_for(lambda: c.resp("SET", "big", "c" * 3000000) == b"+OK\r\n", "large ones too", step=0.1)
        node.restart()
        with Conn(node.port, timeout=30) as c:
            assert c.resp("STRLEN", "big") == b":3000000\r\n"
        node.stop()
