# SPDX-License-Identifier: Apache-2.0
"""Lists, sorted sets and geo for differential.py.

Blocking commands have their own tests (test_backend_list_zset.py), as they need several clients; here they find
something, or wait a moment only. Places are drawn from a grid without equal distances, as the order of equals is
nobody's promise.
"""

from differential import Forms, compare, family

MANY_ITEMS = " ".join(["B"] * 60)
MANY_PAIRS = " ".join(["R M"] * 60)
LONG_PAIRS = " ".join(["R V"] * 3)

LISTS = f"""
    lpush L B|rpush L B|lpush L B B B|rpush L B B B|lpush L V|rpush L V|lpush L|rpush L|lpushx L B|rpushx L B|lpushx none B
    rpushx none B B|lpush big {MANY_ITEMS}|rpush big {MANY_ITEMS}|rpush big V V V|lpush big V|lpush K B|rpush K B
    lpop L|rpop L|lpop L N|rpop L N|lpop big N|rpop big N|lpop none|rpop none|lpop none N|lpop L I|lpop L 1 2|lpop K|rpop K 1
    lpop L 0|rpop big 30|lpop big 30|llen L|llen big|llen none|llen K|llen
    lindex L N|lindex big N|lindex big J|lindex none N|lindex L x|lindex none x|lindex K 0|lindex L
    lrange L 0 -1|lrange L N N|lrange big N N|lrange big J J|lrange big 0 -1|lrange none 0 -1|lrange L x 1|lrange K 0 1
    lrange K x 1|lset L N B|lset L N V|lset big J B|lset big J V|lset big J V|lset none 0 B|lset L x B|lset L I B|lset K 0 B
    linsert L before B B|linsert L after B B|linsert big before B V|linsert big after B B|linsert big AFTER B V|linsert L x B B
    linsert none before B B|linsert K before B B|linsert L before B
    lrem L N B|lrem big N B|lrem big 0 B|lrem big -1 B|lrem none 0 B|lrem L x B|lrem K 0 B|lrem big I B
    ltrim L N N|ltrim big 0 -2|ltrim big 1 -1|ltrim big J J|ltrim L 0 -1|ltrim none 0 1|ltrim L x 1|ltrim K 0 1|ltrim L 5 1
    lpos L B|lpos L B rank N|lpos L B count N|lpos big B count 0|lpos big B rank -1 count 3|lpos big B rank 2 maxlen 20
    lpos big B maxlen N count N rank N|lpos L B rank x|lpos L B count x|lpos L B maxlen -1|lpos L B bogus 1|lpos L B count
    lpos none B|lpos none B count 1|lpos K B|lpos L B rank -9223372036854775808
    lmove L L W W|lmove L L2 W W|lmove big L W W|lmove L big W W|lmove none L W W|lmove none K W W|lmove L K W W|lmove K L W W
    lmove L L bogus left|lmove L L left|rpoplpush L L|rpoplpush L L2|rpoplpush none L|rpoplpush K L|rpoplpush L K
    lmpop 1 L W|lmpop 2 none L W count N|lmpop 3 none none2 big W count 3|lmpop 1 none W|lmpop 0 L W|lmpop x L W|lmpop 2 L W
    lmpop 1 L bogus|lmpop 1 L W count 0|lmpop 1 L W count x|lmpop 1 L W count 1 count 1|lmpop 1 K W|lmpop 1 L W bogus
    blpop L 0.01|brpop L 0.01|blpop none L2 big 0.01|blpop none 0.01|brpop L x|brpop L -1|blpop K 0.01|blpop none K 0.01
    blmove L L W W 0.01|blmove none L W W 0.01|blmove L L2 W W x|blmove L L bogus left 0|brpoplpush L L2 0.01
    brpoplpush none L 0.01|blmpop 0.01 1 L W|blmpop 0.01 2 none big W count N|blmpop x 1 L W|blmpop 0.01 0 L W|blmpop -1 1 L W
    object encoding L|object encoding big|type L|del L|del big|del L2|copy L L2|copy big L2 replace|lrange L2 0 -1|rename L2 L
    expire L 1000|ttl L|persist L|exists L|sort L alpha|set K B|del K
"""

ZSETS = f"""
    zadd Z R M|zadd Z R M|zadd Z R M R M R M|zadd Z FLAG R M|zadd Z FLAG FLAG R M R M|zadd Z incr R M|zadd Z FLAG incr R M
    zadd Z incr R M R M|zadd Z F M|zadd Z incr F M|zadd Z R|zadd Z R M R|zadd none xx R M|zadd none xx incr R M|zadd K R M
    zadd K x M|zadd big {MANY_PAIRS}|zadd big {MANY_PAIRS}|zadd big ch {MANY_PAIRS}|zadd big gt ch {MANY_PAIRS}
    zadd Z {LONG_PAIRS}|zadd Z R V|zadd Z nx xx R M|zadd Z gt lt R M|zadd Z gt nx R M
    zincrby Z R M|zincrby Z F M|zincrby big R M|zincrby K 1 M|zincrby Z x M|zincrby none3 1 M|del none3
    zrem Z M|zrem Z M M M|zrem big M M M M M|zrem none M|zrem K M|zrem Z|zcard Z|zcard big|zcard none|zcard K
    zscore Z M|zscore big M|zscore none M|zscore K M|zmscore Z M M M|zmscore none M M|zmscore K M|zmscore big M M
    zrank Z M|zrank big M|zrevrank Z M|zrevrank big M|zrank none M|zrevrank none M|zrank K M|zrank Z
    zcount Z A A|zcount big A A|zcount none A A|zcount K A A|zlexcount Z - +|zlexcount lex X X|zlexcount none X X
    zadd lex 0 M 0 M 0 M|zadd lex 0 M|zrem lex M|zrangebylex lex X X|zrangebylex lex X X limit N N|zrevrangebylex lex X X
    zrevrangebylex lex + - limit N N|zrange lex X X bylex|zrange lex + - bylex rev limit N N|zrange lex X X bylex withscores
    zremrangebylex lex X X|zremrangebylex none X X|zremrangebylex K X X
    zrange Z 0 -1|zrange Z 0 -1 withscores|zrange big 0 -1 withscores|zrange Z N N|zrange Z N N rev withscores|zrange big J J
    zrange Z A A byscore|zrange big A A byscore withscores|zrange big A A byscore rev withscores|zrange big A A byscore limit N N
    zrange Z x 1|zrange Z 0 -1 limit 0 1|zrange Z 0 -1 byscore bylex|zrange Z 0 -1 bogus|zrange none 0 -1|zrange K 0 -1
    zrevrange Z 0 -1|zrevrange big J J withscores|zrevrange Z 0 1 rev|zrangebyscore Z A A|zrangebyscore big A A withscores
    zrangebyscore big A A limit N N|zrangebyscore Z A A withscores limit N N|zrevrangebyscore Z A A|zrangebyscore K A A
    zrevrangebyscore big A A withscores limit N N|zrangebyscore none A A|zrangebyscore Z A A limit N|zrangebyscore Z A A limit x 1
    zrangestore out Z 0 -1|zrangestore out big A A byscore limit N N|zrangestore out big J J rev|zrangestore Z Z N N
    zrangestore out none 0 -1|zrangestore out K 0 -1|zrangestore out lex X X bylex|zrangestore out Z 0 -1 withscores
    zrange out 0 -1 withscores|object encoding out|zrangestore K2 Z 0 -1|del K2|set K2 V
    zremrangebyrank Z N N|zremrangebyrank big 3 9|zremrangebyrank big J J|zremrangebyrank none 0 1|zremrangebyrank Z x 1
    zremrangebyscore Z A A|zremrangebyscore big 3 5|zremrangebyscore none A A|zremrangebyscore K A A|zremrangebyrank K 0 1
    zpopmin Z|zpopmax Z|zpopmin Z N|zpopmax big N|zpopmin big N|zpopmin none|zpopmax none 2|zpopmin K|zpopmin Z x|zpopmin Z 1 2
    zmpop 1 Z END|zmpop 2 none big END count N|zmpop 1 none END|zmpop 0 Z END|zmpop 1 Z bogus|zmpop 1 Z END count 0|zmpop 1 K END
    zmpop 2 Z END|zmpop 1 Z END count 1 count 1|bzpopmin Z 0.01|bzpopmax none big 0.01|bzpopmin none 0.01|bzpopmin K 0.01
    bzpopmin Z x|bzmpop 0.01 1 Z END|bzmpop 0.01 2 none big END count N|bzmpop x 1 Z END|bzmpop 0.01 1 none END
    zrandmember Z|zrandmember none|zrandmember Z N|zrandmember Z N withscores|zrandmember big 20|zrandmember big -300 withscores
    zrandmember none N|zrandmember Z x|zrandmember Z 1 bogus|zrandmember Z -9223372036854775808|zrandmember K|zrandmember big 5
    zrandmember Z -9223372036854775807 withscores|zrandmember Z 1000000 withscores
    zunion 2 Z big|zunion 2 Z big withscores|zunion 3 Z lex big weights R R R aggregate AGG withscores|zunion 1 none|zunion 2 K Z
    zunion 2 Z members withscores|zunion 0 Z|zunion x Z|zunion 3 Z Z|zunion 2 Z Z weights 1|zunion 2 Z Z weights 1 x
    zunion 2 Z Z aggregate bogus|zunion 2 Z Z bogus|zunion 2 Z Z weights inf -inf withscores
    zinter 2 Z big withscores|zinter 2 Z none|zinter 3 Z big lex weights R R R aggregate AGG withscores|zinter 2 big members withscores
    zinter 2 K Z|zinter 1 Z withscores|zdiff 2 Z big withscores|zdiff 2 big Z|zdiff 1 none|zdiff 2 big members withscores|zdiff 2 Z K
    zdiff 2 Z Z weights 1 1|zintercard 2 Z big|zintercard 2 Z big limit N|zintercard 2 big members|zintercard 0 Z|zintercard 2 Z none
    zintercard 2 Z big limit x|zintercard 2 Z big bogus|zintercard 1 K
    zunionstore out 2 Z big|zunionstore out 2 Z big weights R R aggregate AGG|zunionstore Z 2 Z Z|zunionstore out 1 none
    zinterstore out 2 Z big|zinterstore out 2 big members weights R R|zinterstore out 2 Z none|zinterstore out 2 Z big aggregate AGG
    zdiffstore out 2 Z big|zdiffstore out 1 none|zunionstore out 1 K|zunionstore out 0 Z|zunionstore out 2 Z big withscores
    zunionstore K2 2 Z big|sadd members M M M|srem members M|del members
    zscan Z 0 count 10000|zscan big 0 count 10000|zscan big 0 match m1* count 10000|zscan none 0|zscan Z x|zscan Z 0 bogus
    zscan Z 0 count 0|zscan K 0|object encoding Z|object encoding big|type Z|del Z|del big|del lex|copy Z out replace
    rename Z Y|zrange Y 0 -1 withscores|rename Y Z|expire Z 1000|ttl Z|persist Z|set K B
"""

GEO = """
    geoadd G LON LAT M|geoadd G LON LAT M|geoadd G LON LAT M LON LAT M LON LAT M|geoadd G ch LON LAT M|geoadd G nx LON LAT M
    geoadd G xx ch LON LAT M|geoadd G nx xx LON LAT M|geoadd G 181 0 M|geoadd G 0 86 M|geoadd G x 0 M|geoadd G LON LAT|geoadd K 1 1 M
    geoadd G 180 85.05112878 corner|geoadd G -180 -85.05112878 corner2|zrem G corner corner2
    geopos G M M none|geopos none M|geopos K M|geopos G|geohash G M M none|geohash none M|geohash K M
    geodist G M M|geodist G M M UNIT|geodist G M none|geodist none M M|geodist G M M bogus|geodist G M M m x|geodist K M M
    geosearch G fromlonlat LON LAT byradius RAD UNIT ORDER|geosearch G frommember M byradius RAD UNIT ORDER withdist
    geosearch G fromlonlat LON LAT bybox RAD RAD UNIT ORDER withcoord|geosearch G frommember M bybox RAD RAD UNIT ORDER withhash
    geosearch G fromlonlat LON LAT byradius RAD UNIT|geosearch G fromlonlat LON LAT bybox RAD RAD UNIT
    geosearch G fromlonlat LON LAT byradius RAD km count N ORDER|geosearch G fromlonlat LON LAT byradius RAD km count 2 any
    geosearch G fromlonlat LON LAT byradius RAD km withdist withcoord withhash asc|geosearch G frommember none byradius 1 km
    geosearch G byradius 1 km|geosearch G fromlonlat 1 1|geosearch G fromlonlat 1 1 byradius -1 km|geosearch none frommember M byradius 1 km
    geosearch G fromlonlat 1 1 byradius x km|geosearch G fromlonlat 1 1 bybox 1 x km|geosearch G fromlonlat 1 1 byradius 1 bogus
    geosearch G fromlonlat 1 1 byradius 1 km bogus|geosearch G fromlonlat 1 1 byradius 1 km any|geosearch K frommember M byradius 1 km
    geosearchstore out G fromlonlat LON LAT byradius RAD UNIT|geosearchstore out G frommember M bybox RAD RAD km storedist
    geosearchstore out G fromlonlat LON LAT byradius RAD km withdist|geosearchstore out none fromlonlat 1 1 byradius 1 km
    geosearchstore out G fromlonlat LON LAT byradius RAD km count 3|zrange out 0 -1 withscores
    georadius G LON LAT RAD UNIT ORDER withdist|georadius G LON LAT RAD km count 3|georadius G LON LAT RAD km store out
    georadius G LON LAT RAD km storedist out|georadius G LON LAT RAD km store out withdist|georadius none 1 1 1 km
    georadius_ro G LON LAT RAD km ORDER|georadius_ro G 1 1 1 km store out|georadiusbymember G M RAD UNIT ORDER withcoord
    georadiusbymember G none 1 km|georadiusbymember none M x km|georadiusbymember_ro G M RAD km ORDER|georadius G 1 1 1 km bogus
    georadius K 1 1 1 km|zscore G M|zrange G 0 -1 withscores|zcard G|del G|set K B
"""


def short(rng):
    return rng.choice([b"", b"a", b"b", b"c", b"12", b"-7", b"x" * 127, b"y" * 128, b"\0\xff", b"%d" % rng.randrange(20)])


def member(rng):
    return rng.choice([b"x" * 64, b"y" * 65, b"", b"m"]) if rng.randrange(60) == 0 else b"m%d" % rng.randrange(150)


def score(rng):
    if rng.randrange(12) == 0:
        return rng.choice([b"inf", b"-inf", b"-0", b"0", b"1e300", b"1e-300", b"0.1", b"9007199254740993", b"1e17", b"3.0"])
    return b"%d" % rng.randrange(-20, 20) if rng.randrange(3) else b"%.3f" % rng.uniform(-20, 20)


def bound(rng):
    if rng.randrange(15) == 0:
        return rng.choice([b"x", b"nan", b"(", b"(x", b"", b" 1", b"1 "])
    return rng.choice([b"", b"("]) + rng.choice([b"-inf", b"+inf", b"inf", b"%d" % rng.randrange(-20, 20),
                                                 b"%.2f" % rng.uniform(-20, 20)])


def lex_bound(rng):
    if rng.randrange(20) == 0:
        return rng.choice([b"x", b"", b"-x", b"+x"])
    return rng.choice([b"-", b"+", b"[" + member(rng), b"(" + member(rng), b"[", b"("])


@family("lists")
def lists(rng):
    return Forms(rng, LISTS, L=lambda rng: b"list%d" % rng.randrange(3), B=short, K=lambda rng: b"astring",
                 L2=lambda rng: b"list-two", W=lambda rng: rng.choice([b"left", b"right", b"LEFT", b"RIGHT"]),
                 J=lambda rng: b"%d" % rng.randrange(-300, 300))


@family("zsets")
def zsets(rng):
    return Forms(rng, ZSETS, Z=lambda rng: b"zset%d" % rng.randrange(3), M=member, R=score, A=bound, X=lex_bound, B=short,
                 K=lambda rng: b"astring", Y=lambda rng: b"zset-elsewhere", J=lambda rng: b"%d" % rng.randrange(-200, 200),
                 big=lambda rng: b"zset-big", FLAG=lambda rng: rng.choice([b"nx", b"xx", b"gt", b"lt", b"ch"]),
                 END=lambda rng: rng.choice([b"min", b"max", b"MAX"]), AGG=lambda rng: rng.choice([b"sum", b"min", b"max"]))


@family("geo")
def geo(rng):
    return Forms(rng, GEO, G=lambda rng: b"geo%d" % rng.randrange(2), M=lambda rng: b"m%d" % rng.randrange(300), B=short,
                 K=lambda rng: b"astring", UNIT=lambda rng: rng.choice([b"m", b"km", b"ft", b"mi", b"KM"]),
                 ORDER=lambda rng: rng.choice([b"asc", b"desc"]),
                 LON=lambda rng: b"%.9f" % rng.choice([rng.uniform(-180, 180), rng.gauss(13, 3)]),
                 LAT=lambda rng: b"%.9f" % rng.choice([rng.uniform(-85, 85), rng.gauss(38, 3)]),
                 RAD=lambda rng: b"%.3f" % (10 ** rng.uniform(-1, 4.3)))


def same_shape(request, ours, theirs):
    if not isinstance(ours[1], list) or not isinstance(theirs[1], list):
        return ours[0] == theirs[0] and (ours[0] != b"-" or ours == theirs) and (ours[1] is None) == (theirs[1] is None)
    return ours[0] == theirs[0] and len(ours[1]) == len(theirs[1]) and \
        all(same_shape(request, a, b) for a, b in zip(ours[1], theirs[1]))


def compare_page(request, ours, theirs):
    """The whole in one page."""
    if ours[0] != b"*" or theirs[0] != b"*":
        return ours == theirs
    a, b = ours[1], theirs[1]
    return a[0] == b[0] and sorted(zip(a[1][1][::2], a[1][1][1::2])) == sorted(zip(b[1][1][::2], b[1][1][1::2]))


compare("zrandmember", same_shape)
compare("zscan", compare_page)
