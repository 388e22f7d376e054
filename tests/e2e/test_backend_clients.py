# SPDX-License-Identifier: Apache-2.0
"""Several clients of weir-backend beside a redis-server, in turns that a seed draws: transactions and channels."""

import random

import pytest

import differential
from blocking_differential import Waiters
from clients_differential import Stream, channels, transactions
from differential import over_seeds

DEBUG = ("--enable-debug-command", "yes")


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("is_cold", (False, True))
def test_transactions_are_those_of_redis(weir_backend, redis_server, resp, is_cold, seeds):
    """Three clients. Nothing is swept when it is over, so that time changes nothing."""
    ours, theirs = weir_backend(), redis_server(None, *DEBUG)
    for server in (ours, theirs):
        with differential.Client(server.port) as c:
            assert c.ask("DEBUG", "SET-ACTIVE-EXPIRE", "0") == (b"+", b"OK")
    before = differential.fetches(ours.port)
    with differential.Client(ours.port) as c:
        for seed in seeds:
            draw = transactions(random.Random(seed))

            def spilling(stream):
                if is_cold and stream.done % 3 == 0:
                    assert c.ask("DEBUG", "SPILL") == (b"+", b"OK")
                return draw(stream)

            stream = Stream(ours.port, theirs.port, seed, spilling, resp)
            stream.run(3000)
            answers = stream.kinds(b"exec")
            assert answers[b"*"] > 20 and answers[b"nil"] > 5
            assert answers[b"-EXECABORT"] > 5 and answers[b"-ERR"] > 5
    assert not is_cold or differential.fetches(ours.port) > before + 100


@over_seeds(1)
@pytest.mark.parametrize("resp", (2, 3))
def test_messages_are_those_of_redis(weir_backend, redis_server, resp, seeds):
    """Message by message; in RESP3 as pushes, also to a client that is inside MULTI or publishes to itself."""
    ours, theirs = weir_backend(), redis_server()
    for seed in seeds:
        stream = Stream(ours.port, theirs.port, seed, channels(random.Random(seed)), resp, clients=4)
        stream.run(4000)
        for kind in (b"message", b"pmessage", b"smessage"):
            assert stream.counts[kind] > 20, stream.counts


@over_seeds(3)
@pytest.mark.parametrize("resp", (2, 3))
@pytest.mark.parametrize("is_cold", (False, True))
def test_waiters_are_served_as_by_redis(weir_backend, redis_server, resp, is_cold, seeds):
    """Eight clients wait for lists and sorted sets, and change them: who is served when, with what."""
    ours, theirs = weir_backend(), redis_server()
    served = 0
    for seed in seeds:
        waiters = Waiters(ours.port, theirs.port, seed, resp, is_cold)
        waiters.run(500)
        served += waiters.served
    assert served > 100
