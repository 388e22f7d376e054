# SPDX-License-Identifier: Apache-2.0
"""The inputs of vectors.yml against the node itself: alone, cut in two, byte by byte.

The node answers as the file says, but where that is the proxy's business (what it denies, keys of two servers, what its
stubs say): those are in NODE, with the node's own answer. Whatever comes in, no byte of a refused value is taken for a
command, the connection's state is as said, and no worker dies.
"""

import random
import re
import socket

import pytest
import redis

from test_vectors import REQUESTS, Input, pump, short
from weirtest import LOOPBACK, children_of, resp, wait_for

CUTS = 6
KEYS = {key: key for key in ("a", "b", "z", "YQ==", b"\xe9\xff", "k" * 250, "sentinel")}
WRONGTYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
SYNTAX = b"-ERR syntax error\r\n"


def unknown(name, *args):
    """Redis's words for a command that there is not."""
    return f"-ERR unknown command '{name}', with args beginning with: {''.join(f'{a!r} ' for a in args)}\r\n".encode()


NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"

# Where an answer has what changes: a cas, the time, other clients' requests.
CAS = rb"\0\0\0\0\0[\s\S]{3}"
BINARY_GET = rb"\x81\0\0\0\x04\0\0\0\0\0\0\x05\0\0\xbe\xef" + CAS + rb"\0\0\0\0a"
BINARY_GETQ = (rb"\x81\x09\0\0\x04\0\0\0\0\0\0\x05\0\0\0\x01" + CAS + rb"\0\0\0\0a"
               rb"\x81\x0d\0\x01\x04\0\0\0\0\0\0\x06\0\0\0\x02" + CAS + rb"\0\0\0\0zz"
               rb"\x81\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0")
STATS = rb"(STAT \S+ [^\r\n]*\r\n){50,}END\r\n"
SETTINGS = rb"\*348\r\n(\$\d+\r\n[^\r\n]*\r\n){348}"
MONITOR = rb'\+OK\r\n(\+\d+\.\d{6} \[0 127\.0\.0\.1:\d+\] "[^\r\n]*"\r\n)*'
# Its end may overtake it: the second line has not been read.
HTTP_GET = rb"(-ERR wrong number of arguments for 'get' command\r\n)?"

# (vector, input): (answer, how it ends). An answer that is a pattern is compiled.
NODE = {
    # A connection's first line chooses the protocol; what is no verb of memcache's is an inline request.
    ("m6", 9): (b"", "keep"), ("m8", 12): (b"", "keep"), ("m14", 1): (b"", "keep"),
    ("m6", 10): (unknown("bogus", "a", "b", "c"), "keep"), ("m8", 11): (unknown("bogus"), "keep"),
    ("m6", 11): (b"$1\r\na\r\n", "keep"), ("m6", 12): (SYNTAX + unknown("flush_all"), "keep"),
    ("m11", 0): (b"-ERR TLS is not spoken on this port\r\n", "close"),
    ("m11", 2): (re.compile(HTTP_GET), "close"), ("r6b", 1): (re.compile(HTTP_GET), "close"),  # GET is a command, Host: ends it
    ("m11", 3): (unknown("HEAD", "/", "HTTP/1.0"), "keep"), ("m11", 5): (b"+PONG\r\n", "keep"), ("m11", 6): (b"$1\r\na\r\n", "keep"),
    ("m11c", 9): (bytes.fromhex("810a00000000000000000000 0000beef 0000000000000000"), "close"),  # text behind binary
    ("r6b", 4): (bytes.fromhex("810a00000000000000000000 0000beef 0000000000000000"), "keep"),
    # A node takes control bytes but NUL in keys, as memcached does.
    **{("m7", i): (b"END\r\n", "keep") for i in (0, 2, 3, 4, 13)}, ("m7", 5): (b"VALUE a 0 1\r\na\r\nEND\r\n", "keep"),
    ("m7", 7): (b"STORED\r\n", "keep"), ("m7", 8): (b"NOT_FOUND\r\n", "keep"), ("m7", 9): (b"HD\r\n", "keep"),
    ("m7", 11): (b"NOT_FOUND\r\n", "keep"), ("m7", 12): (b"NOT_FOUND\r\n", "keep"), ("m7", 14): (b"EN\r\n", "keep"),
    # The stubs know every key, its number and its cas.
    ("m8", 3): (b"EXISTS\r\n", "keep"),
    ("m8", 5): (NOT_A_NUMBER, "keep"), ("m9", 11): (NOT_A_NUMBER, "keep"), ("m9", 12): (NOT_A_NUMBER, "keep"),
    ("m11b", 0): (re.compile(BINARY_GET), "keep"), ("m11b", 2): (re.compile(BINARY_GETQ), "keep"),
    ("m13", 14): (b"VA 1 kYQ== b\r\na\r\n", "keep"), ("m13", 19): (re.compile(rb"ME a exp=-1 la=\d+ cas=\d+ fetch=no cls=1 size=22\r\n"), "keep"),
    ("m12", 13): (re.compile(STATS), "keep"), ("r9", 3): (WRONGTYPE, "keep"),
    ("m6", 17): (b"", "keep"),  # a get's line may be longer still
    ("r2", 7): (b"", "keep"),  # as many arguments as Redis takes, of which none has come
    # Redis 7's words, where the proxy has twemproxy's. A wrong password does not take away what a right one gave.
    ("r11", 1): (WRONGPASS + NOAUTH * 2, "stop"), ("r11", 2): (b"+OK\r\n" + WRONGPASS + b"$1\r\na\r\n", "stop"),
    ("r11", 3): (NOAUTH + b"-EXECABORT Transaction discarded because of: " + NOAUTH[1:] + NOAUTH, "stop"),
    ("r11", 4): (b"-ERR Protocol error: unauthenticated bulk length\r\n", "close"), ("r11", 5): (WRONGPASS * 1000, "stop"),
    ("r11b", 0): (b"-ERR AUTH <password> called without any password configured for the default user. Are you sure "
                  b"your configuration is correct?\r\n", "keep"),
    # What the proxy denies.
    ("m12", 0): (b"ERROR: shutdown not enabled\r\n", "keep"), ("m12", 1): (b"ERROR: shutdown not enabled\r\n", "keep"),
    ("m12", 3): (b"CLIENT_ERROR lru crawler disabled\r\n", "keep"),
    ("m12", 5): (b"WATCHER_FAILED failed to add log watcher\r\n", "keep"),
    ("m12", 6): (b"CLIENT_ERROR slab reassignment disabled\r\n", "keep"),
    **{("m12", i): (b"ERROR\r\n", "keep") for i in (2, 4, 7, 8)},
    ("r8", 11): (b"+OK\r\n", "keep"), ("r8", 12): (b":0\r\n", "keep"), ("r8", 13): (WRONGTYPE, "keep"),
    ("r8", 14): (unknown("EVAL", "return 1", "2", "a", "z"), "keep"),
    ("r8", 15): (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\na\r\n$1\r\nz\r\n", "keep"),
    ("r9", 1): (re.compile(MONITOR), "stop"), ("r9", 2): (unknown("SYNC"), "keep"),
    **{("r10", i): (re.compile(SETTINGS), "stop") for i in (0, 13)},
    ("r10", 1): (b"-ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config\r\n", "keep"),
    ("r10", 3): (unknown("MODULE", "LIST"), "keep"), ("r10", 4): (unknown("REPLICAOF", "a", "1"), "keep"),
    ("r10", 5): (unknown("SLAVEOF", "NO", "ONE"), "keep"), ("r10", 6): (unknown("MIGRATE", "h", "1", "a", "0", "9"), "keep"),
    ("r10", 10): (unknown("PSYNC", "?", "-1"), "keep"), ("r10", 11): (unknown("FAILOVER"), "keep"),
    ("r10", 12): (unknown("ACL", "LIST"), "keep"),
}
# They stop the node, stand still for a second, start a checkpoint, flush in ten seconds.
NOT_HERE = {("r10", 7), ("r10", 2), ("r10", 8), ("r10", 9), ("m12", 10)}


def cases():
    for vector in REQUESTS:
        for number, item in enumerate(vector["inputs"]):
            if (vector["id"], number) not in NOT_HERE:
                case = Input(vector, number, item)
                case.answer, case.then = NODE.get((vector["id"], number), (case.answer, case.then))
                yield case


CASES = list(cases())


def processes_of(node):
    """The worker and the stats process."""
    return wait_for(lambda: len(there := children_of(node.pid)) == 2 and there, "both are there")


@pytest.fixture(scope="module")
def nodes(module_stage):
    made = {"open": module_stage.weir_backend(), "locked": module_stage.weir_backend(None, "--password", "sesame")}
    for name, node in made.items():
        node.redis = redis.Redis(LOOPBACK, node.port, password="sesame" if name == "locked" else None)
        node.redis.ping()
        node.workers = processes_of(node)
    return made


def receive(sock, got, is_whole, seconds):
    """(what has come when it is whole or after some time, whether the end has)"""
    sock.settimeout(seconds)
    while not is_whole(got):
        try:
            piece = sock.recv(1 << 18)
        except socket.timeout:
            return got, False
        except ConnectionResetError:
            return got, True
        if not piece:
            return got, True
        got += piece
    return got, False


def send_pieces(node, pieces):
    sock = socket.create_connection((LOOPBACK, node.port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    got = b""
    for piece in pieces:
        more, is_gone = pump(sock, piece, 0)
        got += more
        if is_gone:
            break
        if len(pieces) > 1:
            node.redis.ping()  # the piece before has been read
    return sock, got


def run(node, case, pieces):
    """None, or what is wrong."""
    node.redis.flushall()
    node.redis.mset(KEYS)
    sock, got = send_pieces(node, pieces)
    with sock:
        def is_whole(got):
            return len(got) >= len(case.answer) if isinstance(case.answer, bytes) else case.answer.fullmatch(got)

        def is_never_whole(got):
            return isinstance(case.answer, bytes) and len(got) > len(case.answer)

        got, is_gone = receive(sock, got, is_whole, 20)
        if not is_gone:
            got, is_gone = receive(sock, got, is_never_whole, 20 if case.then == "close" else 0.01)
        if not (got == case.answer if isinstance(case.answer, bytes) else case.answer.fullmatch(got)):
            wanted = case.answer if isinstance(case.answer, bytes) else case.answer.pattern
            return f"got {short(got)}, wanted {short(wanted)}"
        if is_gone != (case.then == "close"):
            return "closed" if is_gone else "not closed"
    if not case.forwards and node.redis.get("sentinel") != b"sentinel":
        return "took a value for a command"
    return None


def ways(case):
    data = case.bytes
    yield "alone", [data]
    if len(data) > 4096:
        return
    picked = random.Random(case.name)
    for cut in sorted(picked.sample(range(1, len(data)), min(CUTS, len(data) - 1))):
        yield f"cut at {cut}", [data[:cut], data[cut:]]
    if len(data) <= 60:
        yield "byte by byte", [data[i:i + 1] for i in range(len(data))]


@pytest.mark.parametrize("vector", [vector["id"] for vector in REQUESTS])
def test_vector_at_the_node(nodes, vector):
    troubles = []
    for case in CASES:
        if case.name.startswith(f"{vector}["):
            node = nodes["locked" if case.pool == "locked" else "open"]
            for way, pieces in ways(case):
                trouble = run(node, case, pieces)
                if trouble is not None:
                    troubles.append(f"{case.name} {way} {short(case.bytes)[:100]}: {trouble}")
    for node in nodes.values():
        assert children_of(node.pid) == node.workers, "a worker died"
    assert not troubles, f"{len(troubles)} troubles:\n" + "\n".join(troubles[:25])


def test_wrong_lines_of_a_connection_that_speaks_memcache(nodes):
    """Behind a first valid line the node is as strict as memcached."""
    node = nodes["open"]
    for line in (b"\r\n", b"bogus a b c\r\n", b"GET a\r\n", b"*1\r\n$4\r\nPING\r\n"):
        sock, got = send_pieces(node, [b"mn\r\n" + line])
        with sock:
            want = b"MN\r\n" + b"ERROR\r\n"
            got, _ = receive(sock, got, lambda x: len(x) >= len(want), 20)
            assert got[:len(want)] == want, (line, got)


def test_refused_value_is_no_command(nodes):
    node = nodes["open"]
    node.redis.set("sentinel", "sentinel")
    for text in (b"set %s 0 0 9\r\nflush_all\r\n" % (b"k" * 251), b"set a 0 0 -1\r\nflush_all\r\n",
                 b"set a 0 0 3\r\nabcdef\r\nflush_all\r\n", resp("SET", "a") + b"flush_all\r\n"):
        sock, _ = send_pieces(node, [text])
        sock.close()
        assert node.redis.get("sentinel") == b"sentinel", text
