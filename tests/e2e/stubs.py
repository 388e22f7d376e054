# SPDX-License-Identifier: Apache-2.0
"""Servers played by the tests: strict readers that write down every request, in a thread of their own.

A stub parses what reaches it by the letter of the protocol, more strictly than the real servers do: what
is not a canonical request is recorded as b"BAD:" and the bytes.
"""

import asyncio
import collections
import re
import struct
import threading

from weirtest import LOOPBACK, free_port

# "get a", "incr a 1", "set a 0 0 3": one blank between words, plain decimals.
_KEY = rb"[\x21-\x7e\x80-\xff]{1,250}"
_NUM = rb"(?:0|[1-9][0-9]*)"
_LINE = re.compile(
    rb"(?:(?P<get>gets?|gat (?:-?" + _NUM + rb")|gats (?:-?" + _NUM + rb")) (?P<keys>" + _KEY + rb"(?: " + _KEY +
    rb")*)"
    rb"|(?P<store>set|add|replace|append|prepend) (?P<skey>" + _KEY + rb") " + _NUM + rb" -?" + _NUM +
    rb" (?P<size>" + _NUM + rb")"
    rb"|cas (?P<ckey>" + _KEY + rb") " + _NUM + rb" -?" + _NUM + rb" (?P<csize>" + _NUM + rb") " + _NUM +
    rb"|ms (?P<mkey>" + _KEY + rb") (?P<msize>" + _NUM + rb")(?P<mflags>(?: [!-~]+)*)"
    rb"|(?P<line>delete|incr|decr|touch) (?P<lkey>" + _KEY + rb")(?: -?" + _NUM + rb")?"
    rb"|(?P<meta>mg|md|ma|me) (?P<mekey>" + _KEY + rb")(?P<meflags>(?: [!-~]+)*)"
    rb"|(?P<plain>version|stats(?: [a-z]+)*|flush_all(?: -?" + _NUM + rb")?|mn))\r\n")


def is_miss(key):
    return key.startswith(b"miss")


class Connection(asyncio.Protocol):
    """One connection of a stub: `feed` takes whole requests off self.data."""

    def __init__(self, stub):
        self.stub = stub
        self.data = b""
        self.is_bad = False

    def connection_made(self, transport):
        self.transport = transport
        self.stub.connections += 1

    def connection_lost(self, exc):
        self.stub.lost += 1

    def data_received(self, data):
        if self.is_bad:
            self.stub.record(b"BAD:" + data)
            return
        self.data += data
        out = []
        at = 0
        try:
            while at < len(self.data):
                end = self.take(at, out)
                if end is None:
                    break
                at = end
        except ValueError:
            self.is_bad = True
            self.stub.record(b"BAD:" + self.data[at:at + 300])
            at = len(self.data)
        self.data = self.data[at:]
        if out:
            self.transport.write(b"".join(out))

    def take(self, at, out):
        """One request at `at`; its reply to out. Returns where it ends; None: more is needed."""
        raise NotImplementedError


class MemcacheConnection(Connection):
    def take(self, at, out):
        if self.data[at] == 0x80:
            return self.take_binary(at, out)
        newline = self.data.find(b"\n", at)
        if newline < 0:
            return None
        match = _LINE.match(self.data, at, newline + 1)
        if match is None or match.end() != newline + 1:
            raise ValueError
        end = newline + 1
        size = match["size"] or match["csize"] or match["msize"]
        if size is not None:
            end += int(size) + 2
            if len(self.data) < end:
                return None
            if self.data[end - 2:end] != b"\r\n":
                raise ValueError
        out.append(self.answer(match))
        self.stub.record(self.data[at:end])
        return end

    def answer(self, match):
        if match["get"]:
            has_cas = match["get"][:4] in (b"gets", b"gats")
            return b"".join(
                b"VALUE %s 0 %d%s\r\n%s\r\n" % (key, len(key), b" 1" if has_cas else b"", key)
                for key in match["keys"].split(b" ") if not is_miss(key)) + b"END\r\n"
        if match["store"] or match["ckey"]:
            return b"STORED\r\n"
        if match["line"]:
            return {b"delete": b"DELETED\r\n", b"touch": b"TOUCHED\r\n"}.get(match["line"], b"5\r\n")
        if match["mkey"] or match["meta"]:
            return self.answer_meta(match)
        if match["plain"].startswith(b"flush_all"):
            return b"OK\r\n"
        return {b"version": b"VERSION 1.6.18\r\n", b"mn": b"MN\r\n"}.get(
            match["plain"], b"STAT a 1\r\nEND\r\n")

    @staticmethod
    def answer_meta(match):
        if match["meta"] == b"me":
            return b"EN\r\n"
        key = match["mkey"] or match["mekey"]
        flags = (match["mflags"] or match["meflags"] or b"").split()
        if match["meta"] == b"mg" and is_miss(key):
            return b"EN\r\n"
        back = b"".join(b" " + (b"k" + key if flag == b"k" else flag)
                        for flag in flags if flag[:1] in b"Okb")
        if match["meta"] == b"mg" and b"v" in flags:
            return b"VA %d%s\r\n%s\r\n" % (len(key), back, key)
        return b"HD%s\r\n" % back

    def take_binary(self, at, out):
        if len(self.data) - at < 24:
            return None
        magic, opcode, key_len, extras_len, kind, _, body, opaque, _ = struct.unpack_from(
            ">BBHBBHIIQ", self.data, at)
        if magic != 0x80 or kind != 0 or key_len + extras_len > body:
            raise ValueError
        end = at + 24 + body
        if len(self.data) < end:
            return None
        key = self.data[at + 24 + extras_len:at + 24 + extras_len + key_len]
        status, extras, name, value = 0, b"", b"", b""
        if opcode in (0x00, 0x0c):
            if is_miss(key):
                status, value = 1, b"Not found"
            else:
                extras, value = b"\0\0\0\0", key
                name = key if opcode == 0x0c else b""
        elif opcode not in (0x01, 0x02, 0x03, 0x04, 0x0e, 0x0f):
            raise ValueError  # quiet ones stay in the proxy, others are not in the tests
        text = extras + name + value
        out.append(struct.pack(">BBHBBHIIQ", 0x81, opcode, len(name), len(extras), 0, status, len(text),
                               opaque, 0) + text)
        self.stub.record(self.data[at:end])
        return end


class RedisConnection(Connection):
    queued = None  # inside MULTI: the replies to come
    _header = re.compile(rb"([*$])(0|[1-9][0-9]{0,9})\r\n")

    def header(self, at, kind):
        """(number, end), or None."""
        match = self._header.match(self.data, at)
        if match is None:
            if len(self.data) - at < 13 and self.data.find(b"\n", at) < 0:
                return None
            raise ValueError
        if match[1] != kind:
            raise ValueError
        return int(match[2]), match.end()

    def take(self, at, out):
        start = at
        found = self.header(at, b"*")
        if found is None:
            return None
        count, at = found
        words = []
        for _ in range(count):
            found = self.header(at, b"$")
            if found is None:
                return None
            size, at = found
            if len(self.data) < at + size + 2:
                return None
            if self.data[at + size:at + size + 2] != b"\r\n":
                raise ValueError
            words.append(self.data[at:at + size])
            at += size + 2
        if not words:
            raise ValueError
        verb = words[0].upper()
        if verb in (b"AUTH", b"SELECT", b"HELLO"):
            self.stub.handshakes[verb, words[-1]] += 1  # the proxy's own
        else:
            self.stub.record(self.data[start:at])
        out.append(self.answer(verb, words))
        return at

    def answer(self, verb, words):
        if self.queued is not None and verb not in (b"EXEC", b"DISCARD"):
            self.queued.append(self.reply(verb, words))
            return b"+QUEUED\r\n"
        if verb == b"MULTI":
            self.queued = []
        elif verb in (b"EXEC", b"DISCARD"):
            done, self.queued = self.queued, None
            if verb == b"EXEC":
                return b"*%d\r\n" % len(done) + b"".join(done)
        return self.reply(verb, words)

    @staticmethod
    def value(key):
        return b"$-1\r\n" if is_miss(key) else b"$%d\r\n%s\r\n" % (len(key), key)

    def reply(self, verb, words):
        if verb == b"GET":
            return self.value(words[1])
        if verb == b"MGET":
            return b"*%d\r\n" % (len(words) - 1) + b"".join(map(self.value, words[1:]))
        if verb in (b"DEL", b"EXISTS", b"UNLINK", b"TOUCH"):
            return b":%d\r\n" % (len(words) - 1)
        if verb == b"BLPOP":
            return b"*-1\r\n"
        if verb == b"SUBSCRIBE":
            return b"".join(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n" % (len(name), name, i + 1)
                            for i, name in enumerate(words[1:]))
        if verb == b"HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        return b"+PONG\r\n" if verb == b"PING" else b"+OK\r\n"


class Stub:
    """A listening stub. `take_recorded()` returns what came since the last call, as a Counter."""

    def __init__(self, make_connection, ignore=b"victim"):
        self.port = free_port()
        self.address = f"{LOOPBACK}:{self.port}"
        self.ignore = ignore
        self.recorded = collections.Counter()
        self.handshakes = collections.Counter()
        self.connections = self.lost = 0
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        started = threading.Event()
        self._make = make_connection
        self._started = started
        self._thread.start()
        assert started.wait(60)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: self._make(self), LOOPBACK, self.port))
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        self._server.close()
        self._loop.run_until_complete(asyncio.sleep(0))

    def record(self, request):
        if self.ignore in request:
            return
        with self._lock:
            self.recorded[request] += 1

    def take_recorded(self):
        with self._lock:
            taken, self.recorded = self.recorded, collections.Counter()
        return taken

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
