# SPDX-License-Identifier: Apache-2.0
"""Power cuts of a real file system under a real node: a disk that forgets what was not flushed (tests/rigs/vdisk.c), a
loop device on it, ext4, weir-backend, writers that remember what they were told.

Needs root, /dev/fuse and a loop device. Where they are refused that is said, and the simulator's crashes run instead."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

import acknowledged
from weirtest import Conn, WeirBackend, pids_of_session, program, simulated_instead, wait_for

SEED = int(os.environ.get("CRASH_SEED", "1"))
MEGABYTES = 160


class Refused(Exception):
    """The kernel does not let us: why."""


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout.strip()


class Rig:
    """The disk, and ext4 on it; cut() is the power cut."""

    def __init__(self, directory, lost_percent, seed):
        self.below, self.top = os.path.join(directory, "below"), os.path.join(directory, "disk")
        self.loop = self.process = None
        self.is_mounted = False
        self.words = os.path.join(directory, "vdisk.out")
        for path in (self.below, self.top):
            os.mkdir(path)
        with open(self.words, "wb") as out:
            self.process = subprocess.Popen([program("tests/rigs/vdisk"), self.below, str(MEGABYTES), str(lost_percent),
                                             str(seed)], stdout=out, stderr=out)
        try:
            self.up()
        except BaseException:
            self.close()
            raise

    def up(self):
        wait_for(lambda: self.said() or self.process.poll() is not None, "the disk is ready")
        if "ready" not in self.said():
            raise Refused(self.said().strip())
        self.loop_up()
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", self.loop)
        self.mount()

    def said(self):
        with open(self.words, encoding="utf-8") as f:
            return f.read()

    def loop_up(self):
        self.loop = run("losetup", "--find", "--show", os.path.join(self.below, "disk"))

    def mount(self):
        run("mount", self.loop, self.top)
        self.is_mounted = True

    def unmount(self):
        """What the dead disk still owes the file system is never written."""
        if self.is_mounted:
            wait_for(self.try_unmount, f"{self.top} is free: a killed process's rings hold its files for a while")
        self.is_mounted = False
        if self.loop is not None:
            run("losetup", "-d", self.loop)
            loop, self.loop = self.loop, None
            wait_for(lambda: not run("losetup", "-j", os.path.join(self.below, "disk")), f"{loop} is free")

    def try_unmount(self):
        return subprocess.run(["umount", self.top], capture_output=True, timeout=60).returncode == 0

    def cut(self):
        before = self.said().count("cut ")
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self.said().count("cut ") > before, "the power is cut")
        return self.said().splitlines()[-1]

    FAULTS = ("flush EIO", "write EIO", "flush ENOSPC", "write ENOSPC")  # as in vdisk.c

    def fail(self, fault):
        """One request, the next that comes."""
        before = self.said().count("failed ")
        self.process.send_signal(signal.SIGRTMIN + self.FAULTS.index(fault))
        wait_for(lambda: self.said().count("failed ") > before, "a request fails")

    def is_writable(self):
        try:
            with open(os.path.join(self.top, "probe"), "wb") as f:
                f.write(b"x")
                os.fsync(f.fileno())
            return True
        except OSError:
            return False

    def back(self):
        """After the unmount: the loop device reads the file anew."""
        self.process.send_signal(signal.SIGUSR2)
        wait_for(self.try_up, "the disk is back")

    def try_up(self):
        """The disk may not have heard that its power is back."""
        try:
            self.loop_up()
            self.mount()
        except Refused:
            if self.loop is not None:
                run("losetup", "-d", self.loop)
                self.loop = None
        return self.is_mounted

    def close(self):
        for argv in (["umount", "-l", self.top], ["losetup", "-d", self.loop or ""], ["umount", "-l", self.below]):
            if argv[-1]:
                subprocess.run(argv, capture_output=True, timeout=60)
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)


def rings_of(node):
    """The log rings in /dev/shm that its workers have mapped: a power cut takes them."""
    found = set()
    for pid in pids_of_session(node.pid):
        try:
            with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
                found |= set(re.findall(r"/dev/shm/\S+", f.read()))
        except OSError:
            pass
    return found


LIVES_MAX = 30


def cut(rig, node, writers):
    """The power, and with it all of the node and what was in memory. What the rig has told."""
    rings = rings_of(node)
    assert rings, "the node has a ring in /dev/shm"
    told = rig.cut()
    node.kill_all()
    acknowledged.finish(writers)
    for ring in rings:
        if os.path.exists(ring):
            os.unlink(ring)
    rig.unmount()
    rig.back()
    return told


def lives(rig, rng, direct, fsync, count):
    options = ["--fsync", fsync, "--segment_size", "1mb", "--memory", "8mb", "--disk", "64mb"]
    lost = total = 0
    try:
        node = WeirBackend(rig.top, *options, *(["--direct", "true"] if direct else []))
        writers = None
        for number in range(LIVES_MAX):
            # What the page cache had never comes to the disk: more lives where nothing was in it yet.
            if number >= count and (lost > 0 or fsync == "always" or not direct):
                break
            # As fast as they can, and so slowly that no segment is full, which would be flushed for that.
            writers = acknowledged.start(4, node.port, writers, refusals=(acknowledged.DISK_FAILED,),
                                         pause=0 if number % 2 else 0.02)
            time.sleep(rng.uniform(0.1, 0.5))
            promised = None if fsync == "always" else 0
            if fsync == "everysec" or (fsync == "no" and number % 2):
                promised = acknowledged.wait_until_durable(node.port, by_checkpoint=fsync == "no")
                time.sleep(rng.uniform(0, 0.8))
            told = cut(rig, node, writers)
            lost += int(re.search(r"lost=(\d+)", told)[1])
            total += sum(w.count for w in writers)
            node.__init__(node.directory, *node.options, port=node.port)
            wait_for(lambda: acknowledged.answers(node.port), "the node serves", deadline=30)
            try:
                acknowledged.reckon(writers, node.port, promised)
            except AssertionError as e:
                raise AssertionError(f"power cut {number} ({told}), fsync {fsync}, direct {direct}: {e}\n"
                                     f"{node.tail()}") from e
        assert total > 0
        assert lost > 0 or fsync == "always" or not direct
        node.stop()
    finally:
        rig.close()


CASES = [(direct, fsync, lost) for direct in (False, True) for fsync in ("always", "everysec", "no") for lost in (100, 50)]


@pytest.mark.parametrize("direct,fsync,lost", CASES)
def test_power_is_cut_under_load(tmp_path, request, direct, fsync, lost):
    """fsync always: all that was acknowledged is there; everysec: all that was when a flush was waited for, which comes
    while they write on; no: the same of a checkpoint. What is there beyond that is the beginning of what there was, by
    the order of each connection and by that across them. Either past the page cache or through it; everything unflushed
    lost, or half of it."""
    rng = random.Random(f"{SEED} {direct} {fsync} {lost}")
    try:
        rig = Rig(str(tmp_path), lost, rng.randrange(1 << 30))
    except (Refused, OSError) as e:
        simulated_instead("test_store_crash", f"no power-cut rig: {e}")
        return
    lives(rig, rng, direct, fsync, 25 if request.config.getoption("--nightly") else 2)


def says_that_its_log_has_failed(node, c):
    """To clients of either protocol, in INFO, on the stats port, in the log. It serves: what is there."""
    for words in (("SET", "new", "1"), ("DEL", "first"), ("FLUSHALL",)):
        assert c.resp(*words) == acknowledged.DISK_FAILED
    assert c.resp("GET", "first") == b"$1\r\n1\r\n"
    assert c.resp("SAVE").startswith(b"-ERR no checkpoint was written: ")
    with Conn(node.port) as memcache:
        memcache.ask(b"set m 0 0 1\r\nx\r\ndelete first\r\nget first\r\n",
                     2 * b"SERVER_ERROR read-only after a failed write of the log\r\n" + b"VALUE first 0 1\r\n1\r\nEND\r\n")
    told = acknowledged.info(c, "store")
    assert told[b"disk_full"] == b"0" and int(told[b"write_errors"]) > 0
    assert acknowledged.info(c, "persistence")[b"aof_last_write_status"] == b"err"
    wait_for(lambda: json.loads(node.http("/stats"))["shard-0"]["read_only"] == 1, "the stats port says so")
    assert node.http("/healthz") == "ok\n"
    text = r"error: store: the log has failed, nothing more is written shard=0 what=[a-z ]+ file=\S+"
    wait_for(lambda: re.search(text, node.text()), "the log says so")


def one_request_fails(rig, directory, fault, direct, end):
    node = WeirBackend(directory, "--fsync", "always", "--segment_size", "1mb", *(["--direct", "true"] if direct else []),
                       data=os.path.join(rig.top, "data"))
    acknowledged.wait_until_files_are_made(node.port)  # what fails now is most likely what the log itself writes
    writers = acknowledged.start(4, node.port, refusals=(acknowledged.DISK_FAILED,), pause=0.01)
    wait_for(lambda: all(w.count >= 20 for w in writers), "each writer writes")
    with Conn(node.port, timeout=30) as c:
        assert c.resp("SET", "first", "1") == b"+OK\r\n"
        # It may be one of the file system's own that fails, of which it tells nobody: then another one.
        for _ in range(20):
            rig.fail(fault)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: acknowledged.info(c, "store")[b"read_only"] == b"1", "the log has failed", deadline=1)
                break
        durable = acknowledged.info(c, "store")[b"lsn_durable"]
        says_that_its_log_has_failed(node, c)
        # Who waited for the flush is not left waiting: its connection ends.
        wait_for(lambda: all(not w.is_alive() or w.refused > 0 for w in writers), "each writer knows")
        assert acknowledged.info(c, "store")[b"lsn_durable"] == durable
    if end == "cut":
        cut(rig, node, writers)
    else:
        acknowledged.finish(writers)
        node.stop()
        if not rig.is_writable():  # one that the file system cannot do without has failed
            rig.unmount()
            rig.back()
    node.__init__(node.directory, *node.options, port=node.port, data=node.data)
    wait_for(lambda: acknowledged.answers(node.port), "the node serves", deadline=30)
    acknowledged.reckon(writers, node.port)
    with Conn(node.port, timeout=30) as c:
        assert c.resp("GET", "first") == b"$1\r\n1\r\n"
        assert c.resp("SET", "new", "1") == b"+OK\r\n"
        assert acknowledged.info(c, "store")[b"read_only"] == b"0"
    node.stop()


@pytest.mark.parametrize("fault,direct,end", [
    ("flush EIO", True, "restart"), ("flush EIO", False, "restart"), ("flush EIO", True, "cut"), ("write EIO", True, "restart"),
    ("write EIO", False, "cut"), ("flush ENOSPC", True, "restart"),
])
def test_one_request_of_the_disk_fails(tmp_path, fault, direct, end):
    """Once, under load, with fsync always. The node says so, takes nothing any more, and its durable mark stands. When it
    has a disk that works, because the node was started again or the host was, all that was acknowledged is there."""
    try:
        rig = Rig(str(tmp_path), 100, SEED)
    except (Refused, OSError) as e:
        simulated_instead("test_store_fault", f"no rig: {e}")
        return
    try:
        one_request_fails(rig, str(tmp_path), fault, direct, end)
    finally:
        rig.close()
