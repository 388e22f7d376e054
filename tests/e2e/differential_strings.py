# SPDX-License-Identifier: Apache-2.0
"""Strings, bitmaps, HyperLogLog and keys for differential.py."""

from differential import Forms, compare, compare_unordered, family, unordered

STRINGS = """
    set K V|set K V|set K V nx|set K V xx|set K V get|set K V xx get|set K V nx get|set K V ex E|set K V px 100000
    set K V exat 99999999999|set K V pxat 99999999999999|set K V keepttl|set K V keepttl get|set K V ex X|set K V px X
    set K V exat X|set K V pxat X|set K V ex|set K V nx xx|set K V ex 10 px 10|set K V ex 10 keepttl|set K V bogus
    get K|get K|get K|getset K V|getdel K|getex K|getex K persist|getex K ex E|getex K px X|getex K exat I
    getex K pxat 99999999999999|getex K ex 10 persist|getex K bogus|getex K ex
    append K V|append K S|strlen K|setrange K N V|setrange K 16380 S|setrange K 40000 S|setrange K 536870912 x
    setrange K I S|setrange K 99999999999 ab
    getrange K N N|getrange K I N|getrange K 0 -1|substr K N N
    incr K|decr K|incrby K I|decrby K I|incr n1|decr n1|incrby n1 I|decrby n1 I|incrbyfloat K F|incrbyfloat f1 F
    incrbyfloat f1 F|incrbyfloat n1 F|set n1 I|set f1 F|set n1 S
    setnx K V|setex K E V|setex K X V|psetex K 100000 V|psetex K X V
    mget K K K|mget K|mset K V K V|mset K V K|msetnx K V K V|msetnx m1 V m2 V|del m1
    lcs K K len|lcs l1 l2|lcs l1 l2 len|lcs l1 l2 idx|lcs l1 l2 idx minmatchlen N|lcs l1 l2 idx withmatchlen
    lcs l1 l2 idx minmatchlen 2 withmatchlen|lcs l1 l2 len idx|lcs l1 l2 bogus|lcs l1 none|set l1 T|set l2 T
    get|set K|append K|strlen|getrange K 0|setrange K 0|mget|mset|incr|incrby K
    lpush list1 a|get list1|set list1 V|append list1 V|strlen list1|getrange list1 0 1|setrange list1 0 x|incr list1
    incrbyfloat list1 1|getset list1 x|getdel list1|getex list1|mget list1 K|setnx list1 V|lcs list1 K
    set list1 V get|getbit list1 0|setbit list1 0 1
"""

BITS = """
    setbit B O G|setbit B O G|setbit B O 1|setbit B Q 1|setbit B O I|getbit B O|getbit B Q|getbit K O
    bitcount B|bitcount B N N|bitcount B I N|bitcount B N N bit|bitcount B N N byte|bitcount B N N bogus|bitcount B N
    bitcount K|bitcount K N N bit|bitcount B 3 77 bit|bitcount B -50 -3 bit
    bitpos B G|bitpos B G N|bitpos B G N N|bitpos B G N N bit|bitpos B G N N byte|bitpos B G N N bogus|bitpos B 2
    bitpos B x|bitpos B G 3 77 bit|bitpos B G 5 -3 bit|bitpos K G|bitpos none G|bitpos B G -1 -2|bitpos B G 1 2 bit x
    bitop and B B B|bitop or B B B|bitop xor B B B B|bitop not B B|bitop not B B B|bitop bogus B B|bitop and B none
    bitop or B K B|bitop and B B none|bitop xor none none none|bitop or K K
    bitfield B get T A|bitfield B set T A I|bitfield B incrby T A I|bitfield B set T A N get T A
    bitfield B overflow sat incrby T A I|bitfield B overflow fail incrby T A I set T A I
    bitfield B overflow wrap incrby T A I overflow sat set T A I overflow fail set T A I get T A
    bitfield B overflow bogus set u8 0 1|bitfield B|bitfield B get u64 0|bitfield B get i65 0|bitfield B get x 0
    bitfield B get u8|bitfield B bogus|bitfield B set u8 0|bitfield K get T A|bitfield B incrby T A N incrby T A N
    bitfield_ro B get T A|bitfield_ro B get T A get T A|bitfield_ro B set u8 0 1|bitfield_ro none get u8 0
    set B V|append B V|get B|strlen B|del B|setrange B N V
    sadd set1 a|bitcount set1|bitpos set1 1|bitop or B set1|bitfield set1 get u8 0|bitfield set1 set u8 0 1
    getbit set1 1|setbit set1 1 1
"""

HLL = """
    pfadd H E|pfadd H E E E E E|pfadd H E E E E E E E E E E E E E E E|pfadd H|pfcount H|pfcount H H|pfcount H none
    pfdebug encoding H|pfdebug decode H|pfdebug getreg H|pfdebug TODENSE H|pfdebug foo H|pfdebug decode lst|pfdebug encoding none
    pfcount none|pfmerge H|pfmerge H H|pfmerge H H H|pfmerge H none|get H|strlen H|pfadd K E|pfcount K|pfmerge H K
    copy H H replace|set H Y|pfadd lst E|rpush lst a|pfcount lst|pfmerge H lst|pfcount H lst|del H|ttl H|expire H 1000
"""

KEYS = """
    set K V|set K S|set K V ex E|rpush K S S|sadd K S S|hset K S S|zadd K 1 S|setex K 1000 x
    del K|del K K|unlink K K|exists K|exists K K K|type K|ttl K|pttl K|expiretime K|pexpiretime K|persist K|touch K K
    expire K E|expire K X|pexpire K 100000|pexpire K X|expireat K 99999999999|expireat K X|pexpireat K 99999999999999
    pexpireat K X|expire K E nx|expire K E xx|expireat K G gt|expireat K G lt|expire K E nx xx|expire K E gt lt
    expireat K G xx gt|expire K E nx gt|expire K E bogus|pexpireat K 88888888888888 gt|expireat K 99999999998 lt|expire K -1
    expireat K G xx lt|pexpireat K 1|expire none 10
    rename K K|rename K K|renamenx K K|rename none K|copy K K|copy K K replace|copy K K db D|copy K K db D replace
    copy K K bogus|copy K K db 99|copy K K db x|copy K K db|move K D|move K 99|move K x|move none 1|select D|select 0
    select 16|select x|randomkey x|keys P|keys *|dbsize|scan 0 count 1000|scan 0 match P count 1000
    scan 0 count 1000 type T|scan 0 count 1000 match P type T|scan x|scan 0 count 0|scan 0 count x|scan 0 bogus
    scan 0 match|object encoding K|object refcount none|object freq none|object freq K
    object encoding none|object idletime none|object help|object bogus K|object encoding|object
    get K|flushdb async|flushdb sync|flushdb|flushdb bogus|flushall bogus|wait 0 0|wait 0 1|wait x 0|wait 0 -1
    wait 0 x|swapdb 0 3|swapdb 3 0|move K 3|swapdb 1 2|swapdb 0 x|swapdb x 0|swapdb 0 99|swapdb 99 0|echo V|rename list1 K
"""

SORT = """
    rpush L F3 F3 F3|rpush L S S|lpush L W|sadd M W W|sadd M 3 1 2|zadd Z 3 a 1 b 2 c|zadd Z F3 W|del L|del M|del Z
    set w_1 3|set w_2 1|set w_3 2|set w_a z|set w_b y|set w_c x|hset o_1 f 10|hset o_2 f 5|hset o_a f q
    sort L|sort L desc|sort L alpha|sort L alpha desc|sort L limit N N|sort L by w_*|sort L by w_* alpha
    sort L by w_* desc alpha|sort L by nosort|sort L by nosort get #|sort L by nosort desc limit 1 2
    sort L get #|sort L alpha get w_* get # get o_*->f|sort L by o_*->f|sort L by o_*->f alpha
    sort L alpha store out|sort L by nosort store out|lrange out 0 -1|sort L by nosort get w_* store out
    sort M alpha|sort M|sort M by nosort store out|sort M alpha desc limit 0 2|sort Z alpha|sort Z by nosort
    sort Z by nosort desc|sort Z by nosort limit 1 1|sort Z by nosort desc limit 0 2|sort Z
    sort none|sort none store out|sort none store L|sort K|sort L bogus|sort L limit 0|sort L limit x 1|sort L store
    sort_ro L alpha|sort_ro L store out|sort_ro L|sort L by w_ get w_1|sort L get nothing alpha|type out
"""


@family("strings")
def strings(rng):
    return Forms(rng, STRINGS, T=lambda rng: bytes(rng.choice(b"abc") for _ in range(rng.randrange(60))))


@family("bitmaps")
def bitmaps(rng):
    return Forms(
        rng, BITS,
        B=lambda rng: b"bits%d" % rng.randrange(5),
        G=lambda rng: rng.choice([b"0", b"1"]),
        Q=lambda rng: rng.choice([b"x", b"", b"-1", b"01", b"4294967296", b"9223372036854775807", b"9223372036854775808"]),
        O=lambda rng: str(rng.choice([0, 1, 7, 8, 9, 63, 64, 100, 1000, 131071, 131072, 131073, 200000])).encode(),
        T=lambda rng: rng.choice([b"u", b"i"]) + str(rng.choice([1, 2, 5, 7, 8, 9, 13, 16, 31, 32, 33, 62, 63])).encode()
        if rng.randrange(8) else b"i64",
        A=lambda rng: rng.choice([b"", b"#"]) + str(rng.choice([0, 1, 2, 3, 7, 8, 9, 100, 1021])).encode()
        if rng.randrange(10) else rng.choice([b"131070", b"200001", b"-1", b"x", b"#x", b"4294967296"]))


@family("hyperloglog")
def hyperloglog(rng):
    return Forms(
        rng, HLL,
        H=lambda rng: b"hll%d" % rng.randrange(5),
        E=lambda rng: b"%d" % rng.randrange(100000),
        Y=lambda rng: rng.choice([b"HYLL", b"HYLL\1" + bytes(11), b"HYLL\1" + bytes(11) + b"\x7f\xff",
                                  b"HYLL\0" + bytes(11), b"HYLL\2" + bytes(11), b"HYLL\1" + bytes(10) + b"\x80\0"]))


def compare_scan(request, ours, theirs):
    """The whole in one page: cursors are equal (0), keys in any order."""
    if ours[0] != b"*" or theirs[0] != b"*":
        return ours == theirs
    return ours[1][0] == theirs[1][0] and compare_unordered(request, ours[1][1], theirs[1][1])


def compare_object(request, ours, theirs):
    """How a string came to be is not kept: one that APPEND made reads as if SET had."""
    words = (b"int", b"embstr", b"raw")
    return len(request) > 1 and request[1].lower() == b"encoding" and ours[1] in words and theirs[1] in words


compare("scan", compare_scan)
compare("object", compare_object)
unordered("randomkey")


@family("keys")
def keys(rng):
    return Forms(rng, KEYS, D=lambda rng: b"%d" % rng.randrange(3),
                 G=lambda rng: rng.choice([b"88888888888", b"99999999999", b"77777777777"]),
                 T=lambda rng: rng.choice([b"string", b"list", b"hash", b"zset", b"SET", b"bogus"]))


@family("sort")
def sort(rng):
    return Forms(rng, SORT, L=lambda rng: b"sl%d" % rng.randrange(2), M=lambda rng: b"ss", Z=lambda rng: b"sz",
                 F3=lambda rng: rng.choice([b"1", b"2", b"3", b"-1.5", b"10", b"2.5"]),
                 W=lambda rng: rng.choice([b"a", b"b", b"c", b"1", b"2", b"ab"]))
