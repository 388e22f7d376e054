# SPDX-License-Identifier: Apache-2.0
"""Keyspace notifications of weir-backend beside a redis-server's: the same events of the same commands, in order."""

import pytest

import differential
from differential import over_seeds

FAMILIES = ["bitmaps", "geo", "hashes", "hyperloglog", "keys", "lists", "sets", "sort", "strings", "wrong-types",
            "zsets"]
END = b"__keyevent@9__:set"


class Listener:
    """Every event of a server, in order."""

    def __init__(self, port, classes):
        self.client = differential.Client(port)
        with differential.Client(port) as c:
            assert c.ask("CONFIG", "SET", "notify-keyspace-events", classes) == (b"+", b"OK")
        self.client.ask("PSUBSCRIBE", "__key*__:*")
        self.port = port

    def take(self):
        """What came until now: [(channel, message)]."""
        with differential.Client(self.port) as c:
            c.ask("SELECT", 9)
            c.ask("SET", "end of the events", "x")
        events = []
        while not events or events[-1][0] != END:
            _, words = self.client.read()
            events.append((words[2][1], words[3][1]))
        with differential.Client(self.port) as c:
            c.ask("SELECT", 9)
            c.ask("DEL", "end of the events")
        return [event for event in events if b"end of the events" not in event[0] + event[1]]


def compare(ours, theirs, label):
    for i, (a, b) in enumerate(zip(ours + [None], theirs + [None])):
        assert a == b, f"{label}, event {i}, after {theirs[max(0, i - 8):i]}:\n  ours  {a}\n  redis {b}"


@over_seeds(2)
@pytest.mark.parametrize("family", FAMILIES)
def test_events_are_those_of_redis(weir_backend, redis_server, family, seeds):
    ours, theirs = weir_backend(), redis_server()
    # "new" keys are not compared among sets: SMOVE makes the one before it leaves the other.
    classes = "g$lshzeKE" if family == "sets" else "g$lshzenKE"
    listeners = [Listener(server.port, classes) for server in (ours, theirs)]
    for seed in seeds:
        differential.run(ours.port, theirs.port, [family], seed=seed, count=3000)
        compare(*[each.take() for each in listeners], f"seed {seed}")


def test_events_of_waiting_clients(weir_backend, redis_server):
    events = []
    for server in (weir_backend(), redis_server()):
        listener = Listener(server.port, "AKE")
        with differential.Client(server.port) as a, differential.Client(server.port) as b:
            for waits, feeds in (
                    ([b"BLPOP", b"l", b"0"], [b"RPUSH", b"l", b"x", b"y"]),
                    ([b"BRPOP", b"m", b"0"], [b"RPUSH", b"m", b"x"]),
                    ([b"BLMOVE", b"m", b"n", b"LEFT", b"RIGHT", b"0"], [b"LPUSH", b"m", b"x"]),
                    ([b"BLMPOP", b"0", b"2", b"q", b"p", b"RIGHT", b"COUNT", b"5"], [b"LPUSH", b"p", b"x", b"y"]),
                    ([b"BZPOPMIN", b"z", b"0"], [b"ZADD", b"z", b"1", b"x"]),
                    ([b"BZMPOP", b"0", b"1", b"z", b"MAX"], [b"ZADD", b"z", b"1", b"x"])):
                a.send([waits])
                while b"blocked_clients:1" not in b.ask("INFO", "clients")[1]:
                    pass
                b.ask(*feeds)
                a.read()
        events.append(listener.take())
    compare(*events, "waiting")


def test_events_of_time_and_memory(weir_backend):
    """A key whose time is over is told of as expired, whoever finds it; one that makes room as evicted."""
    ours = weir_backend(None, "--memory", "8mb", "--namespaces", "0=cache")
    listener = Listener(ours.port, "E$x")
    with differential.Client(ours.port) as c:
        c.ask("SET", "found", "x", "PX", 20)
        c.ask("SET", "swept", "x", "PX", 20)
        differential.time.sleep(0.1)
        c.ask("GET", "found")
        assert (b"__keyevent@0__:expired", b"found") in listener.take()
    listener = Listener(ours.port, "E$e")
    with differential.Client(ours.port) as c:
        for i in range(12000):
            c.ask("SET", f"k{i}", "x" * 1000)
    assert any(channel == b"__keyevent@0__:evicted" for channel, _ in listener.take())
