# SPDX-License-Identifier: Apache-2.0
"""Random streams of clients that wait for keys, from a seed, to weir-backend and to a real redis-server: who waits, who is
served, and with what, step by step.

    a waits  b waits  c changes a key, alone or in EXEC  ──> CLIENT LIST of both: the same ones wait on
                                                         ──> who does no more has a reply, the same from both

Nobody waits with a timeout, so that time decides nothing. Not drawn are SWAPDB, after which Redis 7.0 serves keys in the
order of its hash table, and a *STORE over a key of another type (docs/commands.md has that difference): DEL comes first.

    Waiters(ours_port, theirs_port, seed, resp, is_cold).run(count)        raises differential.Difference
"""

import random
import re

from differential import Client, Difference, Forms, compare_snapshots, shorten, snapshot
from weirtest import wait_for

TRACE = 40    # steps before a difference that it prints
CLIENTS = 8
PATIENT = 6   # so many of them may wait at a time
DBS = range(2)

WAITS = """
    blpop L 0|blpop L L 0|brpop L 0|brpop L L L 0|blmove L L W W 0|blmove L L W W 0|brpoplpush L L 0|blmpop 0 1 L W
    blmpop 0 2 L L W COUNT C|bzpopmin Z 0|bzpopmax Z Z 0|bzmpop 0 1 Z M|bzmpop 0 2 Z Z M COUNT C
"""

CHANGES = """
    rpush L U|rpush L U|lpush L U U|rpush L U U U|zadd Z 1 U|zadd Z 1 U 2 U 3 U|lpushx L U|linsert L BEFORE x y|rename K K
    rename K K|renamenx K K|copy K K|copy K K REPLACE|move K 1|lmove L L W W|rpoplpush L L|del K|del K K|set K U
    zunionstore Z 2 Z Z|zrangestore Z Z 0 -1|sort K ALPHA BY nosort STORE L|flushdb|flushall|expire K 1000|expire K -1|lpop L
    zpopmin Z|geoadd Z 1 1 U|zincrby Z 1 U|select D|copy K K DB 1|copy K K DB 0|ltrim L 1 0|getdel K|llen L|zcard Z|type K
    lrem L 0 U|zinterstore Z 2 Z Z|zdiffstore Z 2 Z Z|hset K a b|append K U|lset L 0 U|persist K
"""

NAMES = [b"l0", b"l1", b"l2", b"z0", b"z1"]
LISTS, ZSETS = NAMES[:3] * 2 + NAMES[3:4], NAMES[3:] * 2 + NAMES[:1]  # one in a few is of the other type
WORDS = {
    "K": lambda rng: rng.choice(NAMES), "L": lambda rng: rng.choice(LISTS), "Z": lambda rng: rng.choice(ZSETS),
    "W": lambda rng: rng.choice([b"LEFT", b"RIGHT"]), "M": lambda rng: rng.choice([b"MIN", b"MAX"]),
    "C": lambda rng: b"%d" % rng.randrange(1, 4), "U": lambda rng: b"v%d" % rng.randrange(10**6) + b"." * rng.choice([0, 50]),
    "D": lambda rng: rng.choice([b"0", b"0", b"1"]),
}


def without_overwriting(request):
    """The request, and before it what takes the key away that it would store over."""
    name = request[0].lower()
    if name == b"sort":
        return [] if request[1] == request[-1] else [[b"DEL", request[-1]], request]
    if name.endswith(b"store") and request[1] not in request[2:]:
        return [[b"DEL", request[1]], request]
    return [request]


class Waiters:
    def __init__(self, ours, theirs, seed, resp=2, is_cold=False):
        self.ports, self.seed, self.resp, self.is_cold = (ours, theirs), seed, resp, is_cold
        self.rng = random.Random(seed)
        self.waits, self.changes = Forms(self.rng, WAITS, **WORDS), Forms(self.rng, CHANGES, **WORDS)
        self.control = [Client(port) for port in self.ports]
        self.ends = {}
        self.waiting = {}  # client: its request
        self.history = []
        self.served = 0

    def run(self, count):
        try:
            for end in self.control:
                assert end.ask("FLUSHALL") == (b"+", b"OK")
            for number in range(CLIENTS):
                self.open(number)
            for done in range(count):
                self.step(self.rng.randrange(CLIENTS))
                if done % 50 == 0:
                    compare_snapshots(*(snapshot(port, DBS) for port in self.ports))
        finally:
            for end in [*self.control, *(end for ends in self.ends.values() for end in ends)]:
                end.close()

    def open(self, number):
        self.ends[number] = [Client(port, resp=self.resp) for port in self.ports]
        for end in self.ends[number]:
            assert end.ask("CLIENT", "SETNAME", f"c{number}") == (b"+", b"OK")

    def fail(self, what, ours, theirs):
        before = "".join(f"\n    {number}: {text}" for number, text in self.history[-TRACE:])
        raise Difference(f"seed {self.seed}, resp {self.resp}: {what}\n  ours  {repr(ours)[:900]}\n  redis {repr(theirs)[:900]}"
                         f"\n  waiting: {self.waiting}\n  before that:{before}")

    def listed(self, side):
        """{number: (waits, id)}"""
        lines = self.control[side].ask("CLIENT", "LIST")[1].decode().splitlines()
        found = [re.match(r"id=(\d+) .* name=c(\d+) .* flags=(\S+) ", line) for line in lines]
        return {int(m[2]): ("b" in m[3], m[1]) for m in found if m}

    def who_waits(self, side):
        return sorted(number for number, (waits, _) in self.listed(side).items() if waits)

    def settle(self):
        """Those who have been served have a reply."""
        try:
            wait_for(lambda: self.who_waits(0) == self.who_waits(1), step=0.002)
        except AssertionError:
            self.fail("who waits", self.who_waits(0), self.who_waits(1))
        for number in set(self.waiting) - set(self.who_waits(0)):
            ours, theirs = (end.read() for end in self.ends[number])
            if ours != theirs:
                self.fail(f"client {number}: {shorten(self.waiting[number])}", ours, theirs)
            del self.waiting[number]
            self.history.append((number, f"was served {theirs}"))
            self.served += 1

    def step(self, number):
        if number in self.waiting:
            self.disturb(number, self.rng.choice(["TIMEOUT", "ERROR", "kill", "close"] + ["nothing"] * 28))
        elif len(self.waiting) < PATIENT and self.rng.randrange(10) < (6 if len(self.waiting) < 4 else 2):
            self.wait(number, self.waits.request())
        else:
            self.change(number)
        self.settle()

    def wait(self, number, request):
        """Its answer may come at once; then settle() finds it."""
        self.history.append((number, shorten(request)))
        counts = [self.commands(side) for side in (0, 1)]
        for end in self.ends[number]:
            end.send([request])
        self.waiting[number] = request
        for side in (0, 1):  # taken in: it waits, or was counted
            wait_for(lambda: self.listed(side)[number][0] or self.commands(side) > counts[side], step=0.001)

    def commands(self, side):
        """Those that ended, of clients that may wait."""
        text = self.control[side].ask("INFO", "commandstats")[1].decode()
        return sum(int(calls) for calls in re.findall(r"cmdstat_b[lrz]\w+:calls=(\d+)", text))

    def change(self, number):
        if self.is_cold and self.rng.randrange(10) == 0:
            assert self.control[0].ask("DEBUG", "SPILL") == (b"+", b"OK")
        drawn = [self.changes.request() for _ in range(self.rng.choice([1, 1, 1, 2, 4, 7]))]
        if len(drawn) > 1 and self.rng.randrange(4) == 0:
            drawn.insert(self.rng.randrange(len(drawn)), self.waits.request())
        requests = [part for request in drawn for part in without_overwriting(request)]
        if len(requests) > 1:  # by themselves others would come between while a cold value is read
            requests = [[b"MULTI"], *requests, [b"EXEC"]]
        self.history.append((number, "; ".join(map(shorten, requests))))
        for end in self.ends[number]:
            end.send(requests)
        for request in requests:
            ours, theirs = (end.read() for end in self.ends[number])
            if ours != theirs:
                self.fail(f"client {number}: {shorten(request)}", ours, theirs)

    def disturb(self, number, how):
        if how == "nothing":
            return
        self.history.append((number, how))
        ids = [self.listed(side)[number][1] for side in (0, 1)]
        if how in ("TIMEOUT", "ERROR"):
            answers = [end.ask("CLIENT", "UNBLOCK", client, how) for end, client in zip(self.control, ids)]
            assert answers == [(b":", b"1")] * 2, answers
            return
        for control, end, client in zip(self.control, self.ends[number], ids):
            if how == "kill":
                assert control.ask("CLIENT", "KILL", "ID", client) == (b":", b"1")
            end.close()
        del self.waiting[number]
        wait_for(lambda: all(number not in self.listed(side) for side in (0, 1)), "both see it gone", step=0.002)
        self.open(number)
