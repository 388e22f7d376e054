#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random command streams from a seed, to weir-backend and to a real redis-server, compared reply for reply.

A *family* draws commands of one kind. Families live in files of their own, differential_NAME.py beside this one,
which are all loaded, and register themselves:

    from differential import Forms, family, unordered

    @family("hashes")
    def hashes(rng):
        return Forms(rng, '''
            hset H F V|hset H F V F V|hget H F|hgetall H
            hincrby H F I
        ''', H=lambda rng: b"h%d" % rng.randrange(3))

A family is called with a random.Random and returns an object whose request() draws one command, a list of bytes.
Forms is one such: a line or a part between bars is a command; a word that is a placeholder becomes something
random, every other word is itself. Placeholders for all (another meaning can be given as above):

    K  a key that any family may use       V  a value: numbers, binary, up to some 100 KiB
    S  a short value                       N  a small index, also negative   I  an integer, also at the limits
    F  a float                             P  a pattern                      E  a time to live, far away
    X  a time to live that is over, refused, or never comes: none that ends while the stream runs

Keys of a family that no other should touch have their own prefix. A command's replies are compared as they are,
unless its name is registered, by default or by the family's file:

    unordered("hkeys")            an array or set whose order is free
    unordered_pairs("hgetall")    fields and values: the order of pairs is free
    roughly("pttl", 3000)         integers: at most that far apart
    compare("x", function)        function(request, ours, theirs) -> bool; replies as read_reply() makes them

$DIFFERENTIAL_SEED is the first seed of the tests, $DIFFERENTIAL_STREAMS how many times as many of them there are.

Run by hand against two servers that are up (both are flushed!), or let it start the redis-server:

    ./differential.py --ours 7000 [--redis 6379] [--families strings,keys] [--seed 7] [--count 20000] [--resp 3]

A difference prints the seed, the command and both replies, and what else was done to its keys. Tests use
run(); snapshot() is the whole content of a server, for comparing after a restart.
"""

import argparse
import glob
import importlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILIES = {}
COMPARE = {}  # lower-case command name -> function(request, ours, theirs)
TRACE = 12    # earlier commands on the same keys that a difference prints
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))
STREAMS = int(os.environ.get("DIFFERENTIAL_STREAMS", "1"))


def over_seeds(count, first=SEED):
    """Of a test: it is called with `seeds`, `count` at a time; its name has the first of them."""
    import pytest
    rounds = [range(start, start + count) for start in range(first, first + count * STREAMS, count)]
    return pytest.mark.parametrize("seeds", rounds, ids=[f"seed{seeds[0]}" for seeds in rounds])


def family(name):
    def register(make):
        assert name not in FAMILIES, f"family {name} is there twice"
        FAMILIES[name] = make
        return make
    return register


def compare(name, function):
    COMPARE[name.encode()] = function


# Drawing

def value(rng):
    kind = rng.randrange(10)
    if kind < 4:
        return str(rng.choice([0, 1, -1, 7, 10, 3.5, -0.25, 2**31, 2**63 - 1, -2**63, 2**63])).encode()
    if kind < 9:
        return rng.randbytes(rng.choice([0, 1, 3, 10, 44, 45, 60, 71, 72, 73, 100]))
    return rng.randbytes(rng.choice([1000, 1023, 1024, 4096, 16000, 16383, 16384, 16385, 20000, 65535, 70000, 120000]))


WORDS = {
    "K": lambda rng: b"key%d" % rng.randrange(8),
    "V": value,
    "S": lambda rng: rng.choice([b"", b"a", b"b", b"c", b"1", b"-5", b"10", b"0.5", b"hello", b"\0\xff", b"Zz"]),
    "N": lambda rng: str(rng.choice([0, 0, 1, 2, 3, -1, -2, -3, 7, 100, -100])).encode(),
    "I": lambda rng: str(rng.choice([0, 1, 1, 5, -7, 1000, 2**31, 2**62, 2**63 - 1, -2**63, 2**63, "x", "1.5", " 1",
                                     "", "+1", "01", "-0"])).encode(),
    "X": lambda rng: str(rng.choice([0, -1, -7, 2**62, 2**63 - 1, -2**63, 2**63, 2**63 // 1000, "x", "1.5",
                                     ""])).encode(),
    # No 1e400 (nor a SCAN 99999999999999999999): it leaves an errno behind, of which the next SORT of a real redis-server complains.
    "F": lambda rng: rng.choice([b"1", b"2.5", b"-0.5", b"1e3", b"3.0e-5", b"inf", b"-inf", b"nan", b"x", b"", b" 1",
                                 b"1 ", b"0x10", b".5", b"5.", b"-0", b"10000000000000000000"]),
    "P": lambda rng: rng.choice([b"*", b"key*", b"key[0-3]", b"*1", b"k?y2", b"nothing", b"", b"h*", b"[^k]*"]),
    "E": lambda rng: str(rng.choice([1000, 5000, 100000])).encode(),
}


class Forms:
    def __init__(self, rng, text, **words):
        self.rng, self.words = rng, {**WORDS, **words}
        self.forms = [form.split() for line in text.splitlines() for form in line.split("|") if form.strip()]

    def word(self, text):
        draw = self.words.get(text)
        return draw(self.rng) if draw else text.encode()

    def request(self):
        words = [self.word(word) for word in self.rng.choice(self.forms)]
        if self.rng.randrange(5) == 0:
            words[0] = words[0].upper()
        return words


class Mix:
    """Several families as one."""

    def __init__(self, rng, names):
        self.rng = rng
        self.parts = [FAMILIES[name](rng) for name in names]

    def request(self):
        return self.rng.choice(self.parts).request()


# Replies: (kind, content), where kind is RESP's first byte; containers have lists, nulls None.

def read_reply(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError(f"the server closed, after {line!r}")
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=!":
        if rest == b"-1":
            return kind, None
        size = int(rest)
        data = stream.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError("the server closed inside a reply")
        return kind, data[:-2]
    if kind in b"*~>%":
        if rest == b"-1":
            return kind, None
        return kind, [read_reply(stream) for _ in range(int(rest) * (2 if kind == b"%" else 1))]
    return kind, rest


def encode(words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Client:
    def __init__(self, port, host="127.0.0.1", resp=2):
        self.sock = socket.create_connection((host, port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.sock.makefile("rb", 1 << 16)
        if resp == 3:
            self.ask("HELLO", "3")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.stream.close()
        self.sock.close()

    def send(self, requests):
        self.sock.sendall(b"".join(map(encode, requests)))

    def read(self):
        return read_reply(self.stream)

    def ask(self, *words):
        self.send([[word if isinstance(word, bytes) else str(word).encode() for word in words]])
        return self.read()


def sort_key(reply):
    return repr(reply)


def compare_unordered(request, ours, theirs):
    if not isinstance(ours[1], list) or not isinstance(theirs[1], list):
        return ours == theirs
    return ours[0] == theirs[0] and sorted(ours[1], key=sort_key) == sorted(theirs[1], key=sort_key)


def pairs(items):
    return sorted(zip(items[::2], items[1::2]), key=sort_key)


def compare_pairs(request, ours, theirs):
    if not isinstance(ours[1], list) or not isinstance(theirs[1], list):
        return ours == theirs
    return ours[0] == theirs[0] and len(ours[1]) == len(theirs[1]) and pairs(ours[1]) == pairs(theirs[1])


def unordered(*names):
    for name in names:
        compare(name, compare_unordered)


def unordered_pairs(*names):
    for name in names:
        compare(name, compare_pairs)


def roughly(name, apart):
    def function(request, ours, theirs):
        if ours[0] != b":" or theirs[0] != b":":
            return ours == theirs
        a, b = int(ours[1]), int(theirs[1])
        return a == b or (a >= 0 and b >= 0 and abs(a - b) <= apart)  # -1 and -2 are words, not times
    compare(name, function)


unordered("keys")
roughly("ttl", 3)
roughly("pttl", 3000)
roughly("expiretime", 3)
roughly("pexpiretime", 3000)


def are_equal(request, ours, theirs):
    if ours == theirs:
        return True
    function = COMPARE.get(request[0].lower())
    return function is not None and bool(function(request, ours, theirs))


class Difference(AssertionError):
    pass


def shorten(words):
    return " ".join(repr(word if len(word) < 80 else word[:60] + b"...%d" % len(word))[1:] for word in words)


def explain(label, request, ours, theirs, history):
    words = set(request[1:])
    related = [old for old in history if words & set(old[1:])][-TRACE:]
    before = "".join(f"\n    {shorten(old)}" for old in related)
    return (f"{label}: {shorten(request)}\n  ours  {repr(ours)[:700]}\n  redis {repr(theirs)[:700]}\n"
            f"  before that, with words of it:{before}")


# Running

def settings(port):
    """What CONFIG GET * says; {} of a server that is gone."""
    try:
        with Client(port) as c:
            items = [item[1] for item in c.ask("CONFIG", "GET", "*")[1]]
            return dict(zip(items[::2], items[1::2]))
    except OSError:
        return {}


def settings_put_back(port, before):
    """A stream leaves none to the next: with a min-slaves-to-write not even FLUSHALL would run."""
    changed = [name for name, text in settings(port).items() if before.get(name, text) != text]
    with Client(port) as c:
        for name in changed:
            answer = c.ask("CONFIG", "SET", name, before[name])
            assert answer == (b"+", b"OK"), (name, before[name], answer)


def run(ours, theirs, names=None, seed=1, count=2000, resp=2, flush=True, between=None, each_time=None,
        every=20):
    """`count` commands of these families (None: all) to both ports. between(done) is called now and then (one pipeline of
    `every`), when both have answered everything and are without clients: to restart ours, to make its values cold;
    each_time(done) before every pipeline. Raises Difference."""
    load_families()
    names = sorted(FAMILIES) if names is None else names
    rng = random.Random(seed)
    draw = Mix(rng, names).request
    label = f"--families {','.join(names)} --seed {seed} --resp {resp}"
    history, done = [], 0
    before = [(port, settings(port)) for port in (ours, theirs)]
    a, b = Client(ours, resp=resp), Client(theirs, resp=resp)
    try:
        for client in (a, b):
            client.ask("CLIENT", "NO-EVICT", "ON")  # whatever maxmemory-clients it is told
        if flush:
            for client in (a, b):
                answer = client.ask("FLUSHALL")
                assert answer == (b"+", b"OK"), answer
        while done < count:
            if each_time is not None:
                each_time(done)
            requests = [draw() for _ in range(rng.choice([1, 1, 2, 5, 20, 60]))]
            b.send(requests)
            a.send(requests)
            for request in requests:
                theirs_said = b.read()
                try:
                    ours_said = a.read()
                except (OSError, ValueError) as error:
                    raise Difference(explain(label, request, error, theirs_said, history)) from error
                if not are_equal(request, ours_said, theirs_said):
                    raise Difference(explain(f"{label}, command {done}", request, ours_said, theirs_said, history))
                history.append(request)
                done += 1
            if between is not None and rng.randrange(every) == 0:
                a.close()
                b.close()  # its database is forgotten, too
                between(done)
                a, b = Client(ours, resp=resp), Client(theirs, resp=resp)
    finally:
        a.close()
        b.close()
    for port, texts in before:
        settings_put_back(port, texts)
    return done


FILLER_DB = 14  # of ours alone
FILLER = 10     # MiB, against a memory of 4


def fetches(port):
    """How many values a weir-backend has read from disk."""
    with Client(port) as c:
        lines = c.ask("INFO", "store")[1].split(b"\r\n")
    return int(dict(line.split(b":", 1) for line in lines if b":" in line)[b"fetches"])


def filler(port, seed):
    """A between() for run(): more than the memory is written to a database beside, and what is compared goes cold."""
    rng = random.Random(seed)

    def make_cold(done):
        with Client(port) as c:
            c.ask("SELECT", FILLER_DB)
            for block in range(FILLER):
                c.send([[b"SET", b"%d-%d" % (block, i), rng.randbytes(8192)] for i in range(128)])
                for _ in range(128):
                    assert c.read() == (b"+", b"OK")
    return make_cold


def run_and_fill(ours, theirs, names, seeds, count, resp=2):
    """As run(), of several seeds, while more data than memory is written beside, so that what is compared goes cold again
    and again. `ours` is a node with little memory."""
    for seed in seeds:
        run(ours, theirs, names, seed, count, resp, between=filler(ours, seed), every=5)
    dbs = range(FILLER_DB)
    compare_snapshots(snapshot(ours, dbs), snapshot(theirs, dbs))
    assert fetches(ours) > 10


def run_cold(ours, theirs, names, seed, count, resp=2, between=None):
    """run() with all of ours that can go to disk sent there before every pipeline: each command meets a cold value
    and the next ones of its pipeline a fetch that is under way. Returns how many were read from disk."""
    before = fetches(ours)
    with Client(ours) as c:
        def spill(done):
            assert c.ask("DEBUG", "SPILL") == (b"+", b"OK")

        run(ours, theirs, names, seed, count, resp, between=between, each_time=spill)
    return fetches(ours) - before


GETTERS = {
    b"string": lambda c, key: c.ask("GET", key)[1],
    b"list": lambda c, key: c.ask("LRANGE", key, 0, -1)[1],
    b"set": lambda c, key: sorted(c.ask("SMEMBERS", key)[1]),
    b"zset": lambda c, key: c.ask("ZRANGE", key, 0, -1, "WITHSCORES")[1],
    b"hash": lambda c, key: pairs(c.ask("HGETALL", key)[1]),
}


def snapshot(port, dbs=range(16)):
    """{(db, key): (type, value, when it expires in seconds, -1: never)}"""
    content = {}
    with Client(port) as c:
        for db in dbs:
            assert c.ask("SELECT", db) == (b"+", b"OK")
            for _, key in c.ask("KEYS", "*")[1]:
                kind = c.ask("TYPE", key)[1]
                content[db, key] = kind, GETTERS[kind](c, key), int(c.ask("EXPIRETIME", key)[1])
        c.ask("SELECT", 0)
    return content


def compare_snapshots(ours, theirs):
    """Raises Difference; times may be 3 seconds apart."""
    for at in sorted(set(ours) | set(theirs)):
        a, b = ours.get(at), theirs.get(at)
        if a is None or b is None or a[:2] != b[:2] or abs(a[2] - b[2]) > 3 or (a[2] < 0) != (b[2] < 0):
            raise Difference(f"db {at[0]}, key {at[1]!r}:\n  ours  {repr(a)[:700]}\n  redis {repr(b)[:700]}")


def load_families():
    if HERE not in sys.path:
        sys.path.insert(0, HERE)
    for path in sorted(glob.glob(os.path.join(HERE, "differential_*.py"))):
        importlib.import_module(os.path.basename(path)[:-3])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ours", type=int, required=True, help="port of weir-backend; it is flushed")
    options.add_argument("--redis", type=int, help="port of a redis-server; it is flushed. None: one is started")
    options.add_argument("--families", default="", help="comma-separated; all by default")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--streams", type=int, default=1, help="this many seeds from --seed on")
    options.add_argument("--count", type=int, default=20000, help="commands of a stream")
    options.add_argument("--resp", type=int, choices=(2, 3), default=2)
    asked = options.parse_args()
    load_families()
    names = asked.families.split(",") if asked.families else sorted(FAMILIES)
    server, port = None, asked.redis
    with tempfile.TemporaryDirectory() as directory:
        if port is None:
            port = free_port()
            server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                       "--enable-debug-command", "yes",
                                       "--dir", directory], stdout=subprocess.DEVNULL)
            time.sleep(0.5)
        try:
            for seed in range(asked.seed, asked.seed + asked.streams):
                done = run(asked.ours, port, names, seed, asked.count, asked.resp)
                compare_snapshots(snapshot(asked.ours), snapshot(port))
                print(f"seed {seed}: {done} commands of {','.join(names)} alike")
        except Difference as difference:
            print(difference)
            return 1
        finally:
            if server is not None:
                server.kill()
                server.wait()
    return 0


if __name__ == "__main__":
    # As a module too, so that the families' files register with this very one.
    sys.modules["differential"] = sys.modules["__main__"]
    sys.exit(main())
