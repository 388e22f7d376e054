/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/stats_layout.h"

#include "common/base/mem.h"
#include "proxy/slowlog.h"

#define READ_TRIES 100

/* ---- schemas ------------------------------------------------------------------------------------ */

struct schema_builder {
    struct stats_metric metrics[STATS_METRICS_MAX];
    uint32_t count, cells;
};

/* Returns where its cells start. */
static uint32_t schema_metric(struct schema_builder *builder, const char *name, uint32_t kind, uint32_t cells)
{
    struct stats_metric *metric = &builder->metrics[builder->count++];
    uint32_t at = builder->cells;

    ASSERT(builder->count <= STATS_METRICS_MAX);
    *metric = (struct stats_metric){.kind = kind, .cells = cells};
    stats_text_set(metric->name, sizeof(metric->name), bytes_of_string(name));
    builder->cells += cells;
    return at;
}

static void schema_counters(struct schema_builder *builder, const struct counter_info *infos, uint32_t count)
{
    static const uint32_t kinds[] = {
        [COUNTER_COUNTER] = STATS_COUNTER, [COUNTER_GAUGE] = STATS_GAUGE, [COUNTER_STAMP] = STATS_STAMP};

    for (uint32_t i = 0; i < count; i++)
        schema_metric(builder, infos[i].name, kinds[infos[i].kind], 1);
}

static uint32_t schema_histogram(struct schema_builder *builder, const char *name)
{
    return schema_metric(builder, name, STATS_HISTOGRAM, HISTOGRAM_CELLS);
}

static uint32_t schema_area(struct schema_builder *builder, const char *name, size_t size)
{
    return schema_metric(builder, name, STATS_AREA, (uint32_t)((size + 7) / 8));
}

static size_t slowlog_size(uint32_t entries)
{
    return sizeof(struct stats_slowlog) + entries * sizeof(struct stats_slow);
}

static size_t hotkeys_size(uint32_t entries)
{
    return sizeof(struct stats_hotkeys) + entries * sizeof(struct stats_hot);
}

static size_t clients_size(uint32_t entries)
{
    return sizeof(struct stats_clients) + entries * sizeof(struct stats_client);
}

static void build_process(struct schema_builder *builder, const struct stats_plan *plan, struct stats_schemas *out)
{
    schema_metric(builder, "clients", STATS_GAUGE, 1);
    schema_metric(builder, "memory_bytes", STATS_GAUGE, 1);
    ASSERT(builder->count == PROCESS_COUNTER_COUNT);
    out->slowlog = schema_area(builder, "slowlog", slowlog_size(plan->slowlog_entries));
    out->hotkeys = schema_area(builder, "hotkeys", hotkeys_size(plan->hotkeys_entries));
    out->bigkeys = schema_area(builder, "bigkeys", sizeof(struct stats_bigkeys));
    out->clients = schema_area(builder, "clients", clients_size(plan->clients_entries));
}

static void build_pool(struct schema_builder *builder, const struct stats_plan *plan, struct stats_schemas *out)
{
    schema_counters(builder, pool_counter_infos, POOL_COUNTER_COUNT);
    if (!plan->has_pool_histograms)
        return;
    out->pool_client_queue = schema_histogram(builder, "client_queue");
    out->pool_upstream_queue = schema_histogram(builder, "upstream_queue");
}

static void build_server(struct schema_builder *builder, const struct stats_plan *plan, struct stats_schemas *out)
{
    schema_counters(builder, server_counter_infos, SERVER_COUNTER_COUNT);
    if (plan->has_server_histograms)
        out->server_latency = schema_histogram(builder, "latency");
}

static void build_command(struct schema_builder *builder)
{
    schema_metric(builder, "errors", STATS_COUNTER, 1);
    schema_metric(builder, "misses", STATS_COUNTER, 1);
    schema_histogram(builder, "latency");
    ASSERT(builder->cells == sizeof(struct stats_command) / 8);
}

void stats_schemas_add(struct stats_segment *segment, const struct stats_plan *plan, struct stats_schemas *out)
{
    struct schema_builder *builder = must_zalloc(sizeof(*builder) * 4);

    *out = (struct stats_schemas){.has_commands = plan->has_commands};
    build_process(&builder[0], plan, out);
    build_pool(&builder[1], plan, out);
    build_server(&builder[2], plan, out);
    build_command(&builder[3]);
    out->process = stats_schema_add(segment, "process", builder[0].metrics, builder[0].count);
    out->pool = stats_schema_add(segment, "pool", builder[1].metrics, builder[1].count);
    out->server = stats_schema_add(segment, "server", builder[2].metrics, builder[2].count);
    out->command = stats_schema_add(segment, "command", builder[3].metrics, builder[3].count);
    mem_free(builder);
}

/* ---- the plan ---------------------------------------------------------------------------------------- */

static size_t plan_size(const struct conf *conf, const struct stats_plan *plan)
{
    size_t server_cells = SERVER_COUNTER_COUNT + plan->has_server_histograms * HISTOGRAM_CELLS;
    size_t pool_cells = POOL_COUNTER_COUNT + plan->has_pool_histograms * 2 * HISTOGRAM_CELLS;
    size_t process_size = slowlog_size(plan->slowlog_entries) + hotkeys_size(plan->hotkeys_entries) +
                          sizeof(struct stats_bigkeys) + clients_size(plan->clients_entries);
    size_t size = STATS_HEADER_SIZE + stats_schema_size(PROCESS_COUNTER_COUNT + 4) +
                  stats_schema_size(POOL_COUNTER_COUNT + 2) + stats_schema_size(SERVER_COUNTER_COUNT + 1) +
                  stats_schema_size(3) +
                  stats_group_size(0, 0, PROCESS_COUNTER_COUNT + process_size / 8 + 4);

    for (uint32_t p = 0; p < conf->pools_count; p++) {
        const struct conf_pool *pool = &conf->pools[p];
        size_t name_len = strlen(pool->name);

        size += stats_group_size(name_len, 0, pool_cells);
        for (uint32_t i = 0; i < pool->servers_count; i++)
            size += stats_group_size(name_len, strlen(pool->servers[i].name), server_cells);
    }
    if (plan->has_commands)
        size += plan->dynamic_groups *
                stats_group_size(32, 64, sizeof(struct stats_command) / 8 + SERVER_COUNTER_COUNT);
    return size;
}

int stats_plan(const struct conf *conf, struct stats_plan *out)
{
    const struct conf_process *process = &conf->process;
    /* Whatever is left out first comes last. */
    static const struct { bool servers, commands, pools; } tiers[] = {
        {true, true, true}, {false, true, true}, {false, false, true}, {false, false, false}};

    for (uint32_t i = 0; i < ARRAY_COUNT(tiers); i++) {
        *out = (struct stats_plan){
            .slowlog_entries = MIN(process->slowlog_entries, STATS_SLOWLOG_MAX),
            .hotkeys_entries = MIN(process->hotkeys_entries, STATS_HOTKEYS_MAX),
            .clients_entries = STATS_CLIENTS_MAX,
            .dynamic_groups = STATS_DYNAMIC_MAX,
            .has_server_histograms = tiers[i].servers,
            .has_commands = tiers[i].commands,
            .has_pool_histograms = tiers[i].pools,
        };
        out->size = plan_size(conf, out);
        if (out->size <= STATS_SEGMENT_MAX)
            return 0;
    }
    return ERR_FULL;
}

void stats_plan_private(const struct conf *conf, struct stats_plan *out)
{
    *out = (struct stats_plan){
        .slowlog_entries = MIN(conf->process.slowlog_entries, 16u),
        .hotkeys_entries = MIN(conf->process.hotkeys_entries, 16u),
        .clients_entries = 1,
        .dynamic_groups = 16,
        .has_server_histograms = true,
        .has_commands = true,
        .has_pool_histograms = true,
    };
    out->size = plan_size(conf, out);
}

/* ---- reading areas -------------------------------------------------------------------------------------- */

bool stats_read_locked(const void *from, void *out, size_t size)
{
    const uint64_t *sequence = from;

    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);

        if (before & 1)
            continue;
        memcpy(out, from, size);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(sequence, __ATOMIC_RELAXED) == before)
            return true;
    }
    return false;
}

static const void *next_area(struct stats_cursor *cursor, const char *name, size_t least, size_t *area_size)
{
    struct stats_group group;

    while (stats_next(cursor, &group)) {
        uint32_t cells;
        const uint64_t *area = bytes_equal(group.schema, BYTES("process"))
                                   ? stats_metric_find(&group, name, STATS_AREA, &cells)
                                   : NULL;

        if (area != NULL && (size_t)cells * 8 >= least) {
            *area_size = (size_t)cells * 8;
            return area;
        }
    }
    return NULL;
}

const struct stats_slowlog *stats_next_slowlog(struct stats_cursor *cursor)
{
    const struct stats_slowlog *slowlog;
    size_t size;

    while ((slowlog = next_area(cursor, "slowlog", sizeof(*slowlog), &size)) != NULL)
        if (slowlog->entries_max > 0 &&
            slowlog->entries_max <= (size - sizeof(*slowlog)) / sizeof(slowlog->entries[0]))
            return slowlog;
    return NULL;
}

const struct stats_hotkeys *stats_next_hotkeys(struct stats_cursor *cursor)
{
    const struct stats_hotkeys *hotkeys;
    size_t size;

    while ((hotkeys = next_area(cursor, "hotkeys", sizeof(*hotkeys), &size)) != NULL)
        if (hotkeys->entries_max <= (size - sizeof(*hotkeys)) / sizeof(hotkeys->entries[0]))
            return hotkeys;
    return NULL;
}

const struct stats_bigkeys *stats_next_bigkeys(struct stats_cursor *cursor)
{
    const struct stats_bigkeys *bigkeys;
    size_t size;

    while ((bigkeys = next_area(cursor, "bigkeys", sizeof(*bigkeys), &size)) != NULL)
        if (size == sizeof(*bigkeys))
            return bigkeys;
    return NULL;
}

const struct stats_clients *stats_next_clients(struct stats_cursor *cursor)
{
    const struct stats_clients *clients;
    size_t size;

    while ((clients = next_area(cursor, "clients", sizeof(*clients), &size)) != NULL)
        if (clients->entries_max <= (size - sizeof(*clients)) / sizeof(clients->entries[0]))
            return clients;
    return NULL;
}

void stats_fold_areas(void *base, size_t base_size, const void *from, size_t from_size)
{
    struct stats_cursor cursor, base_cursor;
    const struct stats_slowlog *slowlog;
    const struct stats_bigkeys *bigkeys;
    size_t size, from_area;

    stats_walk(&cursor, from, from_size);
    slowlog = next_area(&cursor, "slowlog", sizeof(*slowlog), &from_area);
    stats_walk(&cursor, from, from_size);
    bigkeys = stats_next_bigkeys(&cursor);
    stats_walk(&base_cursor, base, base_size);
    for (;;) {
        /* Found as const, but the base is ours to write. */
        struct stats_slowlog *into = (void *)(uintptr_t)next_area(&base_cursor, "slowlog", sizeof(*into), &size);

        if (into == NULL || slowlog == NULL)
            break;
        if (size != from_area || slowlog->entries_max > (size - sizeof(*into)) / sizeof(into->entries[0]))
            continue;
        into->entries_max = slowlog->entries_max;
        slowlog_merge(into, slowlog);
        break;
    }
    stats_walk(&base_cursor, base, base_size);
    if (bigkeys != NULL) {
        struct stats_bigkeys *into = (void *)(uintptr_t)stats_next_bigkeys(&base_cursor);

        if (into != NULL)
            bigkeys_merge(into, bigkeys);
    }
}

/* ---- text ------------------------------------------------------------------------------------------------- */

void stats_text_set(char *out, size_t size, struct bytes text)
{
    size_t len = MIN(text.len, size - 1);

    if (len > 0)
        memcpy(out, text.data, len);
    memset(out + len, 0, size - len);
}

void stats_key_set(struct stats_key *out, struct bytes key)
{
    size_t len = MIN(key.len, (size_t)STATS_KEY_MAX);

    out->len = (uint32_t)key.len;
    if (len > 0)
        memcpy(out->data, key.data, len);
    memset(out->data + len, 0, STATS_KEY_MAX - len);
}
