# SPDX-License-Identifier: Apache-2.0
"""Commands about the server: what they answer, and what they refuse. (INFO, MEMORY STATS, TIME are each server's
own.)"""

from differential import Forms, compare, family, unordered


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
compare("lastsave", same_kind)
compare("time", same_kind)
compare("lolwut", same_kind)

CONFIGS = [b"maxmemory", b"timeout", b"save", b"appendfsync", b"notify-keyspace-events", b"slowlog-max-len",
           b"client-output-buffer-limit", b"proto-max-bulk-len", b"latency-monitor-threshold", b"activerehashing",
           b"hash-max-listpack-entries", b"hash-max-ziplist-entries", b"lua-time-limit", b"list-max-listpack-size",
           b"databases", b"daemonize", b"nothing", b"MAXMEMORY-samples", b"maxmemory-samples", b"lfu-log-factor",
           b"repl-diskless-load", b"acl-pubsub-default", b"min-slaves-to-write", b"maxmemory-clients"]
VALUES = [b"", b"0", b"1", b"-1", b"100", b"yes", b"no", b"YES", b"1gb", b"1k", b"10MB", b"3gbb", b"x", b"everysec",
          b"always", b"AKE", b"Kgx", b"Q", b"900 1", b"900 1 60 5", b"900", b"normal 0 0 0", b"pubsub 1mb 1kb 10",
          b"replica 1 1", b"foo 1 1 1", b"normal a 1 1", b"99999999999999999999", b"536870912", b"2147483648",
          b"swapdb", b"allchannels", b"5%", b"0%", b"101%", b"-1%", b"%"]


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
        role|role x|lastsave|time|time x|lolwut|lolwut version x|bgsave foo|bgsave a b|bgrewriteaof x|save x
        shutdown foo|shutdown save nosave|shutdown abort now|shutdown abort
        debug sleep 0|debug object nokey|debug foo|debug error E|debug protocol T|debug set-active-expire I
        unsubscribe|unsubscribe K|punsubscribe|sunsubscribe|sunsubscribe K|subscribe|monitor x
    ''', C=lambda rng: rng.choice(CONFIGS), A=lambda rng: rng.choice(VALUES),
                 E=lambda rng: rng.choice([b"ERR foo", b"MY error", b""]),
                 T=lambda rng: rng.choice([b"string", b"integer", b"double", b"null", b"array", b"set", b"map",
                                           b"true", b"false", b"verbatim", b"bignum", b"x"]))


unordered("pubsub")
