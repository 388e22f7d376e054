/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache's stats under memcached's names. What has a meaning here is told as it is; names that tools insist on
 * and that mean nothing here (threads, hash_is_expanding) have the value of a server that is at rest; the rest
 * of memcached's names (its slab mover, its LRU threads) are left out.
 *
 * There is one slab class, 1: all items.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/mc_private.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define STAT_VALUE_MAX 256
#define PREFIX_COUNT_MAX 1024u
#define PREFIX_LEN_MAX 64u

void mc_stat_format(struct mc_stats_out *out, const char *name, const char *format, ...)
{
    char value[STAT_VALUE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    out->stat(out, name, value);
}

static void stat_u64(struct mc_stats_out *out, const char *name, uint64_t number)
{
    mc_stat_format(out, name, "%llu", (unsigned long long)number);
}

/* ---- general --------------------------------------------------------------------------------- */

static void stats_process(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;
    struct rusage usage = {0};

    getrusage(RUSAGE_SELF, &usage);
    stat_u64(out, "pid", (uint64_t)getpid());
    stat_u64(out, "uptime", (engine->now_ms - engine->started_ms) / 1000);
    stat_u64(out, "time", engine->now_ms / 1000);
    mc_stat_format(out, "version", "%s", MC_VERSION);
    stat_u64(out, "pointer_size", 8 * sizeof(void *));
    mc_stat_format(out, "rusage_user", "%ld.%06ld", (long)usage.ru_utime.tv_sec,
                   (long)usage.ru_utime.tv_usec);
    mc_stat_format(out, "rusage_system", "%ld.%06ld", (long)usage.ru_stime.tv_sec,
                   (long)usage.ru_stime.tv_usec);
    stat_u64(out, "max_connections", engine->settings->clients_max);
    stat_u64(out, "curr_connections", engine->session_count);
    stat_u64(out, "total_connections", engine->counters.connections);
    stat_u64(out, "rejected_connections", engine->counters.connections_rejected);
    stat_u64(out, "connection_structures", engine->session_count);
}

static void stats_commands(struct mc_stats_out *out)
{
    const struct engine_counters *counters = &out->session->engine->counters;
    const struct {
        const char *name;
        uint64_t number;
    } rows[] = {
        {"cmd_get", counters->mc.get},
        {"cmd_set", counters->mc.set},
        {"cmd_flush", counters->mc.flush},
        {"cmd_touch", counters->mc.touch},
        {"cmd_meta", counters->mc.meta},
        {"get_hits", counters->mc.get_hits},
        {"get_misses", counters->mc.get_misses},
        {"get_expired", counters->mc.get_expired},
        {"get_flushed", 0},
        {"delete_misses", counters->mc.delete_misses},
        {"delete_hits", counters->mc.delete_hits},
        {"incr_misses", counters->mc.incr_misses},
        {"incr_hits", counters->mc.incr_hits},
        {"decr_misses", counters->mc.decr_misses},
        {"decr_hits", counters->mc.decr_hits},
        {"cas_misses", counters->mc.cas_misses},
        {"cas_hits", counters->mc.cas_hits},
        {"cas_badval", counters->mc.cas_badval},
        {"touch_hits", counters->mc.touch_hits},
        {"touch_misses", counters->mc.touch_misses},
        {"store_too_large", counters->mc.store_too_large},
        {"store_no_memory", counters->mc.store_no_memory},
        {"auth_cmds", counters->mc.auth},
        {"auth_errors", counters->mc.auth_errors},
        {"bytes_read", counters->bytes_in},
        {"bytes_written", counters->bytes_out},
    };

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        stat_u64(out, rows[i].name, rows[i].number);
}

static void stats_general(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;
    struct store_stats store;

    store_stats_get(engine->store, &store);
    stats_process(out);
    stats_commands(out);
    stat_u64(out, "limit_maxbytes", engine->settings->memory_max);
    stat_u64(out, "accepting_conns", 1);
    stat_u64(out, "listen_disabled_num", 0);
    stat_u64(out, "time_in_listen_disabled_us", 0);
    stat_u64(out, "threads", 1);
    stat_u64(out, "conn_yields", 0);
    stat_u64(out, "hash_bytes", store.index_bytes);
    stat_u64(out, "hash_is_expanding", 0);
    stat_u64(out, "malloc_fails", 0);
    stat_u64(out, "bytes", store.entry_bytes + store.object_bytes);
    stat_u64(out, "curr_items", store_count(engine->store, engine->options.memcache_db));
    stat_u64(out, "total_items", engine->counters.mc.set);
    stat_u64(out, "expired_unfetched", 0);
    stat_u64(out, "evicted_unfetched", 0);
    stat_u64(out, "evictions", store.evictions);
    stat_u64(out, "reclaimed", store.expirations);
}

/* ---- the groups ------------------------------------------------------------------------------ */

static void stats_settings(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;

    stat_u64(out, "maxbytes", engine->settings->memory_max);
    stat_u64(out, "maxconns", engine->settings->clients_max);
    stat_u64(out, "tcpport", engine->options.port);
    stat_u64(out, "udpport", 0);
    stat_u64(out, "verbosity", 0);
    stat_u64(out, "oldest", 0);
    mc_stat_format(out, "evictions", "%s", engine->settings->evicts ? "on" : "off");
    stat_u64(out, "num_threads", 1);
    mc_stat_format(out, "stat_key_prefix", ":");
    mc_stat_format(out, "detail_enabled", "%s", engine->mc->has_detail ? "yes" : "no");
    mc_stat_format(out, "cas_enabled", "yes");
    mc_stat_format(out, "binding_protocol", "auto-negotiate");
    mc_stat_format(out, "auth_enabled_sasl", "%s", engine->settings->password != NULL ? "yes" : "no");
    mc_stat_format(out, "auth_enabled_ascii", "%s", engine->settings->password != NULL ? "yes" : "no");
    stat_u64(out, "item_size_max", engine->settings->mc_value_max);
    mc_stat_format(out, "maxconns_fast", "yes");
    mc_stat_format(out, "flush_enabled", "yes");
    mc_stat_format(out, "dump_enabled", "no");
    stat_u64(out, "idle_timeout", engine->settings->timeout_s);
    mc_stat_format(out, "track_sizes", "no");
    mc_stat_format(out, "shutdown_command", "no");
}

static void stats_items(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;
    uint64_t count = store_count(engine->store, engine->options.memcache_db);
    struct store_stats store;

    if (count == 0)
        return; /* as memcached: classes without items are not told */
    store_stats_get(engine->store, &store);
    stat_u64(out, "items:1:number", count);
    stat_u64(out, "items:1:number_hot", store.hot_keys);
    stat_u64(out, "items:1:number_cold", store.cold_keys);
    stat_u64(out, "items:1:mem_requested", store.entry_bytes + store.object_bytes);
    stat_u64(out, "items:1:evicted", store.evictions);
    stat_u64(out, "items:1:outofmemory", 0);
    stat_u64(out, "items:1:reclaimed", store.expirations);
}

static void stats_slabs(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;
    const struct engine_counters *counters = &engine->counters;
    struct store_stats store;

    store_stats_get(engine->store, &store);
    stat_u64(out, "1:used_chunks", store_count(engine->store, engine->options.memcache_db));
    stat_u64(out, "1:get_hits", counters->mc.get_hits);
    stat_u64(out, "1:cmd_set", counters->mc.set);
    stat_u64(out, "1:delete_hits", counters->mc.delete_hits);
    stat_u64(out, "1:incr_hits", counters->mc.incr_hits);
    stat_u64(out, "1:decr_hits", counters->mc.decr_hits);
    stat_u64(out, "1:cas_hits", counters->mc.cas_hits);
    stat_u64(out, "1:cas_badval", counters->mc.cas_badval);
    stat_u64(out, "1:touch_hits", counters->mc.touch_hits);
    stat_u64(out, "active_slabs", 1);
    stat_u64(out, "total_malloced", store.memory_bytes);
}

static void stats_conns(struct mc_stats_out *out)
{
    struct engine *engine = out->session->engine;

    LIST_FOR_EACH (&engine->sessions, node) {
        const struct session *session = CONTAINER_OF(node, struct session, node);
        char name[64];
        int len = snprintf(name, sizeof(name), "%llu:", (unsigned long long)session->id);

        ASSERT(len > 0 && len < 32);
        snprintf(name + len, sizeof(name) - (size_t)len, "addr");
        mc_stat_format(out, name, "%s:%s", session->peer[0] == '/' ? "unix" : "tcp", session->peer);
        snprintf(name + len, sizeof(name) - (size_t)len, "listen_addr");
        mc_stat_format(out, name, "%s:%s", session->local[0] == '/' ? "unix" : "tcp", session->local);
        snprintf(name + len, sizeof(name) - (size_t)len, "state");
        mc_stat_format(out, name, "%s", session == out->session ? "conn_parse_cmd" : "conn_read");
        snprintf(name + len, sizeof(name) - (size_t)len, "secs_since_last_cmd");
        stat_u64(out, name, engine->now_ms > session->last_ms ? (engine->now_ms - session->last_ms) / 1000 : 0);
    }
}

bool mc_stats(struct mc_stats_out *out, struct bytes group)
{
    if (group.len == 0)
        stats_general(out);
    else if (bytes_equal(group, BYTES("settings")))
        stats_settings(out);
    else if (bytes_equal(group, BYTES("items")))
        stats_items(out);
    else if (bytes_equal(group, BYTES("slabs")))
        stats_slabs(out);
    else if (bytes_equal(group, BYTES("conns")))
        stats_conns(out);
    else if (bytes_equal(group, BYTES("sizes")))
        out->stat(out, "sizes_status", "disabled");
    else
        return false;
    return true;
}

void mc_stats_reset(struct engine *engine)
{
    memset(&engine->counters.mc, 0, sizeof(engine->counters.mc));
    engine->mc->prefix_count = 0;
}

/* ---- stats detail: by the part of the key before its first ':' ------------------------------- */

struct mc_prefix {
    uint64_t gets, hits, sets, deletes;
    uint8_t len;
    char text[PREFIX_LEN_MAX];
};

/* NULL: the key has no prefix, a too long one, or there are too many. */
static struct mc_prefix *prefix_of(struct mc *mc, struct bytes key)
{
    const char *colon = key.len > 0 ? memchr(key.data, ':', key.len) : NULL;
    struct mc_prefix *prefix;
    size_t len;

    if (colon == NULL || (size_t)(colon - key.data) > PREFIX_LEN_MAX)
        return NULL;
    len = (size_t)(colon - key.data);
    if (mc->prefixes == NULL)
        mc->prefixes = mem_zalloc(PREFIX_COUNT_MAX * sizeof(*mc->prefixes));
    if (mc->prefixes == NULL)
        return NULL;
    for (uint32_t i = 0; i < mc->prefix_count; i++) {
        prefix = &mc->prefixes[i];
        if (prefix->len == len && memcmp(prefix->text, key.data, len) == 0)
            return prefix;
    }
    if (mc->prefix_count == PREFIX_COUNT_MAX)
        return NULL;
    prefix = &mc->prefixes[mc->prefix_count++];
    *prefix = (struct mc_prefix){.len = (uint8_t)len};
    memcpy(prefix->text, key.data, len);
    return prefix;
}

NOINLINE void mc_detail_note_slow(struct mc *mc, enum mc_detail what, struct bytes key, bool is_hit)
{
    struct mc_prefix *prefix = prefix_of(mc, key);

    if (prefix == NULL)
        return;
    switch (what) {
    case MC_DETAIL_GET:
        prefix->gets++;
        prefix->hits += is_hit;
        break;
    case MC_DETAIL_SET: prefix->sets++; break;
    case MC_DETAIL_DELETE: prefix->deletes++; break;
    }
}

void mc_detail_dump(struct mc *mc, struct buffer *out)
{
    for (uint32_t i = 0; i < mc->prefix_count; i++) {
        const struct mc_prefix *prefix = &mc->prefixes[i];

        buffer_append_format(out, "PREFIX %.*s get %llu hit %llu set %llu del %llu\r\n", prefix->len,
                             prefix->text, (unsigned long long)prefix->gets,
                             (unsigned long long)prefix->hits, (unsigned long long)prefix->sets,
                             (unsigned long long)prefix->deletes);
    }
    buffer_append_string(out, "END\r\n");
}
