/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "proxy/where.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct printer {
    conf_print_fn print;
    void *arg;
};

static void out(const struct printer *p, const char *format, ...) PRINTF_LIKE(2, 3);

static void out(const struct printer *p, const char *format, ...)
{
    char text[512];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    p->print(p->arg, text, MIN((size_t)len, sizeof(text) - 1));
}

/* Keys may hold anything. */
static void out_quoted(const struct printer *p, struct bytes text)
{
    out(p, "\"");
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
            out(p, "%c", c);
        else
            out(p, "\\x%02x", c);
    }
    out(p, "\"");
}

static const char *rule(enum ring_distribution distribution)
{
    switch (distribution) {
    case RING_ketama:
        return "its is the first of the circle's points at or behind the hash";
    case RING_modula:
        return "the hash modulo the sum of the weights falls on it";
    case RING_random:
        return "chance: every request may go to another one";
    case RING_jump:
        return "jump hash of the hash over the weights in the file's order";
    case RING_slots:
        return "the slot is its";
    case RING_range:
        return "the key is in its range";
    case RING_DISTRIBUTION_COUNT:
        break;
    }
    return "";
}

static void out_hash(const struct printer *p, const struct conf_pool *pool, const struct ring *ring,
                     struct bytes key)
{
    struct bytes part = ring_key_part(ring, key);

    if (pool->distribution == RING_range || pool->distribution == RING_random)
        return;
    out(p, "  hashed    ");
    out_quoted(p, part);
    out(p, part.len == key.len ? ", the whole key\n" : ", its hash tag\n");
    if (pool->distribution == RING_slots)
        out(p, "  slot      %" PRIu32 " of 16384\n", ring_hash(ring, key));
    else
        out(p, "  hash      %" PRIu32 " (%s)\n", ring_hash(ring, key), hash_name(pool->hash));
}

/* The name of the ring's server, and where it is. */
static void out_server(const struct printer *p, const struct conf_pool *pool, uint32_t index)
{
    if (pool->members == CONF_MEMBERS_sentinel) {
        out(p, "  server    %s, weight %" PRIu32 "\n  address   its primary's: the sentinels know\n",
            pool->masters[index].name, pool->masters[index].weight);
        return;
    }
    out(p, "  server    %s, weight %" PRIu32 "\n  address   %s\n", pool->servers[index].name,
        pool->servers[index].weight, pool->servers[index].address.text);
}

static void out_cluster(const struct printer *p, const struct conf_pool *pool, struct bytes key)
{
    const struct ring_options options = {.distribution = RING_slots};
    const struct ring_server server = {.name = BYTES("all"), .weight = 1, .is_live = true};
    struct ring *ring = NULL;

    if (ring_create(&options, &server, 1, &ring) != 0)
        return;
    out(p, "  slot      %" PRIu32 " of 16384\n  server    the slot's owner: the cluster's map, asked from %s\n",
        ring_hash(ring, key), pool->servers_count > 0 ? pool->servers[0].name : "?");
    ring_destroy(&ring);
}

/* What it means that the key's server is ejected. */
static void out_ejected(const struct printer *p, const struct where *where, const struct conf_pool *pool,
                        uint32_t pool_index, struct bytes key)
{
    bool *is_live = must_zalloc(sizeof(*is_live) * MAX(pool->servers_count, 1u));
    struct ring *ring = NULL;

    for (uint32_t i = 0; i < pool->servers_count; i++)
        is_live[i] = !where->is_ejected(where->arg, pool_index, i);
    switch (pool->eject) {
    case CONF_EJECT_keep:
        out(p, "  now       it is ejected: the key gets errors until it is back (eject: keep)\n");
        break;
    case CONF_EJECT_rehash:
        if (conf_pool_ring(pool, is_live, &ring) == 0) {
            uint32_t other = ring_lookup(ring, key, 0);

            if (other == RING_NONE)
                out(p, "  now       every server is ejected: the key gets errors\n");
            else
                out(p, "  now       it is ejected: the key is on %s, %s, until it is back\n",
                    pool->servers[other].name, pool->servers[other].address.text);
        }
        break;
    case CONF_EJECT_spare:
        out(p, "  now       it is ejected: a spare stands in, if one is free\n");
        break;
    }
    ring_destroy(&ring);
    mem_free(is_live);
}

static void where_pool(const struct where *where, uint32_t pool_index, struct bytes key, const struct printer *p)
{
    const struct conf_pool *pool = &where->conf->pools[pool_index];
    struct ring *ring = NULL;
    uint32_t index;

    out(p, "pool %s (%s, %s)\n  key       ", pool->name, pool->listen.text, ring_distribution_name(pool->distribution));
    out_quoted(p, key);
    out(p, "\n");
    if (conf_pool_ring(pool, NULL, &ring) != 0) {
        out_cluster(p, pool, key);
        return;
    }
    out_hash(p, pool, ring, key);
    index = ring_lookup(ring, key, 0);
    if (index == RING_NONE) {
        out(p, "  server    none holds it\n");
    } else {
        out_server(p, pool, index);
        out(p, "  why       %s\n", ring_live_count(ring) == 1 ? "it is the only one" : rule(pool->distribution));
        if (where->is_ejected != NULL && pool->members == CONF_MEMBERS_static &&
            where->is_ejected(where->arg, pool_index, index))
            out_ejected(p, where, pool, pool_index, key);
    }
    ring_destroy(&ring);
}

int where_print(const struct where *where, struct bytes key, conf_print_fn print, void *arg)
{
    const struct printer printer = {print, arg};
    bool is_found = false;

    for (uint32_t i = 0; i < where->conf->pools_count; i++) {
        if (where->pool != NULL && strcmp(where->conf->pools[i].name, where->pool) != 0)
            continue;
        is_found = true;
        where_pool(where, i, key, &printer);
    }
    return is_found ? 0 : ERR_NOT_FOUND;
}
