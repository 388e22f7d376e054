# SPDX-License-Identifier: Apache-2.0
"""Strings, bitmaps, HyperLogLog and keys of weir-backend beside a redis-server: hot, cold, over restarts."""

import random
import re
import signal

import pytest

import differential
import weirtest
from differential import SEED, over_seeds

FAMILIES = ["bitmaps", "hyperloglog", "keys", "sort", "strings"]


@over_seeds(3)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_redis(weir_backend, redis_server, family, resp, seeds):
    ours, theirs = weir_backend(), redis_server()
    for seed in seeds:
        differential.run(ours.port, theirs.port, [family], seed=seed, count=4000, resp=resp)
    differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))


@over_seeds(3)
@pytest.mark.parametrize("resp", (2, 3))
def test_families_together(weir_backend, redis_server, resp, seeds):
    ours, theirs = weir_backend(), redis_server()
    for seed in seeds:
        differential.run(ours.port, theirs.port, FAMILIES, seed=seed, count=6000, resp=resp)
    differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))


@over_seeds(4)
@pytest.mark.parametrize("signo", (signal.SIGTERM, signal.SIGKILL))
def test_values_survive_restarts(weir_backend, redis_server, signo, seeds):
    """A killed node has lost nothing of what it answered: its log ring outlives it."""
    ours, theirs = weir_backend(None, "--segment_size", "1mb"), redis_server()
    differential.run(ours.port, theirs.port, FAMILIES, seeds[0], count=4000)
    for seed, resp in zip(seeds[1:], (3, 2, 3)):
        ours.restart(signo)
        differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))
        differential.run(ours.port, theirs.port, FAMILIES, seed, count=3000, resp=resp, flush=False)


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
def test_cold_values_read_as_hot_ones(weir_backend, redis_server, resp, seeds):
    ours, theirs = weir_backend(None, "--memory", "4mb"), redis_server()
    differential.run_and_fill(ours.port, theirs.port, FAMILIES, seeds, count=3000, resp=resp)


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_the_same_with_all_values_cold(weir_backend, redis_server, family, resp, seeds):
    ours, theirs = weir_backend(), redis_server()
    fetched = differential.run_cold(ours.port, theirs.port, [family], seeds[0], count=2000, resp=resp)
    differential.compare_snapshots(differential.snapshot(ours.port), differential.snapshot(theirs.port))
    assert fetched > 10


def test_a_bit_of_a_long_string_survives_a_kill(weir_backend):
    """128 MiB by one SETBIT, then single bits: the log has the bits, not the string again."""
    ours = weir_backend()
    rng = random.Random(SEED)
    bits = {rng.randrange((1 << 30) - 1) for _ in range(500)}
    with differential.Client(ours.port) as c:
        c.ask("SETBIT", "long", (1 << 30) - 1, 1)
        for bit in bits:
            assert c.ask("SETBIT", "long", bit, 1) == (b":", b"0")
    ours.restart(signal.SIGKILL)
    with differential.Client(ours.port) as c:
        assert c.ask("STRLEN", "long") == (b":", b"%d" % (1 << 27))
        assert c.ask("BITCOUNT", "long") == (b":", b"%d" % (len(bits) + 1))
        for bit in bits:
            assert c.ask("GETBIT", "long", bit) == (b":", b"1")


@pytest.mark.parametrize("change", (
    ("SETRANGE", "long", 100, "changed"), ("SETBIT", "long", 7, 1), ("APPEND", "long", "more"), ("SET", "long", "short"),
    ("GETDEL", "long"), ("RENAME", "other", "long"), ("FLUSHALL",), ("DEBUG", "RELOAD")))
def test_what_a_slow_reader_is_sent_does_not_change(weir_backend, change):
    """A long value is sent from where it lies; who reads it slowly gets it as it was when the reply was made."""
    ours, value = weir_backend(), random.Random(SEED).randbytes(12 << 20)
    with differential.Client(ours.port) as writer, differential.Client(ours.port) as slow, \
            differential.Client(ours.port) as text:
        writer.ask("MSET", "long", value, "other", value[::-1])
        slow.send([[b"MGET", b"other", b"long"]])
        text.sock.sendall(b"get long other\r\n")
        weirtest.wait_for(lambda: len(re.findall(rb"omem=[1-9]\d{6}", writer.ask("CLIENT", "LIST")[1])) == 2)
        assert writer.ask(*change)[0] != b"-"
        assert slow.read() == (b"*", [(b"$", value[::-1]), (b"$", value)])
        for key, sent in ((b"long", value), (b"other", value[::-1])):
            assert text.stream.readline() == b"VALUE %s 0 %d\r\n" % (key, len(sent))
            assert text.stream.read(len(sent) + 2) == sent + b"\r\n"
        assert text.stream.readline() == b"END\r\n"
        assert int(re.search(rb"mem_clients_normal:(\d+)", writer.ask("INFO", "memory")[1])[1]) < len(value)


def test_what_makes_a_string_long_is_asked_for(weir_backend):
    """A few bytes that would take five times the memory: nothing is made, also not in a transaction. What is long already may
    be changed, and grow as far as there is room."""
    ours = weir_backend(None, "--memory", "100mb")
    far = (["SETBIT", "k", "4294967295", "1"], ["SETRANGE", "k", "536870911", "x"], ["BITFIELD", "k", "GET", "u8", "0", "SET", "u8",
            "4294967288", "1"], ["BITFIELD", "k", "OVERFLOW", "SAT", "INCRBY", "u8", "#536870911", "1"])
    with differential.Client(ours.port) as c:
        for words in far:
            assert c.ask(*words)[1].startswith(b"OOM "), words
            assert c.ask("EXISTS", "k") == (b":", b"0")
            assert c.ask("MULTI") == (b"+", b"OK") and c.ask(*words)[1].startswith(b"OOM ")
            assert c.ask("EXEC")[1].startswith(b"EXECABORT")
        assert c.ask("SETRANGE", "k", str(60 << 20), "x") == (b":", b"%d" % ((60 << 20) + 1))
        assert c.ask("SETBIT", "k", str((60 << 23) - 1), "1") == (b":", b"0")
        assert c.ask("SETRANGE", "k", str(90 << 20), "x") == (b":", b"%d" % ((90 << 20) + 1))
        for words in far:
            assert c.ask(*words)[1].startswith(b"OOM "), words
        assert c.ask("SETBIT", "k", str((90 << 23) - 1), "1") == (b":", b"0")
        assert c.ask("STRLEN", "k") == (b":", b"%d" % ((90 << 20) + 1))


def test_data_is_twenty_times_the_memory(weir_backend):
    """Values of 1.5 KiB, written, read in another order, and read again after a kill; the memory stays as it was told."""
    ours = weir_backend(None, "--memory", "4mb")
    count = 20 * (4 << 20) // 1536 + 1
    rng = random.Random(SEED)

    def value(i):
        return random.Random(i).randbytes(1536)

    def read_all(order):
        with differential.Client(ours.port) as c:
            for start in range(0, count, 256):
                batch = order[start:start + 256]
                c.send([[b"GET", b"key:%012d" % i] for i in batch])
                for i in batch:
                    assert c.read() == (b"$", value(i)), i
            used = int(re.search(rb"\nused_memory_dataset:(\d+)", c.ask("INFO", "memory")[1])[1])
            assert used <= 4 << 20
            assert c.ask("DBSIZE") == (b":", b"%d" % count)

    with differential.Client(ours.port) as c:
        for start in range(0, count, 256):
            batch = range(start, min(start + 256, count))
            c.send([[b"SET", b"key:%012d" % i, value(i)] for i in batch])
            for _ in batch:
                assert c.read() == (b"+", b"OK")
    order = list(range(count))
    rng.shuffle(order)
    read_all(order)
    ours.restart(signal.SIGKILL)
    read_all(order[::-1])


def test_scan_sees_what_stays(weir_backend):
    """20000 keys stay; twice as many come and go between the pages, so that the table grows and shrinks."""
    ours = weir_backend()
    with differential.Client(ours.port) as c:
        stays = {b"stays:%d" % i for i in range(20000)}
        c.ask("MSET", *[word for key in sorted(stays) for word in (key, b"x")])
        seen, cursor, pages = set(), b"0", 0
        while pages == 0 or cursor != b"0":
            (_, cursor), page = c.ask("SCAN", cursor, "COUNT", 200)[1]
            seen.update(key for _, key in page[1])
            block = pages // 2 * 1000
            goes = [b"goes:%d" % i for i in range(block, block + 1000)]
            c.ask("MSET", *[word for key in goes for word in (key, b"y")]) if pages % 2 == 0 else c.ask("DEL", *goes)
            pages += 1
        assert stays <= seen


def test_times_to_live_end(weir_backend, redis_server):
    ours, theirs = weir_backend(), redis_server()
    with differential.Client(ours.port) as a, differential.Client(theirs.port) as b:
        for c in (a, b):
            for i in range(100):
                c.ask("SET", f"k{i}", "x", "PX", 50 + i)
            c.ask("SET", "stays", "x", "PX", 60000)
            differential.time.sleep(0.3)
            assert c.ask("MGET", "k0", "k50", "k99", "stays")[1][-1] == (b"$", b"x")
            assert c.ask("EXISTS", *[f"k{i}" for i in range(100)]) == (b":", b"0")
            assert c.ask("KEYS", "*") == (b"*", [(b"$", b"stays")])
    ours.restart(signal.SIGKILL)
    with differential.Client(ours.port) as a:
        assert a.ask("KEYS", "*") == (b"*", [(b"$", b"stays")])
