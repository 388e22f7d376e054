/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients ask, and what they will be told. An operation is made just before it is sent; everything
 * in it comes from the script's own stream of random numbers.
 */
#include "tests/sim/world.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

void script_init(struct script *script, struct world *world, uint32_t client)
{
    *script = (struct script){.world = world, .client = client};
    script->rng.state = world->seed * 0x9e3779b97f4a7c15u + client * 0x51ed27u + 7;
}

void script_deinit(struct script *script)
{
    buffer_deinit(&script->multi);
}

static struct op *op_create(const char *name, uint32_t flags)
{
    struct op *op = must_zalloc(sizeof(*op));

    op->name = name;
    op->flags = flags;
    return op;
}

void op_free(struct op **slot)
{
    struct op *op = *slot;

    *slot = NULL;
    if (op == NULL)
        return;
    buffer_deinit(&op->wire);
    buffer_deinit(&op->expect);
    buffer_deinit(&op->args);
    mem_free(op);
}

static void op_add(struct op *op, const void *data, size_t len)
{
    op->arg_off[op->argc] = (uint32_t)op->args.len;
    op->arg_len[op->argc++] = (uint32_t)len;
    buffer_append(&op->args, data, len);
}

static void op_add_text(struct op *op, const char *text)
{
    op_add(op, text, strlen(text));
}

static void op_argv(const struct op *op, struct bytes argv[OP_ARGS_MAX])
{
    for (uint32_t i = 0; i < op->argc; i++)
        argv[i] = op_arg(op, i);
}

/* "k3.17.0", and something behind it that hashes anywhere. */
static void op_add_key(struct script *script, struct op *op, uint32_t n, bool is_plain)
{
    char key[256];
    size_t len = (size_t)snprintf(key, sizeof(key), "k%u.%u.%u", script->client, script->next, n);

    if (script->is_in_multi) {
        len += (size_t)snprintf(key + len, sizeof(key) - len, "{%u-%u}", script->client, script->multi_id);
    } else if (rng_chance(&script->rng, 300)) {
        size_t pad = rng_below(&script->rng, rng_chance(&script->rng, 200) ? 220 : 40);

        key[len++] = '.';
        for (size_t i = 0; i < pad && len < 249; i++)
            key[len++] = is_plain || !script->world->profile.is_redis
                             ? (char)('a' + rng_below(&script->rng, 26))
                             : (char)rng_next(&script->rng);
    }
    op_add(op, key, len);
}

static void op_add_value(struct script *script, struct op *op)
{
    static const char *const pieces[] = {"\r\n", "*1\r\n$4\r\nPING\r\n", "flush_all\r\n", "END\r\n", "x",
                                         "set evil 0 0 1\r\n1\r\n", "\0", "\x80\x0a", "value", "$-1\r\n"};
    struct buffer value = {0};
    uint32_t size_max = script->world->profile.value_size_max;
    size_t len = rng_chance(&script->rng, 30)    ? rng_below(&script->rng, size_max)
                 : rng_chance(&script->rng, 100) ? rng_below(&script->rng, MIN(size_max, 5000u))
                                                 : rng_below(&script->rng, 60);

    while (value.len < len) {
        const char *piece = pieces[rng_below(&script->rng, ARRAY_COUNT(pieces))];

        buffer_append(&value, piece, MAX(strlen(piece), (size_t)1));
    }
    value.len = MIN(value.len, len);
    op_add(op, value.data == NULL ? "" : value.data, value.len);
    buffer_deinit(&value);
}

/* ---- Redis ---------------------------------------------------------------------------------------- */

static bool is_inline_safe(const struct op *op)
{
    for (uint32_t i = 0; i < op->argc; i++) {
        struct bytes arg = op_arg(op, i);

        if (arg.len == 0)
            return false;
        for (size_t at = 0; at < arg.len; at++)
            if ((unsigned char)arg.data[at] <= ' ' || (unsigned char)arg.data[at] >= 0x7f ||
                strchr("\"'\\", arg.data[at]) != NULL)
                return false;
    }
    return true;
}

static void redis_wire(struct script *script, struct op *op)
{
    if (rng_chance(&script->rng, 60) && is_inline_safe(op)) {
        for (uint32_t i = 0; i < op->argc; i++) {
            buffer_append(&op->wire, "  ", i == 0 ? 0 : 1 + rng_below(&script->rng, 2));
            buffer_append(&op->wire, op_arg(op, i).data, op_arg(op, i).len);
        }
        buffer_append_string(&op->wire, rng_chance(&script->rng, 500) ? "\r\n" : "\n");
        return;
    }
    buffer_append_format(&op->wire, "*%u\r\n", op->argc);
    for (uint32_t i = 0; i < op->argc; i++) {
        buffer_append_format(&op->wire, "$%zu\r\n", op_arg(op, i).len);
        buffer_append(&op->wire, op_arg(op, i).data, op_arg(op, i).len);
        buffer_append_string(&op->wire, "\r\n");
    }
}

static void redis_expect(struct script *script, struct op *op, struct buffer *out)
{
    struct model model = {.is_resp3 = script->is_resp3, .db = script->db,
                          .value_size_max = script->world->profile.value_size_max};
    struct bytes argv[OP_ARGS_MAX];

    op_argv(op, argv);
    model_redis(&model, argv, op->argc, out);
}

static struct op *redis_one(struct script *script)
{
    static const struct {
        const char *name;
        bool is_read;
        uint8_t values;
    } verbs[] = {{"GET", true, 0},    {"GET", true, 0},     {"get", true, 0},   {"HGETALL", true, 0},
                 {"STRLEN", true, 0}, {"SET", false, 1},    {"Set", false, 1},  {"INCR", false, 0},
                 {"APPEND", false, 1}, {"LPUSH", false, 2}, {"HSET", false, 2}, {"GETSET", false, 1}};
    size_t pick = rng_below(&script->rng, ARRAY_COUNT(verbs));
    struct op *op = op_create(verbs[pick].name, OP_FORWARD | (verbs[pick].is_read ? OP_READ : 0));

    op_add_text(op, verbs[pick].name);
    op_add_key(script, op, 0, rng_chance(&script->rng, 500));
    for (uint8_t i = 0; i < verbs[pick].values; i++)
        op_add_value(script, op);
    redis_wire(script, op);
    return op;
}

static struct op *redis_split(struct script *script)
{
    static const char *const verbs[] = {"MGET", "MGET", "DEL", "EXISTS", "UNLINK", "MSET"};
    const char *verb = verbs[rng_below(&script->rng, ARRAY_COUNT(verbs))];
    bool has_values = strcmp(verb, "MSET") == 0;
    uint32_t keys = 1 + (uint32_t)rng_below(&script->rng, script->world->profile.is_eager ? 20 : 6);
    bool is_read = strcmp(verb, "MGET") == 0 || strcmp(verb, "EXISTS") == 0;
    struct op *op = op_create(verb, OP_SPLIT | (is_read ? OP_READ : 0));

    op->head = 1;
    op->step = has_values ? 2 : 1;
    op_add_text(op, verb);
    for (uint32_t i = 0; i < keys; i++) {
        if (i > 0 && rng_chance(&script->rng, 100)) { /* one again */
            uint32_t again = 1 + (uint32_t)rng_below(&script->rng, i) * op->step;

            /* A copy first: the arguments' memory moves. */
            char key[256];
            struct bytes old = op_arg(op, again);

            memcpy(key, old.data, old.len);
            op_add(op, key, old.len);
        } else {
            op_add_key(script, op, i, false);
        }
        if (has_values)
            op_add_value(script, op);
    }
    redis_wire(script, op);
    return op;
}

static struct op *redis_text(struct script *script, const char *name, uint32_t flags, const char *words,
                             const char *expect)
{
    struct op *op = op_create(name, flags);
    const char *blank;

    for (; (blank = strchr(words, ' ')) != NULL; words = blank + 1)
        op_add(op, words, (size_t)(blank - words));
    op_add_text(op, words);
    redis_wire(script, op);
    if (expect != NULL)
        buffer_append_string(&op->expect, expect);
    return op;
}

static struct op *redis_local(struct script *script)
{
    char words[64], expect[128];
    uint32_t flags = OP_LOCAL | OP_NEVER_FAILS;

    switch (rng_below(&script->rng, 8)) {
    case 0:
        return redis_text(script, "PING", flags, "PING", "+PONG\r\n");
    case 1:
        script->db = (uint32_t)rng_below(&script->rng, 3);
        snprintf(words, sizeof(words), "SELECT %u", script->db);
        return redis_text(script, "SELECT", flags, words, "+OK\r\n");
    case 2:
        snprintf(words, sizeof(words), "NOSUCH%u x%u", script->client, script->next);
        snprintf(expect, sizeof(expect), "-ERR unknown command 'NOSUCH%u', with args beginning with: 'x%u' \r\n",
                 script->client, script->next);
        return redis_text(script, "unknown", flags, words, expect);
    case 3:
        return redis_text(script, "arity", flags, "GET a b",
                          "-ERR wrong number of arguments for 'get' command\r\n");
    case 4:
        return redis_text(script, "denied", flags | OP_LINE_PREFIX, "CONFIG GET x", "-ERR command 'config");
    case 5:
        return redis_text(script, "EXEC", flags, "EXEC", "-ERR EXEC without MULTI\r\n");
    case 6:
        return redis_text(script, "CLIENT", flags, "CLIENT SETNAME sim", "+OK\r\n");
    default:
        snprintf(words, sizeof(words), "ECHO c%u.%u", script->client, script->next);
        snprintf(expect, sizeof(expect), "$%zu\r\n%s\r\n", strlen(words + 5), words + 5);
        return redis_text(script, "ECHO", flags, words, expect);
    }
}

static struct op *redis_multi(struct script *script)
{
    struct op *op;

    if (!script->is_in_multi) {
        script->is_in_multi = true;
        script->multi_id = script->next;
        script->multi_left = 1 + (uint32_t)rng_below(&script->rng, 4);
        script->multi_count = 0;
        buffer_clear(&script->multi);
        return redis_text(script, "MULTI", OP_LOCAL, "MULTI", "+OK\r\n");
    }
    if (script->multi_left-- > 0) {
        op = redis_one(script);
        op->flags &= ~(uint32_t)OP_READ;
        script->multi_count++;
        redis_expect(script, op, &script->multi);
        buffer_append_string(&op->expect, "+QUEUED\r\n");
        return op;
    }
    script->is_in_multi = false;
    op = redis_text(script, "EXEC", OP_LOCAL, "EXEC", NULL);
    buffer_append_format(&op->expect, "*%u\r\n", script->multi_count);
    buffer_append(&op->expect, script->multi.data, script->multi.len);
    return op;
}

static struct op *redis_blocking(struct script *script)
{
    struct op *op = op_create("BLPOP", OP_FORWARD);

    op_add_text(op, "BLPOP");
    op_add_key(script, op, 0, true);
    op_add_text(op, "0");
    redis_wire(script, op);
    redis_expect(script, op, &op->expect);
    return op;
}

static struct op *redis_malformed(struct script *script)
{
    static const char *const wires[] = {
        "*2\r\n$3\r\nGET\r\n$4294967297\r\nk\r\n", "*4294967298\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        "*2\r\n$3\r\nGET\r\n$-1\r\nFLUSHALL\r\n",  "*2\r\n$3\r\nGET\r\n$03\r\nabc\r\n",
        "*2\r\n$3\r\nGETX*1\r\n$8\r\nFLUSHALL\r\n", "*2\r\n+GET\r\n$1\r\nk\r\n",
        "*1\r\n$18446744073709551617\r\nx\r\n",     "*x\r\n",
    };
    struct op *op = op_create("malformed", OP_LOCAL | OP_CLOSES | OP_LINE_PREFIX | OP_NEVER_FAILS);

    buffer_append_string(&op->wire, wires[rng_below(&script->rng, ARRAY_COUNT(wires))]);
    buffer_append_string(&op->wire, "*1\r\n$8\r\nFLUSHALL\r\n");
    buffer_append_string(&op->expect, "-ERR Protocol error");
    script->is_over = true;
    return op;
}

static struct op *redis_next(struct script *script)
{
    const struct world_profile *profile = &script->world->profile;
    uint64_t dice = rng_below(&script->rng, 100);
    struct op *op;

    if (script->next == 0 && profile->has_resp3 && rng_chance(&script->rng, 500)) {
        op = redis_text(script, "HELLO", OP_LOCAL | OP_ANY_VALUE | OP_HELLO, "HELLO 3", NULL);
        return op;
    }
    if (script->is_in_multi || dice < 5)
        return redis_multi(script);
    if (profile->has_malformed && dice < 7 && script->next > 5)
        return redis_malformed(script);
    if (dice < 8)
        return redis_blocking(script);
    if (dice < 22)
        return redis_local(script);
    op = dice < 42 ? redis_split(script) : redis_one(script);
    redis_expect(script, op, &op->expect);
    return op;
}

/* ---- memcache text --------------------------------------------------------------------------------- */

/* The line as the client writes it: the words, some with more blanks, and what only the proxy sees. */
static void memcache_wire(struct script *script, struct op *op, bool has_data, const char *tail)
{
    uint32_t words = has_data ? op->argc - 1 : op->argc;

    for (uint32_t i = 0; i < words; i++) {
        buffer_append(&op->wire, "   ", i == 0 ? 0 : rng_chance(&script->rng, 50) ? 3 : 1);
        buffer_append(&op->wire, op_arg(op, i).data, op_arg(op, i).len);
    }
    buffer_append_string(&op->wire, tail);
    buffer_append_string(&op->wire, rng_chance(&script->rng, 950) ? "\r\n" : "\n");
    if (has_data) {
        buffer_append(&op->wire, op_arg(op, words).data, op_arg(op, words).len);
        buffer_append_string(&op->wire, "\r\n");
    }
}

static void memcache_expect(struct script *script, struct op *op)
{
    struct model model = {.value_size_max = script->world->profile.value_size_max};
    struct bytes argv[OP_ARGS_MAX];

    op_argv(op, argv);
    model_memcache(&model, argv, op->argc, &op->expect);
}

static struct op *memcache_get(struct script *script)
{
    static const char *const verbs[] = {"get", "get", "get", "gets", "gat", "gats"};
    const char *verb = verbs[rng_below(&script->rng, ARRAY_COUNT(verbs))];
    bool is_gat = verb[1] == 'a';
    uint32_t keys = rng_chance(&script->rng, 600)
                        ? 1
                        : 1 + (uint32_t)rng_below(&script->rng, script->world->profile.is_eager ? 24 : 6);
    struct op *op = op_create(verb, (keys == 1 ? OP_FORWARD : OP_SPLIT) | (is_gat ? 0 : OP_READ));

    op->head = is_gat ? 2 : 1;
    op->step = 1;
    op_add_text(op, verb);
    if (is_gat)
        op_add_text(op, "100");
    for (uint32_t i = 0; i < keys; i++) {
        char key[256];
        struct bytes old;

        if (i > 0 && rng_chance(&script->rng, 80)) {
            old = op_arg(op, op->head + (uint32_t)rng_below(&script->rng, i));
            memcpy(key, old.data, old.len);
            op_add(op, key, old.len);
        } else {
            op_add_key(script, op, i, true);
        }
    }
    memcache_wire(script, op, false, "");
    memcache_expect(script, op);
    return op;
}

static struct op *memcache_store(struct script *script)
{
    static const char *const verbs[] = {"set", "set", "set", "add", "replace", "append", "prepend", "cas"};
    const char *verb = verbs[rng_below(&script->rng, ARRAY_COUNT(verbs))];
    struct op *op = op_create(verb, OP_FORWARD);
    bool is_noreply = rng_chance(&script->rng, 150);
    char digits[24];
    struct op *value = op_create("", 0);

    op_add_value(script, value);
    op_add_text(op, verb);
    op_add_key(script, op, 0, true);
    snprintf(digits, sizeof(digits), "%u", (unsigned)rng_below(&script->rng, 70000));
    op_add_text(op, digits);
    op_add_text(op, rng_chance(&script->rng, 100) ? "-1" : "3600");
    snprintf(digits, sizeof(digits), "%u", value->arg_len[0]);
    op_add_text(op, digits);
    if (strcmp(verb, "cas") == 0)
        op_add_text(op, "12345678901234567890");
    op_add(op, value->args.data == NULL ? "" : value->args.data, value->args.len);
    op_free(&value);
    memcache_wire(script, op, true, is_noreply ? " noreply" : "");
    if (is_noreply)
        op->flags |= OP_NEVER_FAILS;
    else
        memcache_expect(script, op);
    return op;
}

static struct op *memcache_line(struct script *script)
{
    static const char *const verbs[] = {"incr", "decr", "delete", "touch"};
    const char *verb = verbs[rng_below(&script->rng, ARRAY_COUNT(verbs))];
    struct op *op = op_create(verb, OP_FORWARD);
    bool is_noreply = rng_chance(&script->rng, 150);

    op_add_text(op, verb);
    op_add_key(script, op, 0, true);
    if (strcmp(verb, "delete") != 0)
        op_add_text(op, "7");
    memcache_wire(script, op, false, is_noreply ? " noreply" : "");
    if (is_noreply)
        op->flags |= OP_NEVER_FAILS;
    else
        memcache_expect(script, op);
    return op;
}

static struct op *memcache_meta(struct script *script)
{
    static const char *const verbs[] = {"mg", "mg", "ms", "md", "ma"};
    const char *verb = verbs[rng_below(&script->rng, ARRAY_COUNT(verbs))];
    bool is_quiet = rng_chance(&script->rng, 300), is_store = verb[1] == 's';
    struct op *op = op_create(verb, OP_FORWARD | (verb[1] == 'g' ? OP_READ : 0));
    struct op *value = op_create("", 0);
    char text[32];

    op_add_value(script, value);
    op_add_text(op, verb);
    op_add_key(script, op, 0, true);
    if (is_store) {
        snprintf(text, sizeof(text), "%u", value->arg_len[0]);
        op_add_text(op, text);
    } else if (rng_chance(&script->rng, 700) && verb[1] != 'd') {
        op_add_text(op, "v");
    }
    if (rng_chance(&script->rng, 500))
        op_add_text(op, "k");
    if (rng_chance(&script->rng, 500)) {
        snprintf(text, sizeof(text), "Oc%u.%u", script->client, script->next);
        op_add_text(op, text);
    }
    if (is_store)
        op_add(op, value->args.data == NULL ? "" : value->args.data, value->args.len);
    op_free(&value);
    memcache_wire(script, op, is_store, is_quiet ? " q" : "");
    memcache_expect(script, op);
    if (is_quiet)
        op->flags |= OP_HUSHES;
    if (is_quiet && model_meta_is_quiet(bytes_of_string(verb), buffer_bytes(&op->expect))) {
        buffer_clear(&op->expect);
        op->flags |= OP_QUIET;
    }
    script->needs_noop = is_quiet;
    return op;
}

static struct op *memcache_raw(const char *name, uint32_t flags, const char *wire, const char *expect)
{
    struct op *op = op_create(name, flags | OP_LOCAL | OP_NEVER_FAILS);

    buffer_append_string(&op->wire, wire);
    buffer_append_string(&op->expect, expect);
    return op;
}

static struct op *memcache_too_large(struct script *script)
{
    struct op *op = memcache_raw("too large", OP_LINE_PREFIX, "", "SERVER_ERROR object too large");
    size_t size = 1048577 + rng_below(&script->rng, 3000);

    buffer_append_format(&op->wire, "set evil 0 0 %zu\r\n", size);
    while (size > 0) {
        size_t part = MIN(size, (size_t)11);

        buffer_append(&op->wire, "flush_all\r\n", part);
        size -= part;
    }
    buffer_append_string(&op->wire, "\r\n");
    return op;
}

static struct op *memcache_other(struct script *script)
{
    switch (rng_below(&script->rng, script->world->profile.has_malformed ? 10 : 5)) {
    case 0:
        return memcache_raw("mn", 0, "mn\r\n", "MN\r\n");
    case 1:
        return memcache_raw("verbosity", 0, "verbosity 1\r\n", "OK\r\n");
    case 2:
        return memcache_raw("unknown", 0, "nosuch\r\n", "ERROR\r\n");
    case 3:
        return memcache_raw("no key", 0, "get\r\n", "ERROR\r\n");
    case 4:
        return memcache_raw("denied", OP_LINE_PREFIX, "slabs reassign 1 2\r\n", "CLIENT_ERROR");
    case 5:
        return memcache_raw("bad length", OP_LINE_PREFIX | OP_CLOSES, "set evil 0 0 4294967297\r\nx\r\n", "");
    case 6:
        return memcache_raw("bad number", OP_LINE_PREFIX | OP_CLOSES, "set evil 0 0 -1\r\n", "");
    case 7:
        /* A megabyte through tiny buffers takes the world minutes. */
        return script->world->profile.draws_net || script->world->profile.value_size_max < 10000
                   ? memcache_raw("mn", 0, "mn\r\n", "MN\r\n")
                   : memcache_too_large(script);
    case 8: /* the block is longer than it says */
        return memcache_raw("bad chunk", OP_LINE_PREFIX | OP_CLOSES, "set evil 0 0 2\r\nabcdefflush_all\r\n", "");
    default: {
        struct op *op = memcache_raw("long key", OP_LINE_PREFIX, "get ", "CLIENT_ERROR");

        for (int i = 0; i < 251; i++)
            buffer_append(&op->wire, "e", 1);
        buffer_append_string(&op->wire, "\r\n");
        return op;
    }
    }
}

static struct op *memcache_next(struct script *script)
{
    uint64_t dice = rng_below(&script->rng, 100);
    struct op *op;

    if (script->needs_noop) {
        script->needs_noop = false;
        return memcache_raw("mn", 0, "mn\r\n", "MN\r\n");
    }
    if (dice < 6) {
        op = memcache_other(script);
        script->is_over = (op->flags & OP_CLOSES) != 0;
        return op;
    }
    return dice < 45   ? memcache_get(script)
           : dice < 65 ? memcache_store(script)
           : dice < 80 ? memcache_line(script)
                       : memcache_meta(script);
}

/* ---- memcache binary -------------------------------------------------------------------------------- */

/* Meant: opcode (loud, as two digits), extras, key, value. */
static struct op *binary_next(struct script *script)
{
    static const struct {
        uint8_t opcode, loud;
        bool is_read, quiet_miss, quiet_hit;
        uint8_t extras;
    } verbs[] = {{0x00, 0x00, true, false, false, 0},  {0x09, 0x00, true, true, false, 0},
                 {0x0c, 0x0c, true, false, false, 0},  {0x0d, 0x0c, true, true, false, 0},
                 {0x01, 0x01, false, false, false, 8}, {0x11, 0x01, false, false, true, 8},
                 {0x04, 0x04, false, false, false, 0}, {0x14, 0x04, false, false, true, 0},
                 {0x05, 0x05, false, false, false, 20}, {0x02, 0x02, false, false, false, 8}};
    struct model model = {.value_size_max = script->world->profile.value_size_max};
    struct op *op = op_create("binary", OP_FORWARD | OP_BINARY);
    size_t pick = rng_below(&script->rng, ARRAY_COUNT(verbs));
    struct buffer reply = {0};
    char text[4], extras[20] = {0};
    uint16_t status;

    op->opaque = script->client << 16 | (script->next + 1);
    if (script->needs_noop || rng_chance(&script->rng, 80)) {
        script->needs_noop = false;
        op->flags = OP_LOCAL | OP_BINARY | OP_NEVER_FAILS;
        binary_compose(&op->wire, 0x80, 0x0a, 0, op->opaque, 0, BYTES_EMPTY, BYTES_EMPTY, BYTES_EMPTY);
        binary_compose(&op->expect, 0x81, 0x0a, 0, op->opaque, 0, BYTES_EMPTY, BYTES_EMPTY, BYTES_EMPTY);
        return op;
    }
    snprintf(text, sizeof(text), "%02x", verbs[pick].loud);
    op_add(op, text, 2);
    op_add(op, extras, verbs[pick].extras);
    op_add_key(script, op, 0, true);
    if (verbs[pick].extras == 8)
        op_add_value(script, op);
    else
        op_add(op, "", 0);
    if (verbs[pick].is_read)
        op->flags |= OP_READ;
    binary_compose(&op->wire, 0x80, verbs[pick].opcode, 0, op->opaque, 0, op_arg(op, 1), op_arg(op, 2),
                   op_arg(op, 3));
    model_binary(&model, verbs[pick].loud, op->opaque, op_arg(op, 1), op_arg(op, 2), op_arg(op, 3), &reply);
    reply.data[1] = (char)verbs[pick].opcode;
    status = (uint16_t)((unsigned char)reply.data[6] << 8 | (unsigned char)reply.data[7]);
    if ((verbs[pick].quiet_miss && status == 1) || (verbs[pick].quiet_hit && status == 0))
        op->flags |= OP_QUIET;
    else
        buffer_append(&op->expect, reply.data, reply.len);
    script->needs_noop = verbs[pick].quiet_miss || verbs[pick].quiet_hit;
    buffer_deinit(&reply);
    return op;
}

struct op *script_next(struct script *script)
{
    struct op *op;

    if (script->world->profile.is_redis) {
        op = redis_next(script);
    } else {
        if (script->next == 0)
            script->is_binary = script->world->profile.has_binary && rng_chance(&script->rng, 400);
        op = script->is_binary ? binary_next(script) : memcache_next(script);
    }
    script->next++;
    return op;
}
