# SPDX-License-Identifier: Apache-2.0
"""Where keys go, compared with the real nutcracker.

nutcracker runs over servers played by a process of this test; each answers every GET with its own
address. What it answers for a key is where nutcracker put it. ring_where, over the same file, says where
common/ring puts it. A sample of pools by default; every hash, distribution, tag, kind of weights and
server count from 1 to 60 with --nightly.
"""

import asyncio
import itertools
import multiprocessing
import os
import random
import socket
import subprocess
import threading

import pytest

import weirtest

HASHES = ("one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 fnv1a_32 hsieh murmur "
          "jenkins").split()
SERVERS_MAX = 60
WORDS = ["café", "ключ", "鍵", "ключ:{тег}", "naïve{é}", "Ω", "\x7f", "emoji😀"]


# The servers

class FakeProtocol(asyncio.Protocol):
    """Answers GETs of both protocols with its own address. Keys hold no CR or LF."""

    def __init__(self, name):
        value = name.encode()
        self.bulk = b"$%d\r\n%s\r\n" % (len(value), value)
        self.mc_value = b" 0 %d\r\n%s\r\nEND\r\n" % (len(value), value)
        self.rest = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        lines = (self.rest + data).split(b"\r\n")
        if lines[0].startswith(b"*"):
            whole = (len(lines) - 1) // 5  # "*2", "$3", "GET", "$n", key
            self.rest = b"\r\n".join(lines[whole * 5:])
            self.transport.write(self.bulk * whole)
        else:
            self.rest = lines.pop()
            self.transport.write(b"".join(
                b"VALUE " + line.split(b" ")[1] + self.mc_value for line in lines))


def serve(sockets, ready):
    async def main():
        loop = asyncio.get_running_loop()
        for name, sock in sockets:
            if sock.family == socket.AF_UNIX:
                await loop.create_unix_server(lambda n=name: FakeProtocol(n), sock=sock)
            else:
                await loop.create_server(lambda n=name: FakeProtocol(n), sock=sock, backlog=1024)
        ready.set()
        await asyncio.Event().wait()

    asyncio.run(main())


def bind_tcp(host, port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        return None
    sock.listen(1024)
    return sock


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    """Addresses by kind: "tcp" (60 of them, ten on port 11211) and "unix"."""
    rng = random.Random(os.getpid())
    sockets = []
    while len(sockets) < 10:  # 127/8 is all ours; 11211 must leave the label
        host = f"127.{rng.randrange(1, 250)}.{rng.randrange(250)}.{rng.randrange(2, 250)}"
        sock = bind_tcp(host, 11211)
        if sock is None:
            sock = bind_tcp(host, weirtest.free_port())
        if sock is None:
            continue
        sockets.append((f"{host}:{sock.getsockname()[1]}", sock))
    while len(sockets) < SERVERS_MAX:
        sock = bind_tcp("127.0.0.1", 0)
        sockets.append((f"127.0.0.1:{sock.getsockname()[1]}", sock))
    tcp = [name for name, _ in sockets]
    directory = tmp_path_factory.mktemp("u")
    unix = []
    for i in range(6):
        sock = socket.socket(socket.AF_UNIX)
        path = str(directory / f"s{i}")
        sock.bind(path)
        sock.listen(64)
        sockets.append((path, sock))
        unix.append(path)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=serve, args=(sockets, ready), daemon=True)
    process.start()
    assert ready.wait(weirtest.DEADLINE)
    for _, sock in sockets:
        sock.close()
    yield {"tcp": tcp, "unix": unix}
    process.kill()
    process.join()


# Pools

class Pool:
    def __init__(self, name, redis, servers, **keys):
        self.name = name
        self.redis = redis
        self.port = weirtest.free_port()
        self.servers = servers
        self.keys = keys

    def yaml(self):
        lines = [f"{self.name}:", f"  listen: 127.0.0.1:{self.port}",
                 f"  redis: {'true' if self.redis else 'false'}"]
        lines += [f"  {key}: {value}" for key, value in self.keys.items()]
        lines += ["  servers:"] + [f"   - {line}" for line in self.servers]
        return "\n".join(lines) + "\n"


def make_lines(rng, addresses, weights, named):
    """Server lines in random order; half of the pools name their servers."""
    weight_of = {"equal": lambda: 1, "mixed": lambda: rng.choice([1, 1, 2, 3, 7, 10]),
                 "wild": lambda: rng.choice([1, 5, 1000, 100000])}[weights]
    lines = []
    for i, address in enumerate(addresses):
        name = f" {rng.choice(['s', 'node-', 'sërver'])}{i}" if named and rng.random() < 0.9 else ""
        lines.append(f"{address}:{weight_of()}{name}")
    rng.shuffle(lines)
    return lines


def make_pool(rng, fakes, number, hash_name, distribution, tag, weights, count):
    if distribution == "modula" and weights == "wild":
        weights = "mixed"  # nutcracker allocates the sum of the weights
    keys = {"hash": hash_name, "distribution": distribution}
    if tag:
        keys["hash_tag"] = f'"{tag}"'
    lines = make_lines(rng, rng.sample(fakes["tcp"], count), weights, rng.random() < 0.5)
    # Names of different lengths, so that sorting by length and then bytes shows.
    return Pool(f"p{'x' * rng.randrange(4)}{number}", rng.random() < 0.5, lines, **keys)


def make_keys(rng, redis, count):
    keys = [word.encode() for word in WORDS]
    if redis:
        keys += [bytes(rng.choice([c for c in range(256) if c not in (10, 13)])
                       for _ in range(rng.randrange(1, 40))) for _ in range(count // 8)]
    for i in range(count - len(keys)):
        keys.append(rng.choice([
            f"key:{i}", f"user:{{{i}}}:name", f"{{{i}", f"a{{}}{i}", f"x${i % 50}$y", f"$${i}",
            f"}}{i}{{b}}", f"<{i}>rest", "k" * (1 + i % 200) + str(i), f"ключ{i}", f"é{{ü{i}}}",
        ]).encode())
    return [key for key in keys if redis or b"\x7f" not in key]


# Asking

def ask(pool, keys):
    """nutcracker's answers, one for each key: an address, or None for an error."""
    with weirtest.Conn(pool.port) as conn:
        if pool.redis:
            request = b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(k), k) for k in keys)
        else:
            request = b"".join(b"get %s\r\n" % k for k in keys)
        sender = threading.Thread(target=conn.send, args=(request,))
        sender.start()
        answers = []
        for _ in keys:
            line = conn.recv_line()
            if line.startswith((b"-", b"SERVER_ERROR")):
                answers.append(None)
                continue
            size = int(line.split()[-1].lstrip(b"$"))
            answers.append(conn.recv_exact(size + 2)[:-2].decode())
            if not pool.redis:
                assert conn.recv_line().rstrip() == b"END"
        sender.join()
    return answers


def where(conf_path, questions, dead=()):
    """common/ring's answers to (pool, key) pairs."""
    text = "".join(f"{pool.name}\t{key.hex()}\n" for pool, key in questions)
    done = subprocess.run([weirtest.program("tests/e2e/ring_where"), conf_path, *dead], input=text,
                          capture_output=True, text=True, timeout=weirtest.DEADLINE * 3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(questions)
    return [line.split("\t")[0] for line in lines]


def compare(stage, tmp_path, pools, rng, keys_each, deads=()):
    """Runs nutcracker over the pools and reports keys that it places elsewhere."""
    text = "\n".join(pool.yaml() for pool in pools)
    conf = tmp_path / f"pools-{pools[0].port}.yml"
    conf.write_text(text)
    proxy = stage.nutcracker(text)
    questions, theirs = [], []
    for pool in pools:
        keys = make_keys(rng, pool.redis, keys_each)
        theirs += ask(pool, keys)
        questions += [(pool, key) for key in keys]
    ours = where(str(conf), questions, deads)
    proxy.stop()
    wrong = [f"{pool.name} ({pool.keys}, {len(pool.servers)} servers): {key!r}: nutcracker {t}, we {o}"
             for (pool, key), t, o in zip(questions, theirs, ours) if t != o]
    assert not wrong, f"{len(wrong)} of {len(questions)} keys differ:\n" + "\n".join(wrong[:20])
    return len(questions)


def test_every_hash_distribution_and_tag(stage, tmp_path, fakes):
    rng = random.Random(1)
    pools = []
    for i, (hash_name, distribution, tag) in enumerate(
            itertools.product(HASHES, ("ketama", "modula"), ("", "{}", "$$"))):
        weights = rng.choice(["equal", "mixed", "wild"])
        count = rng.choice([2, 3, 5, 8, 13])
        pools.append(make_pool(rng, fakes, i, hash_name, distribution, tag, weights, count))
    assert compare(stage, tmp_path, pools, rng, 150) > 10000


def test_every_server_count(stage, tmp_path, fakes):
    """1 to 60, among them 25, 47, 50 and 55, where single precision loses points."""
    rng = random.Random(2)
    pools = [make_pool(rng, fakes, number, "fnv1a_64", "ketama", "", weights, count)
             for number, (count, weights) in enumerate(
                 itertools.product(range(1, SERVERS_MAX + 1), ("equal", "mixed")))]
    compare(stage, tmp_path, pools, rng, 120)


@pytest.mark.nightly
@pytest.mark.seconds_max(3600)
@pytest.mark.parametrize("hash_name", HASHES)
def test_everything(stage, tmp_path, fakes, hash_name):
    rng = random.Random(hash_name)
    shapes = list(itertools.product(("ketama", "modula"), ("", "{}", "<>"),
                                    ("equal", "mixed", "wild"), range(1, SERVERS_MAX + 1)))
    for start in range(0, len(shapes), 90):
        pools = [make_pool(rng, fakes, start + i, hash_name, *shape)
                 for i, shape in enumerate(shapes[start:start + 90])]
        compare(stage, tmp_path, pools, rng, 150)


def test_unix_sockets(stage, tmp_path, fakes):
    """Unnamed, their label is the path and a colon; only the placement shows it."""
    rng = random.Random(3)
    unnamed = Pool("unnamed", True, [f"{path}:1" for path in fakes["unix"]])
    named = Pool("named", False, [f"{path}:{i + 1} n{i}" for i, path in enumerate(fakes["unix"])])
    mixed = Pool("mixed", True, [f"{a}:2" for a in fakes["unix"][:3] + fakes["tcp"][:3]],
                 distribution="modula")
    compare(stage, tmp_path, [unnamed, named, mixed], rng, 400)


@pytest.mark.parametrize("distribution", ["ketama", "modula"])
@pytest.mark.parametrize("weights", ["equal", "mixed"])
def test_after_ejections(stage, tmp_path, fakes, distribution, weights):
    """Dead servers leave the ring, which also changes how many points the others have."""
    rng = random.Random(distribution + weights)
    closed = []
    while len(closed) < 4:
        port = weirtest.free_port()
        if port not in closed:
            closed.append(port)
    lines = make_lines(rng, fakes["tcp"][:9] + [f"127.0.0.1:{port}" for port in closed], weights, True)
    pool = Pool("p", True, lines, distribution=distribution, auto_eject_hosts="true",
                server_failure_limit=1, server_retry_timeout=86400000, timeout=5000)
    conf = tmp_path / "p.yml"
    conf.write_text(pool.yaml())
    stage.nutcracker(pool.yaml())
    keys = make_keys(rng, True, 2000)

    def settled():
        answers = ask(pool, keys)
        return answers if None not in answers else None

    theirs = weirtest.wait_for(settled, "the dead servers are ejected")
    dead = []
    for line in lines:
        address, _, name = line.partition(" ")
        address = address.rpartition(":")[0]
        if int(address.rpartition(":")[2]) in closed:
            dead.append(f"p/{name or address}")
    assert len(dead) == 4
    ours = where(str(conf), [(pool, key) for key in keys], dead)
    assert ours == theirs


def test_random_reaches_every_server(stage, tmp_path, fakes):
    """There is nothing to compare but the set of servers: weights do not count."""
    lines = [f"{address}:{1 + 99 * (i == 0)}" for i, address in enumerate(fakes["tcp"][:6])]
    pool = Pool("p", True, lines, distribution="random")
    conf = tmp_path / "p.yml"
    conf.write_text(pool.yaml())
    stage.nutcracker(pool.yaml())
    theirs = ask(pool, [b"same"] * 1200)
    ours = where(str(conf), [(pool, b"same")] * 1200)
    for answers in (theirs, ours):
        assert set(answers) == set(fakes["tcp"][:6])
        assert min(answers.count(a) for a in set(answers)) > 100


# Files

def run_where(path):
    return subprocess.run([weirtest.program("tests/e2e/ring_where"), path], input="",
                          capture_output=True, text=True, timeout=weirtest.DEADLINE)


def random_file(rng, port):
    """A small file that is right or nearly right."""
    values = {
        "hash": HASHES + ["sha1", "FNV1A_64", "''"],
        "hash_tag": ["'{}'", '"$$"', "'{'", "ab", "é"],
        "distribution": ["ketama", "modula", "random", "Ketama"],
        "timeout": ["0", "400", "0400", "-1", "x", "4e2", "2147483647"],
        "backlog": ["0", "1024", "'12'", "1 2"],
        "client_connections": ["0", "100"],
        "redis": ["true", "false", "True", "yes"],
        "tcpkeepalive": ["true", "false"],
        "redis_auth": ["secret", "''", "'a b'"],
        "redis_db": ["0", "3"],
        "preconnect": ["false", "on"],
        "auto_eject_hosts": ["true", "false"],
        "server_connections": ["0", "1", "4"],
        "server_retry_timeout": ["2000"],
        "server_failure_limit": ["0", "3"],
        "sentinels": ["a"],
    }
    servers = ["127.0.0.1:6379:1", "127.0.0.1:6380:1 name", "localhost:6381:20 näme", "/tmp/s:1",
               "/tmp/s:1 x", "::1:6382:1", "127.0.0.1:6379:1 again", "h:0:1", "h:65536:1", "h:1",
               "h:1:0", "h:1:-1", "h:1:01", "h:0001:1", "h:1:1 a b", "'h:1:1 a'", "/tmp/a:b:1", "h:x:1",
               "127.0.0.1:11211:1", "127.0.0.1:11211:1 127.0.0.1", "-h:1:1"]
    good = servers[:6]
    lines = ["p:", f"  listen: {rng.choice(['127.0.0.1:%d', 'localhost:%d', '%d', '/tmp/x%d', '/tmp/x%d 0666']) % port}"]
    keys = rng.sample(sorted(values), rng.randrange(0, 6))
    for key in keys + (keys[:1] if rng.random() < 0.05 else []):
        # Mostly the first ones, which are right.
        options = values[key] if rng.random() < 0.4 else values[key][:2]
        lines.append(f"  {key}: {rng.choice(options)}")
    lines.append("  servers:")
    for line in rng.sample(good if rng.random() < 0.6 else servers, rng.randrange(1, 5)):
        lines.append(f"   - {line}")
    if rng.random() < 0.1:
        lines += ["q:", f"  listen: 127.0.0.1:{port + rng.randrange(2)}", "  servers:", "   - h:1:1"]
    return "\n".join(lines) + "\n"


def test_what_nutcracker_takes_we_take(tmp_path):
    """Hundreds of small files, right and wrong. We may take more, never less; and say where."""
    rng = random.Random(4)
    path = tmp_path / "n.yml"
    both = 0
    for _ in range(400):
        text = random_file(rng, weirtest.free_port())
        path.write_text(text)
        theirs = subprocess.run(["nutcracker", "-t", "-c", str(path)], capture_output=True,
                                timeout=weirtest.DEADLINE)
        ours = run_where(str(path))
        if theirs.returncode == 0:
            assert ours.returncode == 0, f"{text}\n{ours.stderr}"
            both += 1
        elif ours.returncode != 0:
            assert ours.stderr.startswith(f"{path}:") and ": conf: " in ours.stderr, ours.stderr
            # The reason is the same one: twemproxy's words are in ours.
            words = theirs.stderr.decode(errors="replace").splitlines()
            reason = [w.partition("conf: ")[2] for w in words if "conf: directive" in w]
            if reason:
                assert reason[0] in ours.stderr, f"{text}\n{ours.stderr}\n{reason[0]}"
    assert both > 100
