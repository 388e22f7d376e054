# SPDX-License-Identifier: Apache-2.0
"""weirctl verify, backup, restore and salvage, with real nodes."""

import datetime
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import acknowledged
import weirtest

SEED = int(os.environ.get("DAMAGE_SEED", "1"))
SEGMENT = ("--segment_size", "1mb")
PAGE = 4096


def ctl(*args, code=0):
    """weirctl with these arguments; what it printed."""
    done = subprocess.run([weirtest.program("weirctl"), *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def times_of(told):
    """What a backup can go back from and to, in seconds."""
    found = re.search(r"can go back from (.*)Z to (.*)Z", told)
    return tuple(datetime.datetime.fromisoformat(x + "+00:00").timestamp() for x in found.groups())


def write_some(client, seed, count=400):
    """Every type, some of it large, some deleted again."""
    rng = random.Random(seed)
    pipe = client.pipeline(transaction=False)
    for i in range(count):
        key = rng.randrange(120)
        pipe.set(f"s:{key}", rng.randbytes(rng.randrange(1, 8000)))
        pipe.hset(f"h:{key % 20}", f"f{rng.randrange(50)}", rng.randbytes(40))
        pipe.rpush(f"l:{key % 10}", rng.randbytes(60))
        pipe.sadd(f"u:{key % 10}", rng.randrange(500))
        pipe.zadd(f"z:{key % 10}", {str(rng.randrange(300)): rng.randrange(1000)})
        if i % 9 == 0:
            pipe.delete(f"s:{rng.randrange(120)}")
        if i % 50 == 0:
            pipe.set(f"big:{rng.randrange(3)}", rng.randbytes(300000))
    pipe.execute()


def snapshot(client):
    """Everything, by key."""
    out = {}
    for key in sorted(client.scan_iter(count=1000)):
        kind = client.type(key)
        out[key] = {
            b"string": lambda: client.get(key),
            b"hash": lambda: client.hgetall(key),
            b"list": lambda: client.lrange(key, 0, -1),
            b"set": lambda: client.smembers(key),
            b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
        }[kind]()
    return out


def redis_client(node, shard=0):
    import redis
    return redis.Redis(port=node.port + shard, socket_timeout=30)


def shard_of(node):
    return os.path.join(node.data, "shard-0")


def covered(directory):
    """(kind, file, from, to): the bytes that a checksum covers, and that something depends on."""
    manifest = open(os.path.join(directory, "MANIFEST"), "rb").read().ljust(2 * PAGE, b"\0")
    slots = [struct.unpack_from("<IIQQQQQQ", manifest, i * PAGE) for i in (0, 1)]
    yield "shard", "shard", 0, 512
    newest = max(slots, key=lambda slot: slot[2])
    for i, slot in enumerate(slots):
        if slot[2]:
            yield "manifest", "MANIFEST", i * PAGE, i * PAGE + 56
    yield "meta", f"checkpoint.{newest[3]}", newest[4], newest[4] + newest[5]
    data = open(os.path.join(directory, f"checkpoint.{newest[3]}"), "rb").read()
    meta = data[newest[4]:newest[4] + newest[5]]
    pages, = struct.unpack_from("<I", meta, 52)
    head = 64 + 8 * 16 + 8 + 16 + 8 + 8 * 8
    for at in range(head + 32 * pages, len(meta), 16):
        off, size = struct.unpack_from("<QI", meta, at)
        end = off + size
        while off < end:
            size, kept = struct.unpack_from("<II", data, off + 24)
            yield "checkpoint patch" if kept else "checkpoint page", f"checkpoint.{newest[3]}", off, off + size
            off += size
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".seg"):
            continue
        data = open(os.path.join(directory, name), "rb").read()
        sequence, = struct.unpack_from("<Q", data, 8)
        if data[:4] != b"WSEG" or data[6] == 0xff or data[PAGE:PAGE + 4] != b"WPAG":
            continue
        yield "segment header", name, 0, 512
        end = len(data) - PAGE
        if data[end:end + 4] == b"WEND":
            yield "footer", name, end, end + 512
            end, = struct.unpack_from("<Q", data, end + 40)
        off = PAGE
        while off < end and data[off:off + 4] == b"WPAG" and struct.unpack_from("<Q", data, off + 8)[0] == sequence:
            used, = struct.unpack_from("<I", data, off + 20)
            yield "page header", name, off, off + 64
            yield "frame header", name, off + 64, off + 128
            yield "record", name, off + 128, off + used
            off += (used + PAGE - 1) // PAGE * PAGE


def flip(path, off, bit):
    with open(path, "r+b") as f:
        f.seek(off)
        byte = f.read(1)[0]
        f.seek(off)
        f.write(bytes([byte ^ (1 << bit)]))


def copy_with(directory, target, name):
    """Hard links, but the file that is going to be damaged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(directory, target, copy_function=os.link)
    path = os.path.join(target, name)
    shutil.copyfile(os.path.join(directory, name), path + ".copy")
    os.replace(path + ".copy", path)
    return path


def test_verify_finds_every_flipped_bit(weir_backend, tmp_path):
    """In each kind of structure, some random bits: found, with the file. Undamaged, and while the node runs, nothing."""
    node = weir_backend(None, *SEGMENT, "--memory", "8mb")
    client = redis_client(node)
    for seed in range(3):
        write_some(client, seed)
        assert "damage      0" in ctl("verify", node.data)
    node.restart()
    client = redis_client(node)
    write_some(client, 4)
    client.bgsave()
    weirtest.wait_for(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "the checkpoint")
    client.set("one more", "which the last checkpoint has as a patch")
    node.stop()
    assert "damage      0" in ctl("verify", node.data)
    assert "damage      0" in ctl("verify", shard_of(node))

    rng = random.Random(SEED)
    kinds = {}
    for kind, *place in covered(shard_of(node)):
        kinds.setdefault(kind, []).append(place)
    assert len(kinds) == 10, sorted(kinds)
    for kind, places in kinds.items():
        for _ in range(6):
            name, start, end = rng.choice(places)
            at = rng.randrange(start, end)
            path = copy_with(shard_of(node), tmp_path / "damaged", name)
            flip(path, at, rng.randrange(8))
            told = ctl("verify", tmp_path / "damaged", code=1)
            assert "damage: file=" in told, (kind, name, at, told)


def test_verify_tells_a_missing_file(weir_backend, tmp_path):
    """A segment that is gone is told, unless nothing needs it: then a node starts and has everything."""
    node = weir_backend(None, *SEGMENT)
    write_some(redis_client(node), 1)
    before = snapshot(redis_client(node))
    node.stop()
    names = {name for kind, name, *_ in covered(shard_of(node)) if kind == "record"}
    told = 0
    for name in sorted(names):
        copy = tmp_path / f"without-{name}" / "shard-0"
        shutil.copytree(shard_of(node), copy)
        os.unlink(copy / name)
        done = subprocess.run([weirtest.program("weirctl"), "verify", copy], capture_output=True, text=True)
        told += done.returncode == 1
        if done.returncode == 0:
            assert snapshot(redis_client(weir_backend(None, *SEGMENT, data=copy.parent))) == before
    assert told > 0
    shutil.copytree(shard_of(node), tmp_path / "none")
    os.unlink(tmp_path / "none" / "shard")
    assert f'damage: file={tmp_path}/none/shard offset=0 what="it is missing"' in ctl("verify", tmp_path / "none", code=1)
    ctl("verify", tmp_path / "nothing", code=2)


def test_verify_takes_a_killed_node_for_what_it_is(weir_backend):
    """A torn tail is no damage; nothing durable is missing."""
    node = weir_backend(None, *SEGMENT)
    write_some(redis_client(node), 1)
    node.kill_all()
    assert "damage      0" in ctl("verify", node.data)


def test_verify_tells_what_only_the_ring_has(weir_backend):
    """Of a killed node: how many changes, up to which LSN, and that a ring is damaged; not of one that has all of it on
    the disk, that runs, or whose ring is of an earlier boot."""
    def lsn_of(node):
        return redis_client(node).info("store")["lsn_appended"]

    def kill(node):
        node.kill_all()
        weirtest.wait_for(lambda: "in use by a node" not in ctl("verify", node.data), "the lock to go")

    node = weir_backend(None, "--fsync", "always")
    redis_client(node).set("a", "1")
    assert "log ring" not in ctl("verify", node.data)
    kill(node)
    assert "log ring    /dev/shm/weir-" in (told := ctl("verify", node.data)) and "nothing that the files lack" in told
    node = weir_backend(None, "--fsync", "everysec", data=node.data)
    client = redis_client(node)
    weirtest.wait_for(lambda: client.info("store")["lsn_durable"] == lsn_of(node), "all is durable")
    with client.pipeline(transaction=False) as p:
        for i in range(7):
            p.set(f"b{i}", "b" * 100)
        p.execute()
    last = lsn_of(node)
    kill(node)
    told = ctl("verify", node.data)
    with open(os.path.join(node.data, "node.id"), encoding="ascii") as f:
        ring = f"/dev/shm/weir-{f.read()}-0"
    expected = f"log ring    7 changes, up to lsn {last}, are only in {ring}"
    assert expected in told and "damage      0" in told, told
    assert expected in ctl("verify", os.path.join(node.data, "shard-0"))
    os.chmod(ring, 0o640)
    told = ctl("verify", node.data, code=1)
    assert expected in told and f'file={ring} offset=0 what="its mode is 0640, a start refuses it' in told, told
    os.chmod(ring, 0o600)
    with open(ring, "r+b") as f:
        sound = f.read()
        at = sound.rindex(b"b" * 100)
        f.seek(at)
        f.write(b"c")
    told = ctl("verify", node.data, code=1)
    assert f"{ring}" in told and "a frame in the log ring does not verify" in told, told
    assert f"promises lsn {last}" in told, told
    with open(ring, "r+b") as f:
        f.write(sound[:8] + b"\1" + sound[9:16] + bytes(16) + sound[32:80] + bytes(8) + sound[88:])  # version 1 has no hash
    assert "from before a restart of the host" in ctl("verify", node.data)
    with open(ring, "r+b") as f:
        f.write(sound)
    node = weir_backend(None, data=node.data)
    assert redis_client(node).get("b6") == b"b" * 100
    node.stop()
    assert "log ring" not in ctl("verify", node.data)


@pytest.mark.parametrize("damage", [b"", b"0123456789abcdef", b"g" * 32])
def test_a_damaged_name_is_told_and_mended(weir_backend, damage):
    """node.id: by verify, salvage, backup and the start, with what to do; with its old contents the ring is found again."""
    node = weir_backend(None, *SEGMENT, "--fsync", "no")
    redis_client(node).set("a", "1")
    node.kill_all()
    weirtest.wait_for(lambda: "in use by a node" not in ctl("verify", node.data), "the lock to go")
    path = os.path.join(node.data, "node.id")
    with open(path, "rb") as f:
        name = f.read()
    with open(path, "wb") as f:
        f.write(damage)
    told = ctl("verify", node.data, code=1)
    assert f"damage: file={path} offset=0" in told and "damage      1" in told, told
    told = ctl("salvage", node.data, node.data + ".salvaged")
    assert f"damage: file={path} offset=0" in told and "all of it is there" not in told, told
    assert path in ctl("backup", node.data, node.data + ".backup", code=1)
    done = subprocess.run([weirtest.program("weir-backend"), "--listen", f"127.0.0.1:{weirtest.free_port()}", "--stats",
                           f"127.0.0.1:{weirtest.free_port()}", "--dir", node.data], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 1 and f"{path} is damaged" in done.stderr and "or remove it" in done.stderr
    with open(path, "wb") as f:
        f.write(name)
    node = weir_backend(None, data=node.data)
    assert redis_client(node).get("a") == b"1"


# Backups

class Sequence(threading.Thread):
    """Writes 1, 2, 3 ... each to the next of a few keys, and on a list, and remembers when each was sent and answered: what
    is found later must be the state behind one number. `pause`: seconds between two."""

    KEYS = 37

    def __init__(self, port, pause=0):
        super().__init__(daemon=True)
        self.port, self.pause, self.sent, self.answered = port, pause, [], []
        self.is_stopping = False
        self.start()

    def run(self):
        with weirtest.Conn(self.port, timeout=30) as c:
            while not self.is_stopping:
                number = len(self.sent) + 1
                self.sent.append(time.time())
                assert c.resp("SET", f"q{number % self.KEYS}", f"{number}:" + "v" * (number * 37 % 2000)) == b"+OK\r\n"
                assert c.resp("RPUSH", "numbers", number).startswith(b":")
                self.answered.append(time.time())
                time.sleep(self.pause)

    def stop(self):
        self.is_stopping = True
        self.join(30)
        assert not self.is_alive()

    def found(self, port):
        """The number behind which the state of this node is."""
        with weirtest.Conn(port, timeout=30) as c:
            numbers = [int(x) for x in c.resp("LRANGE", "numbers", 0, -1).split(b"\r\n")[2::2]]
            keys = {}
            for i in range(self.KEYS):
                answer = c.resp("GET", f"q{i}")
                if answer != b"$-1\r\n":
                    text = answer.split(b"\r\n")[1]
                    keys[i] = int(text.split(b":")[0])
                    assert text == b"%d:" % keys[i] + b"v" * (keys[i] * 37 % 2000)
        assert numbers == list(range(1, len(numbers) + 1))
        last = max(keys.values(), default=0)
        assert last - len(numbers) in (0, 1)  # the SET may be there without its RPUSH
        for number in range(max(1, last - self.KEYS + 1), last + 1):
            assert keys[number % self.KEYS] == number, (number, last, keys)
        return last


def test_verify_of_a_log_that_ends_with_large_values(weir_backend):
    """They lie in files of their own, behind a segment that has room left: nothing is missing there."""
    node = weir_backend(None, *SEGMENT, "--fsync", "always")
    with redis_client(node) as client:
        client.set("small", "x")
        for i in range(5):
            client.set(f"large:{i}", "x" * 200000)
    node.kill_all()
    assert "damage      0" in ctl("verify", node.data)
    node.restart(signal.SIGKILL)
    node.stop()
    assert "damage      0" in ctl("verify", node.data)


def test_backup_under_load(weir_backend, tmp_path):
    """While others write, and the cleaner and checkpoints give segments back: each backup verifies, and what is
    restored is the state at one moment between its beginning and its end. The node that runs on it harms neither the
    backup nor the first node."""
    # Room for what the backups hold still, too.
    node = weir_backend(None, *SEGMENT, "--memory", "8mb", "--disk", "192mb")
    sequence = Sequence(node.port)
    writers = acknowledged.start(3, node.port)
    moments = []
    for i in range(6):
        time.sleep(0.4)
        before = len(sequence.answered)
        told = ctl("backup", f"127.0.0.1:{node.port}", tmp_path / f"b{i}")
        assert "1 shard" in told and "linked" in told
        moments.append((before, len(sequence.sent)))
        redis_client(node).bgsave()
    sequence.stop()
    for writer in writers:
        writer.stop()
    acknowledged.finish(writers)
    acknowledged.reckon(writers, node.port)
    for i, (low, high) in enumerate(moments):
        assert "damage      0" in ctl("verify", tmp_path / f"b{i}")
        assert not [name for name in os.listdir(shard_of(node)) if name.endswith(".part")]
        for again in range(2):
            ctl("restore", tmp_path / f"b{i}", tmp_path / f"r{i}-{again}")
            other = weir_backend(None, *SEGMENT, "--memory", "8mb", "--disk", "64mb", data=tmp_path / f"r{i}-{again}")
            assert low <= sequence.found(other.port) <= high
            if again == 0:  # another life on the same files, with checkpoints and a cleaner of its own
                for seed in range(4):
                    write_some(redis_client(other), seed, 150)
                    redis_client(other).bgsave()
            other.stop()
    assert "damage      0" in ctl("verify", node.data)
    node.restart()
    acknowledged.reckon(writers, node.port)
    assert sequence.found(node.port) == len(sequence.answered)


def test_restore_to_a_point_in_time(weir_backend, tmp_path):
    """The value of then: everything that was answered before the moment, nothing that was sent after it. Outside of
    what the backup has: refused, with what it has."""
    node = weir_backend(None, *SEGMENT)
    sequence = Sequence(node.port, pause=0.002)  # slow enough that no segment is filled by what it writes over
    client = redis_client(node)
    write_some(client, 1, 100)
    client.bgsave()
    weirtest.wait_for(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "the checkpoint")
    time.sleep(0.3)
    moments = []
    for seed in range(5):
        time.sleep(0.1)
        moments.append((time.time(), seed))
        time.sleep(0.1)
        client.set("then", seed)
        # Next to nothing is written over: what the cleaner emptied would make it take a checkpoint.
        for i in range(200):
            client.set(f"new:{seed}:{i}", random.randbytes(8000))
    sequence.stop()
    told = ctl("backup", f"127.0.0.1:{node.port}", tmp_path / "b")
    end = time.time()
    latest, earliest = times_of(told)
    assert earliest < moments[0][0] and moments[-1][0] < latest <= end
    for moment, seed in moments:
        target = tmp_path / f"then-{seed}"
        told = ctl("restore", tmp_path / "b", target, "--until", f"@{moment:.3f}")
        assert "first change left out" in told
        assert "damage      0" in ctl("verify", target)
        ctl("salvage", target, tmp_path / f"salvaged-{seed}")
        for place in (target, target, tmp_path / f"salvaged-{seed}"):
            other = weir_backend(None, *SEGMENT, data=place)
            found = sequence.found(other.port)
            low = sum(t < moment - 0.002 for t in sequence.answered)
            high = sum(t <= moment + 0.002 for t in sequence.sent)
            assert low <= found <= high
            assert redis_client(other).get("then") == (b"%d" % (seed - 1) if seed else None)
            redis_client(other).bgsave()
            other.stop()
        assert "damage      0" in ctl("verify", target)
    assert times_of(ctl("verify", tmp_path / "b")) == (latest, earliest)
    for i, moment in enumerate((earliest, latest)):
        ctl("restore", tmp_path / "b", tmp_path / f"edge-{i}", "--until", f"@{moment:.3f}")
        assert "damage      0" in ctl("verify", tmp_path / f"edge-{i}")
    told = ctl("restore", tmp_path / "b", tmp_path / "x", "--until", f"@{latest + 0.002:.3f}", code=1)
    assert "is later than" in told
    told = ctl("restore", tmp_path / "b", tmp_path / "x", "--until", "@1000000000", code=1)
    assert "it goes back to" in told
    told = ctl("restore", tmp_path / "b", tmp_path / "x", "--until", f"@{end + 100:.0f}", code=1)
    assert "is later than" in told
    for wrong in ("yesterday", "2026-02-30 10:00:00Z", "2026-06-31 10:00:00Z", "2026-06-30 23:59:60Z", "@18446744073709552",
                  "@36893488147419103", "@99999999999999999999"):
        told = ctl("restore", tmp_path / "b", tmp_path / "x", "--until", wrong, code=2)
        assert "takes a time" in told
    assert not os.path.exists(tmp_path / "x") and not os.path.exists(tmp_path / "x.part")
    assert "damage      0" in ctl("verify", tmp_path / "b")
    assert sequence.found(node.port) == len(sequence.answered)


def test_a_restored_node_copies_nothing_that_came_later(weir_backend, tmp_path):
    """Deletes that came later, in segments that the cleaner has filled, are behind the end of the restored log: its own
    cleaner does not wait for changes that get there, and nothing that is to be flushed waits for it."""
    node = weir_backend(None, *SEGMENT)
    client = redis_client(node)
    for i in range(20):
        client.set(f"s:{i}", random.randbytes(8000))
    time.sleep(0.1)
    moment = time.time()
    time.sleep(0.1)

    def is_cleaned():
        for i in range(200):
            client.set(f"s:{i}", random.randbytes(8000))
            client.delete(f"s:{i}")
        return client.info("store")["cleaner_segments"] >= 4
    weirtest.wait_for(is_cleaned, "what is dead is cleaned", step=0.2)
    ctl("backup", f"127.0.0.1:{node.port}", tmp_path / "b")
    ctl("restore", tmp_path / "b", tmp_path / "then", "--until", f"@{moment:.3f}")
    other = weir_backend(None, *SEGMENT, data=tmp_path / "then")
    client = redis_client(other)
    assert client.dbsize() == 20
    weirtest.wait_for(lambda: client.info("store")["cleaner_segments"] > 0, "what is of later is cleaned")
    assert client.save()
    client.set("new", 1)
    other.restart()
    assert redis_client(other).dbsize() == 21


def test_all_shards_have_the_end_of_the_range(weir_backend, tmp_path):
    """Shards are held one after the other, and copying takes its time: what came meanwhile is in some, and no moment that
    --until takes may be among that."""
    node = weir_backend(None, *SEGMENT, "--workers", "3")
    for shard in range(3):
        client = redis_client(node, shard)
        for i in range(2000):
            client.set(f"filler:{i}", random.randbytes(4000))
    sequences = [Sequence(node.port + shard) for shard in range(3)]
    weirtest.wait_for(lambda: all(sequence.answered for sequence in sequences), "each has begun")
    time.sleep(0.5)
    told = ctl("backup", "--copy", f"127.0.0.1:{node.port}", tmp_path / "b")
    for sequence in sequences:
        sequence.stop()
    latest = datetime.datetime.fromisoformat(re.search(r"can go back from (\S* \S*)Z", told)[1] + "+00:00").timestamp()
    assert sequences[0].sent[0] < latest < sequences[0].answered[-1]
    ctl("restore", tmp_path / "b", tmp_path / "r", "--until", f"@{latest:.3f}")
    other = weir_backend(None, *SEGMENT, "--workers", "3", data=tmp_path / "r")
    for shard, sequence in enumerate(sequences):
        assert sequence.found(other.port + shard) >= sum(t < latest - 0.002 for t in sequence.answered), shard
    told = ctl("restore", tmp_path / "b", tmp_path / "x", "--until", f"@{latest + 0.002:.3f}", code=1)
    assert "is later than" in told


def test_backup_after_files_were_given_back(weir_backend, tmp_path):
    """The cleaner gives back what the last checkpoint still names. The node, the backup and what is restored of it verify; it
    goes back to where the backup says, and no further."""
    node = weir_backend(None, *SEGMENT, "--memory", "8mb", "--disk", "48mb")
    client = redis_client(node)
    rng = random.Random(SEED)
    staying = {f"staying:{i}": rng.randbytes(3000) for i in range(1500)}
    sequence = Sequence(node.port)
    for key, value in staying.items():
        client.set(key, value)
    client.bgsave()
    weirtest.wait_for(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "the checkpoint")

    def given():
        pipe = client.pipeline(transaction=False)
        for _ in range(100):
            pipe.set(f"other:{rng.randrange(500)}", rng.randbytes(4000))
        pipe.execute()
        told = ctl("verify", node.data)
        assert "damage      0" in told
        return re.search("given back  the segments of [0-9]+ ", told)

    weirtest.wait_for(given, "segments are given back", 60)

    def backed_up():
        """With changes since what was given back: the cleaner may just have done that up to the last of them."""
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        more = len(sequence.answered) + 60
        weirtest.wait_for(lambda: len(sequence.answered) > more, "some changes")
        before = len(sequence.answered)
        told = ctl("backup", f"127.0.0.1:{node.port}", tmp_path / "b")
        lsns = re.search(r"from lsn:(\d+) to lsn:(\d+)", told)
        if lsns is None or int(lsns[1]) < int(lsns[2]) + 40 or "given back" not in ctl("verify", tmp_path / "b"):
            return None
        return before, int(lsns[2]), times_of(told)[1]

    before, lsn, earliest = weirtest.wait_for(backed_up, "a backup with some changes to choose from", 60)
    sequence.stop()
    assert "damage      0" in ctl("verify", tmp_path / "b")
    assert "it goes back to lsn:" in ctl("restore", tmp_path / "b", tmp_path / "x", "--until", f"lsn:{lsn - 1}", code=1)
    assert "it goes back to" in ctl("restore", tmp_path / "b", tmp_path / "x", "--until", f"@{earliest - 0.1:.3f}", code=1)
    for i, until in enumerate((f"lsn:{lsn}", f"@{earliest:.3f}", f"lsn:{lsn + 40}", None)):
        ctl("restore", tmp_path / "b", tmp_path / f"r{i}", *(["--until", until] if until else []))
        assert "damage      0" in ctl("verify", tmp_path / f"r{i}")
        other = weir_backend(None, *SEGMENT, "--memory", "8mb", "--disk", "48mb", data=tmp_path / f"r{i}")
        there = redis_client(other)
        assert dict(zip(staying, there.mget(staying))) == staying
        found = sequence.found(other.port)
        assert before <= found if until is None else found <= len(sequence.sent)
        other.stop()
    node.kill_all()
    assert "damage      0" in ctl("verify", node.data)
    ctl("salvage", node.data, tmp_path / "salvaged")
    there = redis_client(weir_backend(None, *SEGMENT, "--memory", "8mb", data=tmp_path / "salvaged"))
    assert dict(zip(staying, there.mget(staying))) == staying
    node.restart(signal.SIGKILL)
    assert dict(zip(staying, redis_client(node).mget(staying))) == staying
    assert sequence.found(node.port) == len(sequence.answered)


def test_restore_to_an_lsn_cuts_no_transaction(weir_backend, tmp_path):
    """Each EXEC sets two keys to one number, with values that need more than one segment; wherever the log is cut, both
    say the same."""
    node = weir_backend(None, *SEGMENT)
    client = redis_client(node)
    for number in range(30):
        pipe = client.pipeline(transaction=True)
        for side in ("left", "right"):
            pipe.set(side, f"{number}:" + "x" * random.Random(number).choice((10, 3000, 200000)))
        pipe.execute()
    told = ctl("backup", f"127.0.0.1:{node.port}", tmp_path / "b")
    last = int(next(line for line in ctl("verify", tmp_path / "b").splitlines() if "last lsn" in line).split()[-1])
    assert f"shard 0: from lsn:{last} to lsn:" in told
    seen = set()
    for lsn in range(last - 59, last, 7):
        target = tmp_path / f"at-{lsn}"
        ctl("restore", tmp_path / "b", target, "--until", f"lsn:{lsn}")
        assert "damage      0" in ctl("verify", target)
        other = weir_backend(None, *SEGMENT, data=target)
        left, right = redis_client(other).mget("left", "right")
        assert left is None and right is None or left == right
        seen.add(left)
        other.stop()
    assert len(seen) > 5


def test_backup_to_another_file_system(weir_backend, tmp_path):
    """A copy then, and the node's folder is as it was; also with --copy."""
    node = weir_backend(None, *SEGMENT)
    write_some(redis_client(node), 1)
    before = snapshot(redis_client(node))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        for target, options in ((os.path.join(memory, "b"), []), (tmp_path / "b", ["--copy"])):
            told = ctl("backup", *options, f"127.0.0.1:{node.port}", target)
            assert "0 B linked" in told
            assert "backup.part" not in os.listdir(shard_of(node))
            assert all(os.stat(os.path.join(shard_of(node), name)).st_nlink == 1 for name in os.listdir(shard_of(node)))
            assert "damage      0" in ctl("verify", target)
            shutil.rmtree(tmp_path / "r", ignore_errors=True)
            ctl("restore", target, tmp_path / "r", *options)
            other = weir_backend(None, *SEGMENT, data=tmp_path / "r")
            assert snapshot(redis_client(other)) == before
            other.stop()


def test_backup_of_a_stopped_node(weir_backend, tmp_path):
    """By its directory; while it runs, or was killed and its log ring has more than the disk, that is refused."""
    node = weir_backend(None, *SEGMENT)
    write_some(redis_client(node), 1)
    before = snapshot(redis_client(node))
    assert "a node has it open" in ctl("backup", node.data, tmp_path / "b", code=1)
    node.kill_all()
    # The lock goes when the kernel has closed what the killed one had open.
    weirtest.wait_for(lambda: "was killed" in ctl("backup", node.data, tmp_path / "b", code=1), "the lock to go")
    assert not os.path.exists(tmp_path / "b.part")
    node = weir_backend(None, *SEGMENT, data=node.data)
    node.stop()
    ctl("backup", node.data, tmp_path / "b")
    ctl("backup", tmp_path / "b", tmp_path / "b2")
    node = weir_backend(None, *SEGMENT, data=node.data)
    for seed in range(3):
        write_some(redis_client(node), seed, 150)
        redis_client(node).bgsave()
    node.stop()
    for source in ("b", "b2"):
        assert "damage      0" in ctl("verify", tmp_path / source)
        ctl("restore", tmp_path / source, tmp_path / f"r-{source}")
        other = weir_backend(None, *SEGMENT, data=tmp_path / f"r-{source}")
        assert snapshot(redis_client(other)) == before
        other.stop()


def test_bad_backups_are_told(weir_backend, tmp_path, free_port):
    """What and where."""
    node = weir_backend(None, *SEGMENT, "--password", "open sesame")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    address = f"127.0.0.1:{node.port}"
    assert "not empty" in ctl("backup", address, tmp_path / "full", code=1)
    assert "Authentication" in ctl("backup", address, tmp_path / "b", code=1)
    os.environ["WEIRCTL_AUTH"] = "wrong"
    try:
        assert "WRONGPASS" in ctl("backup", address, tmp_path / "b", code=1)
        os.environ["WEIRCTL_AUTH"] = "open sesame"
        ctl("backup", address, tmp_path / "b")
    finally:
        del os.environ["WEIRCTL_AUTH"]
    assert "refused" in ctl("backup", f"127.0.0.1:{free_port()}", tmp_path / "c", code=3)
    assert "127.0.0.1:1" in ctl("backup", "127.0.0.1:1", tmp_path / "c", code=3)
    assert "no node" in ctl("backup", f"127.0.0.1:{node.stats_port}", tmp_path / "c", code=1)
    assert "neither a directory nor" in ctl("backup", tmp_path / "nothing", tmp_path / "c", code=1)
    for last in (65535, 65534):  # the port of a node's only shard may be the last there is
        told = ctl("backup", f"127.0.0.1:{last}", tmp_path / "c", code=3)
        assert "neither a directory nor" not in told
    assert "no shard in it" in ctl("restore", tmp_path / "full", tmp_path / "c", code=1)
    assert "a node has it open" in ctl("restore", node.data, tmp_path / "c", code=1)
    assert "not empty" in ctl("restore", tmp_path / "b", tmp_path / "full", code=1)
    os.rename(tmp_path / "b" / "shard-0", tmp_path / "b" / "shard-1")
    assert "a shard is missing" in ctl("restore", tmp_path / "b", tmp_path / "c", code=1)
    assert (tmp_path / "full" / "file").read_text() == "precious"
    assert sorted(os.listdir(tmp_path / "full")) == ["file"] and not os.path.exists(tmp_path / "c")
    assert "NODE|DIR DEST" in ctl("backup", address, code=2)


def test_nothing_is_made_inside_of_what_is_read(weir_backend, tmp_path):
    """By whatever name; and nothing in the place of a link, which is told before anything is done."""
    def folders():  # all that is made is one; files come and go while the node runs
        return sorted(os.path.join(folder, name) for folder, names, _ in os.walk(tmp_path) for name in names)

    node = weir_backend(None, *SEGMENT, "--workers", "2")
    redis_client(node).set("a", "1")
    address, data = f"127.0.0.1:{node.port}", node.data
    (tmp_path / "alias").symlink_to(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    ctl("backup", address, tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "linked")
    os.rename(tmp_path / "linked" / "shard-1", tmp_path / "elsewhere")
    (tmp_path / "linked" / "shard-1").symlink_to(tmp_path / "elsewhere")
    before = folders()

    def refused(verb, source, dest, text="is only read"):
        assert text in ctl(verb, source, dest, code=1)
        assert before == folders()

    for inside in (f"{data}/x", f"{data}/shard-1/x/", tmp_path / "alias" / "x", tmp_path / "alias" / "shard-0" / ".." / "x"):
        refused("backup", address, inside)
    for link in ("link", "link/", "nowhere"):
        refused("backup", address, f"{tmp_path}/{link}", "symbolic link")
        refused("restore", tmp_path / "b", f"{tmp_path}/{link}", "symbolic link")
        refused("salvage", tmp_path / "b", f"{tmp_path}/{link}", "symbolic link")
    node.stop()
    for verb in ("backup", "restore", "salvage"):
        refused(verb, data, f"{data}/shard-1/x")
        refused(verb, data, tmp_path / "alias" / "x")
        refused(verb, tmp_path / "alias", f"{data}/x")
        refused(verb, tmp_path / "b", tmp_path / "b" / "x")
    for verb in ("backup", "restore"):
        refused(verb, tmp_path / "linked", tmp_path / "elsewhere" / "x")
    ctl("backup", data, f"{data}.b")
    before = folders()
    os.chdir(tmp_path / "b")
    refused("restore", ".", "x")
    ctl("restore", ".", "../r")


def test_killed_during_a_backup(weir_backend, tmp_path):
    """weirctl or the node, at any time: there is a whole backup or none, what is left over is removed by the next, and
    the node loses nothing."""
    node = weir_backend(None, *SEGMENT, "--memory", "8mb")
    rng = random.Random(SEED)
    writers = None
    made = 0
    for i in range(10):
        writers = acknowledged.start(3, node.port, writers)
        time.sleep(0.2)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            target = os.path.join(memory if i % 3 == 0 else tmp_path, f"b{i}")
            backup = subprocess.Popen([weirtest.program("weirctl"), "backup", f"127.0.0.1:{node.port}", target],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, 0.08))
            if i % 2:
                backup.kill()
            else:
                node.kill_all()
                acknowledged.finish(writers)
                node.restart(signal.SIGKILL)
            backup.wait(30)
            for writer in writers:
                writer.stop()
            acknowledged.finish(writers)
            acknowledged.reckon(writers, node.port)
            if os.path.exists(target):
                made += 1
                assert "damage      0" in ctl("verify", target)
            weirtest.wait_for(lambda: backup_is_possible(node, target + "-after"), "a backup after that")
            assert "damage      0" in ctl("verify", target + "-after")
            shutil.rmtree(target + "-after")
    assert "backup.part" not in os.listdir(shard_of(node))


def backup_is_possible(node, target):
    """Not while the node holds its files for one that was killed."""
    done = subprocess.run([weirtest.program("weirctl"), "backup", f"127.0.0.1:{node.port}", target], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0 or "one is under way" in done.stderr, done.stderr
    return done.returncode == 0


# Salvage

def lived_in(weir_backend, seeds=3):
    """A node after several lives with deletes, flushes, swaps, checkpoints; stopped. And what was in it."""
    node = weir_backend(None, *SEGMENT, "--memory", "8mb")
    for seed in range(seeds):
        client = redis_client(node)
        write_some(client, seed)
        client.set("expires", "later", ex=100000)
        client.expire("h:1", 100000)
        client.delete("l:3")
        client.rpush("l:3", "a", "new", "life", seed)
        client.set("gone", seed)
        client.delete("gone")
        if seed == 1:
            client.bgsave()
        node.restart(signal.SIGKILL if seed == 0 else signal.SIGTERM)
    client = redis_client(node)
    write_some(client, 77, 150)
    before = snapshot(client)
    node.restart(signal.SIGKILL)
    assert snapshot(redis_client(node)) == before
    node.stop()
    return node, before


def test_salvage_of_a_sound_directory_has_all_of_it(weir_backend, tmp_path):
    """Every key, value, expiry, of all databases; the source is not touched."""
    node, before = lived_in(weir_backend)
    files = {name: os.stat(os.path.join(shard_of(node), name)).st_mtime_ns for name in os.listdir(shard_of(node))}
    told = ctl("salvage", node.data, tmp_path / "out")
    assert "no damage was met" in told
    assert files == {name: os.stat(os.path.join(shard_of(node), name)).st_mtime_ns for name in os.listdir(shard_of(node))}
    assert "damage      0" in ctl("verify", tmp_path / "out")
    other = weir_backend(None, *SEGMENT, "--memory", "8mb", data=tmp_path / "out")
    client = redis_client(other)
    assert snapshot(client) == before
    assert client.ttl("expires") > 0 and client.ttl("h:1") > 0
    # It lives: changes on top, databases swapped and flushed, salvaged once more.
    write_some(client, 5)
    client.execute_command("SELECT", 3)
    client.set("three", "3")
    client.execute_command("SELECT", 0)
    client.execute_command("SWAPDB", 0, 3)
    assert client.get("three") == b"3"
    client.execute_command("SELECT", 3)
    after = snapshot(client)
    client.execute_command("SELECT", 7)
    client.set("seven", "7")
    client.flushdb()
    other.stop()
    ctl("salvage", tmp_path / "out", tmp_path / "again")
    other = weir_backend(None, *SEGMENT, "--memory", "8mb", data=tmp_path / "again")
    client = redis_client(other)
    assert client.get("three") == b"3" and client.dbsize() == 1
    client.execute_command("SELECT", 3)
    assert snapshot(client) == after
    client.execute_command("SELECT", 7)
    assert client.dbsize() == 0


def test_salvage_keeps_every_key_that_is_intact(weir_backend, tmp_path):
    """A flipped bit in each kind of structure, some times: at most the key whose record it hit is lost, or lacks a
    change; keys that were deleted may come back only where the checkpoint is what was hit."""
    node, before = lived_in(weir_backend)
    rng = random.Random(SEED)
    kinds = {}
    for kind, *place in covered(shard_of(node)):
        kinds.setdefault(kind, []).append(place)
    for kind, places in kinds.items():
        for _ in range(8 if kind == "record" else 2):
            name, start, end = rng.choice(places)
            damaged, out = tmp_path / "damaged" / "shard-0", tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            (tmp_path / "damaged").mkdir(exist_ok=True)
            at = rng.randrange(start, end)
            flip(copy_with(shard_of(node), damaged, name), at, rng.randrange(8))
            told = ctl("salvage", tmp_path / "damaged", out)
            assert "damage      0" in ctl("verify", out)
            other = weir_backend(None, *SEGMENT, "--memory", "8mb", data=out)
            now = snapshot(redis_client(other))
            other.stop()
            other_keys = {key for key in before if now.get(key) != before[key]}
            assert len(other_keys) <= (kind == "record"), (kind, name, at, other_keys, told)
            assert not other_keys or "lost" in told or "cut" in told, (name, at, other_keys, told)
            back = set(now) - set(before)
            assert not back or kind in ("manifest", "meta", "checkpoint page", "shard"), (kind, name, at, back, told)


def test_salvage_without_a_file(weir_backend, tmp_path):
    """A segment that is gone, the checkpoint, the file "shard": what is left is whole, and what is lost is told."""
    node, before = lived_in(weir_backend)
    names = sorted({name for kind, name, *_ in covered(shard_of(node)) if kind in ("record", "manifest", "meta", "shard")})
    for name in names:
        damaged, out = tmp_path / "damaged" / "shard-0", tmp_path / "out"
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(shard_of(node), damaged)
        os.unlink(damaged / name)
        told = ctl("salvage", tmp_path / "damaged", out)
        assert "damage      0" in ctl("verify", out)
        other = weir_backend(None, *SEGMENT, "--memory", "8mb", data=out)
        now = snapshot(redis_client(other))
        other.stop()
        if not name.endswith(".seg"):
            assert {key: now.get(key) for key in before} == before, (name, told)
        elif now != before:
            assert "lost" in told or "cut" in told or "missing" in told, (name, told)


def newest_segment(directory):
    """Of those that something was written to."""
    def sequence_of(name):
        with open(os.path.join(directory, name), "rb") as f:
            head = f.read(PAGE + 16)
        sequence, = struct.unpack_from("<Q", head, 8)
        return sequence if head[PAGE:PAGE + 4] == b"WPAG" and head[PAGE + 8:PAGE + 16] == head[8:16] else 0
    return max((name for name in os.listdir(directory) if name.endswith(".seg")), key=sequence_of)


def test_salvage_tells_what_is_missing_of_a_killed_node(weir_backend, tmp_path):
    """Changes that only its log ring has are counted and left out; where the newest segment is gone the ring says that
    there was more. Neither is called whole, and the ring's are there after a start."""
    node = weir_backend(None, *SEGMENT, "--fsync", "no")
    for i in range(7):
        redis_client(node).set(f"b{i}", "b" * 100)
    last = redis_client(node).info("store")["lsn_appended"]
    node.kill_all()
    weirtest.wait_for(lambda: "in use by a node" not in ctl("verify", node.data), "the lock to go")
    told = ctl("salvage", node.data, tmp_path / "ring")
    assert f"log ring    7 changes, up to lsn {last}, are only in /dev/shm/weir-" in told, told
    assert "they are left out" in told and "compare it before it is used" in told
    assert "all of it is there" not in told and "may have come back" not in told
    node = weir_backend(None, *SEGMENT, "--fsync", "always", data=node.data)
    for i in range(40):
        redis_client(node).set(f"c{i}", os.urandom(60000))
    node.kill_all()
    weirtest.wait_for(lambda: "in use by a node" not in ctl("verify", node.data), "the lock to go")
    told = ctl("salvage", node.data, tmp_path / "whole")
    assert "all of it is there: no damage was met" in told, told
    os.unlink(os.path.join(shard_of(node), newest_segment(shard_of(node))))
    told = ctl("salvage", node.data, tmp_path / "cut")
    assert "the log ring promises lsn" in told and "all of it is there" not in told, told
    assert "compare it before it is used" in told


def test_salvage_tells_that_the_ring_of_a_killed_node_is_gone(weir_backend, tmp_path):
    """Also where node.id is another one."""
    node = weir_backend(None, *SEGMENT, "--fsync", "no")
    redis_client(node).set("a", "1")
    node.kill_all()
    weirtest.wait_for(lambda: "in use by a node" not in ctl("verify", node.data), "the lock to go")
    assert "none of this node" not in ctl("salvage", node.data, tmp_path / "there")
    with open(os.path.join(node.data, "node.id"), "r+b") as f:
        f.write(b"0" * 32)
    told = ctl("salvage", node.data, tmp_path / "gone")
    assert "log ring    none of this node, which was killed" in told and "all of it is there" not in told, told


def test_salvage_tells_bad_input(weir_backend, tmp_path):
    node = weir_backend(None, *SEGMENT)
    redis_client(node).set("k", "v")
    assert "a node has it open" in ctl("salvage", node.data, tmp_path / "out", code=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    assert "not empty" in ctl("salvage", node.data, tmp_path / "full", code=1)
    assert "no shard in it" in ctl("salvage", tmp_path / "full", tmp_path / "out", code=1)
    assert "No such file" in ctl("salvage", tmp_path / "nothing", tmp_path / "out", code=1)
    assert not os.path.exists(tmp_path / "out") and not os.path.exists(tmp_path / "out.part")
