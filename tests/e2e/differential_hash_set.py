# SPDX-License-Identifier: Apache-2.0
"""Hashes and sets for differential.py.

What is drawn at random is compared in shape alone (test_backend_hash_set.py looks at what it is), and SPOP takes
all, or the only one: otherwise the two servers would part for good.
"""

from differential import Forms, compare, compare_unordered, family, unordered, unordered_pairs

MANY_PAIRS = " ".join(["Q B"] * 40)
WIDE_PAIRS = " ".join(["W B"] * 90)
MANY_WORDS = " ".join(["M"] * 60)
MANY_NUMBERS = " ".join(["D"] * 150)

HASHES = f"""
    hset H Q B|hset H Q B|hset H Q B Q B Q B|hset H Q B Q|hset H Q|hmset H Q B|hmset H Q B Q B|hmset H Q B Q|hmset H Q
    hset H {MANY_PAIRS}|hset H {MANY_PAIRS}|hset big {WIDE_PAIRS}|hset big {WIDE_PAIRS}|hset big {WIDE_PAIRS}
    hset H Q V|hset H V B|hset big V V|hset H same B same B same B
    hsetnx H Q B|hsetnx H Q|hsetnx K Q B|hget H Q|hget H Q|hget big W|hget H|hget H Q Q|hmget H Q Q Q nothing|hmget H
    hmget none Q Q|hgetall H|hgetall big|hgetall none|hkeys H|hkeys big|hkeys none|hvals H|hvals big|hvals none|hlen H
    hlen big|hlen none|hlen|hstrlen H Q|hstrlen big Q|hstrlen none Q|hexists H Q|hexists big W|hexists none Q|hexists H
    hdel H Q|hdel H Q Q Q|hdel big W W W W W W W W|hdel none Q|hdel H|hdel H Q Q Q Q Q Q Q Q Q Q Q Q Q Q Q Q
    hincrby H Q I|hincrby H i1 I|hincrby H i1 I|hincrby big i1 1|hincrby H i1|hincrby none2 i1 I
    hset H i1 I|hset H d1 F|hincrbyfloat H d1 F|hincrbyfloat H d1 F|hincrbyfloat H i1 F|hincrbyfloat big d1 0.1
    hincrbyfloat H Q F|hincrbyfloat H d1|hincrbyfloat none3 d1 F
    hrandfield H|hrandfield big|hrandfield none|hrandfield H N|hrandfield big N|hrandfield H N withvalues
    hrandfield big N withvalues|hrandfield none N|hrandfield none N withvalues|hrandfield H N bogus|hrandfield H I
    hrandfield H 0|hrandfield H 0 withvalues|hrandfield H 1000|hrandfield H 1000 withvalues|hrandfield big 50
    hrandfield big 200|hrandfield big 1000 withvalues|hrandfield big -200 withvalues|hrandfield H withvalues
    hrandfield H 4611686018427387904 withvalues|hrandfield H -9223372036854775808|hrandfield H 5 withvalues x
    hrandfield K 5|hrandfield
    hscan H 0 count 1000|hscan big 0 count 1000|hscan H 0 match P count 1000|hscan big 0 match f*1 count 1000
    hscan none 0|hscan none 0 bogus|hscan H 0 bogus|hscan H 0 count 0|hscan H 0 count x|hscan H 0 count -1|hscan H x
    hscan H 0 match|hscan H 0 type hash|hscan none x|hscan H|hscan H I count 1000 bogus|hscan K 0 count 1000|hscan H -1 bogus
    hscan H 18446744073709551616|hscan H -|hscan H 1x|hscan H 0 COUNT 1000 MATCH f?
    object encoding H|object encoding big|object encoding big|type H|del H|del big|del none2|del none3|copy H H2|hgetall H2|del H2
    rename H H3|hgetall H3|rename H3 H|expire H 1000|ttl H|persist H|hgetall H|exists H
    hset K Q B|hget K Q|hdel K Q|hgetall K|hlen K|hkeys K|hvals K|hincrby K Q 1|hincrby K Q x|hincrbyfloat K Q 1
    hexists K Q|hstrlen K Q|hmget K Q Q|hmset K Q B|hrandfield K
"""

SETS = f"""
    sadd Z M|sadd Z M M M|sadd Z D|sadd Z D D D|sadd Z|sadd Z M M M M M M|sadd Z V|sadd Z same same same|sadd Z I
    sadd Z {MANY_WORDS}|sadd words {MANY_WORDS}|sadd words {MANY_WORDS}|sadd ints {MANY_NUMBERS}|sadd ints {MANY_NUMBERS}
    sadd ints {MANY_NUMBERS}|sadd ints {MANY_NUMBERS}|sadd ints {MANY_NUMBERS}|sadd Z {MANY_NUMBERS}|sadd ints D D|sadd ints M
    srem Z M|srem Z D|srem Z M D M D|srem words M M M M M M M M|srem ints D D D D D D D D|srem none M|srem Z
    srem words {MANY_WORDS}|srem ints {MANY_NUMBERS}|srem Z {MANY_NUMBERS}|srem Z {MANY_WORDS}
    sismember Z M|sismember Z D|sismember words M|sismember ints D|sismember none M|sismember Z|smismember Z M D M D
    smismember none M D|smismember Z|smembers Z|smembers words|smembers ints|smembers none|scard Z|scard words|scard ints
    scard none|scard
    smove Z Z M|smove Z Z D|smove words Z M|smove Z words M|smove ints Z D|smove Z ints D|smove none Z M|smove Z K M
    smove K Z M|smove none K M|smove Z none2 M|smove Z Z|del none2
    sinter Z|sinter Z Z|sinter Z Z Z|sinter words Z|sinter ints Z|sinter words ints Z|sinter Z none|sinter none none|sinter
    sinter K Z|sinter none K|sinter Z K|sinter Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z Z
    sunion Z|sunion Z Z|sunion words Z ints|sunion ints ints|sunion Z none|sunion none|sunion|sunion K Z|sunion none K
    sdiff Z|sdiff Z Z|sdiff words Z|sdiff ints Z|sdiff ints Z Z|sdiff Z none|sdiff none Z|sdiff|sdiff K Z|sdiff none K
    sdiff words words|sdiff Z words ints
    sinterstore Z Z Z|sinterstore out Z Z|sinterstore out words Z|sinterstore out ints Z|sinterstore out Z none
    sinterstore K2 Z Z|sinterstore Z K|sinterstore out|sinterstore out none|smembers out|object encoding out|type K2
    sunionstore Z Z Z|sunionstore out Z Z|sunionstore out words Z ints|sunionstore out none|sunionstore K2 Z|sunionstore out
    sunionstore out ints|sunionstore out K|sdiffstore Z Z Z|sdiffstore out Z Z|sdiffstore out words Z|sdiffstore out ints Z
    sdiffstore out none Z|sdiffstore K2 Z|sdiffstore out|sdiffstore out K|set K2 V|del K2|expire out 1000|ttl out
    sintercard 1 Z|sintercard 2 Z Z|sintercard 3 Z words ints|sintercard 2 Z none|sintercard 2 ints Z limit N
    sintercard 2 words Z limit 3|sintercard 0 Z|sintercard x Z|sintercard 3 Z Z|sintercard 1 Z bogus|sintercard 1 Z limit
    sintercard 1 Z limit x|sintercard 1 Z limit -1|sintercard 1 Z limit 0|sintercard 1 Z limit 2 limit 1|sintercard 2 Z K
    sintercard -1 Z|sintercard 1|sintercard I Z|sintercard 1 K limit 1
    srandmember Z|srandmember words|srandmember ints|srandmember none|srandmember Z N|srandmember words N|srandmember ints N
    srandmember none N|srandmember Z I N|srandmember Z 0|srandmember Z 1000|srandmember words -100|srandmember words 100
    srandmember ints 700|srandmember ints -700|srandmember Z -9223372036854775808|srandmember K|srandmember K 2
    srandmember Z x|srandmember
    sadd pop x|spop pop|spop pop|spop none|spop none 1|spop none 0|spop pop 1|spop pop 0|spop Z 100000|spop words 100000
    spop ints 100000|spop Z 0|spop Z -1|spop Z x|spop Z 1 2|set word V|spop word|spop word 1|spop K 0|spop
    sscan Z 0 count 10000|sscan words 0 count 10000|sscan ints 0 count 10000|sscan ints 0 match *1 count 10000|sscan none 0
    sscan none 0 bogus|sscan Z 0 bogus|sscan Z 0 count 0|sscan Z 0 count x|sscan Z x|sscan Z 0 match|sscan Z 0 type set
    sscan none x|sscan Z|sscan K 0 count 10000|sscan words 0 match P count 10000
    object encoding Z|object encoding words|object encoding ints|type Z|del Z|del words|del ints|del out
    copy Z out replace|rename Z Y|smembers Y|rename Y Z|expire Z 1000|ttl Z|persist Z|exists Z|move Z 1
    sadd K M|srem K M|sismember K M|smismember K M|smembers K|scard K
"""

NEAR_LIMITS = [0, 1, 5, 20, 62, 63, 64, 65, 66, 100]


def sized(rng):
    return rng.randbytes(rng.choice(NEAR_LIMITS)) if rng.randrange(10) == 0 else b"%d" % rng.randrange(-50, 50)


def member(rng):
    if rng.randrange(40) == 0:
        return rng.choice([b"x" * size for size in NEAR_LIMITS])
    return b"m%d" % rng.randrange(100)


def number(rng):
    if rng.randrange(60) == 0:
        return str(rng.choice([2**15 - 1, -2**15, 2**15, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**63 - 1,
                               -2**63])).encode()
    return b"%d" % rng.randrange(700)


@family("hashes")
def hashes(rng):
    return Forms(rng, HASHES, H=lambda rng: b"hash%d" % rng.randrange(4), B=sized, K=lambda rng: b"astring",
                 W=lambda rng: b"f%d" % rng.randrange(700),
                 Q=lambda rng: b"f%d" % rng.randrange(180) if rng.randrange(3) == 0 else b"f%d" % rng.randrange(9))


@family("sets")
def sets(rng):
    return Forms(rng, SETS, Z=lambda rng: b"set%d" % rng.randrange(4), M=member, D=number, K=lambda rng: b"astring",
                 Y=lambda rng: b"set-elsewhere")


@family("wrong-types")
def wrong_types(rng):
    return Forms(rng, "set astring V|set astring V|del astring|strlen astring|get set0|get hash0|hset set1 a b|sadd hash1 a")


def same_shape(request, ours, theirs):
    if not isinstance(ours[1], list) or not isinstance(theirs[1], list):
        return ours[0] == theirs[0] and (ours[0] not in b"-_" or ours == theirs) and \
            (ours[1] is None) == (theirs[1] is None)
    return ours[0] == theirs[0] and len(ours[1]) == len(theirs[1]) and \
        all(same_shape(request, a, b) for a, b in zip(ours[1], theirs[1]))


def compare_page(request, ours, theirs):
    """The whole in one page."""
    if ours[0] != b"*" or theirs[0] != b"*":
        return ours == theirs
    a, b = ours[1], theirs[1]
    if request[0].lower() == b"hscan":
        a, b = ([page[0], (page[1][0], list(zip(page[1][1][::2], page[1][1][1::2])))] for page in (a, b))
    return a[0] == b[0] and compare_unordered(request, a[1], b[1])


unordered("smembers", "sinter", "sunion", "sdiff", "hkeys", "hvals", "spop")
unordered_pairs("hgetall")
compare("srandmember", same_shape)
compare("hrandfield", same_shape)
compare("hscan", compare_page)
compare("sscan", compare_page)
