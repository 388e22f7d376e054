/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the model servers answer: nothing is stored, every answer is computed from the request. It names
 * the key, so that who gets it can tell whether it is his.
 */
#include "tests/sim/world.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

uint64_t rng_next(struct rng *rng)
{
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    return bound == 0 ? 0 : rng_next(rng) % bound;
}

bool rng_chance(struct rng *rng, uint32_t per_mille)
{
    return rng_below(rng, 1000) < per_mille;
}

uint64_t hash_bytes(uint64_t seed, struct bytes bytes)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed;

    for (size_t i = 0; i < bytes.len; i++)
        hash = (hash ^ (unsigned char)bytes.data[i]) * 0x100000001b3u;
    hash ^= hash >> 29;
    return hash * 0xbf58476d1ce4e5b9u ^ hash >> 32;
}

static bool digits_parse(struct bytes *rest, uint32_t *out)
{
    uint32_t value = 0;
    size_t i = 0;

    while (i < rest->len && i < 7 && rest->data[i] >= '0' && rest->data[i] <= '9')
        value = value * 10 + (uint32_t)(rest->data[i++] - '0');
    if (i == 0 || i >= rest->len || rest->data[i] != '.')
        return false;
    *rest = bytes_skip(*rest, i + 1);
    *out = value;
    return true;
}

bool token_parse(struct bytes key, uint32_t *client, uint32_t *op)
{
    if (key.len < 6 || key.data[0] != 'k')
        return false;
    key = bytes_skip(key, 1);
    return digits_parse(&key, client) && digits_parse(&key, op);
}

/* ---- values: the key again and again ---------------------------------------------------------- */

static size_t value_len(const struct model *model, uint64_t hash)
{
    size_t small = (hash >> 8) % 64;

    switch (hash >> 20 & 31) {
    case 0:
        return MIN((size_t)model->value_size_max, (hash >> 8) % 100000 + 16000);
    case 1:
    case 2:
        return MIN((size_t)model->value_size_max, (hash >> 8) % 4000 + 900);
    case 3:
        return 0;
    default:
        return small;
    }
}

static void value_append(struct buffer *out, struct bytes key, uint64_t hash, size_t len)
{
    char tag[64];
    size_t tag_len = (size_t)snprintf(tag, sizeof(tag), "\r\nEND\r\n%llx:", (unsigned long long)hash);

    for (size_t done = 0; done < len;) {
        size_t part = MIN(key.len, len - done);

        buffer_append(out, key.data, part);
        done += part;
        part = MIN(tag_len, len - done);
        buffer_append(out, tag, part);
        done += part;
    }
}

/* ---- Redis --------------------------------------------------------------------------------------- */

static void redis_bulk(const struct model *model, struct bytes key, uint64_t hash, struct buffer *out)
{
    size_t len = value_len(model, hash);

    if (hash % 11 == 0) {
        buffer_append_string(out, model->is_resp3 ? "_\r\n" : "$-1\r\n");
        return;
    }
    buffer_append_format(out, "$%zu\r\n", len);
    value_append(out, key, hash, len);
    buffer_append_string(out, "\r\n");
}

static void redis_any(const struct model *model, struct bytes key, uint64_t hash, struct buffer *out)
{
    struct bytes tag = bytes_first(key, 0);

    /* Lines hold no control bytes. */
    while (tag.len < MIN(key.len, (size_t)40) && key.data[tag.len] > ' ')
        tag.len++;
    switch (hash >> 40 & 15) {
    case 0:
        buffer_append_format(out, "+%.*s %llx\r\n", BYTES_ARG(tag), (unsigned long long)hash);
        break;
    case 1:
        buffer_append_format(out, "-WRONGTYPE %.*s %llx\r\n", BYTES_ARG(tag), (unsigned long long)hash);
        break;
    case 2:
        buffer_append_format(out, ":%lld\r\n", (long long)hash);
        break;
    case 3:
        buffer_append_format(out, "*3\r\n$%zu\r\n%.*s\r\n*0\r\n*2\r\n:%llu\r\n*1\r\n$2\r\n\r\n\r\n", tag.len,
                             BYTES_ARG(tag), (unsigned long long)(hash >> 8));
        break;
    case 4:
        if (model->is_resp3)
            buffer_append_format(out, "%%2\r\n+%.*s\r\n,1.5\r\n#t\r\n(%llu\r\n", BYTES_ARG(tag),
                                 (unsigned long long)(hash >> 8));
        else
            buffer_append_format(out, "*-1\r\n");
        break;
    default:
        redis_bulk(model, key, hash, out);
        break;
    }
}

static bool is_verb(struct bytes verb, const char *name)
{
    return bytes_equal_nocase(verb, bytes_of_string(name));
}

void model_redis(const struct model *model, const struct bytes *argv, uint32_t argc, struct buffer *out)
{
    uint64_t seed = hash_bytes(model->db * 2u + model->is_resp3, BYTES_EMPTY);
    uint64_t sum = 0;

    if (is_verb(argv[0], "MGET")) {
        buffer_append_format(out, "*%u\r\n", argc - 1);
        for (uint32_t i = 1; i < argc; i++)
            redis_bulk(model, argv[i], hash_bytes(seed, argv[i]), out);
        return;
    }
    if (is_verb(argv[0], "MSET") || is_verb(argv[0], "FLUSHALL")) {
        buffer_append_string(out, "+OK\r\n");
        return;
    }
    if (is_verb(argv[0], "DEL") || is_verb(argv[0], "EXISTS") || is_verb(argv[0], "UNLINK")) {
        for (uint32_t i = 1; i < argc; i++)
            sum += hash_bytes(seed, argv[i]) % 1000003;
        buffer_append_format(out, ":%llu\r\n", (unsigned long long)sum);
        return;
    }
    for (uint32_t i = 0; i < argc; i++)
        seed = hash_bytes(seed, argv[i]);
    redis_any(model, argc > 1 ? argv[1] : argv[0], seed, out);
}

/* ---- memcache text -------------------------------------------------------------------------------- */

static bool item_exists(uint64_t hash)
{
    return hash % 5 != 0;
}

static void memcache_item(const struct model *model, struct bytes key, bool has_cas, struct buffer *out)
{
    uint64_t hash = hash_bytes(1, key);
    size_t len = value_len(model, hash);

    if (!item_exists(hash))
        return;
    buffer_append_format(out, "VALUE %.*s %u %zu", BYTES_ARG(key), (unsigned)(hash & 0xffff), len);
    if (has_cas)
        buffer_append_format(out, " %llu", (unsigned long long)(hash >> 1));
    buffer_append_string(out, "\r\n");
    value_append(out, key, hash, len);
    buffer_append_string(out, "\r\n");
}

/* The flags that say themselves again, in the order asked. */
static void meta_echo(const struct bytes *argv, uint32_t from, uint32_t to, struct buffer *out)
{
    for (uint32_t i = from; i < to; i++) {
        if (argv[i].data[0] == 'k')
            buffer_append_format(out, " k%.*s", BYTES_ARG(argv[1]));
        else if (argv[i].data[0] == 'O')
            buffer_append_format(out, " %.*s", BYTES_ARG(argv[i]));
    }
}

static void memcache_meta(const struct model *model, const struct bytes *argv, uint32_t argc,
                          struct buffer *out)
{
    uint64_t hash = hash_bytes(2, argv[1]);
    size_t len = value_len(model, hash);
    bool wants_value = false;
    char verb = argv[0].data[1];

    if (verb == 's') {
        buffer_append_string(out, hash % 4 == 0 ? "NS" : "HD");
        meta_echo(argv, 3, argc - 1, out);
        buffer_append_string(out, "\r\n");
        return;
    }
    for (uint32_t i = 2; i < argc; i++)
        wants_value |= argv[i].len == 1 && argv[i].data[0] == 'v';
    if (!item_exists(hash) && verb == 'g') {
        buffer_append_string(out, "EN\r\n");
        return;
    }
    if (!wants_value) {
        buffer_append_string(out, item_exists(hash) ? "HD" : "NF");
        meta_echo(argv, 2, argc, out);
        buffer_append_string(out, "\r\n");
        return;
    }
    if (verb == 'a')
        len = 5;
    buffer_append_format(out, "VA %zu", len);
    meta_echo(argv, 2, argc, out);
    buffer_append_string(out, "\r\n");
    if (verb == 'a')
        buffer_append_format(out, "%05u", (unsigned)(hash % 100000));
    else
        value_append(out, argv[1], hash, len);
    buffer_append_string(out, "\r\n");
}

bool model_meta_is_quiet(struct bytes verb, struct bytes reply)
{
    struct bytes code = bytes_first(reply, 2);

    switch (verb.data[1]) {
    case 'g':
        return bytes_equal(code, BYTES("EN"));
    case 's':
        return bytes_equal(code, BYTES("HD"));
    case 'a':
        return bytes_equal(code, BYTES("HD")) || bytes_equal(code, BYTES("VA"));
    default:
        return bytes_equal(code, BYTES("HD"));
    }
}

void model_memcache(const struct model *model, const struct bytes *argv, uint32_t argc,
                    struct buffer *out)
{
    bool is_gat = is_verb(argv[0], "gat") || is_verb(argv[0], "gats");
    uint64_t hash;

    if (argv[0].data[0] == 'g') {
        for (uint32_t i = is_gat ? 2 : 1; i < argc; i++)
            memcache_item(model, argv[i], argv[0].data[argv[0].len - 1] == 's', out);
        buffer_append_string(out, "END\r\n");
        return;
    }
    if (argv[0].len == 2 && argv[0].data[0] == 'm') {
        memcache_meta(model, argv, argc, out);
        return;
    }
    if (argc < 2) {
        buffer_append_string(out, is_verb(argv[0], "version") ? "VERSION 1.6.18\r\n" : "OK\r\n");
        return;
    }
    hash = hash_bytes(3, argv[1]);
    if (hash % 13 == 0)
        buffer_append_format(out, "SERVER_ERROR out of memory for %.*s\r\n", BYTES_ARG(bytes_first(argv[1], 64)));
    else if (is_verb(argv[0], "incr") || is_verb(argv[0], "decr"))
        item_exists(hash) ? buffer_append_format(out, "%llu\r\n", (unsigned long long)hash)
                          : buffer_append_string(out, "NOT_FOUND\r\n");
    else if (is_verb(argv[0], "delete"))
        buffer_append_string(out, item_exists(hash) ? "DELETED\r\n" : "NOT_FOUND\r\n");
    else if (is_verb(argv[0], "touch"))
        buffer_append_string(out, item_exists(hash) ? "TOUCHED\r\n" : "NOT_FOUND\r\n");
    else if (is_verb(argv[0], "cas"))
        buffer_append_string(out, hash % 3 == 0 ? "EXISTS\r\n" : hash % 3 == 1 ? "STORED\r\n" : "NOT_FOUND\r\n");
    else
        buffer_append_string(out, hash % 4 == 0 && !is_verb(argv[0], "set") ? "NOT_STORED\r\n" : "STORED\r\n");
}

/* ---- memcache binary -------------------------------------------------------------------------------- */

void binary_compose(struct buffer *out, uint8_t magic, uint8_t opcode, uint16_t status, uint32_t opaque,
                    uint64_t cas, struct bytes extras, struct bytes key, struct bytes value)
{
    unsigned char head[24] = {magic, opcode, (unsigned char)(key.len >> 8), (unsigned char)key.len,
                              (unsigned char)extras.len, 0, (unsigned char)(status >> 8),
                              (unsigned char)status};
    uint32_t body = htobe32((uint32_t)(extras.len + key.len + value.len));
    uint32_t wire_opaque = htobe32(opaque);
    uint64_t wire_cas = htobe64(cas);

    memcpy(head + 8, &body, 4);
    memcpy(head + 12, &wire_opaque, 4);
    memcpy(head + 16, &wire_cas, 8);
    buffer_append(out, head, sizeof(head));
    buffer_append(out, extras.data, extras.len);
    buffer_append(out, key.data, key.len);
    buffer_append(out, value.data, value.len);
}

/* Loud opcodes only: 0 get, 1 set, 2 add, 4 delete, 5 incr, 0x0c getk, 0x0a noop, 0x0b version. */
void model_binary(const struct model *model, uint8_t opcode, uint32_t opaque, struct bytes extras,
                  struct bytes key, struct bytes value, struct buffer *out)
{
    uint64_t hash = hash_bytes(opcode, key);
    struct buffer data = {0};
    bool is_get = opcode == 0 || opcode == 0x0c;

    (void)extras;
    (void)value;
    if (opcode == 0x0b) {
        binary_compose(out, 0x81, opcode, 0, opaque, 0, BYTES_EMPTY, BYTES_EMPTY, BYTES("1.6.18"));
        return;
    }
    if (!item_exists(hash)) {
        binary_compose(out, 0x81, opcode, opcode == 2 ? 2 : 1, opaque, 0, BYTES_EMPTY,
                       opcode == 0x0c ? key : BYTES_EMPTY, BYTES("Not found"));
        return;
    }
    if (is_get) {
        value_append(&data, key, hash, value_len(model, hash));
        binary_compose(out, 0x81, opcode, 0, opaque, hash, BYTES("\0\0\0\1"),
                       opcode == 0x0c ? key : BYTES_EMPTY, buffer_bytes(&data));
    } else {
        uint64_t number = htobe64(hash);

        binary_compose(out, 0x81, opcode, 0, opaque, hash, BYTES_EMPTY, BYTES_EMPTY,
                       opcode == 5 ? bytes_of(&number, 8) : BYTES_EMPTY);
    }
    buffer_deinit(&data);
}
