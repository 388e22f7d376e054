/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DEBUG: what tests and tools use of it. What it does to the process at large (crashes, leaks) is left out.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/settings.h"
#include "backend/types/hash.h"
#include "backend/types/list.h"
#include "backend/types/set.h"
#include "backend/types/zset.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <time.h>

#define PREFIX_LEN_MAX 128
#define POPULATE_VALUE_MAX (1 << 20)

static void debug_help(struct cmd *c)
{
    static const char *const lines[] = {
        "AUDIT",
        "    Count keys and bytes of the store again, and compare.",
        "BACKUP START | STATUS <id> | END <id>",
        "    Hold the files of the store still: weirctl backup asks for that.",
        "CHANGE-REPL-ID",
        "    Change the replication IDs of the instance.",
        "    Dangerous: should be used only for testing the replication subsystem.",
        "ERROR <string>",
        "    Return a Redis protocol error with <string> as message. Useful for clients",
        "    unit tests to simulate Redis errors.",
        "LOG <message>",
        "    Write <message> to the server log.",
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Create <count> string keys named key:<num>. If <prefix> is specified then",
        "    it is used instead of the 'key' prefix. These are not propagated to",
        "    replicas. Cluster slots are not respected so keys not belonging to the",
        "    current node can be created in cluster mode.",
        "PROTOCOL <type>",
        "    Reply with a test value of the specified type. <type> can be: string,",
        "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
        "    true, false.",
        "RELOAD",
        "    Drop all values from memory that are on disk as well: as SPILL.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Setting it to 0 disables expiring keys in background when they are not",
        "    accessed (otherwise the Redis behavior). Setting it to 1 reenables back the",
        "    default.",
        "SLEEP <seconds>",
        "    Stop the server for <seconds>. Decimals allowed.",
        "SPILL",
        "    Make every value cold that can be: the next use reads it from disk.",
    };

    reply_help(c, "DEBUG", lines, ARRAY_COUNT(lines));
}

static void debug_sleep(struct cmd *c)
{
    double seconds = 0;
    char digits[32] = {0};
    struct timespec wait;

    /* As Redis reads it: what is no number is none. */
    memcpy(digits, c->argv[2].data, MIN(c->argv[2].len, sizeof(digits) - 1));
    if (!parse_double(bytes_of_string(digits), &seconds) || !(seconds > 0))
        seconds = 0;
    seconds = MIN(seconds, 3600.0);
    wait.tv_sec = (time_t)seconds;
    wait.tv_nsec = (long)((seconds - (double)wait.tv_sec) * 1e9);
    MAYBE(nanosleep(&wait, NULL));
    reply_ok(c);
}

static const char *encoding_of(const struct entry *entry)
{
    int64_t number;

    if (entry_is_cold(entry))
        return "cold";
    switch (entry_type(entry)) {
    case STORE_STRING:
        if (store_string(entry).len <= 20 && bytes_to_i64(store_string(entry), &number))
            return "int";
        return store_string(entry).len <= 44 ? "embstr" : "raw";
    case STORE_LIST: return list_encoding(entry_object(entry));
    case STORE_SET: return set_encoding(entry_object(entry));
    case STORE_ZSET: return zset_encoding(entry_object(entry));
    case STORE_HASH: return hash_encoding(entry_object(entry));
    case STORE_NONE:
    case STORE_STREAM:
    case STORE_TYPE_COUNT: break;
    }
    return "unknown";
}

/* Length of the value as it is stored. */
static uint64_t stored_len(const struct entry *entry)
{
    if (!entry_is_object(entry))
        return entry_value_len(entry);
    return entry_object(entry)->image_bytes != 0 ? entry_object(entry)->image_bytes
                                                 : entry_object(entry)->accounted_bytes;
}

static void debug_object(struct cmd *c)
{
    char text[256];
    struct store_key key;

    if (!key_read(c, c->argv[2], STORE_NONE, &key))
        return;
    if (key.entry == NULL) {
        reply_error(c, ERROR_NO_KEY);
        return;
    }
    snprintf(text, sizeof(text),
             "Value at:%p refcount:1 encoding:%s serializedlength:%llu lru:%llu lru_seconds_idle:0",
             (const void *)key.entry, encoding_of(key.entry),
             (unsigned long long)stored_len(key.entry), (unsigned long long)(c->now_ms / 1000 & 0xffffff));
    reply_status(c, text);
}

static void debug_audit(struct cmd *c)
{
    char why[128];

    if (store_audit(c->store, why, sizeof(why)))
        reply_ok(c);
    else
        reply_error_format(c, "ERR audit: %s", why);
}

static void debug_spill(struct cmd *c)
{
    store_spill_all(c->store);
    reply_ok(c);
}

static bool populate_one(struct cmd *c, struct bytes prefix, int64_t number, char *value, size_t value_len,
                         bool is_sized)
{
    struct store_attributes attributes = {0};
    char name[PREFIX_LEN_MAX + 24], text[32];
    struct store_key key;
    int len = snprintf(name, sizeof(name), "%.*s:%lld", BYTES_ARG(prefix), (long long)number);
    int text_len = snprintf(text, sizeof(text), "value:%lld", (long long)number);
    struct bytes bytes = bytes_of(text, (size_t)text_len);

    ASSERT(len > 0 && (size_t)len < sizeof(name));
    store_find(c->store, c->db, bytes_of(name, (size_t)len), &key);
    if (key.entry != NULL)
        return true;
    if (is_sized) {
        memset(value, 0, value_len);
        memcpy(value, text, MIN(value_len, (size_t)text_len));
        bytes = bytes_of(value, value_len);
    }
    return cmd_stored(c, store_put_string(c->store, &key, bytes, &attributes));
}

static void debug_populate(struct cmd *c)
{
    struct bytes prefix = c->argc >= 4 ? c->argv[3] : BYTES("key");
    int64_t count, size = 0;
    char *value = NULL;
    bool is_fine = true;

    if (!arg_i64_range(c, 2, 0, INT64_MAX, &count, "ERR value is out of range, must be positive"))
        return;
    if (c->argc == 5 && !arg_i64_range(c, 4, 0, POPULATE_VALUE_MAX, &size,
                                       "ERR value is out of range, must be positive"))
        return;
    if (prefix.len > PREFIX_LEN_MAX) {
        reply_error(c, "ERR the prefix is too long");
        return;
    }
    value = mem_alloc((size_t)size + 1);
    if (value == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    for (int64_t i = 0; i < count && is_fine; i++)
        is_fine = populate_one(c, prefix, i, value, (size_t)size, c->argc == 5 && size > 0);
    mem_free(value);
    if (is_fine)
        reply_ok(c);
}

/* Three of each, as Redis shows them. */
static void debug_protocol(struct cmd *c)
{
    if (arg_is(c, 2, "push") && c->session->resp == 2) {
        reply_error(c, "ERR RESP2 is not supported by this command");
    } else if (arg_is(c, 2, "string")) {
        reply_bulk_string(c, "Hello World");
    } else if (arg_is(c, 2, "integer")) {
        reply_integer(c, 12345);
    } else if (arg_is(c, 2, "double")) {
        reply_double(c, 3.141);
    } else if (arg_is(c, 2, "null")) {
        reply_null(c);
    } else if (arg_is(c, 2, "push")) {
        reply_push(c, 2);
        reply_bulk_string(c, "server-cpu-usage");
        reply_integer(c, 42);
        reply_bulk_string(c, "Some real reply following the push reply");
    } else if (arg_is(c, 2, "array") || arg_is(c, 2, "set")) {
        if (arg_is(c, 2, "array"))
            reply_array(c, 3);
        else
            reply_set(c, 3);
        for (int64_t i = 0; i < 3; i++)
            reply_integer(c, i);
    } else if (arg_is(c, 2, "map")) {
        reply_map(c, 3);
        for (int64_t i = 0; i < 3; i++) {
            reply_integer(c, i);
            reply_bool(c, i == 1);
        }
    } else if (arg_is(c, 2, "true")) {
        reply_bool(c, true);
    } else if (arg_is(c, 2, "false")) {
        reply_bool(c, false);
    } else if (arg_is(c, 2, "verbatim")) {
        reply_verbatim(c, "txt", BYTES("This is a verbatim\nstring"));
    } else if (arg_is(c, 2, "bignum")) {
        reply_bignum(c, BYTES("1234567999999999999999999999999999999"));
    } else if (arg_is(c, 2, "attrib")) {
        if (c->session->resp > 2)
            reply_raw(c->session, BYTES("|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n"));
        reply_bulk_string(c, "Some real reply following the attribute");
    } else {
        reply_error(c, "ERR Wrong protocol type name. Please use one of the following: "
                       "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false");
    }
}

static void debug_active_expire(struct cmd *c)
{
    /* As Redis reads it, with atoi(). */
    bool is_on = c->argv[2].len > 0 && c->argv[2].data[0] >= '1' && c->argv[2].data[0] <= '9';

    c->engine->settings->active_expire = is_on;
    store_expiry_pause(c->store, !is_on);
    reply_ok(c);
}

static void debug_log(struct cmd *c)
{
    log_warn(c->engine->log, "DEBUG LOG: %.*s", BYTES_ARG(bytes_first(c->argv[2], 512)));
    reply_ok(c);
}

static void debug_error(struct cmd *c)
{
    char text[512];

    snprintf(text, sizeof(text), "%.*s", BYTES_ARG(bytes_first(c->argv[2], sizeof(text) - 1)));
    reply_error(c, text);
}

static void debug_change_id(struct cmd *c)
{
    c->engine->run_id[1] = io_random64(c->engine->io);
    reply_ok(c);
}

static const struct {
    const char *name;
    uint32_t argc_min, argc_max;
    void (*run)(struct cmd *c);
} subcommands[] = {
    {"help", 2, 2, debug_help},
    {"sleep", 3, 3, debug_sleep},
    {"object", 3, 4, debug_object},
    {"spill", 2, 2, debug_spill},
    {"audit", 2, 2, debug_audit},
    {"reload", 2, UINT32_MAX, debug_spill},
    {"populate", 3, 5, debug_populate},
    {"protocol", 3, 3, debug_protocol},
    {"set-active-expire", 3, 3, debug_active_expire},
    {"log", 3, 3, debug_log},
    {"error", 3, 3, debug_error},
    {"change-repl-id", 2, 2, debug_change_id},
    {"backup", 3, 4, debug_backup},
};

void cmd_debug(struct cmd *c)
{
    for (size_t i = 0; i < ARRAY_COUNT(subcommands); i++)
        if (arg_is(c, 1, subcommands[i].name) && c->argc >= subcommands[i].argc_min &&
            c->argc <= subcommands[i].argc_max) {
            subcommands[i].run(c);
            return;
        }
    reply_subcommand_error(c);
}
