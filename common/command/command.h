/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - the one table of Redis commands, shared by proxy and storage node.
 *
 * Rows live in command.def: identifier, name, arity, flags, key spec, fan-out, home, group,
 * version, summary.
 * Subcommands are rows of their own ("client|setinfo"), whose parent's row says HAS_SUBCOMMANDS.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

enum command_flag {
    CMD_READ = 1 << 0,
    CMD_WRITE = 1 << 1,
    CMD_FAST = 1 << 2,
    CMD_IDEMPOTENT = 1 << 3,   /* a read that may be sent again when its connection broke */
    CMD_BLOCKING = 1 << 4,     /* may wait for other clients: needs a private upstream */
    CMD_PUBSUB = 1 << 5,
    CMD_TRANSACTION = 1 << 6,  /* MULTI EXEC DISCARD WATCH UNWATCH RESET */
    CMD_DENIED = 1 << 7,       /* refused by the proxy unless `commands: allow` names it */
    CMD_NO_AUTH = 1 << 8,      /* allowed before AUTH: AUTH HELLO QUIT RESET */
    CMD_NO_MULTI = 1 << 9,     /* not allowed inside MULTI */
    CMD_HAS_SUBCOMMANDS = 1 << 10,
    CMD_ADMIN = 1 << 11,
    CMD_DENYOOM = 1 << 12,
    CMD_RANDOM = 1 << 13,
    CMD_MAY_REPLICATE = 1 << 14,
    CMD_LATER = 1 << 15,       /* weir-backend does not have it yet: answers it as an unknown command */
    /* Facts that COMMAND INFO reports; the storage node heeds some of them. */
    CMD_NOSCRIPT = 1 << 16,
    CMD_LOADING = 1 << 17,
    CMD_STALE = 1 << 18,
    CMD_ASKING = 1 << 19,
    CMD_NO_MANDATORY_KEYS = 1 << 20,
    CMD_ALLOW_BUSY = 1 << 21,
    CMD_NO_ASYNC_LOADING = 1 << 22,
    CMD_SKIP_MONITOR = 1 << 23,
    CMD_SKIP_SLOWLOG = 1 << 24,
    CMD_DEPRECATED = 1 << 25,
    CMD_KEYS_ONLY = 1 << 26, /* needs no value in memory: the key and its header do (EXISTS, TTL, DEL, SET) */
};

/* What the proxy does with it. */
enum command_route {
    ROUTE_LOCAL,       /* the proxy answers: PING ECHO HELLO CLIENT COMMAND SELECT INFO AUTH ... */
    ROUTE_ONE,         /* one server, the one of its keys; keys of several: CROSSSLOT; no key at all (EVAL
                          with numkeys 0): as ROUTE_ANY. CMD_BLOCKING: over the session's own upstream */
    ROUTE_SPLIT_ORDER, /* MGET: by server, an array in the order asked */
    ROUTE_SPLIT_OK,    /* MSET: by server, OK when all said OK */
    ROUTE_SPLIT_SUM,   /* DEL UNLINK EXISTS TOUCH: by server, integers added (64 bits) */
    ROUTE_ALL_SUM,     /* DBSIZE: every server, integers added */
    ROUTE_ALL_OK,      /* FLUSHALL FLUSHDB SCRIPT FLUSH, FUNCTION ...: every server, OK when all said OK */
    ROUTE_ALL_CONCAT,  /* KEYS, PUBSUB CHANNELS: every server, arrays joined */
    ROUTE_ALL_SAME,    /* SCRIPT LOAD: every server, the first answer (they must not be errors) */
    ROUTE_ALL_AND,     /* SCRIPT EXISTS: every server, arrays of 0/1 combined by and */
    ROUTE_ALL_ANY_OK,  /* SCRIPT KILL, FUNCTION KILL: every server, OK when one said OK, else the first error */
    ROUTE_ALL_PAIRS,   /* PUBSUB NUMSUB: every server, arrays of name, count; counts of each place added */
    ROUTE_ANY,         /* RANDOMKEY TIME LOLWUT: some live server */
    ROUTE_SCAN,        /* SCAN: the server in the cursor */
    ROUTE_CHANNEL,     /* PUBLISH SPUBLISH: the server of the channel (argument 1) */
    ROUTE_PRIVATE,     /* MULTI WATCH SUBSCRIBE ...: the session gets an upstream of its own */
};

enum command_home { HOME_PROXY, HOME_BACKEND, HOME_LATER };

enum command_group {
    GROUP_STRING, GROUP_BITMAP, GROUP_HASH, GROUP_LIST, GROUP_SET, GROUP_SORTED_SET, GROUP_HYPERLOGLOG,
    GROUP_GEO, GROUP_STREAM, GROUP_GENERIC, GROUP_TRANSACTIONS, GROUP_PUBSUB, GROUP_SCRIPTING,
    GROUP_CONNECTION, GROUP_SERVER, GROUP_CLUSTER,
};

enum key_kind {
    KEYS_NONE,
    KEYS_RANGE,   /* first, last (negative: from the end), step; arguments count from 1 (0 is the name) */
    KEYS_NUMKEYS, /* argument `first` holds the count, keys follow; `last` != 0: argument `last` is a key as
                     well (the destination of ZUNIONSTORE) */
    KEYS_XREAD,   /* after STREAMS: the first half of what follows */
    KEYS_SORT,    /* argument 1, and what follows STORE */
    KEYS_GEORADIUS, /* argument 1, and what follows STORE or STOREDIST */
    KEYS_MIGRATE, /* argument 3, or what follows KEYS */
};

struct key_spec {
    uint8_t kind;
    int8_t first, last, step;
};

struct command {
    const char *name; /* lower case, "get" or "client|setinfo" */
    const char *summary;
    const char *since; /* version of Redis */
    uint32_t flags;
    int16_t arity; /* negative: at least */
    uint16_t id;
    uint16_t parent; /* COMMAND_none for top level */
    uint8_t name_len;
    uint8_t route; /* enum command_route */
    uint8_t home;
    uint8_t group; /* enum command_group */
    struct key_spec keys;
};

enum command_id {
    COMMAND_none,
#define COMMAND(id, ...) COMMAND_##id,
#define SUBCOMMAND(parent, id, ...) COMMAND_##parent##_##id,
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND
    COMMAND_COUNT
};

/* By id; ids start at 1. */
const struct command *command_by_id(uint16_t id);
/* Any case; NULL when there is none. Constant time: one hash, one comparison in the usual case. */
const struct command *command_find(struct bytes name);
/* The row of "parent|sub", NULL when there is none. */
const struct command *command_find_sub(const struct command *parent, struct bytes sub);
/* The row of a name as "get" or "client|setname", NULL when there is none. */
const struct command *command_find_full(struct bytes name);

static inline bool command_arity_fits(const struct command *command, uint32_t argc)
{
    return command->arity >= 0 ? argc == (uint32_t)command->arity
                               : argc >= (uint32_t)-command->arity;
}

/* Which arguments are keys: at most this many ranges. */
#define COMMAND_KEY_RANGES_MAX 3
struct command_keys {
    uint32_t range_count;
    uint32_t key_count; /* in all ranges */
    struct {
        uint32_t first, count, step;
    } ranges[COMMAND_KEY_RANGES_MAX];
};
/* argv[0] is the name (a subcommand's keys count from the same zero). 0, or ERR_INVALID when numkeys or
 * the like is not a number or does not fit argc: the server would answer a syntax error; the proxy
 * answers by itself with command_keys_error(). */
MUST_USE int command_keys(const struct command *command, const struct bytes *argv, uint32_t argc,
                          struct command_keys *out);
/* Redis's own text for that case, without "-" and CRLF: "ERR value is not an integer or out of range"
 * ..., depends on the command. */
const char *command_keys_error(const struct command *command, const struct bytes *argv, uint32_t argc);
