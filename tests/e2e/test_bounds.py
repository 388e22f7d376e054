# SPDX-License-Identifier: Apache-2.0
"""What peers may not make the proxy do, client or server: hold without end, answer from the wrong place,
overtake. Found by reading; each was broken once."""

import socket
import time

import pytest

from weirtest import DEADLINE, Closed, Fake, memcache_pool, pool, redis_pool, resp, wait_for

QUIET_S = 0.3
REDIS_RANGES = ("one range=..m", "two range=m..")


def ranged(fakes):
    return [f"{fake.address}:1 {words}" for fake, words in zip(fakes, REDIS_RANGES)]


def nobody_connects(fake):
    with pytest.raises(TimeoutError):
        fake.accept(timeout=QUIET_S)


def test_read_whose_key_is_not_known_is_not_sent_again(weir_proxy):
    """mg with k: its server breaks; what would be asked instead does not hold the key."""
    with Fake() as one, Fake() as two:
        proxy = weir_proxy(pool("m", servers=ranged((one, two)), redis=False, distribution="range"))
        with proxy.connect() as c:
            c.send(b"mg zebra v k\r\n")
            with two.accept() as peer:
                assert peer.recv_line() == b"mg zebra v k\r\n"
            assert c.recv_line().startswith(b"SERVER_ERROR ")
            nobody_connects(one)


def test_refused_subscription_is_none(weir_proxy):
    """The only server is ejected: SUBSCRIBE fails, and the client is no subscriber, nor at a second try."""
    with Fake() as dead:
        address = dead.address
    proxy = weir_proxy(redis_pool([address], auto_eject_hosts=True, server_failure_limit=1,
                                  server_retry_timeout=60000))
    with proxy.connect() as c:
        c.send(resp("GET", "a"))
        assert c.recv_line().startswith(b"-ERR ")
        for _ in range(2):
            c.send(resp("SUBSCRIBE", "news"))
            assert c.recv_line().startswith(b"-ERR ")
        c.send(resp("GET", "a"))
        assert b"allowed in this context" not in c.recv_line()


def test_what_is_sent_behind_a_blocking_command_is_bounded(weir_proxy):
    """D1: BLPOP waits, the client sends on and on: it is not read from for ever."""
    with Fake() as fake:
        proxy = weir_proxy(redis_pool([fake.address]))
        with proxy.connect() as c:
            c.send(resp("BLPOP", "a", "0"))
            with fake.accept() as peer:
                peer.expect(resp("BLPOP", "a", "0"))
                block, sent, last = resp("PING") * 5000, 0, time.monotonic()
                c.sock.setblocking(False)
                while time.monotonic() - last < 1 and sent < 100 << 20:
                    try:
                        sent += c.sock.send(block)
                        last = time.monotonic()
                    except BlockingIOError:
                        time.sleep(0.01)
                assert sent < 50 << 20
                c.sock.settimeout(DEADLINE)
                peer.send(b"*2\r\n$1\r\na\r\n$1\r\n1\r\n")
                c.expect(b"*2\r\n$1\r\na\r\n$1\r\n1\r\n" + b"+PONG\r\n" * 1000)


def test_time_to_authenticate_runs_from_the_start(weir_proxy):
    """D3: neither a name nor a byte now and then buys more of it."""
    proxy = weir_proxy("weir:\n  version: 1\n  limits: {auth_timeout: 4s}\n" +
                       redis_pool(["127.0.0.1:1"], redis_auth="secret"))
    with proxy.connect() as named, proxy.connect() as trickling, proxy.connect() as good:
        good.ask(resp("AUTH", "secret"), b"+OK\r\n")
        named.send(resp("HELLO", "2", "SETNAME", "x"))
        named.recv_line()
        named.recv_eof()

        def is_closed():
            try:
                trickling.send(resp("AUTH", "wrong"))
                trickling.recv_line()
            except (Closed, OSError):
                return True
            return False
        wait_for(is_closed, "the one that trickles is closed", step=0.2)
        good.ask(resp("PING"), b"+PONG\r\n")


def test_sums_of_the_largest_numbers(weir_proxy):
    """A server says what it likes; adding it up harms nobody."""
    with Fake() as one, Fake() as two:
        proxy = weir_proxy(pool("r", servers=ranged((one, two)), redis=True, distribution="range"))
        with proxy.connect() as c:
            c.send(resp("DEL", "a", "z") + resp("DBSIZE"))
            with one.accept() as first, two.accept() as second:
                first.send(b":9223372036854775807\r\n" * 2)
                second.send(b":9223372036854775807\r\n" * 2)
                c.expect(b":-2\r\n" * 2)


def test_a_piece_of_a_binary_frame_nobody_waits_for(weir_proxy):
    """A reply is not looked for behind stray bytes: the connection is retired at once."""
    with Fake() as fake:
        proxy = weir_proxy(memcache_pool([fake.address]))
        with proxy.connect() as c:
            noop = bytes([0x80, 0x0b]) + bytes(22) # version
            answer = bytes([0x81, 0x0b]) + bytes(6) + b"\0\0\0\x03" + bytes(12) + b"1.6"
            c.send(noop)
            with fake.accept() as peer:
                assert len(peer.recv_exact(24)) == 24
                peer.send(answer)
                c.expect(answer)
                peer.send(b"\x81\0\0")
                peer.recv_eof()


def test_many_servers_and_a_bound_one_keep_the_order(weir_proxy):
    """P5, N2: WATCH ties a connection; what goes to all servers does not overtake what is in flight on it,
    nor is it overtaken."""
    with Fake() as fake:
        proxy = weir_proxy(redis_pool([fake.address]))
        with proxy.connect() as c:
            c.send(resp("WATCH", "a") + resp("SET", "a", "1") + resp("DBSIZE") + resp("SET", "a", "2"))
            with fake.accept() as bound:
                bound.expect(resp("WATCH", "a") + resp("SET", "a", "1"))
                nobody_connects(fake)
                bound.send(b"+OK\r\n" * 2)
                with fake.accept() as shared:
                    shared.expect(resp("DBSIZE"))
                    assert bound.is_quiet(QUIET_S)
                    shared.send(b":1\r\n")
                    bound.expect(resp("SET", "a", "2"))
                    bound.send(b"+OK\r\n")
                    c.expect(b"+OK\r\n+OK\r\n:1\r\n+OK\r\n")


def test_parts_that_wait_for_a_slow_server_are_counted(weir_proxy):
    """D1: what one server has answered to split requests waits for the other; together it is bounded."""
    value = b"$60000\r\n" + b"v" * 60000 + b"\r\n"
    with Fake() as one, Fake() as two:
        proxy = weir_proxy("weir:\n  version: 1\n  limits: {client_output_close: 100000, client_output_max: 90000}\n" +
                           pool("r", servers=ranged((one, two)), redis=True, distribution="range"))
        with proxy.connect() as c:
            c.send(resp("MGET", "a", "z") * 3)
            with one.accept() as quick, two.accept() as slow:
                quick.expect(resp("MGET", "a") * 3)
                quick.send(b"*1\r\n" + value)
                quick.send(b"*1\r\n" + value)
                quick.send(b"*1\r\n$1\r\n1\r\n")
                slow.expect(resp("MGET", "z") * 3)
                assert c.is_quiet(QUIET_S)
                slow.send(b"*1\r\n$1\r\n2\r\n" * 3)
                c.expect(b"*2\r\n" + value + b"$1\r\n2\r\n")
                c.expect(b"-ERR reply too large to be merged\r\n")
                c.expect(b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n")
                c.send(resp("GET", "a"))
                quick.expect(resp("GET", "a"))
                quick.send(b"$-1\r\n")
                c.expect(b"$-1\r\n")
