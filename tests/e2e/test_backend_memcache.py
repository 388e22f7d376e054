# SPDX-License-Identifier: Apache-2.0
"""memcache's three dialects on weir-backend beside a real memcached: hot, cold, over restarts; and the server
commands of Redis on it beside a real redis-server."""

import re
import signal
import time

import pytest

import differential
import mc_differential
import mc_errors
from differential import over_seeds
from weirtest import wait_for

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


def test_a_line_without_an_end(weir_backend):
    """It may be as long as a proxy's; without the password it may not."""
    for options, size in (((), 64 << 20), (("--password", "secret"), 1 << 16)):
        port = weir_backend(None, *options).port
        assert mc_errors.talk(port, b"get " + b"k" * (size - 3), b"\n") == b"CLIENT_ERROR line too long\r"
        with_end = mc_errors.talk(port, b"get " + b"k" * (size - 5) + b"\n", b"\n")
        assert with_end == b"CLIENT_ERROR key too long\r"


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
    assert mc_differential.Text(ours.port).ask(b"\r\n\n \r\nget none\r\n") == b"END\r\n"


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
            assert c.ask("CONFIG", "SET", "hz", "100") == (b"+", b"OK")  # as weirtest starts a redis-server
        differential.run(ours.port, theirs.port, ["server"], seed=seed, count=3000, resp=resp)


# Statistics

# What memcached 1.6.18 tells and we do not, by group, and why; see docs/node-memcache.md.
ABSENT = {
    b"": {
        "its event library, its spare file descriptors": r"libevent|reserved_fds",
        "its buffers and response objects": r"response_obj_\w+|read_buf_\w+",
        "its hash table's size in powers of two": r"hash_power_level",
        "its slabs and who moves them": r"slab_reassign_\w+|slabs_moved|slab_global_page_pool",
        "its LRU's queues and threads": r"lru_\w+|lrutail_reflocked|moves_\w+|crawler_\w+|evicted_active|direct_reclaims",
        "its watchers": r"log_\w+",
        "its spreading of connections over threads": r"unexpected_napi_ids|round_robin_fallback",
    },
    b"settings": {
        "where it listens and how: the node's configuration": r"inter|domain_socket|umask|tcp_backlog|num_threads_per_udp",
        "its slabs": r"growth_factor|chunk_size|slab_\w+",
        "its LRU's queues and threads": r"lru_\w+|(hot|warm)_\w+|temp_lru|temporary_ttl|tail_repair_time",
        "its hash table": r"hashpower_init|hash_algorithm",
        "its buffers and turns": r"reqs_per_event|\w+_logbuf_size|read_buf_mem_limit|inline_ascii_response",
        "its files for values": r"ext_\w+|memory_file",
        "its TLS": r"ssl_\w+",
        "its spreading of connections over threads": r"num_napi_ids",
    },
    b"items": {
        "its LRU's queues and threads": r"items:1:(number_(warm|temp)|age\w*|moves_\w+|hits_to_\w+|crawler_\w+|lrutail_reflocked|"
                                        r"direct_reclaims|tailrepairs|evicted_(active|nonzero|time|unfetched)|"
                                        r"expired_unfetched)",
    },
    b"slabs": {"its slabs": r"1:(chunk_size|chunks_per_page|total_pages|total_chunks|free_chunks|free_chunks_end)"},
    b"sizes": {},
}
# What changes by being asked, or with time.
RESTLESS = rb"time|uptime|rusage_\w+|bytes_(read|written)|(curr|total)_connections|connection_structures|hash_bytes|" \
           rb"cmd_\w+|bytes|total_malloced|\d+:cmd_\w+"


def text_stats(port, group):
    text = mc_differential.Text(port)
    lines = text.ask(b"set k 0 0 1\r\nx\r\nget k\r\nstats " + group + b"\r\n").split(b"\r\n")
    return dict(line.split(b" ", 2)[1:] for line in lines if line.startswith(b"STAT "))


def binary_stats(port, group):
    """Ends with a frame that has neither key nor value."""
    frames = mc_differential.Binary(port).ask(mc_differential.frame(0x10, group, opaque=9))
    assert {f[:3] for f in frames} == {(0x10, 0, 9)} and frames[-1][4:] == (b"", b"", b"")
    assert all(f[5] for f in frames[:-1])
    return {f[5]: f[6] for f in frames[:-1]}


@pytest.mark.parametrize("group", list(ABSENT))
def test_names_of_statistics_are_those_of_memcached(weir_backend, memcached, group):
    """No name of our own, and those of memcached but what is listed above; over either protocol the same."""
    ours, theirs = weir_backend(), memcached()
    told, known = text_stats(ours.port, group), text_stats(theirs.port, group)
    assert set(told) - set(known) == set()
    missing = {name.decode() for name in set(known) - set(told)}
    for why, pattern in ABSENT[group].items():
        found = {name for name in missing if re.fullmatch(pattern, name)}
        assert found, f"memcached does not tell of {why}: {pattern}"
        missing -= found
    assert missing == set()
    again = binary_stats(ours.port, group)
    assert list(again) == list(told)
    quiet = [name for name in told if not re.fullmatch(RESTLESS, name)]
    assert {name: again[name] for name in quiet} == {name: told[name] for name in quiet}
    assert set(binary_stats(theirs.port, group)) == set(known)


def test_statistics_that_there_are_not(weir_backend, memcached):
    ours, theirs = weir_backend(), memcached()
    for group in (b"nothing", b"setting", b"x" * 250):
        asked = mc_differential.frame(0x10, group, opaque=9)
        answers = [mc_differential.Binary(server.port).ask(asked) for server in (ours, theirs)]
        assert answers[0] == answers[1], group


# Flushes

@pytest.mark.parametrize("opcode", (0x08, 0x18))
@pytest.mark.parametrize("extras", (b"", b"\0\0\0\0"))
def test_binary_flush(weir_backend, memcached, opcode, extras):
    """All is gone for who asks next, on the same connection and on others; the quiet form says nothing."""
    flush = mc_differential.frame(opcode, b"", extras, opaque=9)
    for server in (weir_backend(), memcached()):
        binary, text = mc_differential.Binary(server.port), mc_differential.Text(server.port)
        assert text.ask(b"set k 0 0 1\r\nx\r\nset l 0 0 1\r\ny\r\n") == b"STORED\r\n" * 2
        frames = binary.ask(flush + mc_differential.frame(0x00, b"k", opaque=10))
        assert [f[:3] for f in frames] == [(0x08, 0, 9)] * (opcode == 0x08) + [(0x00, 1, 10)]
        assert all(f[3] == 0 and f[4:6] == (b"", b"") for f in frames)
        assert text.ask(b"get k l\r\nset k 0 0 1\r\nz\r\nget k\r\n") == b"END\r\nSTORED\r\nVALUE k 0 1\r\nz\r\nEND\r\n"
        assert text_stats(server.port, b"")[b"cmd_flush"] == b"1"


@pytest.mark.parametrize("opcode", (0x08, 0x18))
def test_binary_flush_with_a_delay(weir_backend, opcode):
    binary = mc_differential.Binary(weir_backend().port)
    store = mc_differential.frame(0x11, b"k", b"\0" * 8, b"x")
    flush = mc_differential.frame(opcode, b"", b"\0\0\0\2", opaque=9)
    get = mc_differential.frame(0x00, b"k", opaque=10)
    frames = binary.ask(store + flush + get)
    assert [f[:3] for f in frames] == [(0x08, 0, 9)] * (opcode == 0x08) + [(0x00, 0, 10)]
    assert frames[-1][6] == b"x"
    wait_for(lambda: binary.ask(get)[0][1] == 1, "it is flushed")
