# SPDX-License-Identifier: Apache-2.0
"""memcache's three dialects on weir-backend beside a real memcached: hot, cold, over restarts; and the server
commands of Redis on it beside a real redis-server."""

import signal
import time

import pytest

import differential
import mc_differential
import mc_errors
from differential import over_seeds

# See mc_differential.py: what incr does to an item depends on memcached's other threads.
MEMCACHED = ("-t", "1", "-o", "no_lru_maintainer,no_lru_crawler")


@over_seeds(4)
def test_replies_are_those_of_memcached(weir_backend, memcached, seeds):
    ours, theirs = weir_backend(), memcached(None, *MEMCACHED)
    for seed in seeds:
        mc_differential.run(ours.port, theirs.port, seed, 5000)


@over_seeds(1)
def test_cold_values_read_as_hot_ones(weir_backend, memcached, seeds):
    """Every few commands all values that can go to disk are sent there."""
    ours, theirs = weir_backend(), memcached(None, *MEMCACHED)
    with differential.Client(ours.port) as c:
        def make_cold(number):
            if number % 5 == 0:
                assert c.ask("DEBUG", "SPILL") == (b"+", b"OK")

        mc_differential.run(ours.port, theirs.port, seeds[0], 4000, is_cold=True, each_time=make_cold)
    assert differential.fetches(ours.port) > 100


@over_seeds(1)
@pytest.mark.parametrize("signo", (signal.SIGTERM, signal.SIGKILL))
def test_replies_go_on_over_restarts(weir_backend, memcached, signo, seeds):
    """Every 400 commands, beside a memcached that keeps running. Of what is read from disk fetches are not compared."""
    ours, theirs = weir_backend(None, "--segment_size", "1mb"), memcached(None, *MEMCACHED)
    fetched = []

    def restart(number):
        if number % 400 != 200:
            return False
        fetched.append(differential.fetches(ours.port))
        ours.restart(signo)
        return True

    mc_differential.run(ours.port, theirs.port, seeds[0], 4000, is_cold=True, each_time=restart)
    assert len(fetched) == 10 and sum(fetched) > 0


def test_refusals_are_those_of_memcached(weir_backend, memcached):
    """Text, and what is left of the items. What is ours leaves them as they were, and the connection may go on."""
    ours, theirs = weir_backend(), memcached(None, *MEMCACHED)
    for row in mc_errors.SAME.strip().split("\n"):
        request = mc_errors.expand(row)
        assert mc_errors.ask(ours.port, request) == mc_errors.ask(theirs.port, request), row
    untouched = mc_errors.ask(ours.port, b"")[1]
    for row, answer in mc_errors.OURS.items():
        request = mc_errors.expand(row)
        assert mc_errors.ask(ours.port, request) == (answer, untouched), row
        assert mc_errors.ask(theirs.port, request) != (answer, untouched), row


def test_binary_refusals_are_those_of_memcached(weir_backend, memcached):
    ours, theirs = weir_backend(), memcached(None, *MEMCACHED)
    for name, request in mc_errors.BINARY_SAME.items():
        assert mc_errors.ask_binary(ours.port, request) == mc_errors.ask_binary(theirs.port, request), name


@pytest.mark.parametrize("signo", (signal.SIGTERM, signal.SIGKILL))
def test_items_survive_restarts(weir_backend, signo):
    """Value, flags, time to live, cas, and that an item is stale."""
    ours = weir_backend()
    text = mc_differential.Text(ours.port)
    text.ask(b"set k 5 1000 3\r\nabc\r\nset s 0 0 1\r\nx\r\nmd s I\r\n")
    cas = text.ask(b"mg k c f v\r\n")
    ours.restart(signo)
    text = mc_differential.Text(ours.port)
    assert text.ask(b"mg k c f v\r\n") == cas
    assert int(text.ask(b"mg k t\r\n").split(b" t")[1]) > 900
    assert text.ask(b"mg s v\r\n") == b"VA 1 X W\r\nx\r\n"
    text.ask(b"ms k 3 F5\r\nabc\r\n")
    assert text.ask(b"mg k c f v\r\n") > cas  # the same length: later ones are greater


def test_flush_all_with_a_delay(weir_backend):
    text = mc_differential.Text(weir_backend().port)
    assert text.ask(b"set k 0 0 1\r\nx\r\nflush_all 1\r\nget k\r\n") == b"STORED\r\nOK\r\nVALUE k 0 1\r\nx\r\nEND\r\n"
    deadline = time.monotonic() + 10
    while text.ask(b"get k\r\n") != b"END\r\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_both_protocols_on_one_port(weir_backend):
    ours = weir_backend()
    text = mc_differential.Text(ours.port)
    with differential.Client(ours.port) as c:
        assert text.ask(b"set k 7 0 5\r\nhello\r\n") == b"STORED\r\n"
        assert c.ask("GET", "k") == (b"$", b"hello")
        assert c.ask("APPEND", "k", "!") == (b":", b"6")
        assert text.ask(b"get k\r\n") == b"VALUE k 7 6\r\nhello!\r\nEND\r\n"
        assert c.ask("RPUSH", "l", "a") == (b":", b"1")
        assert text.ask(b"get l\r\nadd l 0 0 1\r\nx\r\n") == b"END\r\nNOT_STORED\r\n"


def test_keyspace_events(weir_backend):
    ours = weir_backend()
    with differential.Client(ours.port) as c, differential.Client(ours.port) as listener:
        assert c.ask("CONFIG", "SET", "notify-keyspace-events", "KEA") == (b"+", b"OK")
        listener.ask("PSUBSCRIBE", "__keyevent@0__:*")
        c.ask("SET", "k", "v", "PX", "50")
        heard = [listener.read()[1][2:] for _ in range(3)]
        events = [(channel[1].split(b":")[1], key[1]) for channel, key in heard]
        assert events == [(b"set", b"k"), (b"expire", b"k"), (b"expired", b"k")]


@over_seeds(3)
@pytest.mark.parametrize("resp", (2, 3))
def test_server_commands_are_those_of_redis(weir_backend, redis_server, resp, seeds):
    for seed in seeds:
        ours, theirs = weir_backend(), redis_server(None, "--enable-debug-command", "yes")
        with differential.Client(ours.port) as c:  # which has a bound from the start
            assert c.ask("CONFIG", "SET", "maxmemory", "0") == (b"+", b"OK")
        differential.run(ours.port, theirs.port, ["server"], seed=seed, count=3000, resp=resp)
