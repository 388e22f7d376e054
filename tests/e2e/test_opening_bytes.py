# SPDX-License-Identifier: Apache-2.0
"""What client libraries send first (openings.yml), as bytes: all at once per flight, and cut up.

Libraries that cannot be installed here are heard all the same: redis-py 8, go-redis, lettuce,
StackExchange.Redis. After the opening the connection must work.
"""

import os
import re

import pytest
import yaml

from weirtest import HERE, redis_pool, resp

with open(os.path.join(HERE, "openings.yml"), encoding="utf-8") as f:
    OPENINGS = yaml.safe_load(f)

HELLO = rb"\$6\r\nserver\r\n\$5\r\nredis\r\n\$7\r\nversion\r\n\$[0-9]\r\n7\.[0-9.]+\r\n\$5\r\nproto\r\n:%d\r\n" \
        rb"\$2\r\nid\r\n:[0-9]+\r\n\$4\r\nmode\r\n\$10\r\nstandalone\r\n\$4\r\nrole\r\n\$6\r\nmaster\r\n" \
        rb"\$7\r\nmodules\r\n\*0\r\n"
SHAPES = {"HELLO3": rb"%7\r\n" + HELLO.replace(b"%d", b"3"), "HELLO2": rb"\*14\r\n" + HELLO.replace(b"%d", b"2"),
          "ERR": rb"-ERR [ -~]+\r\n"}


@pytest.fixture(scope="module")
def proxy(module_stage):
    return module_stage.weir_proxy(redis_pool(module_stage.redis_server(2)), workers=2)


def shape_of(text):
    return SHAPES.get(text) or text.encode("latin-1")


@pytest.mark.parametrize("cut", ["whole", "bytes"])
@pytest.mark.parametrize("opening", OPENINGS, ids=[o["client"] for o in OPENINGS])
def test_opening(proxy, opening, cut):
    """Each flight is written in one piece, or byte by byte; each reply has its shape; a request follows."""
    is_resp3 = is_subscribed = False
    with proxy.connect() as c:
        for flight in opening["flights"]:
            data = b"".join(resp(*(w.encode("latin-1") for w in words)) for words, _ in flight)
            if cut == "bytes":
                for i in range(len(data)):
                    c.send(data[i:i + 1])
            else:
                c.send(data)
            for words, shape in flight:
                got = c.recv_resp()
                assert re.fullmatch(shape_of(shape), got, re.S), (words, shape, got[:300])
                is_resp3 |= shape == "HELLO3"
                is_subscribed |= words[0] == "SUBSCRIBE"
        if not is_subscribed or is_resp3:
            c.ask(resp("SET", "opening", "1"), b"+OK\r\n").ask(resp("GET", "opening"), b"$1\r\n1\r\n")
            assert c.resp("GET", "opening-miss") == (b"_\r\n" if is_resp3 else b"$-1\r\n")


def test_resp3_types(proxy):
    """After HELLO 3 a server's maps, sets, doubles, nulls and pushes come through as they are; what the
    proxy merges or answers itself has RESP3's shape too; HELLO 2 turns back."""
    with proxy.connect() as c, proxy.connect() as other:
        assert c.resp("HELLO", "3").startswith(b"%7\r\n")
        c.resp("DEL", "r3:h", "r3:s", "r3:z")
        c.resp("HSET", "r3:h", "f", "1")
        c.resp("SADD", "r3:s", "m")
        c.resp("ZADD", "r3:z", "1.5", "m")
        assert c.resp("HGETALL", "r3:h") == b"%1\r\n$1\r\nf\r\n$1\r\n1\r\n"
        assert c.resp("SMEMBERS", "r3:s") == b"~1\r\n$1\r\nm\r\n"
        assert c.resp("ZSCORE", "r3:z", "m") == b",1.5\r\n"
        assert c.resp("ZRANGE", "r3:z", "0", "-1", "WITHSCORES") == b"*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n"
        assert c.resp("GET", "r3:none") == b"_\r\n"
        assert c.resp("MGET", "r3:none", "r3:none2") == b"*2\r\n_\r\n_\r\n"
        assert c.resp("CLIENT", "GETNAME") == b"_\r\n"
        assert c.resp("EVAL", "redis.setresp(3); return redis.call('hgetall', KEYS[1])", "1", "r3:h") == \
            b"%1\r\n$1\r\nf\r\n$1\r\n1\r\n"
        assert c.resp("SUBSCRIBE", "r3:c") == b">3\r\n$9\r\nsubscribe\r\n$4\r\nr3:c\r\n:1\r\n"
        assert other.resp("PUBLISH", "r3:c", "hi") == b":1\r\n"
        c.expect(b">3\r\n$7\r\nmessage\r\n$4\r\nr3:c\r\n$2\r\nhi\r\n")
        assert c.resp("GET", "r3:none") == b"_\r\n"  # commands go on beside the subscription
        assert c.resp("UNSUBSCRIBE", "r3:c") == b">3\r\n$11\r\nunsubscribe\r\n$4\r\nr3:c\r\n:0\r\n"
        assert c.resp("HELLO", "2").startswith(b"*14\r\n")
        assert c.resp("HGETALL", "r3:h") == b"*2\r\n$1\r\nf\r\n$1\r\n1\r\n"
        assert c.resp("GET", "r3:none") == b"$-1\r\n"


def test_resp3_not_spoken(fake, weir_proxy):
    """A server that does not know HELLO: the client is told so and goes on in RESP2."""
    server = fake()
    proxy = weir_proxy(redis_pool([server.address]))
    with proxy.connect() as c:
        c.send(resp("HELLO", "3"))
        peer = server.accept()
        peer.expect(resp("HELLO", "3")).send(b"-ERR unknown command 'HELLO'\r\n")
        c.expect(b"-NOPROTO unsupported protocol version\r\n")
        c.send(resp("GET", "a"))
        peer = server.accept()
        peer.expect(resp("GET", "a")).send(b"$1\r\nx\r\n")
        c.expect(b"$1\r\nx\r\n")
        c.ask(resp("HELLO", "3"), b"-NOPROTO unsupported protocol version\r\n")
