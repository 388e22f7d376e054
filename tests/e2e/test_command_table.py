# SPDX-License-Identifier: Apache-2.0
"""The command table against a real redis-server: names, arities, flags, categories, keys, error texts.

build/tests/e2e/command_dump answers the same requests out of the table.
"""

import os
import shutil
import socket
import subprocess

import pytest

import weirtest

# Newer than 7.0, and there because clients of today send them.
NEWER = {"client|setinfo", "client|no-touch"}
NEWER_ARITY = {"zrank": 3, "zrevrank": 3}  # what 7.0 says; WITHSCORE came with 7.2


class Error(str):
    """An error reply."""


def encode(words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def read_reply(stream):
    """One RESP2 or RESP3 value from a buffered stream; sets become tuples, maps lists of pairs."""
    line = stream.readline()
    assert line.endswith(b"\r\n"), line
    kind, rest = chr(line[0]), line[1:-2].decode()
    if kind == "+":
        return rest
    if kind == "-":
        return Error(rest)
    if kind == ":":
        return int(rest)
    if kind == "_":
        return None
    if kind == "$":
        if rest == "-1":
            return None
        data = stream.read(int(rest) + 2)
        assert data.endswith(b"\r\n")
        return data[:-2].decode()
    if kind in "*~":
        values = [read_reply(stream) for _ in range(int(rest))]
        return tuple(values) if kind == "~" else values
    if kind == "%":
        return [(read_reply(stream), read_reply(stream)) for _ in range(int(rest))]
    raise AssertionError(line)


def ask_table(requests, dialect=2):
    """What the table answers to each request."""
    result = subprocess.run([weirtest.program("tests/e2e/command_dump"), str(dialect)],
                            input=b"".join(map(encode, requests)), capture_output=True, check=True,
                            timeout=weirtest.DEADLINE)
    import io
    stream = io.BufferedReader(io.BytesIO(result.stdout))
    replies = [read_reply(stream) for _ in requests]
    assert stream.read() == b""
    return replies


class Server:
    def __init__(self, port):
        self.socket = socket.create_connection((weirtest.LOOPBACK, port), timeout=weirtest.DEADLINE)
        self.stream = self.socket.makefile("rb")

    def ask(self, *words):
        self.socket.sendall(encode(words))
        return read_reply(self.stream)

    def close(self):
        self.stream.close()
        self.socket.close()


@pytest.fixture
def server(redis_server):
    made = Server(redis_server().port)
    yield made
    made.close()


def by_name(rows):
    """Commands and subcommands of a COMMAND reply, by name."""
    found = {}
    for row in rows:
        assert row[0] not in found
        found[row[0]] = row
        found.update(by_name(row[9]))
    return found


def test_every_command_has_its_row(server):
    theirs = by_name(server.ask("COMMAND"))
    ours = by_name(ask_table([["COMMAND"]])[0])
    assert set(ours) - set(theirs) == NEWER
    assert set(theirs) - set(ours) == set()
    for name, row in theirs.items():
        arity = NEWER_ARITY.get(name) or ours[name][1]
        assert (name, arity) == (name, row[1])
        assert (name, set(ours[name][2])) == (name, set(row[2]))     # flags
        assert (name, ours[name][3:6]) == (name, row[3:6])           # first, last, step
        assert (name, ours[name][6]) == (name, row[6])               # ACL categories, in order
        assert set(ours[name][7]) <= set(row[7]), name               # tips
        assert bool(ours[name][8]) == bool(row[8]), name             # key specs
    assert ask_table([["COMMAND", "COUNT"]]) == [server.ask("COMMAND", "COUNT")]


def test_docs(server):
    def entries(reply):
        found = {}
        for name, doc in zip(reply[::2], reply[1::2]):
            doc = dict(zip(doc[::2], doc[1::2]))
            found[name] = doc
            found.update(entries(doc.pop("subcommands", [])))
        return found

    theirs = entries(server.ask("COMMAND", "DOCS"))
    ours = entries(ask_table([["COMMAND", "DOCS"]])[0])
    assert set(ours) - NEWER == set(theirs)
    for name, doc in theirs.items():
        for field in ("since", "group"):
            assert (name, ours[name][field]) == (name, doc[field])
        assert ours[name].get("doc_flags", []) == [f for f in doc.get("doc_flags", [])
                                                   if f == "deprecated"], name
        assert ours[name]["summary"]


def test_resp3_has_the_same_shape(server):
    server.ask("HELLO", "3")
    names = ["get", "mset", "spublish", "client|setname", "zunionstore", "xread", "nosuch"]
    theirs = server.ask("COMMAND", "INFO", *names)
    ours = ask_table([["COMMAND", "INFO", *names]], dialect=3)[0]

    def shape(value):
        if isinstance(value, (list, tuple)):
            return type(value), [shape(v) for v in value]
        return type(value)

    def without_access(rows):
        """Tips are fewer, and how a key is used is simplified."""
        return [row and row[:7] + [tuple(spec[1:] for spec in row[8])] + row[9:] for row in rows]

    assert shape(without_access(ours)) == shape(without_access(theirs))
    theirs = server.ask("COMMAND", "DOCS", "get")
    ours = ask_table([["COMMAND", "DOCS", "get"]], dialect=3)[0]
    assert shape(ours[0][1][:3]) == shape(theirs[0][1][:3])


def test_list(server):
    requests = [
        ["COMMAND", "LIST"],
        ["COMMAND", "LIST", "FILTERBY", "PATTERN", "x*"],
        ["COMMAND", "LIST", "FILTERBY", "PATTERN", "*|[gs]et*"],
        ["COMMAND", "LIST", "filterby", "aclcat", "GEO"],
        ["COMMAND", "LIST", "filterby", "aclcat", "dangerous"],
        ["COMMAND", "LIST", "FILTERBY", "ACLCAT", "nosuch"],
        ["COMMAND", "LIST", "FILTERBY", "MODULE", "nosuch"],
    ]
    for request, ours in zip(requests, ask_table(requests)):
        assert sorted(set(ours) - NEWER) == sorted(server.ask(*request)), request
    wrong = [["COMMAND", "LIST", "x"], ["COMMAND", "LIST", "FILTERBY", "x", "y"],
             ["COMMAND", "LIST", "FILTERBY", "PATTERN"], ["COMMAND", "NOSUCH"],
             ["COMMAND", "COUNT", "x"], ["COMMAND", "GETKEYS", "get"],
             ["COMMAND", "a\r\nb"], ["COMMAND", "INFO", "nosuch", "client|nosuch"]]
    for request, ours in zip(wrong, ask_table(wrong)):
        assert ours == server.ask(*request), request


# Requests with keys, also in odd places.
WITH_KEYS = """
append k v|bitcount k 0 -1|bitfield k get u8 0|bitfield_ro k get u8 0|bitop and d a b c|bitop not d a
bitpos k 1|blmove a b left right 0|blmpop 0 2 a b left|blmpop 0 1 a right count 3|blpop a b c 0
brpop a 0|brpoplpush a b 0|bzmpop 0 2 a b min|bzpopmax a b 0|bzpopmin a 0|copy a b|copy a b db 1 replace
decr k|decrby k 1|del a|del a b c|dump k|eval x 0|eval x 0 a b|eval x 1 a b|eval x 2 a b c
evalsha s 1 a|eval_ro x 1 a|evalsha_ro s 2 a b|exists a b a|expire k 1|expireat k 1|expiretime k
fcall f 1 a b|fcall_ro f 2 a b|geoadd k 1 2 m|geodist k a b|geohash k a|geopos k a
georadius k 1 2 3 km|georadius k 1 2 3 km store d|georadius k 1 2 3 km withcoord storedist d
georadius k 1 2 3 km store d storedist e|georadius_ro k 1 2 3 km|georadiusbymember k m 3 km store d
georadiusbymember k m 3 km count 1 storedist d|georadiusbymember_ro k m 3 km
geosearch k frommember m byradius 1 m|geosearchstore d s frommember m byradius 1 m
get k|getbit k 0|getdel k|getex k|getrange k 0 1|getset k v|hdel k f|hexists k f|hget k f|hgetall k
hincrby k f 1|hincrbyfloat k f 1|hkeys k|hlen k|hmget k f g|hmset k f v|hrandfield k|hscan k 0
hset k f v|hsetnx k f v|hstrlen k f|hvals k|incr k|incrby k 1|incrbyfloat k 1|lcs a b|lindex k 0
linsert k before a b|llen k|lmove a b left right|lmpop 2 a b left|lmpop 1 a right count 2|lpop k
lpos k e|lpush k e|lpushx k e|lrange k 0 1|lrem k 0 e|lset k 0 e|ltrim k 0 1|memory usage k
memory usage k samples 5|mget a b a|migrate h 1 k 0 5|migrate h 1 k 0 5 copy replace
migrate h 1 EMPTY 0 5 keys a b|migrate h 1 EMPTY 0 5 copy replace keys a
migrate h 1 EMPTY 0 5 auth keys keys a|migrate h 1 EMPTY 0 5 auth2 keys keys keys a b
migrate h 1 EMPTY 0 5 auth2 u p replace keys a|move k 1|mset a 1|mset a 1 b 2|msetnx a 1 a 2
object encoding k|object freq k|object idletime k|object refcount k|persist k|pexpire k 1
pexpireat k 1|pexpiretime k|pfadd k e|pfcount a b|pfdebug encoding k|pfmerge d a b|psetex k 1 v|pttl k
rename a b|renamenx a b|restore k 0 v|restore-asking k 0 v|rpop k|rpoplpush a b|rpush k e|rpushx k e
sadd k m|scard k|sdiff a b|sdiffstore d a b|set k v|set k v ex 1|setbit k 0 1|setex k 1 v|setnx k v
setrange k 0 v|sinter a b|sintercard 2 a b limit 1|sinterstore d a b|sismember k m|smembers k
smismember k m n|smove a b m|sort k|sort k by x limit 0 1 get y desc alpha store d|sort k store a store b
sort k by store get store store d|sort k limit store store d|sort k store|sort_ro k by x|spop k
spublish c m|srandmember k|srem k m|sscan k 0|ssubscribe a b|strlen k|substr k 0 1|sunion a b
sunionstore d a|touch a b|ttl k|type k|unlink a b|watch a b|xack s g 1|xadd s * f v
xautoclaim s g c 1 0|xclaim s g c 1 1|xdel s 1|xgroup create s g $|xgroup createconsumer s g c
xgroup delconsumer s g c|xgroup destroy s g|xgroup setid s g 0|xinfo stream s|xinfo stream s full
xinfo groups s|xinfo consumers s g|xlen s|xpending s g|xrange s - +|xread streams a 0
xread count 1 block 5 streams a b 0 0|xread block 5 count 1 streams streams 0
xreadgroup group g c streams a b > >|xreadgroup group streams streams count 1 noack streams a >
xrevrange s + -|xsetid s 1|xtrim s maxlen 1|zadd k 1 m|zcard k|zcount k 0 1|zdiff 2 a b
zdiffstore d 2 a b|zincrby k 1 m|zinter 2 a b withscores|zintercard 2 a b limit 1
zinterstore d 2 a b weights 1 2|zlexcount k - +|zmpop 1 k min|zmpop 2 a b max count 2|zmscore k m
zpopmax k|zpopmin k 1|zrandmember k|zrange k 0 1|zrangebylex k - +|zrangebyscore k 0 1
zrangestore d s 0 1|zrank k m|zrem k m|zremrangebylex k - +|zremrangebyrank k 0 1|zremrangebyscore k 0 1
zrevrange k 0 1|zrevrangebylex k + -|zrevrangebyscore k 1 0|zrevrank k m|zscan k 0|zscore k m
zunion 2 a b|zunion 3 a b a aggregate max|zunionstore d 2 a b aggregate sum
"""

# Commands that have keys but no sample above would go unnoticed, so the test counts.
NO_SAMPLE = {"sunsubscribe"}

# Placed like keys, but no keys to Redis.
CHANNELS = {"spublish", "ssubscribe"}


def requests_of(text):
    for request in text.replace("\n", "|").split("|"):
        words = ["" if w == "EMPTY" else w for w in request.split()]
        if words:
            yield words


def test_keys_are_where_the_server_has_them(server):
    requests = list(requests_of(WITH_KEYS))
    named = set()
    for request, ours in zip(requests, ask_table(requests)):
        named |= {request[0], "|".join(request[:2])}
        theirs = server.ask("COMMAND", "GETKEYS", *request)
        if request[0] in CHANNELS:
            assert isinstance(theirs, Error) and ours[0] == request[1]
        else:
            assert (request, ours) == (request, theirs)
    rows = by_name(server.ask("COMMAND"))
    with_keys = {name for name, row in rows.items() if row[8] and name not in NO_SAMPLE}
    assert with_keys - named == set()
    # and COMMAND GETKEYS itself
    asked = [["COMMAND", "GETKEYS", *request] for request in requests]
    for request, ours in zip(asked, ask_table(asked)):
        assert ours == server.ask(*request), request


def test_keyless_requests(server):
    requests = list(requests_of("ping|echo x|publish c m|subscribe c|keys *|scan 0|info|object help|"
                                "client list|cluster info|script load x|function list|time|wait 0 0"))
    assert ask_table(requests) == [[]] * len(requests)
    for request in requests:
        assert "no key arguments" in server.ask("COMMAND", "GETKEYS", *request, *(
            [] if len(request) > 1 else ["x"])), request


WRONG = """
mset a 1 b|mset a 1 b 2 c|msetnx a 1 b|eval x -1|eval x -1 a|eval x 3 a|eval x y a|eval x 01 a|eval x +1 a
eval x 99999999999999999999 a|eval x 4294967297 a|eval_ro x 9 a|zunion 0 a|zunion -1 a|zunion x a|zunion 3 a b|zunion 1.5 a
zunion 9223372036854775808 a|zinter 0 a|zinter 2 a|zdiff 0 a|zdiff 2 a|zunionstore d 0 a
zunionstore d 2 a|zunionstore d x a|zinterstore d 0 a|zinterstore d 3 a b|zdiffstore d 0 a
zdiffstore d 3 a b|zintercard 0 a|zintercard 2 a|zintercard x a|sintercard 0 a|sintercard x a
sintercard -1 a|sintercard 2 a|lmpop 0 a left|lmpop x a left|lmpop -1 a left|lmpop 2 a left
lmpop 1 a b|blmpop 0 0 a left|blmpop 0 x a left|blmpop 0 2 a left|zmpop 0 a min|zmpop x a min
zmpop 2 a min|bzmpop 0 0 a min|bzmpop 0 x a min|bzmpop 0 2 a min|xread streams a b 0
xread count 1 streams a|xread count 1 a 0|xread block 1 a 0|xread nosuch 1 a 0
xreadgroup group g c streams a b 0|xreadgroup group g c count 1 a 0|xreadgroup group g c noack x a 0
get|get a b|set a|nosuch|object encoding|xgroup create s|client setname
"""


def test_wrong_requests_get_the_servers_errors(server):
    """The proxy answers these by itself; nobody shall notice."""
    server.ask("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function{function_name='f', "
               "callback=function() return 1 end, flags={'no-writes'}}")
    requests = list(requests_of(WRONG))
    script = server.ask("SCRIPT", "LOAD", "return 1")
    requests += [["evalsha", script, "2", "a"], ["evalsha", script, "-3", "a"],
                 ["evalsha_ro", script, "z", "a"], ["fcall", "f", "x", "a"],
                 ["fcall", "f", "-2", "a"], ["fcall", "f", "2", "a"], ["fcall_ro", "f", "1.5", "a"]]
    for request, ours in zip(requests, ask_table(requests)):
        theirs = server.ask(*request)
        if request[0] == "nosuch":
            assert isinstance(ours, Error)
            continue
        if isinstance(ours, Error):
            assert (request, ours) == (request, theirs)
        else:  # the table takes it: then the fault is not in the keys
            assert request == ["lmpop", "1", "a", "b"] and isinstance(theirs, Error), request


def test_redis_is_the_version_that_the_table_is_of():
    """A message that says more than a list of differences, when Debian's changes."""
    assert shutil.which("redis-server")
    text = subprocess.run(["redis-server", "--version"], capture_output=True, check=True).stdout
    assert b"v=7.0." in text, "the table is of 7.0: compare with this one and adapt NEWER"
    assert os.path.exists(weirtest.program("tests/e2e/command_dump"))
