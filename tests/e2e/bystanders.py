# SPDX-License-Identifier: Apache-2.0
"""Clients in the middle of something, none of whom may notice a reload or an upgrade.

Each has before(), called ahead of the event, and after(), which asserts that what was begun goes on as if
nothing had happened. The round's number keeps their replies apart.
"""

import threading

from weirtest import Conn, resp


class Bystander:
    def __init__(self, port):
        self.port = port
        self.conn = Conn(port)
        self.open()

    def open(self):
        pass

    def before(self, number):
        pass

    def after(self, number):
        pass

    def other(self, *words):
        """Another client says it."""
        with Conn(self.port) as c:
            return c.resp(*words)

    def close(self):
        self.conn.close()


class Idle(Bystander):
    """Has a name, an id, and otherwise no wishes."""

    def open(self):
        self.conn.ask(resp("CLIENT", "SETNAME", "anna"), b"+OK\r\n")
        self.id = self.conn.resp("CLIENT", "ID")

    def after(self, number):
        assert self.conn.resp("CLIENT", "GETNAME") == b"$4\r\nanna\r\n"
        assert self.conn.resp("CLIENT", "ID") == self.id
        self.conn.ask(resp("SET", "idle", number), b"+OK\r\n")


class Resp3(Bystander):
    def open(self):
        assert self.conn.resp("HELLO", "3").startswith(b"%")

    def after(self, number):
        assert self.conn.resp("GET", "no such key") == b"_\r\n"


class Database(Bystander):
    def open(self):
        self.conn.ask(resp("SELECT", "1"), b"+OK\r\n")

    def before(self, number):
        self.conn.ask(resp("SET", "where", f"one-{number}"), b"+OK\r\n")
        self.other("SET", "where", "zero")

    def after(self, number):
        wanted = f"one-{number}".encode()
        assert self.conn.resp("GET", "where") == b"$%d\r\n%s\r\n" % (len(wanted), wanted)


class Half(Bystander):
    """Is in the middle of a request."""

    def before(self, number):
        self.text = resp("SET", "half", f"value-{number}")
        self.cut = 1 + number * 7 % (len(self.text) - 1)
        self.conn.send(self.text[:self.cut])

    def after(self, number):
        self.conn.ask(self.text[self.cut:], b"+OK\r\n")


class Upload(Bystander):
    """Is in the middle of a value that streams."""

    size = 1 << 20

    def before(self, number):
        self.text = resp("SET", "upload", bytes([97 + number % 26]) * self.size)
        self.conn.send(self.text[:self.size // 2])

    def after(self, number):
        self.conn.ask(self.text[self.size // 2:], b"+OK\r\n")
        assert self.other("STRLEN", "upload") == b":%d\r\n" % self.size


class SlowReader(Bystander):
    size = 3 << 20

    def __init__(self, port):
        self.port = port
        self.conn = Conn(port, rcvbuf=4096)
        assert self.other("SET", "slow", b"x" * self.size) == b"+OK\r\n"

    def before(self, number):
        self.conn.send(resp("GET", "slow") + resp("ECHO", number))

    def after(self, number):
        self.conn.expect(b"$%d\r\n" % self.size + b"x" * self.size + b"\r\n")
        self.conn.expect(b"$%d\r\n%d\r\n" % (len(str(number)), number))


class Transaction(Bystander):
    """MULTI before, EXEC some rounds later."""

    def open(self):
        self.queued = 0
        self.total = 0
        self.other("DEL", "sum")

    def before(self, number):
        if self.queued == 0:
            self.conn.ask(resp("MULTI"), b"+OK\r\n")
        self.conn.ask(resp("INCR", "sum"), b"+QUEUED\r\n")
        self.queued += 1

    def after(self, number):
        self.conn.ask(resp("INCR", "sum"), b"+QUEUED\r\n")
        self.queued += 1
        if number % 3 != 2:
            return
        wanted = b"*%d\r\n" % self.queued
        for _ in range(self.queued):
            self.total += 1
            wanted += b":%d\r\n" % self.total
        self.conn.ask(resp("EXEC"), wanted)
        self.queued = 0


class WatchHolds(Bystander):
    def before(self, number):
        self.conn.ask(resp("WATCH", "watched"), b"+OK\r\n")

    def after(self, number):
        self.conn.ask(resp("MULTI") + resp("SET", "watched", number) + resp("EXEC"),
                      b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")


class WatchFails(Bystander):
    """Somebody changes the key between WATCH and EXEC: during the reload, and after it."""

    def before(self, number):
        self.conn.ask(resp("WATCH", "contended"), b"+OK\r\n")
        if number % 2:
            self.other("SET", "contended", number)

    def after(self, number):
        if not number % 2:
            self.other("SET", "contended", number)
        self.conn.ask(resp("MULTI") + resp("SET", "contended", "mine") + resp("EXEC"),
                      b"+OK\r\n+QUEUED\r\n*-1\r\n")


class Blocked(Bystander):
    """Waits in BLPOP, and has asked something more behind it."""

    def open(self):
        self.other("DEL", "queue")

    def before(self, number):
        self.conn.send(resp("BLPOP", "queue", "0") + resp("ECHO", f"behind-{number}"))

    def after(self, number):
        assert self.conn.is_quiet(0.05)
        item = f"item-{number}".encode()
        assert self.other("RPUSH", "queue", item) == b":1\r\n"
        behind = f"behind-{number}".encode()
        self.conn.expect(b"*2\r\n$5\r\nqueue\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" %
                         (len(item), item, len(behind), behind))


class Mute(Bystander):
    """CLIENT REPLY OFF."""

    def before(self, number):
        self.conn.send(resp("CLIENT", "REPLY", "OFF") + resp("SET", "mute", f"before-{number}"))

    def after(self, number):
        self.conn.send(resp("SET", "mute", number))
        self.conn.ask(resp("CLIENT", "REPLY", "ON"), b"+OK\r\n")
        assert self.conn.resp("GET", "mute") == b"$%d\r\n%d\r\n" % (len(str(number)), number)


class Subscriber(Bystander):
    """Somebody publishes all the time; every message comes, in order."""

    channels = ("news", "weather", "sports")

    def open(self):
        for i, channel in enumerate(self.channels):
            name = channel.encode()
            self.conn.ask(resp("SUBSCRIBE", channel),
                          b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n" % (len(name), name, i + 1))
        self.conn.ask(resp("PSUBSCRIBE", "wea*"), b"*3\r\n$10\r\npsubscribe\r\n$4\r\nwea*\r\n:4\r\n")
        self.done = threading.Event()
        self.published = {channel: 0 for channel in self.channels}
        self.trouble = []
        self.thread = threading.Thread(target=self._publish)
        self.thread.start()

    def _publish(self):
        try:
            with Conn(self.port) as c:
                number = 0
                while not self.done.wait(0.003):
                    channel = self.channels[number % len(self.channels)]
                    got = c.resp("PUBLISH", channel, self.published[channel])
                    assert got == (b":2\r\n" if channel == "weather" else b":1\r\n"), (channel, number, got)
                    self.published[channel] += 1
                    number += 1
        except Exception as error:  # noqa: BLE001
            self.trouble.append(repr(error))

    def after(self, number):
        """The rest is looked at in close()."""
        assert self.trouble == []

    def close(self):
        self.done.set()
        self.thread.join()
        assert self.trouble == []
        seen = {(kind, channel): 0 for kind in ("message", "pmessage") for channel in self.channels}
        due = sum(self.published.values()) + self.published["weather"]
        for _ in range(due):
            words = self.conn.recv_resp().split(b"\r\n")[2::2]
            kind, channel, text = words[0].decode(), words[-2].decode(), int(words[-1])
            assert text == seen[kind, channel], (words, seen)
            seen[kind, channel] += 1
        self.conn.ask(resp("UNSUBSCRIBE", "news"), b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:3\r\n")
        self.conn.close()


class MemcacheHalf(Bystander):
    """In the middle of a value."""

    def before(self, number):
        self.conn.send(b"set mc 0 0 10\r\n01234")

    def after(self, number):
        self.conn.ask(b"56789\r\nget mc\r\n", b"STORED\r\nVALUE mc 0 10\r\n0123456789\r\nEND\r\n")


class MemcacheRefused(Bystander):
    """In the middle of a value that was refused and is thrown away."""

    def before(self, number):
        self.conn.send(b"set mc " + b"y" * 300)

    def after(self, number):
        self.conn.send(b"\r\n")
        assert self.conn.recv_line().startswith((b"CLIENT_ERROR", b"ERROR"))
        self.conn.close()
        self.conn = Conn(self.port)


class MemcacheBinary(Bystander):
    """Quiet ones wait for their noop."""

    def before(self, number):
        self.conn.send(b"\x80\x0d\0\1" + bytes(7) + b"\1" + bytes(12) + b"q")  # GETKQ of a missing key

    def after(self, number):
        self.conn.send(b"\x80\x0a" + bytes(22))
        got = self.conn.recv_exact(24)
        assert got[:2] == b"\x81\x0a", got


REDIS = (Idle, Resp3, Database, Half, Upload, SlowReader, Transaction, WatchHolds, WatchFails, Blocked, Mute,
         Subscriber)
MEMCACHE = (MemcacheHalf, MemcacheRefused, MemcacheBinary)


class Bystanders:
    """Some of each, as a context."""

    def __init__(self, redis_port, memcache_port=None, leave_out=()):
        self.all = [kind(redis_port) for kind in REDIS if kind not in leave_out]
        if memcache_port:
            self.all += [kind(memcache_port) for kind in MEMCACHE if kind not in leave_out]

    def _each(self, call, number):
        for one in self.all:
            try:
                getattr(one, call)(number)
            except Exception as error:
                raise AssertionError(f"{type(one).__name__} noticed round {number} ({call}): {error!r}") from error

    def before(self, number):
        self._each("before", number)

    def after(self, number):
        self._each("after", number)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for one in self.all:
            if kind is None:
                one.close()
            else:
                getattr(one, "done", threading.Event()).set()
                one.conn.close()
