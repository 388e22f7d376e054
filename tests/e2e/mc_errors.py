# SPDX-License-Identifier: Apache-2.0
"""memcache requests that are refused, or nearly, beside a real memcached: what is answered, and what is left.

Each request comes on a connection of its own to two servers that have the same two items. Of what differs for a
reason ours is given, and the reason in docs/node-memcache.md.
"""

import re
import socket
import struct

from mc_differential import frame

SETUP = b"flush_all\r\nset k 5 0 3\r\nabc\r\nset n 0 0 2\r\n10\r\nmn\r\n"
LEFT = b"get k n\r\nmn\r\n"
BIG = 2 << 20  # of each server one is 1 MiB at most
CLOSED = b"<closed>"

# <251>: a key so long; <flags>: more of them than a line may have; <big>: a value, and its length; <keys>, <misses>: a
# thousand times what an ordinary line has.
SAME = r"""
set k 0 0 <big>
add k 0 0 <big>
replace k 0 0 <big>
append k 0 0 <big>
prepend k 0 0 <big>
cas k 0 0 <big 1>
set k 0 0 <big noreply>
add k 0 0 <big noreply>
set none 0 0 <big>
ms k <big>
ms k <big q O1 k>
ms k <big ME>
ms k <big MA>
ms k <big MR>
ms aw== <big b>
set k 0 0 1 x\r\nx
set k 4294967295 0 1\r\nx
set k 0 -1 1\r\nx
touch k
touch k x
touch k 1x
touch k -1
touch none x
touch k x noreply
gat x k
gat k
gats k
gat 1x
gat
gats
gat <251>
gat 1x k
gats x k
gat -1 k
flush_all x
flush_all 1x
flush_all -1
flush_all 0
flush_all x noreply
incr k x
incr k -1
incr k 18446744073709551616
incr k 1
incr k
incr k 1 noreply
incr n 1x
incr n 1 noreply
incr none 1
incr none x
decr k x
decr n 11
delete k 1
delete k x
delete k 0 noreply
delete k noreply 0
delete
get a\x01b
set a\x01b 0 0 1\r\nx\r\nget a\x01b k \x01
set a\tb 0 0 1 noreply\r\nx\r\ngat 0 a\tb
set \x7f 0 0 2\r\n10\r\nincr \x7f 5
ms a\rb 1 k\r\nx\r\nmg a\rb v k\r\nmd a\rb k
set a\r 0 0 1\r\nx\r\nget a\r\r\ndelete a\r
set \x1f 0 0 1\r\nx\r\ntouch \x1f 0\r\nget \x1f
me a\x0bb
get <250>
get<keys>
gets<misses>
set <250> 0 0 1\r\nx
mg <250> v
mg k v O<31>
mg k v O<32>
mg k v O<33>
ms k 1 O<32>\r\nx
ms k 1 q O<32>\r\nx
md k O<32>
ma n O<31>
mg !!! b v
mg YQ b v
mg YQ= b v
mg YQ=== b v
mg a=== b v
mg ==== b v
mg YWJj b v k
ms !!! 1 b\r\nx
ms YQ 1 b\r\nx
md !!! b
md YQ b
ma !!! b
ma YQ b
me !!! b
me YQ b
me YQ== b
mg k z
mg k v v
mg k T
mg k Tx
mg k N
mg k Nx
mg k Rx
mg k Mx
mg k C1
mg k F1
mg k I
mg k D1
mg k<flags>
ms k 1 Fx\r\nx
ms k 1 F-1\r\nx
ms k 1 Cx\r\nx
ms k 1 C-1\r\nx
ms k 1 Tx\r\nx
ms k 1 T-1\r\nx
ms k 1 T-1 I\r\nx
ms k 1 M\r\nx
ms k 1 MX\r\nx
ms k 1 MEX\r\nx
ms k 1 Mset\r\nx
ms k 1 q MX\r\nx
ms k 1 z\r\nx
ms k 1 v\r\nx
ms k 1 D5\r\nx
ms k 1 S1\r\nx
md k z
md k C
md k Cx
md k C-1
md k Tx
md k I I
md k I T-1
md k MX
md k D1
ma n z
ma n M
ma n MX
ma n q MX
ma n Dx
ma n D-1
ma n D18446744073709551616
ma n Jx
ma n J-1
ma n N
ma n Nx
ma n Cx
ma n Tx
ma n T-1 v
ma k
ma k q
ma none q
ma none N0 Jx
mg none N-1
mg none N-1 v
mg none N-1 s f h l v k O5
me
me none
mn x
mg
md
ma
verbosity
verbosity noreply
verbosity x
verbosity 1 noreply
verbosity 1 2
version x
stats x
stats detail
stats detail on
stats detail off
stats detail x
shutdown
shutdown graceful
lru
extstore
cache_memlimit
cache_memlimit x
cache_memlimit 64 noreply
cache_memlimit 1 noreply
cache_memlimit noreply
debugtime 1
misbehave
"""

KEY_LONG, LENGTH, CHUNK = b"CLIENT_ERROR key too long\r\n", b"CLIENT_ERROR bad data length\r\n", \
    b"CLIENT_ERROR bad data chunk\r\n"
FORMAT, EXPTIME = b"CLIENT_ERROR bad command line format\r\n", b"CLIENT_ERROR invalid exptime argument\r\n"
# What is ours. All of them leave both items as they were.
OURS = {
    # No value of a wrong line is taken for a command.
    r"set k 0 0 3\r\nabcde": CHUNK + CLOSED, r"set k 0 0 3\r\nabcd": CHUNK + CLOSED,
    r"set k 0 0 3 noreply\r\nabcde": CHUNK + CLOSED, r"ms k 3\r\nabcde": CHUNK + CLOSED,
    r"ms k 3 q\r\nabcde": CHUNK + CLOSED,
    "set k 0 0 x": LENGTH + CLOSED, "set k 0 0 -1": LENGTH + CLOSED, "set k 0 0": LENGTH + CLOSED,
    "ms k x": LENGTH + CLOSED, "ms k -1": LENGTH + CLOSED, "ms k": LENGTH + CLOSED, "ms k S1": LENGTH + CLOSED,
    "ms": LENGTH + CLOSED,
    r"set k x 0 1\r\nx": FORMAT, r"set k -1 0 1\r\nx": FORMAT, r"set k 0 x 1\r\nx": FORMAT,
    r"set k 0 1x 1\r\nx": FORMAT, r"cas k 0 0 1 x\r\nx": FORMAT, r"cas k 0 0 1 -1\r\nx": FORMAT,
    r"cas k 0 0 1 18446744073709551616\r\nx": FORMAT, r"cas k 0 0 1\r\nx": b"ERROR\r\n",
    r"ms k 1<flags>\r\nx": b"CLIENT_ERROR options flags too long\r\n",
    # A number that does not fit is none.
    r"set k 4294967296 0 1\r\nx": FORMAT, r"set k 0 99999999999 1\r\nx": FORMAT,
    r"ms k 1 F4294967296\r\nx": FORMAT, "touch k 99999999999": EXPTIME, "gat 99999999999 k": EXPTIME,
    "flush_all 99999999999": EXPTIME, "mg k T99999999999": b"CLIENT_ERROR bad token in command line format\r\n",
    # A key that is too long is told so.
    **{line % "<251>": KEY_LONG for line in ("get %s", "gets %s", "get k %s", r"set %s 0 0 1\r\nx", "delete %s",
                                             "touch %s 0", "incr %s 1", "mg %s v", r"ms %s 1\r\nx", "md %s", "ma %s",
                                             "me %s")},
    # What is refused was not done.
    "ma n O<32>": b"CLIENT_ERROR opaque token too long\r\n", "ma n q O<32>": b"CLIENT_ERROR opaque token too long\r\n",
    # A NUL ends no line.
    **{line % r"k\0": b"CLIENT_ERROR invalid key\r\n" for line in ("get %s", "gat 0 %s", r"set %s 0 0 1\r\nx", "delete %s",
                                                                "mg %s v", r"ms %s 1\r\nx", "me %s")},
    # No key, no END.
    "gat 5": b"ERROR\r\n", "gats -1": b"ERROR\r\n",
    # Memory is the configuration's.
    "cache_memlimit 64": b"ERROR\r\n", "cache_memlimit 4": b"ERROR\r\n",
}

EXTRAS, FOREVER = b"\0" * 8, b"\0\0\0\0"
BINARY_SAME = {
    "large set": frame(0x01, b"k", EXTRAS, b"x" * BIG), "large setq": frame(0x11, b"k", EXTRAS, b"x" * BIG),
    "large cas": frame(0x01, b"k", EXTRAS, b"x" * BIG, cas=77), "large new": frame(0x01, b"none", EXTRAS, b"x" * BIG),
    "large add": frame(0x02, b"k", EXTRAS, b"x" * BIG), "large addq": frame(0x12, b"k", EXTRAS, b"x" * BIG),
    "large replace": frame(0x03, b"k", EXTRAS, b"x" * BIG), "large append": frame(0x0E, b"k", b"", b"x" * BIG),
    "large prepend": frame(0x0F, b"k", b"", b"x" * BIG),
    "not a number": frame(0x05, b"k", struct.pack(">QQI", 1, 2, 0)),
    "a counter made dead": frame(0x05, b"none", struct.pack(">QQI", 1, 2, 0xFFFFFFFE)),
    "delete none": frame(0x04, b"none"), "deleteq none": frame(0x14, b"none"),
    "touch none": frame(0x1C, b"none", FOREVER), "gat none": frame(0x1D, b"none", FOREVER),
    "gatk none": frame(0x23, b"none", FOREVER), "gatkq none": frame(0x24, b"none", FOREVER),
    "gat to death": frame(0x1D, b"k", b"\xff" * 4), "touch to death": frame(0x1C, b"k", b"\xff" * 4),
    "set dead": frame(0x01, b"k", FOREVER + b"\xff" * 4, b"x"),
    "flush at once": frame(0x08, b"", FOREVER), "stat detail on": frame(0x10, b"detail on"),
    "stat detail dump": frame(0x10, b"detail dump"), "stat detail off": frame(0x10, b"detail off"),
    "stat detail x": frame(0x10, b"detail x"), "stat detail": frame(0x10, b"detail"),
    "stat detailon": frame(0x10, b"detailon"), "stat reset": frame(0x10, b"reset"),
    "stat nothing": frame(0x10, b"nothing"), "sasl list": frame(0x20),
    "sasl auth": frame(0x21, b"PLAIN", b"", b"\0a\0b"), "sasl step": frame(0x22, b"PLAIN", b"", b"x"),
    "lengths that contradict": struct.pack(">BBHBBHIIQ", 0x80, 0, 5, 0, 0, 0, 3, 0, 0) + b"abc",
}


def expand(row):
    """The bytes of a row, and the end of its line."""
    row = re.sub(r"<(\d+)>", lambda found: "y" * int(found[1]), row).replace("<flags>", " v" * 31)
    row = row.replace("<keys>", " k none n" * 20000).replace("<misses>", " none" * 300000)
    row = re.sub(r"<big ?(.*)>", lambda found: f"{BIG} {found[1]}".rstrip() + r"\r\n" + "x" * BIG, row)
    return row.encode().decode("unicode_escape").encode("latin-1") + b"\r\n"


def talk(port, data, end, until=10):
    """Sends, and reads up to `end`."""
    with socket.create_connection(("127.0.0.1", port), timeout=until) as s:
        reply = b""
        s.sendall(data)
        while not reply.endswith(end):
            try:
                more = s.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                return reply + CLOSED
            reply += more
        return reply[:-len(end)]


def ask(port, request):
    """On fresh items: the reply, and what is left of them."""
    end = b"MN\r\n" * (2 if request.startswith(b"mn") else 1)
    talk(port, SETUP, b"MN\r\n")
    return talk(port, request + b"mn\r\n", end), talk(port, LEFT, b"MN\r\n")


def ask_binary(port, request):
    noop = struct.pack(">BBHBBHIIQ", 0x81, 0x0A, 0, 0, 0, 0, 0, 0xFEEDBEEF, 0)
    talk(port, SETUP, b"MN\r\n")
    reply = talk(port, request + frame(0x0A, opaque=0xFEEDBEEF), noop)
    # Numbers of cas are each server's own.
    parts = []
    while len(reply) >= 24 and reply[:1] == b"\x81":
        body_len = struct.unpack(">I", reply[8:12])[0]
        parts.append((reply[:16], reply[16:24] == b"\0" * 8, reply[24:24 + body_len]))
        reply = reply[24 + body_len:]
    return parts, reply, talk(port, LEFT, b"MN\r\n")
