/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists gathered from all segments: slow requests, hot keys, big keys, clients.
 */
#include "config.h"

#include "common/base/mem.h"
#include "proxy/hotkeys.h"
#include "proxy/slowlog.h"
#include "proxy/stats_text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#define GATHER_MAX         65536u
#define CLIENTS_AGE_MAX_MS 3000u

struct gathered {
    char *items; /* owns */
    size_t item_size;
    uint32_t count, cap;
    uint64_t now_ms;
};

static void gather(struct gathered *list, const void *item)
{
    if (list->count == GATHER_MAX)
        return;
    if (list->count == list->cap) {
        list->cap = MAX(list->cap * 2, 64u);
        list->items = must_realloc(list->items, list->item_size * list->cap);
    }
    memcpy(list->items + list->item_size * list->count++, item, list->item_size);
}

/* Calls each() with a walk over the base's, then every live segment's areas. */
static void each_segment(struct worker *worker, bool with_base, void (*each)(struct gathered *, struct stats_cursor *),
                         struct gathered *list)
{
    struct stats_cursor cursor;
    struct worker_info info;
    size_t size;
    const void *base = worker_stats_base(worker, &size);

    stats_walk(&cursor, base, size);
    if (with_base)
        each(list, &cursor);
    for (uint32_t i = 0; i < worker_slots_count(worker); i++) {
        if (!worker_slot_info(worker, i, &info))
            continue;
        stats_walk(&cursor, info.stats, info.stats_size);
        each(list, &cursor);
    }
}

static void *gathered_at(const struct gathered *list, uint32_t index)
{
    return list->items + list->item_size * index;
}

static struct bytes text_of(const char *text)
{
    return bytes_of_string(text);
}

static struct bytes key_of(const struct stats_key *key)
{
    return bytes_of(key->data, MIN(key->len, STATS_KEY_MAX));
}

static void json_field(struct buffer *out, const char *name, struct bytes text)
{
    buffer_append_format(out, "\"%s\":", name);
    json_string(out, text);
    buffer_append_string(out, ",");
}

static void json_last(struct buffer *out, const char *name, uint64_t value)
{
    buffer_append_format(out, "\"%s\":%" PRIu64 "},", name, value);
}

static void text_key(struct buffer *out, const struct stats_key *key)
{
    if (key->len == 0)
        buffer_append_string(out, "-");
    printable(out, key_of(key));
    if (key->len > STATS_KEY_MAX)
        buffer_append_format(out, "...(%u bytes)", key->len);
}

static void text_or_dash(struct buffer *out, const char *text)
{
    if (text[0] == '\0')
        buffer_append_string(out, "-");
    printable(out, text_of(text));
}

static void text_time(struct buffer *out, uint64_t at_us)
{
    time_t at_s = (time_t)(at_us / 1000000);
    struct tm tm;
    char text[32] = "";

    gmtime_r(&at_s, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    buffer_append_format(out, "%s.%03uZ", text, (unsigned)(at_us / 1000 % 1000));
}

/* ---- slow log ----------------------------------------------------------------------------------- */

static void gather_slow(struct gathered *list, struct stats_cursor *cursor)
{
    const struct stats_slowlog *slowlog;
    struct stats_slow slow;

    while ((slowlog = stats_next_slowlog(cursor)) != NULL) {
        uint64_t count = __atomic_load_n(&slowlog->count, __ATOMIC_ACQUIRE);
        uint64_t entries_max = MIN(slowlog->entries_max, (uint64_t)STATS_SLOWLOG_MAX);

        for (uint64_t i = count > entries_max ? count - entries_max : 0; i < count; i++)
            if (slowlog_get(slowlog, i, &slow))
                gather(list, &slow);
    }
}

static int slow_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct stats_slow *)a)->at_us, y = ((const struct stats_slow *)b)->at_us;

    return x < y ? 1 : x > y ? -1 : 0;
}

static struct gathered slow_all(const struct stats_lists *lists)
{
    struct gathered list = {.item_size = sizeof(struct stats_slow)};

    each_segment(lists->worker, true, gather_slow, &list);
    if (list.count > 0)
        qsort(list.items, list.count, list.item_size, slow_compare);
    list.count = MIN(list.count, lists->count_max);
    return list;
}

void stats_lists_slowlog_json(const struct stats_lists *lists, struct buffer *out)
{
    struct gathered list = slow_all(lists);

    for (uint32_t i = 0; i < list.count; i++) {
        const struct stats_slow *slow = gathered_at(&list, i);

        buffer_append_format(out, "{\"at\":%.6f,\"total_us\":%" PRIu64 ",\"queue_us\":%" PRIu64
                             ",\"backend_us\":%" PRIu64 ",\"failed\":%s,",
                             (double)slow->at_us / 1e6, slow->total_us, slow->queue_us, slow->backend_us,
                             slow->is_failed ? "true" : "false");
        json_field(out, "pool", text_of(slow->pool));
        json_field(out, "server", text_of(slow->server));
        json_field(out, "command", text_of(slow->command));
        json_field(out, "key", key_of(&slow->key));
        json_field(out, "client", text_of(slow->client));
        buffer_append_format(out, "\"client_id\":%" PRIu64 ",", slow->client_id);
        json_last(out, "reply_bytes", slow->reply_bytes);
    }
    mem_free(list.items);
}

void stats_lists_slowlog(const struct stats_lists *lists, struct buffer *out)
{
    struct gathered list = slow_all(lists);

    buffer_append_format(out, "%-24s %9s %9s %9s  %-8s %-10s %-20s %-22s %s\n", "time", "total ms", "queue ms",
                         "server ms", "command", "pool", "server", "client", "key");
    for (uint32_t i = 0; i < list.count; i++) {
        const struct stats_slow *slow = gathered_at(&list, i);

        text_time(out, slow->at_us);
        buffer_append_format(out, " %9.1f %9.1f %9.1f%c %-8s %-10s %-20s %-22s ", (double)slow->total_us / 1e3,
                             (double)slow->queue_us / 1e3, (double)slow->backend_us / 1e3,
                             slow->is_failed ? '!' : ' ', slow->command, slow->pool,
                             slow->server[0] == '\0' ? "-" : slow->server,
                             slow->client[0] == '\0' ? "-" : slow->client);
        text_key(out, &slow->key);
        buffer_append_string(out, "\n");
    }
    if (list.count > 0)
        buffer_append_string(out, "(! answered with an error of the proxy's: a time-out, a lost connection)\n");
    mem_free(list.items);
}

/* ---- hot keys ------------------------------------------------------------------------------------ */

struct hot { /* of all workers */
    struct stats_hot hot;
    uint64_t requests; /* estimated, in the last minute or two */
    uint64_t total;
};

static void gather_hot(struct gathered *list, struct stats_cursor *cursor)
{
    const struct stats_hotkeys *hotkeys;

    while ((hotkeys = stats_next_hotkeys(cursor)) != NULL) {
        struct stats_hotkeys *copy = hotkeys_copy(hotkeys);

        for (uint64_t i = 0; copy != NULL && i < copy->entries_max; i++) {
            struct hot hot = {.hot = copy->entries[i], .total = copy->total * copy->sample};

            hot.requests = hot.hot.count * copy->sample;
            if (hot.hot.hash != 0 && hot.hot.count > hot.hot.error)
                gather(list, &hot);
        }
        mem_free(copy);
    }
}

static int hot_compare_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct hot *)a)->hot.hash, y = ((const struct hot *)b)->hot.hash;

    return x < y ? -1 : x > y ? 1 : 0;
}

static int hot_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct hot *)a)->requests, y = ((const struct hot *)b)->requests;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* All requests that the workers' samples stand for. */
static uint64_t hot_total(struct worker *worker)
{
    struct stats_cursor cursor;
    struct worker_info info;
    uint64_t total = 0;

    for (uint32_t i = 0; i < worker_slots_count(worker); i++) {
        const struct stats_hotkeys *hotkeys;

        if (!worker_slot_info(worker, i, &info))
            continue;
        stats_walk(&cursor, info.stats, info.stats_size);
        hotkeys = stats_next_hotkeys(&cursor);
        total += hotkeys == NULL ? 0 : hotkeys->total * hotkeys->sample;
    }
    return total;
}

static struct gathered hot_all(const struct stats_lists *lists)
{
    struct gathered list = {.item_size = sizeof(struct hot)};
    uint32_t kept = 0;

    each_segment(lists->worker, false, gather_hot, &list);
    if (list.count == 0)
        return list;
    qsort(list.items, list.count, list.item_size, hot_compare_hash);
    for (uint32_t i = 1; i < list.count; i++) {
        struct hot *last = gathered_at(&list, kept), *next = gathered_at(&list, i);

        if (last->hot.hash == next->hot.hash)
            last->requests += next->requests;
        else
            memmove(gathered_at(&list, ++kept), next, sizeof(*next));
    }
    list.count = kept + 1;
    qsort(list.items, list.count, list.item_size, hot_compare);
    list.count = MIN(list.count, lists->count_max);
    return list;
}

static double hot_share(const struct hot *hot, uint64_t total)
{
    return total == 0 ? 0 : (double)hot->requests / (double)total;
}

void stats_lists_hotkeys_json(const struct stats_lists *lists, struct buffer *out)
{
    struct gathered list = hot_all(lists);
    uint64_t total = hot_total(lists->worker);

    for (uint32_t i = 0; i < list.count; i++) {
        const struct hot *hot = gathered_at(&list, i);

        buffer_append_string(out, "{");
        json_field(out, "pool", text_of(hot->hot.pool));
        json_field(out, "key", key_of(&hot->hot.key));
        buffer_append_format(out, "\"share\":%.4f,", hot_share(hot, total));
        json_last(out, "requests", hot->requests);
    }
    mem_free(list.items);
}

void stats_lists_hotkeys(const struct stats_lists *lists, struct buffer *out)
{
    struct gathered list = hot_all(lists);
    uint64_t total = hot_total(lists->worker);

    buffer_append_format(out, "%8s %12s  %-16s %s\n", "share", "requests", "pool", "key");
    for (uint32_t i = 0; i < list.count; i++) {
        const struct hot *hot = gathered_at(&list, i);

        buffer_append_format(out, "%7.2f%% %12" PRIu64 "  %-16s ", 100 * hot_share(hot, total), hot->requests,
                             hot->hot.pool);
        text_key(out, &hot->hot.key);
        buffer_append_string(out, "\n");
    }
    buffer_append_string(out, "(a sample; of the last minutes, the latest counting most)\n");
    mem_free(list.items);
}

/* ---- big keys -------------------------------------------------------------------------------------- */

static void gather_big(struct gathered *list, struct stats_cursor *cursor)
{
    const struct stats_bigkeys *bigkeys;
    struct stats_bigkeys *all = (struct stats_bigkeys *)(void *)list->items;

    while ((bigkeys = stats_next_bigkeys(cursor)) != NULL)
        bigkeys_merge(all, bigkeys);
}

static int big_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct stats_big *)a)->size, y = ((const struct stats_big *)b)->size;

    return x < y ? 1 : x > y ? -1 : 0;
}

static struct stats_bigkeys *big_all(const struct stats_lists *lists)
{
    struct stats_bigkeys *all = must_zalloc(sizeof(*all));
    struct gathered list = {.items = (char *)all};

    each_segment(lists->worker, true, gather_big, &list);
    qsort(all->entries, STATS_BIGKEYS_MAX, sizeof(all->entries[0]), big_compare);
    return all;
}

void stats_lists_bigkeys_json(const struct stats_lists *lists, struct buffer *out)
{
    struct stats_bigkeys *all = big_all(lists);

    for (uint32_t i = 0; i < STATS_BIGKEYS_MAX && all->entries[i].hash != 0; i++) {
        const struct stats_big *big = &all->entries[i];

        buffer_append_string(out, "{");
        json_field(out, "pool", text_of(big->pool));
        json_field(out, "server", text_of(big->server));
        json_field(out, "command", text_of(big->command));
        json_field(out, "key", key_of(&big->key));
        buffer_append_format(out, "\"at\":%.6f,\"count\":%" PRIu64 ",", (double)big->at_us / 1e6, big->count);
        json_last(out, "bytes", big->size);
    }
    mem_free(all);
}

void stats_lists_bigkeys(const struct stats_lists *lists, struct buffer *out)
{
    struct stats_bigkeys *all = big_all(lists);

    buffer_append_format(out, "%12s %8s  %-24s %-8s %-16s %-22s %s\n", "bytes", "times", "last", "command", "pool",
                         "server", "key");
    for (uint32_t i = 0; i < STATS_BIGKEYS_MAX && all->entries[i].hash != 0; i++) {
        const struct stats_big *big = &all->entries[i];

        buffer_append_format(out, "%12" PRIu64 " %8" PRIu64 "  ", big->size, big->count);
        text_time(out, big->at_us);
        buffer_append_format(out, " %-8s %-16s %-22s ", big->command, big->pool, big->server);
        text_key(out, &big->key);
        buffer_append_string(out, "\n");
    }
    mem_free(all);
}

/* ---- clients ----------------------------------------------------------------------------------------- */

static void gather_clients(struct gathered *list, struct stats_cursor *cursor)
{
    const struct stats_clients *clients = stats_next_clients(cursor);
    size_t size;
    struct stats_clients *copy;

    if (clients == NULL || clients->entries_max > STATS_CLIENTS_MAX)
        return;
    size = sizeof(*clients) + clients->entries_max * sizeof(clients->entries[0]);
    copy = must_alloc(size);
    /* An older one is of the last time that somebody asked. */
    if (stats_read_locked(clients, copy, size) && copy->at_ms + CLIENTS_AGE_MAX_MS > list->now_ms) {
        uint64_t count = MIN(copy->count, (size - sizeof(*copy)) / sizeof(copy->entries[0]));

        for (uint64_t i = 0; i < count; i++) {
            struct stats_client *client = &copy->entries[i];

            client->dialect[sizeof(client->dialect) - 1] = '\0';
            client->name[STATS_TEXT_MAX - 1] = '\0';
            client->address[STATS_TEXT_MAX - 1] = '\0';
            client->pool[STATS_TEXT_MAX - 1] = '\0';
            gather(list, client);
        }
    }
    mem_free(copy);
}

void stats_lists_clients(const struct stats_lists *lists, struct buffer *out)
{
    struct gathered list = {.item_size = sizeof(struct stats_client), .now_ms = lists->now_ms};

    each_segment(lists->worker, false, gather_clients, &list);
    buffer_append_format(out, "%8s %-22s %-16s %-9s %3s %6s %9s %10s %-8s %s\n", "id", "address", "pool", "protocol",
                         "db", "idle s", "in flight", "out bytes", "flags", "name");
    for (uint32_t i = 0; i < list.count && i < lists->count_max; i++) {
        const struct stats_client *client = gathered_at(&list, i);

        buffer_append_format(out, "%8" PRIu64 " %-22s %-16s %-9s %3u %6u %9" PRIu64 " %10" PRIu64 " %c%c%c      ",
                             client->id, client->address, client->pool, client->dialect, client->db, client->idle_s,
                             client->inflight, client->output_bytes,
                             client->flags & STATS_CLIENT_PRIVATE ? 'P' : '-',
                             client->flags & STATS_CLIENT_PAUSED ? 'W' : '-',
                             client->flags & STATS_CLIENT_CLOSING ? 'C' : '-');
        text_or_dash(out, client->name);
        buffer_append_string(out, "\n");
    }
    buffer_append_format(out, "%u clients are listed (P: connection to a server of its own, W: not read from at "
                         "the moment, C: closes)\n", MIN(list.count, lists->count_max));
    mem_free(list.items);
}
