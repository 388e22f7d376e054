# SPDX-License-Identifier: Apache-2.0
"""The proxy against the server itself: the same random commands to both, the replies byte for byte.

A proxy over one server stands beside a second, equal server. Streams are drawn from a seed, which a
failure prints; $DIFFERENTIAL_SEED repeats it. Values are made so that replies do not depend on the
servers' own randomness or clock. What differs on purpose is not drawn: what the proxy answers by itself
(HELLO, CLIENT, INFO), what it denies, and where it is stricter on framing (test_vectors.py). Nor are two
oddities of memcached 1.6.18: a decremented number is padded with blanks or not, depending on whether an
earlier get of it is still on its way out; and ma's q is not heeded where N made the item.
"""

import os
import random
import re
import struct

import pytest

import differential
from weirtest import memcache_pool, redis_pool, resp

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "20261"))
STREAMS = 12 * differential.STREAMS
pytestmark = pytest.mark.seconds_max(240 * differential.STREAMS)
COMMANDS = 400  # of a stream; sent in pipelines of random length


def random_value(rng):
    kind = rng.randrange(10)
    if kind < 4:
        return str(rng.choice([0, 1, -1, 7, 10, 3.5, -0.25, 2**31, 2**63 - 1, -2**63, 2**63])).encode()
    if kind < 8:
        return rng.randbytes(rng.choice([0, 1, 3, 10, 60, 71, 72, 73, 100]))
    return rng.randbytes(rng.choice([1000, 4096, 16000, 16384, 65535, 65536, 70000, 200000]))


class RedisWords:
    """Draws single-key commands (and many-key ones on one server) with fitting and unfitting arguments."""

    FORMS = """
        set K V|set K V nx|set K V xx get|set K V ex 1000|set K V px -5|set K V bogus|get K|getset K V|getdel K
        getex K persist|append K V|strlen K|setrange K N V|getrange K N N|substr K N N|incr K|incrby K I|decr K
        decrby K I|incrbyfloat K F|setnx K V|setex K 1000 V|setex K 0 V|psetex K 100000 V|mget K K K|mset K V K V
        msetnx K V K V|setbit K N B|getbit K N|bitcount K|bitcount K N N bit|bitpos K B|bitfield K set u8 0 N get u8 0
        bitop and K K K|lcs K K|lcs K K len
        del K|del K K|unlink K|exists K K|type K|expire K 1000|expire K -1|persist K|touch K K|object encoding K
        rename K K|renamenx K K|copy K K replace|ttl K|pttl NOSUCH|expiretime NOSUCH|dump NOSUCH
        hset H f1 V f2 V|hset K f V|hsetnx H f1 V|hget H f1|hmget H f1 f2 none|hdel H f1|hlen H|hexists H f2
        hincrby H n I|hincrbyfloat H n F|hstrlen H f1|hget K f
        rpush L V V V|lpush L V|lpushx L V|rpushx NOSUCH V|lpop L|rpop L 2|lrange L N N|lindex L N|llen L
        lset L N V|linsert L before V V|lrem L N V|ltrim L N N|lpos L V|rpoplpush L L|lmove L L left right
        lmpop 1 L left|lrange K 0 -1
        sadd S V|sadd S a b c|srem S a|scard S|sismember S a|smismember S a b none|smove S S a|sdiffstore S S S
        sinterstore S S NOSUCH|sintercard 1 S
        zadd Z F a F b|zadd Z nx F c|zadd Z incr F a|zadd Z x a|zscore Z a|zincrby Z F b|zrem Z a|zcard Z
        zrange Z 0 -1|zrange Z 0 -1 withscores|zrevrange Z 0 1|zrangebyscore Z -inf +inf|zrangebyscore Z ( 1
        zrank Z a|zrevrank Z b|zcount Z F F|zmscore Z a none|zpopmin Z|zpopmax Z 2|zlexcount Z - +
        zrangestore Z Z 0 1|zunionstore Z 2 Z Z|zinterstore Z 1 Z weights 2|zunion 2 Z Z withscores|zdiff 1 Z
        zremrangebyrank Z 0 0|zrangebylex Z - +
        pfadd P V V|pfcount P|pfmerge P P|geoadd G 13.361389 38.115556 a|geoadd G 500 0 b|geodist G a a|geopos G a none
        geohash G a|geosearch G frommember a byradius 1 km
        xadd X 1-* f V|xadd X 0-0 f v|xlen X|xrange X - + count 2|xrevrange X + - count 1|xtrim X maxlen 3|xdel X 1-1
        xread count 1 streams X 0|xgroup create X g 0 mkstream|xreadgroup group g c count 1 streams X >|xpending X g
        eval return(redis.call('get',KEYS[1])) 1 K|eval return{ARGV[1],#KEYS} 0 V|eval error('x') 0
        eval return(redis.call('incr',KEYS[1])) 1 K|evalsha 0123 0
        echo V|ping|ping V|time x|nosuchcommand a b|get|set K|mget|mset K|hset H f|getrange K x y|incrby K x
        sort L alpha|sort L by nosort get # limit 0 2|wait 0 0|publish c V|dbsize|keys NOSUCH*|exists
        object freq NOSUCH|object help x|lolwut version 9999999 x|select 0|select x
    """

    def __init__(self, rng):
        self.rng = rng
        self.forms = [form.strip().split() for line in self.FORMS.splitlines() for form in line.split("|")
                      if form.strip()]

    def word(self, w):
        rng = self.rng
        if w == "V":
            return random_value(rng)
        if w == "K":
            return b"key %d\r\n" % rng.randrange(4)
        if w in "HLSZPGX" and len(w) == 1:
            return b"%s%d" % (w.encode(), rng.randrange(2))
        if w == "N":
            return str(rng.choice([0, 1, 2, -1, -3, 100])).encode()
        if w == "I":
            return str(rng.choice([0, 1, -7, 2**62, -2**63])).encode()
        if w == "F":
            return rng.choice([b"1", b"2.5", b"-0.5", b"1e3", b"inf", b"x"])
        if w == "B":
            return rng.choice([b"0", b"1", b"2"])
        return w.encode()

    def request(self):
        words = [self.word(w) for w in self.rng.choice(self.forms)]
        if self.rng.randrange(4) == 0:
            words[0] = words[0].upper()
        return resp(*words)


def known_difference(request, a, b):
    """Redis quotes unknown commands' arguments as they are up to 128 bytes; the proxy blanks control bytes."""
    return b"unknown command" in a and b"unknown command" in b


def receive_redis(conn, count):
    return [conn.recv_resp() for _ in range(count)]


def compare(draw, receive, ours, direct, rng, label):
    done = 0
    while done < COMMANDS:
        requests = [draw() for _ in range(rng.choice([1, 1, 2, 5, 20, 60]))]
        data = b"".join(requests)
        direct.send(data)
        if rng.randrange(5) == 0:
            cuts = sorted(rng.sample(range(1, len(data)), min(4, len(data) - 1)))
            ours.send_pieces(data, cuts, pause=0.0005)
        else:
            ours.send(data)
        wanted, got = receive(direct, len(requests)), receive(ours, len(requests))
        for request, a, b in zip(requests, wanted, got):
            assert a == b or known_difference(request, a, b), \
                f"{label} after {done}: {request[:300]!r}: the server says {a[:300]!r}, the proxy {b[:300]!r}"
        done += len(requests)


@pytest.mark.parametrize("version", [2, 3])
def test_redis(redis_server, weir_proxy, version):
    """Random commands of all families, RESP2 and RESP3."""
    behind, direct = redis_server(2)
    proxy = weir_proxy(redis_pool([behind]))
    for stream in range(STREAMS):
        seed = SEED + stream
        rng = random.Random(seed)
        with proxy.connect() as a, direct.connect() as b:
            if version == 3:
                a.resp("HELLO", "3")
                b.resp("HELLO", "3")
            assert a.resp("FLUSHALL") == b.resp("FLUSHALL")
            compare(RedisWords(rng).request, receive_redis, a, b, rng, f"seed {seed} RESP{version}")


def test_redis_transactions(redis_server, weir_proxy):
    """The same inside MULTI, with EXEC, DISCARD, WATCH and errors among them."""
    behind, direct = redis_server(2)
    proxy = weir_proxy(redis_pool([behind]))
    for stream in range(STREAMS):
        seed = SEED + 1000 + stream
        rng = random.Random(seed)
        words = RedisWords(rng)
        words.forms = [form for form in words.forms if form[0] not in (
            "dbsize", "keys", "select", "wait", "evalsha", "nosuchcommand", "publish", "object", "time", "lolwut")]

        def draw():
            pick = rng.randrange(8)
            if pick == 0:
                return resp("MULTI")
            if pick == 1:
                return resp("EXEC")
            if pick == 2:
                return rng.choice([resp("DISCARD"), resp("WATCH", "key 1\r\n"), resp("UNWATCH")])
            return words.request()

        with proxy.connect() as a, direct.connect() as b:
            assert a.resp("FLUSHALL") == b.resp("FLUSHALL")
            compare(draw, receive_redis, a, b, rng, f"seed {seed}")


# memcache

class MemcacheWords:
    """Text and meta. Tokens of gets are the server's count of changes: both count alike. What is left of a time to live
    is 1000, 500 or little less; who is told to fetch it anew (R700) does not hang on a second."""

    def __init__(self, rng, has_meta):
        self.rng, self.has_meta = rng, has_meta

    def key(self):
        return b"key%d" % self.rng.randrange(5)

    def block(self):
        value = random_value(self.rng)
        return value

    def request(self):
        rng, key = self.rng, self.key()
        noreply = b" noreply" if rng.randrange(6) == 0 else b""
        pick = rng.randrange(24 if self.has_meta else 14)
        if pick < 4:
            value = self.block()
            verb = rng.choice([b"set", b"set", b"add", b"replace", b"append", b"prepend"])
            return b"%s %s %d %d %d%s\r\n%s\r\n" % (verb, key, rng.choice([0, 1, 2**32 - 1]),
                                                    rng.choice([0, 0, 1000, -1]), len(value), noreply, value)
        if pick == 4:
            value = self.block()
            return b"cas %s 0 0 %d %d%s\r\n%s\r\n" % (key, len(value), rng.randrange(1, 60), noreply, value)
        if pick < 8:
            keys = b" ".join(self.key() for _ in range(rng.choice([1, 1, 2, 8])))
            return b"%s %s\r\n" % (rng.choice([b"get", b"gets"]), keys)
        if pick == 8:
            return b"%s 1000 %s\r\n" % (rng.choice([b"gat", b"gats"]), key)
        if pick == 9:
            return b"delete %s%s\r\n" % (key, noreply)
        if pick == 10:
            verb, delta = rng.choice([(b"incr", 0), (b"incr", 1), (b"incr", 10**6), (b"decr", 0)])
            number = b"number%d" % rng.randrange(3)
            return b"%s %s %d%s\r\n" % (verb, number, delta, noreply) if rng.randrange(3) else \
                b"%s %s 0 0 1%s\r\n5\r\n" % (rng.choice([b"set", b"add"]), number, noreply)
        if pick == 11:
            return b"touch %s %d%s\r\n" % (key, rng.choice([0, 1000]), noreply)
        if pick == 12:
            return rng.choice([b"bogus\r\n", b"get\r\n", b"incr a\r\n", b"verbosity 1\r\n", b"touch a\r\n",
                               b"delete\r\n", b"\r\n", b"incr k1 1 2 3\r\n"])
        if pick == 13:
            return b"flush_all%s\r\n" % noreply if rng.randrange(6) == 0 else b"version\r\n"
        flags = b"".join(b" " + flag for flag in rng.sample([b"k", b"O123", b"q"], rng.randrange(3)))
        if pick < 18:
            more = b"".join(b" " + flag for flag in rng.sample([b"v", b"f", b"s", b"c", b"t", b"N1000", b"T1000", b"R700"],
                                                               rng.randrange(5)))
            return b"mg %s%s%s\r\n" % (key, more, flags)
        if pick < 21:
            value = self.block()
            more = rng.choice([b"", b" T1000", b" F7", b" MA", b" MR", b" ME", b" c", b" C9", b" I"])
            return b"ms %s %d%s%s\r\n%s\r\n" % (key, len(value), more, flags, value)
        if pick == 21:
            return b"md %s%s%s\r\n" % (key, rng.choice([b"", b" I T500", b" C9"]), flags)
        if pick == 22:
            more = rng.choice([b"", b" D5 v", b" MI v", b" N0 J13 v", b" N0 J13 t"])
            return b"ma number%d%s%s\r\n" % (rng.randrange(3), more, flags.replace(b" q", b"") if b"N0" in more else flags)
        return rng.choice([b"mn\r\n", b"me nosuch\r\n", b"mg %s z\r\n" % key])


def without_seconds(reply):
    """Each server has a clock of its own that moves once a second: `t999` and `t1000` are the same."""
    def rough(match):
        left = int(match[1])
        return next((b" t~%d" % ttl for ttl in (500, 1000) if ttl - 300 < left <= ttl), match[0])
    return re.sub(rb" t([0-9]{1,4})\b", rough, reply)


MARK = b"get the-mark\r\n"
MARK_REPLY = b"VALUE the-mark 0 4\r\nMARK\r\nEND\r\n"


@pytest.mark.parametrize("has_meta", [False, True], ids=["text", "meta"])
def test_memcache(memcached, weir_proxy, has_meta):
    """Pipelines of text and meta commands, quiet and noreply among them; a get of a mark ends each, and all
    before it must be equal."""
    behind, direct = memcached(2, "-o", "hash_algorithm=jenkins")
    proxy = weir_proxy(memcache_pool([behind]))
    for stream in range(STREAMS):
        seed = SEED + 2000 + stream
        rng = random.Random(seed)
        words = MemcacheWords(rng, has_meta)
        with proxy.connect() as a, direct.connect() as b:
            for done in range(COMMANDS // 10):
                data = b"".join(words.request() for _ in range(rng.choice([1, 2, 10, 30])))
                mark = b"set the-mark 0 0 4\r\nMARK\r\n" + MARK
                for conn in (a, b):
                    conn.send(data + mark)
                wanted, got = (without_seconds(conn.recv_until(MARK_REPLY)) for conn in (b, a))
                assert wanted == got, \
                    f"seed {seed} after {done}: {data[:600]!r}\nthe server says {wanted[:900]!r}\n" \
                    f"the proxy      {got[:900]!r}"


class BinaryWords:
    """Loud and quiet requests; each with an opaque of its own."""

    def __init__(self, rng):
        self.rng, self.opaque = rng, 0

    def request(self):
        rng = self.rng
        self.opaque += 1
        key = b"key%d" % rng.randrange(5)
        extras = value = b""
        opcode = rng.choice([0x00, 0x09, 0x0c, 0x0d, 0x01, 0x11, 0x02, 0x12, 0x03, 0x13, 0x04, 0x14, 0x05, 0x15, 0x06,
                             0x16, 0x0e, 0x19, 0x0f, 0x1a, 0x1c, 0x1d, 0x1e, 0x0a, 0x0b])
        cas = rng.choice([0, 0, 0, 3])
        if opcode in (0x01, 0x11, 0x02, 0x12, 0x03, 0x13):
            extras, value = struct.pack(">II", rng.choice([0, 7]), 0), random_value(rng)
        elif opcode in (0x05, 0x15, 0x06, 0x16):
            key, delta = b"number", 0 if opcode in (0x06, 0x16) else rng.choice([1, 5])
            extras = struct.pack(">QQI", delta, 10, rng.choice([0, 0xffffffff]))
        elif opcode in (0x0e, 0x19, 0x0f, 0x1a):
            value = random_value(rng)
        elif opcode in (0x1c, 0x1d, 0x1e):
            extras = struct.pack(">I", 1000)
        elif opcode in (0x0a, 0x0b):
            key = b""
        if opcode in (0x00, 0x09, 0x0c, 0x0d, 0x0a, 0x0b):
            cas = 0
        return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0,
                           len(extras) + len(key) + len(value), self.opaque, cas) + extras + key + value


def receive_binary(conn, opaque):
    """Replies up to the one of the noop with this opaque."""
    replies = []
    while True:
        header = conn.recv_exact(24)
        _, opcode, _, _, _, _, size, got, _ = struct.unpack(">BBHBBHIIQ", header)
        replies.append(header + conn.recv_exact(size))
        if opcode == 0x0a and got == opaque:
            return replies


def test_memcache_binary(memcached, weir_proxy):
    """Pipelines of binary requests, quiet ones among them; a noop ends each."""
    behind, direct = memcached(2)
    proxy = weir_proxy(memcache_pool([behind]))
    for stream in range(STREAMS):
        seed = SEED + 3000 + stream
        rng = random.Random(seed)
        words = BinaryWords(rng)
        with proxy.connect() as a, direct.connect() as b:
            for done in range(COMMANDS // 10):
                data = b"".join(words.request() for _ in range(rng.choice([1, 2, 10, 30])))
                words.opaque += 1
                data += struct.pack(">BBHBBHIIQ", 0x80, 0x0a, 0, 0, 0, 0, 0, words.opaque, 0)
                for conn in (a, b):
                    conn.send(data)
                wanted, got = receive_binary(b, words.opaque), receive_binary(a, words.opaque)
                for x, y in zip(wanted, got):
                    assert x == y, f"seed {seed} after {done}: the server says {x[:200]!r}, the proxy {y[:200]!r}"
                assert len(wanted) == len(got), f"seed {seed}"
