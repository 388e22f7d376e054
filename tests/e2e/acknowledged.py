# SPDX-License-Identifier: Apache-2.0
"""Writers that remember what they were told, and the reckoning after the node died.

Each writer has keys of its own and a counter for each; a value says key and number. Lists grow by one number a push: no
hole, no double, no other order. What a shard's log promises, whatever of its end is lost:

- It has one order. A writer's commands are executed as they were sent, so what is there of them is a prefix.
- What was answered before something else was sent comes before it, whoever sent it. So where a command is there, all that
  was acknowledged before it was sent is there, too.
- What the mode has promised is there: all that was acknowledged, or all that was when its flush was waited for.

Times are those of one clock, of the writers' process; they order what happened, and nothing is asked of how long it took."""

import random
import socket
import threading
import time

from weirtest import LOOPBACK, Closed, Conn, resp, wait_for

KEYS = 40
PAD = (0, 10, 300, 3000)
DISK_FAILED = (b"-MISCONF A write or a flush of the log has failed. Commands that may modify the data set are disabled "
               b"until an operator acts. Please check the server's log for details about the error.\r\n")
DISK_FULL = (b"-MISCONF No room is left on the disk for data. Commands that may modify the data set are disabled, but "
             b"those that delete; service resumes when there is room.\r\n")


def value_of(key, number):
    """Its length, too, follows from key and number."""
    return f"{key}:{number}:".encode() + b"x" * PAD[(number * 7 + len(key)) % len(PAD)]


class Command:
    """One that was sent: to the key, None for the list, the number. Its times: `acknowledged` is None without an answer."""

    __slots__ = ("key", "number", "sent", "acknowledged")

    def __init__(self, key, number):
        self.key, self.number = key, number
        self.sent, self.acknowledged = time.monotonic(), None

    def __repr__(self):
        return f"{self.key or 'push'}:{self.number}"


class Writer(threading.Thread):
    """Writes until its connection breaks or stop() is called; run again, it goes on with the same numbers. `refusals`:
    the errors that it may be told; what was refused has not happened. `pause`: seconds between its pipelines."""

    def __init__(self, number, port, refusals=(), pause=0, base=None):
        super().__init__(daemon=True)
        self.number, self.port = number, port
        self.refusals, self.pause = refusals, pause
        self.base = dict(base or {})  # by key, None for the list: the number that was there in the beginning
        self.sent = dict(self.base)
        self.history = []
        self.count = 0
        self.refused = 0
        self.trouble = None
        self.is_stopping = False

    def key(self, i):
        return f"w{self.number}-{i}"

    @property
    def list_key(self):
        return f"list-{self.number}"

    def stop(self):
        self.is_stopping = True
        self.join(30)
        assert not self.is_alive()

    def run(self):
        try:
            with Conn(self.port, timeout=20) as c:
                self.write(c, random.Random(self.number))
        except (Closed, OSError):
            pass
        except Exception as e:  # told by the test's thread
            self.trouble = e

    def command(self, key):
        number = self.sent[key] = self.sent.get(key, 0) + 1
        self.history.append(Command(key, number))
        return self.history[-1]

    def write(self, c, rng):
        while not self.is_stopping:
            batch = []
            for _ in range(rng.randrange(1, 8)):
                key = None if rng.randrange(6) == 0 else self.key(rng.randrange(KEYS))
                batch.append(self.command(key))
                if key is None:
                    c.send(resp("RPUSH", self.list_key, batch[-1].number))
                else:
                    c.send(resp("SET", key, value_of(key, batch[-1].number)))
            for command in batch:
                answer = c.recv_resp()
                if answer.startswith(b"-"):
                    self.refuse(command, answer)
                else:
                    assert answer == (b":%d\r\n" % command.number if command.key is None else b"+OK\r\n"), answer
                    command.acknowledged = time.monotonic()
                self.count += 1
            if self.pause:
                time.sleep(self.pause)

    def refuse(self, command, answer):
        """A push that was refused makes holes in our counting: such a writer ends."""
        assert answer in self.refusals, answer
        self.refused += 1
        self.history.remove(command)
        if command.key is None:
            raise Closed(answer, "refused")

    def look(self, c):
        """What the node has now: for each key the number, which it must be a value of ours to have."""
        found = {}
        for key in self.sent:
            if key is None:
                items = [int(x) for x in c.resp("LRANGE", self.list_key, 0, -1).split(b"\r\n")[2::2]]
                assert items == list(range(1, len(items) + 1)), (self.list_key, items)
                found[key] = len(items)
                continue
            answer = c.resp("GET", key)
            text = b"" if answer == b"$-1\r\n" else answer.split(b"\r\n", 1)[1][:-2]
            found[key] = int(text.split(b":")[1]) if text else 0
            assert not text or text == value_of(key, found[key]), (key, text[:80])
        return found

    def split(self, found):
        """The commands of this life that are there, and those that are not: the former are the first ones."""
        for key, number in found.items():
            numbers = {self.base.get(key, 0)} | {x.number for x in self.history if x.key == key}
            assert number in numbers, f"writer {self.number}: {key}: {number} is there, which was not sent: {sorted(numbers)}"
        is_there = [x.number <= found[x.key] for x in self.history]
        count = sum(is_there)
        assert all(is_there[:count]), \
            f"writer {self.number}: {self.history[is_there.index(False)]} is not there, {self.history[count:]} partly are"
        return self.history[:count], self.history[count:]

    def settle(self, found):
        """What was not answered may have happened or not: the reckoning has looked, this is so now."""
        self.base, self.sent, self.history = dict(found), dict(found), []


def start(count, port, before=None, refusals=(), pause=0):
    """Writers, or those before them again."""
    writers = [Writer(i, port, refusals, pause, before[i].base if before else None) for i in range(count)]
    for w in writers:
        w.start()
    return writers


def finish(writers):
    """After a kill: they end with their connections. One that connected only after it, to a successor, is told to."""
    for w in writers:
        w.is_stopping = True
    for w in writers:
        w.join(30)
        assert not w.is_alive()
        if w.trouble is not None:
            raise w.trouble


def info(c, section):
    """The section of INFO by name, of bytes."""
    return dict(line.split(b":", 1) for line in c.resp("INFO", section).split(b"\r\n") if b":" in line)


def wait_until_durable(port, by_checkpoint=False):
    """Until all that has been acknowledged is durable by the node's word: when that was. `by_checkpoint`: by SAVE's."""
    at = time.monotonic()
    with Conn(port, timeout=30) as c:
        lsn = int(info(c, "store")[b"lsn_appended"])
        if by_checkpoint:
            assert c.resp("SAVE") == b"+OK\r\n"
        wait_for(lambda: int(info(c, "store")[b"lsn_durable"]) >= lsn, "what was answered is flushed",
                 deadline=0 if by_checkpoint else 30)
    return at


def wait_until_files_are_made(port):
    """Those that the node makes for what is to come."""
    seen = []
    with Conn(port) as c:
        def is_quiet():
            seen.append(info(c, "store")[b"segments_free"])
            return len(seen) >= 5 and len(set(seen[-5:])) == 1

        wait_for(is_quiet, "no file is made", step=0.1)


def reckon(writers, port, promised=None):
    """Compares all of it with what the node says now, and takes that for granted. `promised`: of a power cut without a
    flush for each answer: only what was acknowledged before then must be there."""
    with Conn(port, timeout=30) as c:
        found = [w.look(c) for w in writers]
        assert c.resp("PING") == b"+PONG\r\n"
    parts = [w.split(x) for w, x in zip(writers, found)]
    last = max((x for kept, _ in parts for x in kept), key=lambda x: x.sent, default=None)
    lost = [x for _, parts_lost in parts for x in parts_lost if x.acknowledged is not None]
    for x in lost:
        assert promised is not None, f"{x} was acknowledged and is not there"
        assert x.acknowledged >= promised, \
            f"{x} is not there, acknowledged {promised - x.acknowledged:.3f} s before all of it was durable"
        assert last is None or x.acknowledged >= last.sent, \
            f"{x} is not there, but {last}, sent {last.sent - x.acknowledged:.3f} s after it was acknowledged, is"
    for w, x in zip(writers, found):
        w.settle(x)
    return len(lost)


def answers(port):
    """Whether the node answers PING with PONG: not while it loads."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5) as s:
            s.sendall(b"PING\r\n")
            return s.recv(100) == b"+PONG\r\n"
    except OSError:
        return False
