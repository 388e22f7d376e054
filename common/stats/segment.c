/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats. All offsets are from the segment's start, all records are multiples of 64 bytes.
 *
 *   header  0 u64 magic | 8 u64 used (bytes, header included) | 16.. zero
 *   record  0 u32 size  | 4 u16 type | 6 u16 name or label a length | 8 u32 schema: metric count;
 *           group: offset of its schema | 12 u16 label b length, u16 zero | 16 u32 offset of the cells
 *           from the record | 20 u32 cell count of the group, or of all metrics | 24 text: name, or a and b;
 *           then, 8-byte aligned, the metrics or the cells
 *
 * A record is valid iff size is a multiple of 64, lies within `used`, and all that it names lies within it;
 * a group only if its schema is a valid schema record before it with the same cell count.
 */
#include "common/stats/segment.h"

#include "common/base/mem.h"

#define STATS_MAGIC     0x3154415453524957u /* "WIRSTAT1" */
#define RECORD_ALIGN    64u
#define RECORD_SCHEMA   1
#define RECORD_GROUP    2
#define SCHEMA_MAP_MAX  64u /* schemas that a merge remembers; more are looked up each time */

struct header {
    uint64_t magic;
    uint64_t used;
};

struct record {
    uint32_t size;
    uint16_t type;
    uint16_t a_len;
    uint32_t link; /* schema: count of metrics; group: its schema */
    uint16_t b_len, zero;
    uint32_t body_off;
    uint32_t cells_count;
    char text[];
};
_Static_assert(offsetof(struct record, text) == 24, "the format");
_Static_assert(sizeof(struct stats_metric) % 8 == 0, "metrics are aligned");

struct stats_index {
    uint32_t *slots; /* owns; offsets of group records, 0: free */
    uint32_t count, cap;
};

static size_t align_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static size_t record_size(size_t text_len, size_t body_size)
{
    return align_up(align_up(sizeof(struct record) + text_len, 8) + body_size, RECORD_ALIGN);
}

size_t stats_schema_size(uint32_t metrics_count)
{
    return record_size(STATS_NAME_MAX, metrics_count * sizeof(struct stats_metric));
}

size_t stats_group_size(size_t label_a_len, size_t label_b_len, size_t cells)
{
    return record_size(MIN(label_a_len, (size_t)STATS_LABEL_MAX) + MIN(label_b_len, (size_t)STATS_LABEL_MAX),
                       cells * sizeof(uint64_t));
}

/* ---- checked access --------------------------------------------------------------------------- */

static size_t segment_used(const void *memory, size_t size)
{
    const struct header *header = memory;
    uint64_t used;

    if (memory == NULL || size < STATS_HEADER_SIZE ||
        __atomic_load_n(&header->magic, __ATOMIC_ACQUIRE) != STATS_MAGIC)
        return 0;
    used = __atomic_load_n(&header->used, __ATOMIC_ACQUIRE);
    return used < STATS_HEADER_SIZE || used > size || used % RECORD_ALIGN != 0 ? 0 : (size_t)used;
}

/* NULL: no valid record begins here. */
static const struct record *record_at(const char *memory, size_t used, size_t off)
{
    const struct record *record = (const struct record *)(const void *)(memory + off);
    size_t text_len, body_size;

    if (off < STATS_HEADER_SIZE || off % RECORD_ALIGN != 0 || off >= used)
        return NULL;
    text_len = (size_t)record->a_len + record->b_len;
    if (record->size < RECORD_ALIGN || record->size % RECORD_ALIGN != 0 || record->size > used - off)
        return NULL;
    body_size = record->type == RECORD_SCHEMA ? (size_t)record->link * sizeof(struct stats_metric)
                                              : (size_t)record->cells_count * sizeof(uint64_t);
    if (record->body_off % 8 != 0 || record->body_off < sizeof(*record) + text_len ||
        record->body_off > record->size || body_size > record->size - record->body_off)
        return NULL;
    return record;
}

static const struct record *schema_at(const char *memory, size_t used, size_t off)
{
    const struct record *record = record_at(memory, used, off);
    const struct stats_metric *metrics;
    uint64_t cells = 0;

    if (record == NULL || record->type != RECORD_SCHEMA || record->link > STATS_METRICS_MAX)
        return NULL;
    metrics = (const void *)((const char *)record + record->body_off);
    for (uint32_t i = 0; i < record->link; i++) {
        if (memchr(metrics[i].name, '\0', STATS_NAME_MAX) == NULL ||
            metrics[i].cells != (metrics[i].kind == STATS_HISTOGRAM ? HISTOGRAM_CELLS
                                 : metrics[i].kind == STATS_AREA    ? metrics[i].cells
                                                                    : 1u))
            return NULL;
        cells += metrics[i].cells;
    }
    return cells == record->cells_count ? record : NULL;
}

static struct bytes record_a(const struct record *record)
{
    return bytes_of(record->text, record->a_len);
}

static struct bytes record_b(const struct record *record)
{
    return bytes_of(record->text + record->a_len, record->b_len);
}

static const void *record_body(const struct record *record)
{
    return (const char *)record + record->body_off;
}

/* ---- the index: (schema, a, b) -> group -------------------------------------------------------------- */

static uint64_t hash_bytes(uint64_t hash, struct bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        hash = (hash ^ (unsigned char)b.data[i]) * 0x100000001b3u;
    return (hash ^ 0xff) * 0x100000001b3u;
}

static uint64_t group_hash(uint32_t schema, struct bytes a, struct bytes b)
{
    uint64_t hash = hash_bytes(hash_bytes(0xcbf29ce484222325u ^ schema, a), b);

    return hash ^ hash >> 32;
}

static const struct record *segment_record(const struct stats_segment *segment, uint32_t off)
{
    return (const struct record *)(const void *)(segment->memory + off);
}

static uint32_t *index_slot(const struct stats_segment *segment, uint32_t schema, struct bytes a,
                            struct bytes b)
{
    const struct stats_index *index = segment->index;
    uint32_t at = (uint32_t)group_hash(schema, a, b) & (index->cap - 1);

    /* Never more than half full: ends. */
    for (;; at = (at + 1) & (index->cap - 1)) {
        const struct record *record;

        if (index->slots[at] == 0)
            return &index->slots[at];
        record = segment_record(segment, index->slots[at]);
        if (record->link == schema && bytes_equal(record_a(record), a) && bytes_equal(record_b(record), b))
            return &index->slots[at];
    }
}

static void index_put(struct stats_segment *segment, uint32_t off)
{
    struct stats_index *index = segment->index;
    const struct record *record = segment_record(segment, off);

    if ((index->count + 1) * 2 > index->cap) {
        uint32_t *old = index->slots;
        uint32_t old_cap = index->cap;

        index->cap = old_cap * 2;
        index->slots = must_zalloc(sizeof(*index->slots) * index->cap);
        for (uint32_t i = 0; i < old_cap; i++) {
            if (old[i] != 0) {
                const struct record *other = segment_record(segment, old[i]);

                *index_slot(segment, other->link, record_a(other), record_b(other)) = old[i];
            }
        }
        mem_free(old);
    }
    *index_slot(segment, record->link, record_a(record), record_b(record)) = off;
    index->count++;
}

/* ---- writing --------------------------------------------------------------------------------------- */

/* False: something in it does not check. */
static bool index_build(struct stats_segment *segment)
{
    size_t used = segment_used(segment->memory, segment->size);
    size_t off = STATS_HEADER_SIZE;

    while (off < used) {
        const struct record *record = record_at(segment->memory, used, off);
        const struct record *schema;

        if (record == NULL)
            return false;
        if (record->type == RECORD_GROUP) {
            schema = schema_at(segment->memory, used, record->link);
            if (schema == NULL || schema->cells_count != record->cells_count)
                return false;
            index_put(segment, (uint32_t)off);
        } else if (schema_at(segment->memory, used, off) == NULL) {
            return false;
        }
        off += record->size;
    }
    return used != 0;
}

void stats_open(struct stats_segment *segment, void *memory, size_t size, bool keep)
{
    struct header *header = memory;
    struct stats_index *index = must_zalloc(sizeof(*index));

    ASSERT(size >= STATS_HEADER_SIZE && size <= UINT32_MAX && (uintptr_t)memory % 8 == 0);
    index->cap = 64;
    index->slots = must_zalloc(sizeof(*index->slots) * index->cap);
    *segment = (struct stats_segment){.memory = memory, .size = size / RECORD_ALIGN * RECORD_ALIGN, .index = index};
    if (keep && index_build(segment))
        return;
    memset(index->slots, 0, sizeof(*index->slots) * index->cap);
    index->count = 0;
    if (header->magic != 0) {
        __atomic_store_n(&header->magic, 0, __ATOMIC_RELEASE);
        memset(memory, 0, size);
    }
    header->used = STATS_HEADER_SIZE;
    __atomic_store_n(&header->magic, STATS_MAGIC, __ATOMIC_RELEASE);
}

void stats_close(struct stats_segment *segment)
{
    if (segment->index == NULL)
        return;
    mem_free(segment->index->slots);
    mem_free(segment->index);
    segment->index = NULL;
}

size_t stats_used(const struct stats_segment *segment)
{
    return segment_used(segment->memory, segment->size);
}

/* Room for a record at the end, its head filled in but not yet visible. NULL: none. */
static struct record *record_begin(struct stats_segment *segment, uint16_t type, struct bytes a,
                                   struct bytes b, size_t body_size)
{
    size_t used = stats_used(segment);
    size_t size = record_size(a.len + b.len, body_size);
    struct record *record = (struct record *)(void *)(segment->memory + used);

    if (size > segment->size - used)
        return NULL;
    *record = (struct record){
        .size = (uint32_t)size,
        .type = type,
        .a_len = (uint16_t)a.len,
        .b_len = (uint16_t)b.len,
        .body_off = (uint32_t)align_up(sizeof(*record) + a.len + b.len, 8),
    };
    if (a.len > 0)
        memcpy(record->text, a.data, a.len);
    if (b.len > 0)
        memcpy(record->text + a.len, b.data, b.len);
    return record;
}

static void record_end(struct stats_segment *segment, const struct record *record)
{
    struct header *header = (struct header *)(void *)segment->memory;

    __atomic_store_n(&header->used, header->used + record->size, __ATOMIC_RELEASE);
}

static bool schema_is(const struct record *record, struct bytes name, const struct stats_metric *metrics,
                      uint32_t count)
{
    return bytes_equal(record_a(record), name) && record->link == count &&
           memcmp(record_body(record), metrics, count * sizeof(*metrics)) == 0;
}

stats_schema_id stats_schema_add(struct stats_segment *segment, const char *name,
                                 const struct stats_metric *metrics, uint32_t count)
{
    size_t used = stats_used(segment);
    struct bytes label = bytes_of_string(name);
    struct record *record;

    ASSERT(count <= STATS_METRICS_MAX && label.len < STATS_NAME_MAX);
    for (size_t off = STATS_HEADER_SIZE; off < used;) {
        const struct record *other = segment_record(segment, (uint32_t)off);

        if (other->type == RECORD_SCHEMA && schema_is(other, label, metrics, count))
            return (stats_schema_id)off;
        off += other->size;
    }
    record = record_begin(segment, RECORD_SCHEMA, label, BYTES_EMPTY, count * sizeof(*metrics));
    if (record == NULL)
        return 0;
    record->link = count;
    memcpy((char *)record + record->body_off, metrics, count * sizeof(*metrics));
    for (uint32_t i = 0; i < count; i++)
        record->cells_count += metrics[i].cells;
    record_end(segment, record);
    return (stats_schema_id)used;
}

static uint64_t *group_cells(const struct stats_segment *segment, uint32_t off)
{
    return (uint64_t *)(void *)(segment->memory + off + segment_record(segment, off)->body_off);
}

uint64_t *stats_group_find(const struct stats_segment *segment, stats_schema_id schema, struct bytes a,
                           struct bytes b)
{
    uint32_t off = *index_slot(segment, schema, bytes_first(a, STATS_LABEL_MAX),
                               bytes_first(b, STATS_LABEL_MAX));

    return off == 0 ? NULL : group_cells(segment, off);
}

uint64_t *stats_group_add(struct stats_segment *segment, stats_schema_id schema, struct bytes a,
                          struct bytes b)
{
    uint64_t *cells = stats_group_find(segment, schema, a, b);
    uint32_t off = (uint32_t)stats_used(segment);
    struct record *record;
    uint32_t count;

    if (cells != NULL || schema == 0)
        return cells;
    count = segment_record(segment, schema)->cells_count;
    record = record_begin(segment, RECORD_GROUP, bytes_first(a, STATS_LABEL_MAX),
                          bytes_first(b, STATS_LABEL_MAX), count * sizeof(uint64_t));
    if (record == NULL)
        return NULL;
    record->link = schema;
    record->cells_count = count;
    record_end(segment, record);
    index_put(segment, off);
    return group_cells(segment, off);
}

void stats_zero_gauges(struct stats_segment *segment)
{
    struct stats_cursor cursor;
    struct stats_group group;

    stats_walk(&cursor, segment->memory, segment->size);
    while (stats_next(&cursor, &group)) {
        /* Our own memory, which the walk only sees as const. */
        uint64_t *cell = (uint64_t *)(uintptr_t)group.cells;

        for (uint32_t i = 0; i < group.metrics_count; i++) {
            if (group.metrics[i].kind == STATS_GAUGE)
                *cell = 0;
            cell += group.metrics[i].cells;
        }
    }
}

/* ---- reading ----------------------------------------------------------------------------------------- */

void stats_walk(struct stats_cursor *cursor, const void *memory, size_t size)
{
    *cursor = (struct stats_cursor){.memory = memory, .size = segment_used(memory, size), .off = STATS_HEADER_SIZE};
}

/* As stats_next(), with the offset of the schema. */
static bool walk_next(struct stats_cursor *cursor, struct stats_group *out, uint32_t *schema_off)
{
    while (cursor->off < cursor->size) {
        const struct record *record = record_at(cursor->memory, cursor->size, cursor->off);
        const struct record *schema;

        if (record == NULL)
            break;
        cursor->off += record->size;
        if (record->type != RECORD_GROUP)
            continue;
        schema = schema_at(cursor->memory, cursor->size, record->link);
        if (schema == NULL || schema->cells_count != record->cells_count)
            break;
        *schema_off = record->link;
        *out = (struct stats_group){
            .schema = record_a(schema),
            .a = record_a(record),
            .b = record_b(record),
            .metrics = record_body(schema),
            .metrics_count = schema->link,
            .cells_count = record->cells_count,
            .cells = record_body(record),
        };
        return true;
    }
    cursor->off = cursor->size;
    return false;
}

bool stats_next(struct stats_cursor *cursor, struct stats_group *out)
{
    uint32_t schema_off;

    return walk_next(cursor, out, &schema_off);
}

const uint64_t *stats_metric_find(const struct stats_group *group, const char *name, uint32_t kind,
                                  uint32_t *cells)
{
    const uint64_t *cell = group->cells;

    for (uint32_t i = 0; i < group->metrics_count; i++) {
        if (group->metrics[i].kind == kind && strcmp(group->metrics[i].name, name) == 0) {
            if (cells != NULL)
                *cells = group->metrics[i].cells;
            return cell;
        }
        cell += group->metrics[i].cells;
    }
    return NULL;
}

/* ---- merging ------------------------------------------------------------------------------------------ */

static void merge_metric(uint64_t *into, const uint64_t *from, uint32_t kind, unsigned flags)
{
    uint64_t value = __atomic_load_n(from, __ATOMIC_RELAXED);

    switch ((enum stats_kind)kind) {
    case STATS_COUNTER:
        *into += value;
        break;
    case STATS_GAUGE:
        if (flags & STATS_MERGE_GAUGES)
            *into += value;
        break;
    case STATS_STAMP:
        *into = MAX(*into, value);
        break;
    case STATS_HISTOGRAM:
        histogram_merge((struct histogram *)(void *)into, (const struct histogram *)(const void *)from);
        break;
    case STATS_AREA:
        break;
    }
}

/* Metric by metric, by name; both lists are mostly the same, so the search starts where it was. */
static void merge_group(uint64_t *into, const struct stats_metric *metrics, uint32_t count,
                        const struct stats_group *from, unsigned flags)
{
    const uint64_t *source = from->cells;
    uint64_t *target = into;
    uint32_t at = 0;

    if (flags & STATS_MERGE_KEYS)
        return;
    for (uint32_t i = 0; i < from->metrics_count; i++) {
        const struct stats_metric *metric = &from->metrics[i];

        for (uint32_t tried = 0; tried < count; tried++) {
            const struct stats_metric *mine = &metrics[at];
            bool is_it = mine->kind == metric->kind && mine->cells == metric->cells &&
                         strcmp(mine->name, metric->name) == 0;

            if (is_it)
                merge_metric(target, source, metric->kind, flags);
            target += mine->cells;
            if (++at == count) {
                at = 0;
                target = into;
            }
            if (is_it)
                break;
        }
        source += metric->cells;
    }
}

static stats_schema_id merge_schema(struct stats_segment *into, const struct stats_group *group, unsigned flags)
{
    size_t used = stats_used(into);
    char name[STATS_NAME_MAX];

    if (group->schema.len >= STATS_NAME_MAX)
        return 0;
    memcpy(name, group->schema.data, group->schema.len);
    name[group->schema.len] = '\0';
    if (flags & STATS_MERGE_EXACT)
        return stats_schema_add(into, name, group->metrics, group->metrics_count);
    for (size_t off = STATS_HEADER_SIZE; off < used;) {
        const struct record *record = segment_record(into, (uint32_t)off);

        if (record->type == RECORD_SCHEMA && bytes_equal(record_a(record), group->schema))
            return (stats_schema_id)off;
        off += record->size;
    }
    return 0;
}

uint32_t stats_merge(struct stats_segment *into, const void *memory, size_t size, unsigned flags)
{
    struct { uint32_t theirs; stats_schema_id ours; } map[SCHEMA_MAP_MAX] = {0};
    struct stats_cursor cursor;
    struct stats_group group;
    uint32_t lost = 0, schema_off;

    stats_walk(&cursor, memory, size);
    while (walk_next(&cursor, &group, &schema_off)) {
        uint32_t slot = schema_off / RECORD_ALIGN % SCHEMA_MAP_MAX;
        const struct record *schema;
        uint64_t *cells;

        if (map[slot].theirs != schema_off) {
            map[slot].theirs = schema_off;
            map[slot].ours = merge_schema(into, &group, flags);
        }
        if (map[slot].ours == 0) {
            lost += (flags & STATS_MERGE_EXACT) != 0;
            continue;
        }
        cells = flags & STATS_MERGE_CREATE ? stats_group_add(into, map[slot].ours, group.a, group.b)
                                           : stats_group_find(into, map[slot].ours, group.a, group.b);
        if (cells == NULL) {
            lost += (flags & STATS_MERGE_CREATE) != 0;
            continue;
        }
        schema = segment_record(into, map[slot].ours);
        merge_group(cells, record_body(schema), schema->link, &group, flags);
    }
    return lost;
}
