/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - counters in shared memory that say themselves what they are.
 *
 * A segment is written by one process and read by another while it changes. It is a run of records that
 * only grows: schemas (a name and a list of metrics) and groups (a schema, two labels such as a pool's
 * and a server's name, and the cells). So segments of different configurations, and of binaries that
 * count different things, can be added up by key.
 *
 *     [header: magic, used] [schema "pool": eof requests ...] [group pool "alpha" "": cells]
 *                           [schema "server": ...]  [group server "alpha" "10.0.0.1:1": cells] ...
 *
 *   S1  A record is complete before `used` covers it (release store); readers load `used` first (acquire)
 *       and believe nothing beyond it. What they read is checked against the size: a segment may be
 *       that of a process that died at any instruction, or of another version.
 *   S2  Cells are aligned 64-bit words, written with plain stores by one thread. No locks.
 *   S3  Group and schema records never move or change: a pointer to a group's cells is good for the
 *       segment's life, and counting is one add to it.
 *   S4  The memory behind `used` is zero.
 *
 * A total is a merge into another segment in private memory, the view. Counters add, gauges add (and
 * are left out when the writer is dead), stamps take the latest, histograms add, areas (structures of
 * their own: a slow log) are not merged.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/stats/histogram.h"

enum stats_kind {
    STATS_COUNTER,   /* only grows; 1 cell */
    STATS_GAUGE,     /* up and down; of a dead writer it counts no more; 1 cell */
    STATS_STAMP,     /* a time: the latest counts; 1 cell */
    STATS_HISTOGRAM, /* HISTOGRAM_CELLS cells: a struct histogram */
    STATS_AREA,      /* `cells` cells of its own form */
};

#define STATS_NAME_MAX    40 /* with the NUL */
#define STATS_METRICS_MAX 256u
#define STATS_LABEL_MAX   255u /* longer labels are cut */

struct stats_metric {
    char name[STATS_NAME_MAX];
    uint32_t kind;
    uint32_t cells;
};

/* A segment as its writer has it: with an index in private memory. */
struct stats_segment {
    char *memory; /* borrows */
    size_t size;
    struct stats_index *index; /* owns */
};

typedef uint32_t stats_schema_id; /* offset of its record; 0: none */

/* Bytes of the parts, to size a segment: header + schemas + groups. */
#define STATS_HEADER_SIZE 64u
size_t stats_schema_size(uint32_t metrics_count);
size_t stats_group_size(size_t label_a_len, size_t label_b_len, size_t cells);

/* Formats zeroed memory, or goes on with what a predecessor left there (`keep`, and it is whole). The memory
 * is 8-byte aligned and at least STATS_HEADER_SIZE long. */
void stats_open(struct stats_segment *segment, void *memory, size_t size, bool keep);
void stats_close(struct stats_segment *segment); /* frees the index only */

/* Finds the schema with just these metrics, or adds it. 0: no room. */
stats_schema_id stats_schema_add(struct stats_segment *segment, const char *name,
                                 const struct stats_metric *metrics, uint32_t count);
/* Finds or adds; NULL: no room. The cells of a new group are zero. */
uint64_t *stats_group_add(struct stats_segment *segment, stats_schema_id schema, struct bytes a,
                          struct bytes b);
/* NULL: there is none. */
uint64_t *stats_group_find(const struct stats_segment *segment, stats_schema_id schema, struct bytes a,
                           struct bytes b);
/* Sets every gauge to zero: what the predecessor had open is gone. */
void stats_zero_gauges(struct stats_segment *segment);
size_t stats_used(const struct stats_segment *segment);

/* ---- reading somebody else's ---------------------------------------------------------------- */

struct stats_group {
    struct bytes schema, a, b; /* lent, as the cells */
    const struct stats_metric *metrics;
    uint32_t metrics_count;
    uint32_t cells_count;
    const uint64_t *cells;
};

struct stats_cursor {
    const char *memory;
    size_t size, off;
};
/* Walks the groups; what does not check ends the walk. Memory without a segment has none. */
void stats_walk(struct stats_cursor *cursor, const void *memory, size_t size);
bool stats_next(struct stats_cursor *cursor, struct stats_group *out);
/* The first cell of the metric, or NULL; *cells (may be NULL) is how many. */
const uint64_t *stats_metric_find(const struct stats_group *group, const char *name, uint32_t kind,
                                  uint32_t *cells);

/* ---- adding up ---------------------------------------------------------------------------- */

enum stats_merge {
    STATS_MERGE_GAUGES = 1, /* the writer lives: its gauges count */
    STATS_MERGE_CREATE = 2, /* groups that `into` does not have are added */
    STATS_MERGE_EXACT = 4,  /* a schema is the same only with the same metrics, and is added if it is
                             * not there; else one of the same name will do, metric by metric */
    STATS_MERGE_KEYS = 8,   /* only the groups, not what they counted */
};
/* Returns how many groups had no room. */
uint32_t stats_merge(struct stats_segment *into, const void *memory, size_t size, unsigned flags);
