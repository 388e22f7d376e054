# SPDX-License-Identifier: Apache-2.0
"""Every vector of vectors.yml, in every mode, over stub servers that write down what reaches them.

    fresh    alone on a new connection
    behind   three valid requests go before it, in the same write
    before   three valid ones follow it, in the same write
    split    cut in two at each byte (long ones at a sample of bytes), the proxy having read the first part
    bytes    one byte at a time

In all of them other clients pipeline over the same two server connections, and none of their replies may
be wrong, late or missing. The mirror set is the same from the other side: a server that talks nonsense.
"""

import collections
import errno
import os
import random
import re
import select
import socket
import struct
import threading

import asyncio
import pytest
import yaml

from stubs import MemcacheConnection, RedisConnection, Stub
from weirtest import DEADLINE, HERE, LOOPBACK, Conn, free_port, pool, resp, wait_for

SPLIT_ALL_MAX = 300    # longer inputs are cut at a sample of places
SPLIT_SAMPLE = 40
BATCH = 300            # connections at once
SWALLOWED = (errno.EPIPE, errno.ECONNRESET)


# The file

def expand(text, as_hex=False):
    """<<x#*3>> is x0x1x2."""
    def repeat(match):
        body, count = match[1], int(match[2])
        return "".join(body.replace("#", str(i)) for i in range(count)) if "#" in body else body * count
    text = re.sub(r"<<(.+?)\*([0-9]+)>>", repeat, text, flags=re.S)
    return bytes.fromhex(text) if as_hex else text.encode("latin-1")


def field(item, name):
    """The bytes of `name` or `name_hex`."""
    if f"{name}_hex" in item:
        value, as_hex = item[f"{name}_hex"], True
    else:
        value, as_hex = item.get(name, []), False
    return [expand(v, as_hex) for v in value] if isinstance(value, list) else expand(value, as_hex)


class Input:
    def __init__(self, vector, number, item):
        self.name = f"{vector['id']}[{number}]"
        self.pool = vector["pool"]
        self.bytes = expand(item["hex"], True) if "hex" in item else expand(item["send"])
        self.answer = field(item, "answer")
        self.then = item["then"]
        forwards = field(item, "forwards")
        self.forwards = (forwards if isinstance(forwards, list) else [forwards]) * item.get("times", 1)
        self.modes = item.get("modes") or ["fresh", "behind", "before", "split", "bytes"]
        if self.then == "stop":
            self.modes = [mode for mode in self.modes if mode != "before"]


with open(os.path.join(HERE, "vectors.yml"), encoding="utf-8") as f:
    VECTORS = yaml.safe_load(f)
REQUESTS = [vector for vector in VECTORS if "inputs" in vector]
MIRRORS = [vector for vector in VECTORS if "mirror" in vector]


def test_data_file():
    """The file has every vector, each once, and nothing that the runner would overlook."""
    ids = [vector["id"] for vector in VECTORS]
    assert len(set(ids)) == len(ids)
    assert {f"m{i}" for i in range(1, 15)} | {f"r{i}" for i in range(1, 13)} <= set(ids)
    for vector in REQUESTS:
        assert set(vector) == {"id", "what", "pool", "inputs"}, vector["id"]
        for item in vector["inputs"]:
            assert set(item) <= {"what", "send", "hex", "answer", "answer_hex", "then", "forwards",
                                 "forwards_hex", "times", "modes"}, (vector["id"], item)
            assert item["then"] in ("keep", "close", "stop")


# Valid requests, each with a key of its own

_serial = iter(range(1 << 60))


def valid(pool_name):
    """(request, reply, what reaches the server)"""
    number = next(_serial)
    key = b"%s-%d" % (b"ok" if number % 2 else b"fine", number)
    if pool_name == "memcache":
        request = b"get %s\r\n" % key
        return request, b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key), request
    if pool_name == "binary":
        request = struct.pack(">BBHBBHIIQ", 0x80, 0, len(key), 0, 0, 0, len(key), number, 0) + key
        return request, struct.pack(">BBHBBHIIQ", 0x81, 0, 0, 4, 0, 0, 4 + len(key), number,
                                    0) + b"\0\0\0\0" + key, request
    request = resp("GET", key)
    return request, b"$%d\r\n%s\r\n" % (len(key), key), request


# One run: pieces out, an answer in

class Run:
    def __init__(self, case, mode, pieces, answer, forwards, label):
        self.case, self.mode, self.pieces = case, mode, pieces
        self.answer, self.forwards = answer, collections.Counter(forwards)
        self.label = f"{case.name} {label}"
        self.got = b""
        self.is_gone = False


def runs_of(case, mode):
    valids = [valid(case.pool) for _ in range(3)]
    requests, replies, reached = (list(column) for column in zip(*valids))
    if mode == "fresh":
        yield Run(case, mode, [case.bytes], case.answer, case.forwards, mode)
    elif mode == "behind":
        yield Run(case, mode, [b"".join(requests) + case.bytes], b"".join(replies) + case.answer,
                  reached + case.forwards, mode)
    elif mode == "before":
        keeps = case.then == "keep"
        yield Run(case, mode, [case.bytes + b"".join(requests)],
                  case.answer + (b"".join(replies) if keeps else b""),
                  case.forwards + (reached if keeps else []), mode)
    elif mode == "split":
        cuts = list(range(1, len(case.bytes)))
        if len(cuts) > SPLIT_ALL_MAX:
            picked = random.Random(len(cuts))
            cuts = sorted({*cuts[:30], *cuts[-5:], *picked.sample(cuts, SPLIT_SAMPLE)})
        for cut in cuts:
            yield Run(case, mode, [case.bytes[:cut], case.bytes[cut:]], case.answer, case.forwards,
                      f"cut at {cut}")
    elif mode == "bytes" and len(case.bytes) <= SPLIT_ALL_MAX:
        yield Run(case, mode, [case.bytes[i:i + 1] for i in range(len(case.bytes))], case.answer,
                  case.forwards, "byte by byte")


class Rig:
    """The proxy, its stubs, and clients that must not notice anything."""

    def __init__(self, stage):
        self.stubs = {name: [Stub(kind), Stub(kind)]
                      for name, kind in (("memcache", MemcacheConnection), ("redis", RedisConnection),
                                         ("locked", RedisConnection))}
        conf = "weir:\n  version: 1\n  workers: 1\n  limits:\n    value_size_max: 4m\n" \
               "    request_size_max: 16m\n"
        self.ports = {}
        for name, stubs in self.stubs.items():
            self.ports[name] = free_port()
            lines = [f"{stubs[0].address}:1 first range=..m", f"{stubs[1].address}:1 second range=m.."]
            keys = {"redis_auth": "sesame"} if name == "locked" else {}
            conf += pool(name, f"{LOOPBACK}:{self.ports[name]}", lines, redis=name != "memcache",
                         distribution="range", **keys)
        self.stubs["binary"], self.ports["binary"] = self.stubs["memcache"], self.ports["memcache"]
        self.proxy = stage.weir_proxy(conf)
        self.bells = {name: Conn(port) for name, port in self.ports.items()}
        self.bells["locked"].ask(resp("AUTH", "sesame"), b"+OK\r\n")
        self.victims = [Victim(name, port) for name, port in self.ports.items()]

    def close(self):
        for victim in self.victims:
            victim.stop()
        for bell in self.bells.values():
            bell.close()

    def close_stubs(self):
        for name, stubs in self.stubs.items():
            if name != "binary":
                for stub in stubs:
                    stub.close()

    def barrier(self, name):
        """Returns when the proxy has read all that was sent before: it reads in the order of arrival."""
        if name in ("memcache", "binary"):
            self.bells["memcache"].ask(b"mn\r\n", b"MN\r\n")
        else:
            self.bells[name].ask(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n")

    def recorded(self, name):
        total = collections.Counter()
        for stub in self.stubs[name]:
            total.update(stub.take_recorded())
        return total


class Victim(threading.Thread):
    """Pipelines until it is stopped; keeps what went wrong."""

    def __init__(self, name, port):
        super().__init__(daemon=True)
        self.pool, self.port = name, port
        self.trouble, self.rounds = None, 0
        self.is_stopping = threading.Event()
        self.start()

    def ask(self, number):
        key = b"%s-victim-%d" % (b"aa" if number % 2 else b"zz", number)
        if self.pool == "memcache":
            return b"get %s\r\n" % key, b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key)
        if self.pool == "binary":
            return (struct.pack(">BBHBBHIIQ", 0x80, 0, len(key), 0, 0, 0, len(key), number, 0) + key,
                    struct.pack(">BBHBBHIIQ", 0x81, 0, 0, 4, 0, 0, 4 + len(key), number, 0) +
                    b"\0\0\0\0" + key)
        return resp("GET", key), b"$%d\r\n%s\r\n" % (len(key), key)

    def run(self):
        try:
            with Conn(self.port) as c:
                if self.pool == "locked":
                    c.ask(resp("AUTH", "sesame"), b"+OK\r\n")
                while not self.is_stopping.wait(0.001):
                    pairs = [self.ask(self.rounds * 20 + i) for i in range(20)]
                    c.send(b"".join(request for request, _ in pairs))
                    c.expect(b"".join(reply for _, reply in pairs))
                    self.rounds += 1
        except BaseException as e:  # noqa: BLE001 - whatever it was, the test must hear of it
            self.trouble = f"{self.pool}: {e!r}"

    def stop(self):
        self.is_stopping.set()
        self.join(DEADLINE)


@pytest.fixture(scope="module")
def rig(module_stage):
    made = Rig(module_stage)
    yield made
    made.close()
    for process in module_stage.processes:
        process.stop()
    made.close_stubs()


def pump(sock, data, got_max):
    """Sends all of data, reading meanwhile where both sides would wait. Returns (what came, is_gone)."""
    sock.setblocking(False)
    got, view, is_gone = [], memoryview(data), False
    while view and not is_gone:
        readable, writable, _ = select.select([sock], [sock], [], DEADLINE)
        if not readable and not writable:
            raise AssertionError(f"stuck with {len(view)} bytes to send")
        try:
            if readable:
                piece = sock.recv(1 << 18)
                got.append(piece)
                is_gone = not piece
            if writable and not is_gone:
                view = view[sock.send(view[:1 << 18]):]
        except BlockingIOError:
            pass
        except OSError as e:
            if e.errno not in SWALLOWED:
                raise
            is_gone = True
    sock.settimeout(DEADLINE)
    return b"".join(got), is_gone


def receive(sock, run, size):
    """Up to `size` bytes of run.got, or to the end."""
    pieces, have = [run.got], len(run.got)
    while have < size:
        try:
            piece = sock.recv(1 << 18)
        except socket.timeout:
            run.got = b"".join(pieces)
            return "nothing more came"
        except ConnectionResetError:
            piece = b""
        if not piece:
            run.is_gone = True
            break
        pieces.append(piece)
        have += len(piece)
    run.got = b"".join(pieces)
    return None


def short(data):
    return repr(data) if len(data) < 400 else f"{data[:150]!r}...{data[-150:]!r} ({len(data)} bytes)"


def judge(rig, run, sock):
    """None, or what is wrong. What reached the servers is looked at later, for the batch."""
    trouble = receive(sock, run, len(run.answer))
    if trouble is not None or run.got != run.answer:
        return f"{trouble or 'wrong answer'}: got {short(run.got)}, wanted {short(run.answer)}"
    if run.case.then == "close":
        run.got = b""
        receive(sock, run, 1)
        return f"more came than the answer: {short(run.got)}" if run.got else None
    if run.case.then == "stop":
        rig.barrier(run.case.pool)
        sock.setblocking(False)
        try:
            more = sock.recv(65536)
        except BlockingIOError:
            return None
        return f"more came than the answer: {short(more)}" if more else "closed"
    request, reply, reached = valid(run.case.pool)
    run.forwards[reached] += 1
    run.got = b""
    try:
        sock.sendall(request)
    except OSError:
        return "closed"
    receive(sock, run, len(reply))
    return None if run.got == reply else f"afterwards: got {short(run.got)}, wanted {short(reply)}"


def run_batch(rig, name, runs):
    """Runs all of them side by side. Returns what is wrong with each."""
    troubles, socks = [], []
    for run in runs:
        sock = socket.create_connection((LOOPBACK, rig.ports[name]), DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks.append(sock)
    rounds = max(len(run.pieces) for run in runs)
    for i in range(rounds):
        for run, sock in zip(runs, socks):
            if i < len(run.pieces) and not run.is_gone:
                got, run.is_gone = pump(sock, run.pieces[i], len(run.answer))
                run.got += got
        if i + 1 < rounds:
            rig.barrier(name)
    wanted = collections.Counter()
    for run, sock in zip(runs, socks):
        trouble = judge(rig, run, sock)
        wanted.update(run.forwards)
        if trouble:
            troubles.append(f"{run.label}: {trouble}")
        sock.close()
    recorded = collections.Counter()

    def all_came():
        recorded.update(rig.recorded(name))
        return sum(recorded.values()) >= sum(wanted.values())
    try:
        wait_for(all_came, deadline=2 if troubles else DEADLINE)
    except AssertionError:
        pass
    for request, count in (recorded - wanted).items():
        troubles.append(f"{runs[0].case.name}: {count} × reached a server: {short(request)}")
    for request, count in (wanted - recorded).items():
        troubles.append(f"{runs[0].case.name}: {count} × did not reach a server: {short(request)}")
    return troubles


@pytest.mark.parametrize("vector", REQUESTS, ids=[vector["id"] for vector in REQUESTS])
def test_vector(rig, vector):
    """Sends each input in each mode, compares all bytes that come back and all that reached a server."""
    troubles = []
    inputs = [Input(vector, i, item) for i, item in enumerate(vector["inputs"])]
    rig.recorded(vector["pool"])
    for case in inputs:
        for mode in case.modes:
            runs = list(runs_of(case, mode))
            for i in range(0, len(runs), BATCH):
                troubles += run_batch(rig, vector["pool"], runs[i:i + BATCH])
    troubles += [f"neighbour {victim.trouble}" for victim in rig.victims if victim.trouble]
    assert not troubles, f"{len(troubles)} troubles:\n" + "\n".join(troubles[:25])


def test_neighbours(rig):
    """The clients that pipelined meanwhile got every one of their replies, and were not idle."""
    for victim in rig.victims:
        assert victim.trouble is None and victim.rounds > 0, (victim.pool, victim.trouble)


# The other direction

class HostileConnection(asyncio.Protocol):
    """Answers keys "bad-VECTOR-CUT-HELD" with a bad reply, cut in two at CUT if that is not 0, once HELD
    requests more have come; other keys rightly."""

    def __init__(self, stub):
        self.stub = stub
        self.data = b""
        self.has_lied = False
        self.waiting = None
        self.held = []

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stub.connections += 1

    def connection_lost(self, exc):
        self.stub.lost += 1

    def request(self):
        """The next key, or None."""
        is_redis = self.data[:1] == b"*"
        match = re.match(rb"\*2\r\n\$3\r\nGET\r\n\$[0-9]+\r\n([^\r]+)\r\n" if is_redis
                         else rb"get ([^ \r]+)\r\n", self.data)
        if match is None:
            return None
        self.data = self.data[match.end():]
        return match[1]

    def right(self, key):
        if self.stub.kind == "redis":
            return b"$%d\r\n%s\r\n" % (len(key), key)
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key)

    def data_received(self, data):
        if self.has_lied:
            self.stub.record(b"after the lie: " + data)
            return
        self.data += data
        out = b""
        while (key := self.request()) is not None:
            if key.startswith(b"bad-"):
                _, number, cut, held = key.split(b"-")
                lie = self.stub.replies[int(number)].replace(b"VALUE a ", b"VALUE " + key + b" ")
                self.waiting = [lie, int(cut), int(held)]
                self.stub.waiting_count += 1
            elif self.waiting is not None:
                self.waiting[0] += self.right(key)
                self.waiting[2] -= 1
            else:
                out += self.right(key)
        if self.waiting is not None and self.waiting[2] <= 0:
            lie, cut, _ = self.waiting
            self.has_lied, self.waiting = True, None
            if cut:
                self.transport.write(out + lie[:cut])
                asyncio.get_running_loop().call_later(0.002, self.transport.write, lie[cut:])
            else:
                self.transport.write(out + lie)
        elif out:
            self.transport.write(out)


def get(kind, key):
    return resp("GET", key) if kind == "redis" else b"get %s\r\n" % key.encode()


def right_answer(kind, key):
    key = key.encode()
    if kind == "redis":
        return b"$%d\r\n%s\r\n" % (len(key), key)
    return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(key), key)


def lie_is_told(conn, error, lie):
    """What came for the bad reply: the error; or, where a part of the reply was on its way already, that
    part and the end of the connection. Returns True if the connection goes on."""
    try:
        got = conn.recv_exact(len(error))
    except Exception as e:  # noqa: BLE001 - weirtest.Closed has what came
        got = getattr(e, "got", None)
        assert got is not None, e
        assert lie.startswith(got), f"foreign bytes: {short(got)}"
        return False
    if got == error:
        return True
    got += conn.recv_eof()
    assert lie.startswith(got) and got != lie, f"neither the error nor a piece of it: {short(got)}"
    return False


@pytest.mark.parametrize("vector", MIRRORS, ids=[vector["id"] for vector in MIRRORS])
def test_mirror(stage, vector):
    """A server's bad reply becomes the client's error, the connection to it is given up at once, and
    nothing that it said afterwards goes to anybody."""
    kind, error = vector["mirror"], vector["answer"].encode()
    stub = Stub(HostileConnection)
    stub.waiting_count = 0
    stub.kind, stub.replies = kind, [expand(text) for text in vector["replies"]]
    proxy = stage.weir_proxy(
        "weir:\n  version: 1\n  workers: 1\n  limits:\n    value_size_max: 4m\n    request_size_max: 16m\n" +
        pool("alpha", servers=[stub.address], redis=kind == "redis"))
    troubles = []
    for number, lie in enumerate(stub.replies):
        for mode, cut in [("fresh", 0), ("behind", 0), ("before", 0),
                          *(("cut", cut) for cut in range(1, min(len(lie), 12)))]:
            key = f"bad-{number}-{cut}-{3 if mode == 'before' else 0}"
            own_lie = lie.replace(b"VALUE a ", b"VALUE " + key.encode() + b" ")
            lost, waiting = stub.lost, stub.waiting_count
            try:
                with proxy.connect() as c, proxy.connect() as other:
                    before = [f"x{i}" for i in range(3)] if mode == "behind" else []
                    c.send(b"".join(get(kind, k) for k in [*before, key]))
                    if mode == "before":
                        wait_for(lambda: stub.waiting_count > waiting, "the server has the request")
                        other.send(b"".join(get(kind, f"y{i}") for i in range(3)))
                    for k in before:
                        c.expect(right_answer(kind, k))
                    is_open = lie_is_told(c, error, own_lie)
                    if mode == "before":
                        other.expect(error * 3)
                    wait_for(lambda: stub.lost > lost, "the server's connection is closed")
                    for conn in [other, *([c] if is_open else [])]:
                        conn.ask(get(kind, "z"), right_answer(kind, "z"))
            except Exception as e:  # noqa: BLE001 - all vectors are to be told, not only the first
                troubles.append(f"{short(lie)} {mode} {cut}: {e!r}")
    for request in stub.take_recorded():
        troubles.append(f"reached a server {short(request)}")
    for process in stage.processes:
        process.stop()
    stub.close()
    assert not troubles, f"{len(troubles)} troubles:\n" + "\n".join(troubles[:25])
