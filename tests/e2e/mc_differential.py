#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random memcache commands from a seed, to weir-backend and to a real memcached, compared reply for reply.

Text and meta go over one connection to each server, binary over another, on the same keys. Every request is followed
by a no-op whose answer ends the reply. Numbers of cas are each server's own: what a reply carries is remembered in
pairs, and a request that needs one gives each server its own of a pair. Times to live may be a second or two apart.

What is known to differ is not drawn: see docs/node-memcache.md. memcached runs with one thread and
without its LRU threads: an item that another of its threads holds just then is replaced by incr instead of changed
in place, and loses its blanks.

    ./mc_differential.py --ours 7000 [--memcached 11211] [--seed 7] [--count 20000]
"""

import argparse
import base64
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

TRACE = 14


class Difference(Exception):
    pass


class Text:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request):
        self.socket.sendall(request + b"mn\r\n")
        reply = b""
        while not (reply == b"MN\r\n" or reply.endswith(b"\nMN\r\n")):
            more = self.socket.recv(1 << 20)
            if not more:
                raise Difference(f"closed after {request!r}: {reply!r}")
            reply += more
        return reply[:-4]


class Binary:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def ask(self, frame):
        """Frames of the answer: (opcode, status, opaque, cas, extras, key, value)."""
        self.socket.sendall(frame + struct.pack(">BBHBBHIIQ", 0x80, 0x0A, 0, 0, 0, 0, 0, 0xFEEDBEEF, 0))
        frames = []
        while True:
            head = self.file.read(24)
            if len(head) < 24:
                raise Difference(f"closed after {frame!r}: {frames!r}")
            magic, opcode, key_len, extras_len, _, status, body_len, opaque, cas = struct.unpack(
                ">BBHBBHIIQ", head)
            body = self.file.read(body_len)
            assert magic == 0x81
            if opcode == 0x0A and opaque == 0xFEEDBEEF:
                return frames
            frames.append((opcode, status, opaque, cas, body[:extras_len],
                           body[extras_len:extras_len + key_len], body[extras_len + key_len:]))


def frame(opcode, key=b"", extras=b"", value=b"", opaque=0, cas=0):
    return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0,
                       len(key) + len(extras) + len(value), opaque, cas) + extras + key + value


# Without a minus: from 2**63 on 1.6.18 looks for one behind the value too, in what was there before.
VALUES = [b"", b"0", b"1", b"9", b"10", b"99", b"100", b"5  ", b" 7", b"12 x", b"1x", b"+3", b"abc",
          b"18446744073709551615", b"18446744073709551614", b"18446744073709551616", b"9223372036854775808",
          b"10   ", b"x" * 100, b"y" * 1023, b"y" * 1024, b"y" * 1025, b"z" * 5000, b"z" * 16384, b"z" * 16385,
          b"z" * 40000]
DELTAS = [0, 1, 1, 1, 2, 9, 10, 90, 1000, 2**32, 2**63, 2**64 - 1]
# libmemcached writes -1 as 4294967295.
TIMES = [0, 0, 0, 100, 3000, -1, 2**32 - 1, 2**31, -2**31]
MISSING = (0, 0)


class Draw:
    def __init__(self, seed, is_cold):
        self.rng = random.Random(seed)
        self.is_cold = is_cold
        self.pairs = {}  # key -> [(ours, theirs)]: cas numbers that replies carried, the newest last
        self.unsure = set()  # keys of which a restart may have forgotten that a client has won

    def key(self):
        return b"k%d" % self.rng.randrange(6)

    def cas(self, key):
        """A pair: of this key, another key's, or one that never was."""
        known = self.pairs.get(key)
        if known and self.rng.randrange(6):
            return self.rng.choice(known[-3:]) if self.rng.randrange(2) else known[-1]
        return self.rng.choice([(0, 0), (1, 1), (2**63, 2**63)]) if self.rng.randrange(3) == 0 else (1, 1)

    def noted(self, key, ours, theirs):
        known = [pair for pair in self.pairs.get(key, []) if pair[1] != theirs]
        self.pairs[key] = known + [(ours, theirs)]

    def touched(self, key):
        """Ours has a new cas, memcached's has not: the old ones say different things now."""
        self.pairs.pop(key, None)

    def restarted(self):
        self.unsure = {b"k%d" % i for i in range(6)} | {b"\0bin0", b"\0bin1"}

    def one_more_may_win(self, key, mine, real):
        """After a restart ours says W, once for a key, or nothing where memcached says Z."""
        if key not in self.unsure:
            return False
        if re.search(rb" [WZ]\b", mine):
            self.unsure.discard(key)
        return re.search(rb" Z\b", real) and re.sub(rb" W\b", b"", mine) == re.sub(rb" Z\b", b"", real)

    def value(self):
        return self.rng.choice(VALUES)

    # Text: (request to ours, request to theirs)

    def classic(self):
        rng, key = self.rng, self.key()
        noreply = b" noreply" if rng.randrange(8) == 0 else b""
        verb = rng.choice([b"get", b"get", b"gets", b"gets", b"set", b"set", b"set", b"add", b"replace", b"append",
                           b"prepend", b"cas", b"cas", b"incr", b"decr", b"incr", b"delete", b"touch", b"gat", b"gats",
                           b"misc"])
        if verb in (b"get", b"gets"):
            keys = [key] if rng.randrange(2) else [self.key() for _ in range(rng.randrange(1, 9))]
            return self.same(verb + b" " + b" ".join(keys) + b"\r\n")
        if verb in (b"gat", b"gats"):
            keys = [self.key() for _ in range(rng.randrange(1, 4))]
            for each in keys:
                self.touched(each)
            return self.same(b"%s %d %s\r\n" % (verb, rng.choice(TIMES), b" ".join(keys)))
        if verb in (b"set", b"add", b"replace", b"append", b"prepend"):
            value = self.value()
            return self.same(b"%s %s %d %d %d%s\r\n%s\r\n" % (
                verb, key, rng.choice([0, 0, 1, 2**32 - 1]), rng.choice(TIMES), len(value), noreply, value))
        if verb == b"cas":
            value, pair = self.value(), self.cas(key)
            line = b"cas %s %d %d %d %%d%s\r\n%s\r\n" % (key, rng.choice([0, 7]), rng.choice(TIMES), len(value),
                                                        noreply, value)
            return line % pair[0], line % pair[1]
        if verb in (b"incr", b"decr"):
            return self.same(b"%s %s %d%s\r\n" % (verb, key, rng.choice(DELTAS), noreply))
        if verb == b"delete":
            return self.same(b"delete %s%s%s\r\n" % (key, rng.choice([b"", b"", b" 0"]), noreply))
        if verb == b"touch":
            self.touched(key)
            return self.same(b"touch %s %d%s\r\n" % (key, rng.choice(TIMES), noreply))
        return self.same(rng.choice([
            b"version\r\n", b"verbosity 1\r\n", b"verbosity noreply\r\n", b"foo\r\n", b"get\r\n", b"incr k0\r\n", b"stats sizes\r\n",
            b"stats foo\r\n", b"incr k0 1 2 3 4\r\n", b"delete k0 5\r\n", b"stats detail bad\r\n", b"stats reset\r\n",
            b"shutdown\r\n", b"flush_all\r\n", b"flush_all noreply\r\n", b"delete k0 1 2\r\n"]))

    def flags(self, choices, count):
        chosen = self.rng.sample(choices, self.rng.randrange(min(count, len(choices)) + 1))
        return b"".join(b" " + each for each in chosen)

    def meta(self):
        rng = self.rng
        is_base64 = rng.randrange(5) == 0
        key = b"\0bin%d" % rng.randrange(2) if is_base64 else self.key()
        name = base64.b64encode(key) if is_base64 else key
        tail = b" b" if is_base64 else b""
        verb = rng.choice([b"mg", b"mg", b"mg", b"mg", b"ms", b"ms", b"md", b"ma", b"ma", b"me"])
        if verb == b"mg":
            return self.meta_get(key, name, tail)
        if verb == b"ms":
            return self.meta_set(key, name, tail)
        if verb == b"md":
            flags, pair = self.flags([b"q", b"k", b"Oabc", b"I", b"C%d", b"T30"], 4) + tail, self.cas(key)
            return self.twice(b"md " + name + flags + b"\r\n", pair)
        if verb == b"ma":
            flags = self.flags([b"q", b"k", b"O1", b"v", b"t", b"c", b"N0", b"N90", b"J13", b"D5", b"D%d" % 2**63,
                                b"MI", b"MD", b"M+", b"T0", b"T77", b"C%d"], 6)
            flags = self.single(flags)
            if b" T" in flags and b" M" in flags and b"MD" not in flags or b" T" in flags and b" M" not in flags:
                flags = re.sub(rb" M.", b"", flags) + b" MD"  # where the number grows, 1.6.18 loses the T
            flags += tail
            return self.twice(b"ma " + name + flags + b"\r\n", self.cas(key))
        return self.same(b"me " + name + tail + b"\r\n")

    @staticmethod
    def single(flags):
        """One flag of each letter."""
        seen, out = set(), b""
        for flag in flags.split():
            if flag[:1] not in seen:
                seen.add(flag[:1])
                out += b" " + flag
        return out

    def meta_get(self, key, name, tail):
        rng = self.rng
        flags = self.single(self.flags([b"v", b"v", b"f", b"h", b"k", b"l", b"Oq/1", b"q", b"s", b"t", b"c", b"u",
                                        b"N0", b"N50", b"R30", b"R9000", b"T0", b"T60"], 8))
        if rng.randrange(12) == 0:
            flags = rng.choice([b" T-1 v", b" N-1", b" T-1"])
        if b" T" in flags:
            self.touched(key)
        return self.same(b"mg " + name + flags + tail + b"\r\n")

    def meta_set(self, key, name, tail):
        rng, value = self.rng, self.value()
        flags = self.single(self.flags([b"q", b"k", b"O9", b"c", b"F5", b"F4294967295", b"T0", b"T200", b"I", b"C%d",
                                        b"ME", b"MA", b"MP", b"MR", b"MS"], 5))
        if rng.randrange(15) == 0:
            flags += rng.choice([b" MX", b" T-1", b" zz"]) if b" M" not in flags and b" T" not in flags else b""
        return self.twice(b"ms %s %d" % (name, len(value)) + flags.replace(b"%d", b"%%d").replace(b"%%d", b"%d") +
                          tail + b"\r\n" + value.replace(b"%", b"") + b"\r\n", self.cas(key))

    @staticmethod
    def same(request):
        return request, request

    @staticmethod
    def twice(request, pair):
        if b"%d" not in request:
            return request, request
        return request % pair[0], request % pair[1]

    # Binary

    def binary(self):
        rng, key, opaque = self.rng, self.key(), self.rng.randrange(2**32)
        pair = self.cas(key) if rng.randrange(3) == 0 else MISSING
        quiet = rng.randrange(3) == 0
        kind = rng.choice(["get", "getk", "set", "set", "add", "replace", "delete", "incr", "decr", "append", "prepend",
                           "touch", "gat", "gatk", "other"])
        value, when = self.value(), rng.choice([0, 0, 100, 3000])
        if kind in ("get", "getk"):
            return self.frames({"get": (0x00, 0x09), "getk": (0x0C, 0x0D)}[kind][quiet], key, b"", b"", opaque, MISSING)
        if kind in ("set", "add", "replace"):
            opcode = {"set": (0x01, 0x11), "add": (0x02, 0x12), "replace": (0x03, 0x13)}[kind][quiet]
            return self.frames(opcode, key, struct.pack(">II", rng.choice([0, 1, 2**32 - 1]), when), value, opaque,
                               pair)
        if kind == "delete":
            return self.frames((0x04, 0x14)[quiet], key, b"", b"", opaque, pair)
        if kind in ("incr", "decr"):
            extras = struct.pack(">QQI", rng.choice(DELTAS), rng.choice([0, 5, 2**64 - 1]),
                                 rng.choice([0, 100, 0xFFFFFFFF]))
            return self.frames({"incr": (0x05, 0x15), "decr": (0x06, 0x16)}[kind][quiet], key, extras, b"", opaque, pair)
        if kind in ("append", "prepend"):
            return self.frames({"append": (0x0E, 0x19), "prepend": (0x0F, 0x1A)}[kind][quiet], key, b"", value, opaque,
                               pair)
        if kind in ("touch", "gat", "gatk"):
            self.touched(key)
            opcode = {"touch": (0x1C, 0x1C), "gat": (0x1D, 0x1E), "gatk": (0x23, 0x24)}[kind][quiet]
            return self.frames(opcode, key, struct.pack(">I", when), b"", opaque, MISSING)
        return self.frames(rng.choice([0x0A, 0x0B, 0x20, 0x70, 0x08]), b"", b"", b"", opaque, MISSING)

    @staticmethod
    def frames(opcode, key, extras, value, opaque, pair):
        return (frame(opcode, key, extras, value, opaque, pair[0]), frame(opcode, key, extras, value, opaque, pair[1]))


# Comparing

NUMBER = rb"(\d+)"


def mask_line(draw, line, request):
    """A reply's line without what is each server's own; and the cas and the times to live in it."""
    verb = request[:3].strip()
    numbers = []
    if line.startswith(b"VALUE ") and request.startswith((b"gets ", b"gats ")):
        head, cas = line.rsplit(b" ", 1)
        return head, cas, numbers
    if verb == b"me" and line.startswith(b"ME "):
        line = re.sub(rb" (la|cas|size|cls)=\d+| fetch=\w+" if draw.is_cold else rb" (la|cas|size|cls)=\d+", b"", line)
        numbers = [int(n) for n in re.findall(rb" exp=(-?\d+)", line)]
        return re.sub(rb" exp=-?\d+", b"", line), None, numbers
    cas = None
    if verb in (b"mg", b"ms", b"ma") and line.startswith((b"HD", b"VA", b"EX", b"NF", b"NS")):
        found = re.search(rb" c(\d+)", line)
        cas = found.group(1) if found and found.group(1) != b"0" else None
        numbers = [int(n) for n in re.findall(rb" t(-?\d+)", line)]
        if b" T-1" in request or b" N-1" in request:
            numbers = []
        if draw.is_cold:  # a read from disk is a fetch, whoever caused it
            line = re.sub(rb" h[01]", b" h", line)
        line = re.sub(rb" t-?\d+", b" t", re.sub(rb" l\d+", b" l", re.sub(rb" c\d+", b" c", line)))
    return line, cas, numbers


def text_differs(draw, request, ours, theirs):
    for raw in (b"\0bin0", b"\0bin1"):
        # 1.6.18 forgets that a key was base64 when mg or ma made the item.
        theirs = theirs.replace(b" k" + raw, b" k" + base64.b64encode(raw) + b" b").replace(
            b"ME " + raw, b"ME " + base64.b64encode(raw))
    our_lines, their_lines = ours.split(b"\r\n"), theirs.split(b"\r\n")
    if len(our_lines) != len(their_lines):
        return True
    for mine, real in zip(our_lines, their_lines):
        mine, my_cas, my_numbers = mask_line(draw, mine, request)
        real, real_cas, real_numbers = mask_line(draw, real, request)
        words = request.split()
        if words[0] == b"mg" and mine.startswith((b"HD", b"VA")):
            key = base64.b64decode(words[1]) if b"b" in words[2:] else words[1]
            if draw.one_more_may_win(key, mine, real):
                mine = real
        if mine != real or (my_cas is None) != (real_cas is None) or len(my_numbers) != len(real_numbers):
            return True
        if any(abs(a - b) > 3 for a, b in zip(my_numbers, real_numbers)):
            return True
        if my_cas is not None:
            key = mine.split()[1] if mine.startswith(b"VALUE") else words[1]
            if b"b" in words[2:] and not mine.startswith(b"VALUE"):
                key = base64.b64decode(key)
            draw.noted(key, int(my_cas), int(real_cas))
    return False


def binary_differs(draw, request, ours, theirs):
    if len(ours) != len(theirs):
        return True
    for mine, real in zip(ours, theirs):
        if mine[:3] != real[:3] or mine[4:] != real[4:] or (mine[3] == 0) != (real[3] == 0):
            return True
        if mine[3] != 0:
            key_len, extras_len = struct.unpack(">HB", request[2:5])
            draw.noted(request[24 + extras_len:24 + extras_len + key_len], mine[3], real[3])
    return False


def run(ours, theirs, seed, count, is_cold=False, each_time=None):
    """each_time(number), if given, is called before each command: to make values cold, and the like. True from it:
    ours has been started anew, and is connected to again."""
    draw = Draw(seed, is_cold)
    texts, binaries = [Text(ours), Text(theirs)], [Binary(ours), Binary(theirs)]
    trace = []
    for each in texts:
        each.ask(b"flush_all\r\n")
    for number in range(count):
        if each_time is not None and each_time(number):
            texts[0].socket.close()
            binaries[0].close()
            texts[0], binaries[0] = Text(ours), Binary(ours)
            texts[0].ask(b"")  # its first line says which protocol it is: "foo" may be of either
            draw.restarted()
        kind = draw.rng.randrange(10)
        if kind < 7:
            request = draw.classic() if kind < 3 else draw.meta()
            replies = [each.ask(one) for each, one in zip(texts, request)]
            differs = text_differs(draw, request[0], *replies)
        else:
            request = draw.binary()
            replies = [each.ask(one) for each, one in zip(binaries, request)]
            differs = binary_differs(draw, request[0], *replies)
        trace.append((request, replies))
        if differs:
            tail = "\n".join(f"   {r[0][:160]!r} -> {a[0]!r:.160}" for r, a in trace[-TRACE:-1])
            raise Difference(f"seed {seed}, command {number}\n{tail}\n   {request[0][:300]!r}\nours:   "
                             f"{replies[0]!r:.600}\ntheirs: {replies[1]!r:.600}")
    return count


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ours", type=int, required=True, help="port of weir-backend; it is flushed")
    options.add_argument("--memcached", type=int, help="port of a memcached; it is flushed. None: one is started")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--streams", type=int, default=1)
    options.add_argument("--count", type=int, default=20000)
    options.add_argument("--cold", action="store_true", help="values of ours are made cold meanwhile")
    asked = options.parse_args()
    server, port = None, asked.memcached
    with tempfile.TemporaryDirectory() as directory:
        if port is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            server = subprocess.Popen(["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "1",
                                       "-o", "no_lru_maintainer,no_lru_crawler",
                                       "-u", "nobody"],
                                      cwd=directory)
            time.sleep(0.5)
        try:
            for seed in range(asked.seed, asked.seed + asked.streams):
                print(f"seed {seed}: {run(asked.ours, port, seed, asked.count, asked.cold)} commands alike")
        except Difference as difference:
            print(difference)
            return 1
        finally:
            if server is not None:
                server.kill()
                server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
