# SPDX-License-Identifier: Apache-2.0
"""Commands about the server: what they answer, and what they refuse. (INFO, MEMORY STATS, TIME are each server's
own.)"""

from differential import Forms, compare, compare_unordered, family


def same_kind(request, ours, theirs):
    """Replies of one shape whose numbers are each server's own."""
    return type(ours) is type(theirs)


compare("slowlog", lambda request, ours, theirs: same_kind(request, ours, theirs)
        if request[1].lower() in (b"get", b"len") else ours == theirs)
def config(request, ours, theirs):
    if len(request) > 1 and request[1].lower() == b"get" and ours[0:1] == theirs[0:1] in ((b"*",), (b"%",)):
        return sorted(ours[1], key=repr) == sorted(theirs[1], key=repr)
    return ours == theirs


compare("config", config)
# A latency-monitor-threshold of 1 ms may be met by either, when the machine is busy.
compare("latency", lambda request, ours, theirs: ours == theirs or
        len(request) == 2 and ours[0:1] == theirs[0:1] == (b":",))
compare("pubsub", lambda request, ours, theirs: len(request) > 1 and request[1].lower().endswith(b"channels") and
        compare_unordered(request, ours, theirs))


# Of CLIENT LIST; the others are each server's own.
CLIENT_FIELDS = (b"name", b"flags", b"db", b"sub", b"psub", b"ssub", b"multi", b"cmd", b"user", b"redir", b"resp")


def client_lines(reply):
    """CLIENT LIST's and INFO's: a {field: value} each, in the order in which they came; Redis turns its list round."""
    text = reply[1][4:] if reply[0] == b"=" else reply[1]
    lines = [dict(field.split(b"=", 1) for field in line.split(b" ")) for line in text.split(b"\n") if line]
    return sorted(lines, key=lambda line: int(line[b"id"]))


def same_clients(ours, theirs):
    """lib-name and lib-ver are of CLIENT SETINFO, which is 7.2's."""
    ours, theirs = client_lines(ours), client_lines(theirs)
    return len(ours) == len(theirs) and all(
        set(mine) - {b"lib-name", b"lib-ver"} == set(real) and
        [mine[name] for name in CLIENT_FIELDS] == [real[name] for name in CLIENT_FIELDS] for mine, real in zip(ours, theirs))


def client(request, ours, theirs):
    sub = request[1].lower() if len(request) > 1 else b""
    if ours[0] != theirs[0] or ours[0] == b"-" or sub not in (b"id", b"info", b"list", b"help"):
        return ours == theirs
    return sub in (b"id", b"help") or same_clients(ours, theirs)


def hello(request, ours, theirs):
    """All but the client's number."""
    if not isinstance(ours[1], list) or not isinstance(theirs[1], list):
        return ours == theirs
    return ours[0] == theirs[0] and ours[1][:7] + ours[1][8:] == theirs[1][:7] + theirs[1][8:]


compare("client", client)
compare("hello", hello)
compare("lastsave", same_kind)
compare("time", same_kind)
compare("lolwut", same_kind)

CONFIGS = [b"maxmemory", b"timeout", b"save", b"appendfsync", b"notify-keyspace-events", b"slowlog-max-len",
           b"client-output-buffer-limit", b"proto-max-bulk-len", b"latency-monitor-threshold", b"activerehashing",
           b"hash-max-listpack-entries", b"hash-max-ziplist-entries", b"lua-time-limit", b"list-max-listpack-size",
           b"databases", b"daemonize", b"nothing", b"MAXMEMORY-samples", b"maxmemory-samples", b"lfu-log-factor",
           b"repl-diskless-load", b"acl-pubsub-default", b"min-slaves-to-write", b"maxmemory-clients",
           b"hz", b"latency-tracking-info-percentiles", b"oom-score-adj-values", b"proc-title-template",
           b"shutdown-on-sigterm"]
VALUES = [b"", b"0", b"1", b"-1", b"100", b"yes", b"no", b"YES", b"1gb", b"1k", b"10MB", b"3gbb", b"x", b"everysec",
          b"always", b"AKE", b"Kgx", b"Q", b"900 1", b"900 1 60 5", b"900", b"normal 0 0 0", b"pubsub 1mb 1kb 10",
          b"replica 1 1", b"foo 1 1 1", b"normal a 1 1", b"99999999999999999999", b"536870912", b"2147483648",
          b"swapdb", b"allchannels", b"5%", b"0%", b"101%", b"-1%", b"%", b"50 99.90", b"1e-7", b"nan", b"1 2 3",
          b"1 2 -2000", b"1 2 2001", b"{title}{port}", b"{title", b"{{x}", b"{x}", b"} {", b"now nosave", b"save now nosave",
          b"default FORCE"]


@family("server")
def server(rng):
    return Forms(rng, '''
        config get C|config get C C|config get C nothing|config get|config get hash-max-*
        config set C A|config set C A|config set C A|config set C A C A|config set C|config set C A C
        config resetstat|config foo|config rewrite x
        pubsub channels|pubsub channels P|pubsub channels a b|pubsub numsub|pubsub numsub K K|pubsub numpat
        pubsub shardchannels|pubsub shardnumsub K|pubsub numpat x|pubsub foo|publish K V|spublish K V|publish K
        slowlog get|slowlog get I|slowlog len|slowlog reset|slowlog get 1 2|slowlog foo
        latency reset nothing|latency history nothing|latency history|latency graph nothing|latency foo
        latency latest x|latency reset
        cluster info|cluster keyslot K|cluster nodes|cluster foo|readonly|readwrite|asking|readonly x
        memory usage nokey|memory usage nokey samples 0|memory usage nokey samples -1|memory usage nokey samples x
        memory usage nokey foo 1|memory usage|memory foo|memory purge x
        client id|client id x|client getname|client getname x|client setname S|client setname S|client setname|client info
        client info x|client list|client list|client list type Y|client list type|client list id 0 99999999|client list id 0 x
        client list id|client list S|client no-evict on|client no-evict S|client reply on|client reply S|client reply
        client pause 0|client pause 0 Z|client pause -1|client pause S|client pause 0 write x|client unpause
        client unpause x|client unblock 0|client unblock S|client unblock 99999999 S|client unblock 99999999 error
        client unblock 1 timeout x|client kill S|client kill id I|client kill type Y skipme yes|client kill user S
        client kill user default id 99999999|client kill addr S laddr S|client kill skipme Z id 99999999|client kill id
        client kill skipme yes|client kill S S|client kill addr 127.0.0.1:1|client kill id 99999999 type
        client tracking off|client tracking S|client tracking off T2|client tracking off T2 T2|client tracking on prefix a
        client tracking on bcast optin|client tracking on optin optout|client tracking on redirect 99999999|client tracking
        client trackinginfo|client trackinginfo x|client getredir|client getredir x|client caching yes|client caching S
        client help|client help x|client nosuch
        command getkeys get|command getkeys nosuch K|command getkeys ping x|command getkeys get K|command getkeys mget K K
        command getkeysandflags get K|command getkeysandflags get|command getkeysandflags nosuch K|command count x
        command info nosuch|command docs nosuch|command list S|command list filterby aclcat nosuch
        command list filterby module S|command list filterby pattern|command list filterby pattern nosuch*|command nosuch
        command help x|pfselftest x|memory malloc-stats x|memory stats x|memory doctor x|latency histogram nosuch
        latency latest x|latency doctor x|latency history nothing x
        hello 9|hello x|hello 2 bogus|hello 2 setname S|hello 3 setname S|auth S|auth default S|auth other S|auth S S S|ping S|ping S S|echo
        reset x|select 0 1|role|role x|lastsave|time|time x|lolwut|lolwut version x|bgsave foo|bgsave a b|bgrewriteaof x|save x
        shutdown foo|shutdown save nosave|shutdown abort now|shutdown abort
        debug sleep 0|debug object nokey|debug foo|debug error E|debug protocol T|debug set-active-expire I
        unsubscribe|unsubscribe K|punsubscribe|sunsubscribe|sunsubscribe K|subscribe|monitor x
    ''', C=lambda rng: rng.choice(CONFIGS), A=lambda rng: rng.choice(VALUES),
                 E=lambda rng: rng.choice([b"ERR foo", b"MY error", b""]),
                 T=lambda rng: rng.choice([b"string", b"integer", b"double", b"null", b"array", b"set", b"map",
                                           b"true", b"false", b"verbatim", b"bignum", b"x"]),
                 Y=lambda rng: rng.choice([b"normal", b"pubsub", b"master", b"replica", b"SLAVE", b"x"]),
                 Z=lambda rng: rng.choice([b"all", b"WRITE", b"no", b"yes", b"x"]),
                 T2=lambda rng: rng.choice([b"bcast", b"optin", b"OPTOUT", b"noloop", b"prefix", b"redirect", b"99999999", b"0",
                                            b"x", b""]))
