/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "proxy/conf_live.h"
#include "proxy/conf_private.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#define TIME_MAX ((uint64_t)INT_MAX)
#define SIZE_TOP ((uint64_t)1 << 40)

/* Those of the file's keys, with its bounds, that everyone reads anew each time. */
#define PROCESS(field) offsetof(struct conf_process, field)
static const struct conf_key process_keys[] = {
    {"slowlog.threshold", conf_set_time_or_off, PROCESS(slowlog_threshold_ms), 0, TIME_MAX, NULL},
    {"hotkeys.sample", conf_set_u32, PROCESS(hotkeys_sample), 1, 1000000, NULL},
    {"bigkeys.size", conf_set_size64, PROCESS(bigkeys_size), 1, SIZE_TOP, NULL},
    {"limits.client_output_max", conf_set_size64, PROCESS(limits.client_output_max), 4096, SIZE_TOP, NULL},
    {"limits.client_inflight_max", conf_set_u32, PROCESS(limits.client_inflight_max), 1, 1u << 20, NULL},
    {"limits.upstream_queue_max", conf_set_u32, PROCESS(limits.upstream_queue_max), 1, 1u << 24, NULL},
    {"limits.upstream_output_max", conf_set_size64, PROCESS(limits.upstream_output_max), 65536, SIZE_TOP, NULL},
    {"limits.clients_max", conf_set_u32, PROCESS(limits.clients_max), 0, INT_MAX, NULL},
    {"limits.auth_timeout", conf_set_time_or_off, PROCESS(limits.auth_timeout_ms), 1, TIME_MAX, NULL},
    {"limits.idle_timeout", conf_set_time_or_off, PROCESS(limits.idle_timeout_ms), 1, TIME_MAX, NULL},
};

#define POOL(field) offsetof(struct conf_pool, field)
static const struct conf_key pool_keys[] = {
    {"timeout", conf_set_time_or_off, POOL(timeout_ms), 1, TIME_MAX, NULL}, /* first: see set_pool() */
    {"connect_timeout", conf_set_time, POOL(connect_timeout_ms), 1, TIME_MAX, NULL},
    {"queue_timeout", conf_set_time_or_off, POOL(queue_timeout_ms), 1, TIME_MAX, NULL},
    {"reply_timeout", conf_set_time_or_off, POOL(reply_timeout_ms), 1, TIME_MAX, NULL},
    {"server_retry_timeout", conf_set_time, POOL(server_retry_timeout_ms), 1, TIME_MAX, NULL},
    {"server_failure_limit", conf_set_u32, POOL(server_failure_limit), 1, INT_MAX, NULL},
    {"client_connections", conf_set_u32, POOL(client_connections), 0, INT_MAX, NULL},
};

static void value_text(const struct conf_key *key, const void *target, char out[CONF_LIVE_VALUE_MAX])
{
    const char *field = (const char *)target + key->offset;

    if (key->set == conf_set_u32) {
        snprintf(out, CONF_LIVE_VALUE_MAX, "%" PRIu32, *(const uint32_t *)(const void *)field);
    } else if (key->set == conf_set_size64) {
        snprintf(out, CONF_LIVE_VALUE_MAX, "%" PRIu64, *(const uint64_t *)(const void *)field);
    } else {
        int64_t ms = *(const int64_t *)(const void *)field;

        if (ms < 0)
            snprintf(out, CONF_LIVE_VALUE_MAX, "off");
        else
            snprintf(out, CONF_LIVE_VALUE_MAX, "%" PRId64 "ms", ms);
    }
}

static const struct conf_key *find(const struct conf_key *keys, size_t count, struct bytes name)
{
    for (size_t i = 0; i < count; i++)
        if (bytes_equal(bytes_of_string(keys[i].name), name))
            return &keys[i];
    return NULL;
}

static int set_one(struct conf_reader *reader, const struct conf_key *key, const char *name, struct bytes value,
                   void *target)
{
    struct conf_node node = {.kind = CONF_NODE_SCALAR, .text = value};
    struct conf_item item = {.key = key, .name = name, .name_node = &node, .value = &node};

    return key->set(reader, &item, target);
}

/* As in the file, `timeout` is what the other three are without a word of their own. */
static void set_pool_timeout(struct conf_pool *pool)
{
    pool->queue_timeout_ms = pool->timeout_ms;
    pool->reply_timeout_ms = pool->timeout_ms;
    if (pool->timeout_ms >= 0)
        pool->connect_timeout_ms = pool->timeout_ms;
}

static int fail(struct conf_error *error, int err, const char *text, struct bytes what)
{
    error->at = (struct conf_position){0, 0};
    snprintf(error->text, sizeof(error->text), "\"%.*s\" %s", CONF_SHOW(what), text);
    return err;
}

static int set_pools(struct conf_reader *reader, struct bytes key, struct bytes value,
                     struct conf_live_change *change)
{
    struct conf *conf = reader->conf;
    struct bytes rest = bytes_skip(key, strlen("pool."));
    const char *dot = memrchr(rest.data, '.', rest.len);
    struct bytes pool_name = bytes_first(rest, dot == NULL ? rest.len : (size_t)(dot - rest.data));
    const struct conf_key *found =
        dot == NULL ? NULL
                    : find(pool_keys, ARRAY_COUNT(pool_keys), bytes_skip(rest, pool_name.len + 1));
    bool is_all = bytes_equal(pool_name, BYTES("*"));
    uint32_t done = 0;

    if (found == NULL)
        return fail(reader->error, ERR_NOT_FOUND, "cannot be set while the program runs; `set` alone lists what can",
                    key);
    for (uint32_t p = 0; p < conf->pools_count; p++) {
        struct conf_pool *pool = &conf->pools[p];
        int err;

        if (!is_all && !bytes_equal(bytes_of_string(pool->name), pool_name))
            continue;
        if (done++ == 0)
            value_text(found, pool, change->from);
        err = set_one(reader, found, change->key, value, pool);
        if (err != 0)
            return err; /* the first says no, then none was changed */
        if (found == &pool_keys[0])
            set_pool_timeout(pool);
        value_text(found, pool, change->to);
    }
    return done > 0 ? 0 : fail(reader->error, ERR_NOT_FOUND, "is no pool", pool_name);
}

int conf_live_set(struct conf *conf, struct bytes text, struct conf_live_change *change,
                  struct conf_error *error)
{
    struct conf_reader reader = {.path = "set", .error = error, .conf = conf};
    struct conf_live_change own;
    const char *blank = memchr(text.data, ' ', text.len);
    struct bytes key = bytes_first(text, blank == NULL ? text.len : (size_t)(blank - text.data));
    struct bytes value = bytes_skip(text, key.len + 1);
    const struct conf_key *found;
    int err;

    if (change == NULL)
        change = &own;
    memset(change, 0, sizeof(*change));
    if (key.len == 0 || value.len == 0)
        return fail(error, ERR_INVALID, "is no key and value", text);
    if (key.len >= sizeof(change->key))
        return fail(error, ERR_NOT_FOUND, "is too long", key);
    memcpy(change->key, key.data, key.len);
    if (key.len > 5 && memcmp(key.data, "pool.", 5) == 0)
        return set_pools(&reader, key, value, change);
    found = find(process_keys, ARRAY_COUNT(process_keys), key);
    if (found == NULL)
        return fail(error, ERR_NOT_FOUND, "cannot be set while the program runs; `set` alone lists what can", key);
    value_text(found, &conf->process, change->from);
    err = set_one(&reader, found, change->key, value, &conf->process);
    value_text(found, &conf->process, change->to);
    return err;
}

static void list_one(const struct conf_key *key, const char *pool_name, const void *target, conf_print_fn print,
                     void *arg)
{
    char value[CONF_LIVE_VALUE_MAX], line[CONF_LIVE_KEY_MAX + CONF_LIVE_VALUE_MAX];
    int len;

    value_text(key, target, value);
    len = snprintf(line, sizeof(line), "%s%s%s%s %s\n", pool_name == NULL ? "" : "pool.",
                   pool_name == NULL ? "" : pool_name, pool_name == NULL ? "" : ".", key->name, value);
    print(arg, line, MIN((size_t)len, sizeof(line) - 1));
}

void conf_live_list(const struct conf *conf, conf_print_fn print, void *arg)
{
    for (size_t i = 0; i < ARRAY_COUNT(process_keys); i++)
        list_one(&process_keys[i], NULL, &conf->process, print, arg);
    for (uint32_t p = 0; p < conf->pools_count; p++)
        for (size_t i = 0; i < ARRAY_COUNT(pool_keys); i++)
            list_one(&pool_keys[i], conf->pools[p].name, &conf->pools[p], print, arg);
}
