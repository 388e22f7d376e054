# SPDX-License-Identifier: Apache-2.0
"""weirctl verify, backup, restore and salvage, with real nodes."""

import os
import random
import shutil
import signal
import struct
import subprocess

import weirtest

SEED = int(os.environ.get("DAMAGE_SEED", "1"))
SEGMENT = ("--segment_size", "1mb")
PAGE = 4096


def ctl(*args, code=0):
    """weirctl with these arguments; what it printed."""
    done = subprocess.run([weirtest.program("weirctl"), *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


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


def redis_client(node):
    import redis
    return redis.Redis(port=node.port, socket_timeout=30)


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
    meta = open(os.path.join(directory, f"checkpoint.{newest[3]}"), "rb").read()[newest[4]:newest[4] + newest[5]]
    for at in range(64 + 8 * 16 + 8 + 16, len(meta), 32):
        off, size = struct.unpack_from("<QI", meta, at)
        yield "checkpoint page", f"checkpoint.{newest[3]}", off, off + size
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
    write_some(redis_client(node), 4)
    node.stop()
    assert "damage      0" in ctl("verify", node.data)
    assert "damage      0" in ctl("verify", shard_of(node))

    rng = random.Random(SEED)
    kinds = {}
    for kind, *place in covered(shard_of(node)):
        kinds.setdefault(kind, []).append(place)
    assert len(kinds) == 9, sorted(kinds)
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
    ctl("verify", tmp_path / "none", code=2)
    ctl("verify", tmp_path / "nothing", code=2)


def test_verify_takes_a_killed_node_for_what_it_is(weir_backend):
    """A torn tail is no damage; nothing durable is missing."""
    node = weir_backend(None, *SEGMENT)
    write_some(redis_client(node), 1)
    for pid in weirtest.pids_of_session(node.pid):
        os.kill(pid, signal.SIGKILL)
    node._sent.add(signal.SIGKILL)
    node.stop(signal.SIGKILL)
    assert "damage      0" in ctl("verify", node.data)
