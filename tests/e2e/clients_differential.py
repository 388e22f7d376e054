# SPDX-License-Identifier: Apache-2.0
"""Random streams of several clients, from a seed, to weir-backend and to a real redis-server, compared reply for reply.

One step is one client's request; its reply is read before the next step, so that both servers see the same order.
Whatever else came to that client until then, messages of channels, belongs to the step's answer: a PING with a word
of its own ends it, for no reply but that of a PING has that word. Inside MULTI there is one reply to each request
and no PING.

What Redis promises no order for is sorted: the patterns that one message matches, and what an UNSUBSCRIBE without
names leaves.

    Stream(ours_port, theirs_port, seed, draw, resp).run(count)

draw(stream) returns (client, request), or None when it has done steps of its own. Raises differential.Difference.
"""

import random
import socket
import time

import differential
from differential import Client, Difference, Forms, Mix, are_equal, shorten

TRACE = 40  # steps before a difference that it prints
OPENED, QUIET = b"opened", b"quiet"


class Side:
    """One client on both servers."""

    def __init__(self, ports, resp):
        self.ends = [Client(port, resp=resp) for port in ports]
        self.resp = resp
        self.in_multi = False
        self.queue = []  # what EXEC will answer

    def close(self):
        for end in self.ends:
            end.close()


def message_key(reply):
    """Two replies that may change places have the same."""
    kind, words = reply
    if kind in b"*>" and words and words[0] == (b"$", b"pmessage"):
        return b"pmessage", words[2][1], words[3][1]  # channel, message: the pattern is free
    return None


def in_order(replies):
    """The replies with neighbours that may change places sorted."""
    out, start = [], 0
    for i in range(1, len(replies) + 1):
        key = message_key(replies[start])
        if i == len(replies) or key is None or message_key(replies[i]) != key:
            out += sorted(replies[start:i], key=repr)
            start = i
    return out


def flat(replies):
    """EXEC's array without its brackets: a client of RESP3 has the messages that it sends itself in between, where they
    count as elements, so that the last ones fall out."""
    out = []
    for kind, content in replies:
        out += [(b":", b"%d" % len(content)), *content] if kind == b"*" and content else [(kind, content)]
    return out


def left(replies):
    """The replies to an UNSUBSCRIBE of all: each name once, the counts as they fall."""
    ends = [words for kind, words in replies if kind in b"*>" and words and words[0][1].endswith(b"unsubscribe")]
    rest = [(kind, words) for kind, words in replies if [] == [end for end in ends if end is words]]
    return rest, [(words[0], words[2]) for words in ends], sorted(repr(words[1]) for words in ends)


class Stream:
    def __init__(self, ours, theirs, seed, draw, resp=2, clients=3):
        self.ports, self.resp, self.seed, self.draw = (ours, theirs), resp, seed, draw
        self.rng = random.Random(seed)
        self.sides = [Side(self.ports, resp) for _ in range(clients)]
        self.history = []
        self.done = 0
        self.counts = {}  # how often a kind of answer came: what a test asserts to have met

    def run(self, count):
        try:
            for end in self.sides[0].ends:
                assert end.ask("FLUSHALL") == (b"+", b"OK")
            while self.done < count:
                drawn = self.draw(self)
                if drawn is not None:
                    self.step(*drawn)
            for number in range(len(self.sides)):  # what is still on its way to them
                self.step(number, [b"DISCARD"] if self.sides[number].in_multi else [b"PING"])
        finally:
            for side in self.sides:
                side.close()

    def fail(self, number, request, ours, theirs):
        before = "".join(f"\n    {n}: {shorten(old)}" for n, old in self.history[-TRACE:])
        raise Difference(f"seed {self.seed}, resp {self.resp}, step {self.done}, client {number}: {shorten(request)}\n"
                         f"  ours  {repr(ours)[:900]}\n  redis {repr(theirs)[:900]}\n  before that:{before}")

    @staticmethod
    def ends_multi(request):
        return request[0].lower() in (b"exec", b"reset", b"quit") or [word.lower() for word in request] == [b"discard"]

    def answer(self, side, end, request):
        """All that came to the client until the request was answered, its answer the last."""
        end.send([request])
        if side.in_multi and not self.ends_multi(request):
            replies = [end.read()]
            while replies[-1][0] == b">":
                replies.append(end.read())
            return replies
        token = b"end-%d" % self.done
        pongs = ((b"$", token), (b"*", [(b"$", b"pong"), (b"$", token)]))
        replies = []
        if request[0].lower() == b"quit":
            replies = [end.read()]
            while replies[-1] != (b"+", b"OK"):
                replies.append(end.read())
            return replies
        if request[0].lower() == b"multi":  # its PING would be queued
            replies = [end.read()]
            while replies[-1][0] == b">" or replies[-1][1] and replies[-1][0] == b"*":  # messages
                replies.append(end.read())
            return replies
        end.send([[b"PING", token]])
        while not replies or replies[-1] not in pongs:
            replies.append(end.read())
        return replies[:-1]

    def step(self, number, request):
        side = self.sides[number]
        theirs = self.answer(side, side.ends[1], request)
        try:
            ours = self.answer(side, side.ends[0], request)
        except (OSError, ValueError) as error:
            self.fail(number, request, error, theirs)
        if not self.alike(side, request, ours, theirs):
            self.fail(number, request, ours, theirs)
        self.history.append((number, request))
        self.done += 1
        self.follow(number, request, theirs)
        return theirs

    def alike(self, side, request, ours, theirs):
        ours, theirs = in_order(ours), in_order(theirs)
        name = request[0].lower()
        if ours == theirs or name == b"exec" and in_order(flat(ours)) == in_order(flat(theirs)):
            return True
        if name in (b"unsubscribe", b"punsubscribe", b"sunsubscribe") and len(request) == 1:
            return left(ours) == left(theirs)
        if ours[:-1] != theirs[:-1] or not ours or not theirs:
            return False
        ours, theirs = ours[-1], theirs[-1]
        if name == b"exec" and ours[0] == theirs[0] == b"*" and len(ours[1] or []) == len(theirs[1] or []) == len(side.queue):
            return all(map(are_equal, side.queue, ours[1], theirs[1]))
        return are_equal(request, ours, theirs)

    def follow(self, number, request, replies):
        """The client's state, by what Redis answered."""
        side, name = self.sides[number], request[0].lower()
        last = replies[-1] if replies else (b"", QUIET)
        is_nil = last[0] == b"_" or last[1] is None
        kind = b"nil" if is_nil else last[0] + (last[1].split(b" ")[0] if last[0] in b"-+" else b"")
        self.counts[name, kind] = self.counts.get((name, kind), 0) + 1
        for reply in replies:
            if reply[0] in b"*>" and reply[1] and reply[1][0][1] in (b"message", b"pmessage", b"smessage"):
                self.counts[reply[1][0][1]] = self.counts.get(reply[1][0][1], 0) + 1
        if side.in_multi and last == (b"+", b"QUEUED"):
            side.queue.append(request)
        elif name == b"multi" and last == (b"+", b"OK"):
            side.in_multi, side.queue = True, []
        elif self.ends_multi(request):
            side.in_multi, side.queue = False, []
        if name == b"quit":
            self.reopen(number)
        if name == b"reset" and self.resp == 3:
            self.greet(side)

    @staticmethod
    def greet(side):
        for end in side.ends:
            end.ask("HELLO", "3")

    def reopen(self, number):
        """The client goes without a word and comes back. The servers have noticed when they close, too: from then on they
        count it no more."""
        for end in self.sides[number].ends:
            end.sock.shutdown(socket.SHUT_WR)
            while end.stream.read(1 << 16):
                pass
        self.sides[number].close()
        self.sides[number] = Side(self.ports, self.resp)
        self.history.append((number, [OPENED]))

    def kinds(self, name):
        """How often a command was answered with what begins so: {kind: count}."""
        return {key[1]: count for key, count in self.counts.items() if key[0] == name}


# Transactions

# Keys of these families are few, so that what one client watches another changes.
FAMILIES = ["strings", "keys", "hashes", "sets", "lists", "zsets", "bitmaps", "wrong-types"]

CONTROL = """
    watch K|watch K K|watch H|watch L|watch Z|watch E|watch none K|watch H L|watch Z E|unwatch|multi|multi|multi|multi|multi
    exec|discard|watch|unwatch x|multi x|reset
"""

# What changes one of the watched, or does not although it could have.
CHANGES = """
    set K V|append K S|del K|incr K|expire K 1000|persist K|setbit K 3 1|setrange K 0 S|getdel K|set K V xx|setnx K V|rename K K
    lpush L S|rpush L S|lpop L|lrem L 0 S|ltrim L 0 -1|lset L 0 S|rpoplpush L L|linsert L before S S|lpushx L S|lrange L 0 -1
    hset H a S|hset H a b|hdel H a|hdel H none|hincrby H n 1|hsetnx H a b|hmset H a b c d|hget H a|hgetall H
    zadd Z 1 a|zadd Z 2 a|zrem Z a|zincrby Z 0 a|zincrby Z 1 a|zpopmin Z|zadd Z nx 5 b|zremrangebyrank Z 0 0|zscore Z a
    sadd E a|sadd E a b|srem E a|srem E none|smove E E a|sinterstore E E|scard E|sdiffstore E none|spop E 0
    del L|del H|del Z|del E|expire L 1000|persist H|rename L L|copy H H replace|get K|type L|exists Z|touch E|flushdb
"""

QUEUED = """
    exec|exec|exec|exec|exec|exec|exec|exec|discard|multi|watch K|unwatch|nosuch K|set K|get|exec x|discard x|select 1
    select 0|set K V|incr n1|append K S|lpush K S|reset|quit
"""


def transactions(rng):
    """draw() for Stream: all clients change the same keys, watch them, queue, and go on or give up. What blocks is
    drawn inside MULTI as well, and waits a moment only."""
    differential.load_families()
    words = {"H": lambda rng: b"hash%d" % rng.randrange(4), "L": lambda rng: b"list%d" % rng.randrange(3),
             "Z": lambda rng: b"zset%d" % rng.randrange(3), "E": lambda rng: b"set%d" % rng.randrange(4)}
    data = Mix(rng, FAMILIES)
    control, changes, queued = (Forms(rng, text, **words) for text in (CONTROL, CHANGES, QUEUED))

    def draw(stream):
        number = rng.randrange(len(stream.sides))
        kind = rng.randrange(100)
        if stream.sides[number].in_multi:
            return number, (queued if kind < 45 else data).request()
        if kind == 0:
            stream.reopen(number)
            return None
        if kind < 4:
            expiring(stream, number)
            return None
        return number, (control if kind < 35 else changes if kind < 80 else data).request()
    return draw


def expiring(stream, number):
    """A key is over before it is watched, and still there as nobody looked: the servers do not sweep. Another client
    finds it, changes it or leaves it alone; then EXEC."""
    rng = stream.rng
    key = b"over%d" % rng.randrange(2)
    others = [n for n in range(len(stream.sides)) if n != number and not stream.sides[n].in_multi]
    stream.step(number, [b"SET", key, b"v", b"PX", b"1"])
    time.sleep(0.01)
    stream.step(number, [b"WATCH", key])
    for _ in range(rng.randrange(3)):
        if others:
            act = rng.choice([b"get K", b"set K w", b"del K", b"expire K 100", b"exists K", b"type K", b"rename K none2",
                              b"append K x", b"getex K persist", b"set K w keepttl", b"setnx K w", b"persist K",
                              b"lpush K x", b"object encoding K"])
            stream.step(rng.choice(others), [key if word == b"K" else word for word in act.split()])
    stream.step(number, [b"MULTI"])
    stream.step(number, rng.choice([[b"GET", key], [b"SET", key, b"mine"], [b"STRLEN", key], [b"PING"]]))
    stream.step(number, [b"EXEC"])
    stream.step(number, [b"DEL", key])


# Channels

CHANNELS = """
    subscribe C|subscribe C C|subscribe C|ssubscribe C|ssubscribe C C|psubscribe P|psubscribe P P|unsubscribe C|unsubscribe
    punsubscribe P|punsubscribe|sunsubscribe C|sunsubscribe|unsubscribe C C|punsubscribe P none|sunsubscribe none
    publish C M|publish C M|publish C M|publish C M|publish C M|spublish C M|spublish C M|spublish C M|publish none M
    pubsub channels|pubsub channels P|pubsub numsub C C none|pubsub numsub|pubsub numpat|pubsub shardchannels
    pubsub shardchannels P|pubsub shardnumsub C C|pubsub shardnumsub|pubsub channels P P|pubsub numpat x|pubsub nosuch
    ping|ping word|get key|set key M|subscribe|publish C|spublish C|ssubscribe|psubscribe|reset|quit
    multi|multi|publish C M|echo M|client getname
"""

PUBLISHER = """
    publish C M|publish C M|publish C M|spublish C M|spublish C M|publish none M|multi|pubsub numsub C C|pubsub channels
    pubsub shardnumsub C C|pubsub shardchannels|pubsub numpat|get key
"""

QUEUED_CHANNELS = """
    publish C M|spublish C M|publish C M|subscribe C|ssubscribe C|psubscribe P|unsubscribe C|punsubscribe P|sunsubscribe C
    pubsub numsub C|pubsub numpat|pubsub shardnumsub C|ping|get key|set key M|exec|exec|exec|exec|discard
"""


def channels(rng):
    """draw() for Stream: clients subscribe to channels, patterns and shard channels of a few names, publish, and ask
    who is there; the first does not subscribe but in MULTI, as who has in RESP2 can publish no more. Each message is
    its own."""
    differential.load_families()
    number_of = [0]

    def message(rng):
        number_of[0] += 1
        size = rng.choice([0, 1, 20, 20, 20, 300, 5000, 40000])
        return b"%d:" % number_of[0] + rng.randbytes(size)

    words = {"C": lambda rng: rng.choice([b"a", b"b", b"ab", b"news.one", b"news.two", b"\0\xff"]), "M": message,
             "P": lambda rng: rng.choice([b"*", b"a*", b"?", b"news.*", b"[ab]", b"nothing", b"\0*", b"news.one", b"a"])}
    plain, queued, publisher = (Forms(rng, text, **words) for text in (CHANNELS, QUEUED_CHANNELS, PUBLISHER))

    def draw(stream):
        number = rng.choice([0, rng.randrange(len(stream.sides))])
        if rng.randrange(100) == 0:
            stream.reopen(number)
            return None
        if stream.sides[number].in_multi:
            return number, queued.request()
        return number, (publisher if number == 0 else plain).request()
    return draw
