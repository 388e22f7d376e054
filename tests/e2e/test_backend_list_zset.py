# SPDX-License-Identifier: Apache-2.0
"""Lists, sorted sets and geo of weir-backend beside a redis-server: hot, cold, over restarts; and clients that wait."""

import re
import signal

import pytest

import differential
from differential import Client, over_seeds
from weirtest import wait_for

FAMILIES = ["geo", "lists", "zsets"]


@over_seeds(2)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_redis(weir_backend, redis_server, family, resp, seeds):
    ours, theirs = weir_backend(), redis_server()
    for seed in seeds:
        differential.run(ours.port, theirs.port, [family], seed=seed, count=3000, resp=resp)
    differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))


@over_seeds(3)
@pytest.mark.parametrize("signo", (signal.SIGTERM, signal.SIGKILL))
def test_values_survive_restarts(weir_backend, redis_server, signo, seeds):
    ours, theirs = weir_backend(None, "--segment_size", "1mb"), redis_server()
    differential.run(ours.port, theirs.port, FAMILIES, seeds[0], count=3000)
    for seed, resp in zip(seeds[1:], (3, 2)):
        ours.restart(signo)
        differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))
        differential.run(ours.port, theirs.port, FAMILIES, seed, count=2000, resp=resp, flush=False)


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
def test_cold_values_read_as_hot_ones(weir_backend, redis_server, resp, seeds):
    ours, theirs = weir_backend(None, "--memory", "4mb"), redis_server()
    differential.run_and_fill(ours.port, theirs.port, FAMILIES, seeds, count=2000, resp=resp)


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_the_same_with_all_values_cold(weir_backend, redis_server, family, resp, seeds):
    ours, theirs = weir_backend(), redis_server()
    fetched = differential.run_cold(ours.port, theirs.port, [family], seeds[0], count=1000, resp=resp)
    differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))
    assert fetched > 10


# Waiting. Each play is a function of two clients that may wait and one that acts; it returns the replies in order.

def later(client, *words):
    """Until the server lets it wait."""
    with Client(client.sock.getpeername()[1]) as other:
        waiting = blocked_clients(other)
        client.send([[word if isinstance(word, bytes) else str(word).encode() for word in words]])
        wait_for(lambda: blocked_clients(other) == waiting + 1, f"it waits: {words}", step=0.002)


def blocked_clients(client):
    return int(re.search(rb"blocked_clients:(\d+)", client.ask("INFO", "clients")[1])[1])


def play_first_come(a, b, c):
    later(a, "BLPOP", "k1", "k2", 0)
    later(b, "BRPOP", "k1", 0)
    return [c.ask("RPUSH", "k1", "x", "y", "z"), a.read(), b.read(), c.ask("LRANGE", "k1", 0, -1)]


def play_chain(a, b, c):
    """What one waiter pushes is what the next waits for."""
    later(a, "BLMOVE", "s", "d", "LEFT", "RIGHT", 0)
    later(b, "BLPOP", "d", 0)
    return [c.ask("RPUSH", "s", "v"), a.read(), b.read(), c.ask("EXISTS", "s", "d")]


def play_sorted_sets(a, b, c):
    later(a, "BZPOPMAX", "z1", "z2", 0)
    later(b, "BZMPOP", 0, 2, "z1", "z2", "MIN", "COUNT", 2)
    return [c.ask("ZADD", "z2", 1, "a", 2, "b", 3, "c"), a.read(), b.read(), c.ask("EXISTS", "z2")]


def play_another_type(a, b, c):
    """A string where a list is waited for wakes nobody."""
    later(a, "BLPOP", "k", 0)
    later(b, "BLPOP", "k", "k2", 0)
    return [c.ask("SET", "k", "text"), c.ask("LPUSH", "k2", 2), b.read(), c.ask("DEL", "k"), c.ask("LPUSH", "k", 1), a.read()]


def play_target_of_another_type(a, b, c):
    c.ask("SET", "text", "x")
    later(a, "BLMOVE", "s", "text", "LEFT", "LEFT", 0)
    return [c.ask("LPUSH", "s", 1), a.read(), c.ask("LRANGE", "s", 0, -1)]


def play_transaction(a, b, c):
    """Waiters see what a transaction leaves, not what it passes through."""
    later(a, "BRPOPLPUSH", "s", "s", 0)
    c.send([[b"MULTI"], [b"LPUSH", b"s", b"1"], [b"DEL", b"s"], [b"LPUSH", b"s", b"2"], [b"EXEC"]])
    return [c.read() for _ in range(5)] + [a.read(), c.ask("LRANGE", "s", 0, -1)]


def play_inside_a_transaction(a, b, c):
    c.send([[b"MULTI"], [b"BLPOP", b"n", b"0"], [b"BLMOVE", b"n", b"m", b"left", b"left", b"0"], [b"BZPOPMIN", b"n", b"0"],
            [b"BLMPOP", b"0", b"1", b"n", b"left"], [b"BZMPOP", b"0", b"1", b"n", b"min"], [b"EXEC"]])
    return [c.read() for _ in range(7)]


def play_time_is_over(a, b, c):
    replies = []
    for words in (("BLPOP", "n", 0.1), ("BLMOVE", "n", "m", "LEFT", "LEFT", 0.1), ("BLMPOP", 0.1, 1, "n", "LEFT"),
                  ("BZPOPMIN", "n", "m", 0.1), ("BZMPOP", 0.1, 1, "n", "MAX"), ("BRPOPLPUSH", "n", "m", 0.1)):
        replies.append(a.ask(*words))
    return replies


def play_other_ways_to_come(a, b, c):
    later(a, "BZPOPMIN", "z", 0)
    replies = [c.ask("ZADD", "elsewhere", 1, "m"), c.ask("RENAME", "elsewhere", "z"), a.read()]
    later(a, "BZPOPMIN", "z", 0)
    replies += [c.ask("GEOADD", "z", 1, 1, "g"), a.read()]
    later(a, "BLPOP", "l", 0)
    c.send([[b"RPUSH", b"l", b"1"], [b"LPOP", b"l"]])
    return replies + [c.read(), c.read(), a.read()]


def play_a_waiter_leaves(a, b, c):
    later(a, "BLPOP", "k", 0)
    later(b, "BLPOP", "k", 0)
    a.close()
    wait_for(lambda: blocked_clients(c) == 1, "it is gone", step=0.002)
    return [c.ask("LPUSH", "k", 1), b.read(), c.ask("EXISTS", "k")]


PLAYS = {name[5:]: play for name, play in sorted(globals().items()) if name.startswith("play_")}


@pytest.mark.parametrize("resp", (2, 3))
def test_waiting_is_as_in_redis(weir_backend, redis_server, resp):
    ours, theirs = weir_backend(), redis_server()
    for name, play in PLAYS.items():
        replies = []
        for server in (ours, theirs):
            clients = [Client(server.port, resp=resp) for _ in range(3)]
            clients[2].ask("FLUSHALL")
            replies.append(play(*clients))
            for client in clients:
                client.close()
        assert replies[0] == replies[1], name
