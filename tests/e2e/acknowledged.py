# SPDX-License-Identifier: Apache-2.0
"""Writers that remember what they were told, and the reckoning after the node died.

Each writer has keys of its own and a counter for each; a value says key and number. What was acknowledged last must be
there, or what was sent after it and not answered: nothing else, nothing older. Lists grow by one number a push: no hole,
no double, no other order."""

import random
import socket
import threading

from weirtest import LOOPBACK, Closed, Conn, resp

KEYS = 40
PAD = (0, 10, 300, 3000)


def value_of(key, number):
    """Its length, too, follows from key and number."""
    return f"{key}:{number}:".encode() + b"x" * PAD[(number * 7 + len(key)) % len(PAD)]


class Writer(threading.Thread):
    """Writes until its connection breaks or stop() is called; run again, it goes on with the same numbers."""

    def __init__(self, number, port):
        super().__init__(daemon=True)
        self.number, self.port = number, port
        self.sent, self.acknowledged = {}, {}
        self.pushed = self.push_acknowledged = 0
        self.count = 0
        self.refused = 0
        self.trouble = None
        self.is_stopping = False

    def again(self, port):
        """A thread that goes on where this one ended."""
        other = Writer(self.number, port)
        other.sent, other.acknowledged = dict(self.sent), dict(self.acknowledged)
        other.pushed, other.push_acknowledged = self.pushed, self.push_acknowledged
        return other

    def settle(self):
        """What was not answered may have happened or not: the reckoning has looked, this is so now."""
        self.sent = dict(self.acknowledged)
        self.pushed = self.push_acknowledged

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

    def write(self, c, rng):
        while not self.is_stopping:
            batch = []
            for _ in range(rng.randrange(1, 8)):
                if rng.randrange(6) == 0:
                    self.pushed += 1
                    batch.append((None, self.pushed))
                    c.send(resp("RPUSH", self.list_key, self.pushed))
                    continue
                key = self.key(rng.randrange(KEYS))
                number = self.sent.get(key, 0) + 1
                self.sent[key] = number
                batch.append((key, number))
                c.send(resp("SET", key, value_of(key, number)))
            for key, number in batch:
                answer = c.recv_resp()
                if answer.startswith(b"-"):
                    self.refuse(key, number, answer)
                elif key is None:
                    assert answer == b":%d\r\n" % number, (answer, number)
                    self.push_acknowledged = number
                else:
                    assert answer == b"+OK\r\n", answer
                    self.acknowledged[key] = number
                self.count += 1

    def refuse(self, key, number, answer):
        """A push that was refused makes holes in our counting: such a writer ends."""
        assert answer.split()[0] in (b"-OOM", b"-MISCONF", b"-ERR", b"-NOSPACE", b"-DISKFULL"), answer
        self.refused += 1
        if key is None:
            self.pushed = self.push_acknowledged
            raise Closed(answer, "refused")

    def reckon(self, c, may_lose=False):
        """Compares all of it with what the node says now, and takes that for granted. `may_lose`: of a power cut
        without a flush for each answer; then what is there may be older, but of ours."""
        for key in sorted(self.sent):
            low, high = self.acknowledged.get(key, 0), self.sent[key]
            answer = c.resp("GET", key)
            if answer == b"$-1\r\n":
                number = 0
            else:
                text = answer.split(b"\r\n", 1)[1][:-2]
                number = int(text.split(b":")[1])
                assert text == value_of(key, number), (key, text[:80])
            assert (0 if may_lose else low) <= number <= high, \
                f"{key}: {number} is there, {low} was acknowledged, {high} sent"
            if number == 0:
                self.acknowledged.pop(key, None)
            else:
                self.acknowledged[key] = number
        count = int(c.resp("LLEN", self.list_key)[1:])
        assert (0 if may_lose else self.push_acknowledged) <= count <= self.pushed, \
            f"{self.list_key}: {count} are there, {self.push_acknowledged} acknowledged, {self.pushed} sent"
        items = c.resp("LRANGE", self.list_key, 0, -1).split(b"\r\n")[2::2]
        assert [int(x) for x in items] == list(range(1, count + 1))
        self.push_acknowledged = count
        self.settle()


def start(count, port, before=None):
    """Writers, or those before them again."""
    writers = [w.again(port) for w in before] if before else [Writer(i, port) for i in range(count)]
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


def reckon(writers, port, may_lose=False):
    with Conn(port, timeout=30) as c:
        for w in writers:
            w.reckon(c, may_lose)
        assert c.resp("PING") == b"+PONG\r\n"


def answers(port):
    """Whether the node answers PING with PONG: not while it loads."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5) as s:
            s.sendall(b"PING\r\n")
            return s.recv(100) == b"+PONG\r\n"
    except OSError:
        return False
