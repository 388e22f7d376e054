/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log_test.h - a log on a simulated disk, and a model of what was appended to it.
 *
 * A record's key and value follow from its LSN's draw, so that a wrong byte anywhere shows. The model keeps, in the
 * order of LSNs, what was appended; a recovery must give a prefix of it, cut between whole units only.
 */
#pragma once
#include "tests/unit/test.h"

#include "backend/store/log.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/io_sim_disk.h"

#include <stdio.h>
#include <stdlib.h>

#define LOG_DIR  "/data/0"
#define LOG_RING "/ring.0"
#define SECOND   1000000u
#define MODEL_MAX 20000

struct model_record {
    uint64_t lsn, draw, address;
    uint32_t unit; /* records of one are whole or gone */
    bool is_cold;  /* a copy; lsn of the one that was copied */
};

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct io *io;
    struct log *text;
    struct store_log *log;
    struct store_log_options options;
    struct sim_options sim_options;

    struct model_record *model; /* owns */
    uint32_t count, unit_next;
    uint64_t rng;

    /* What a recovery said. */
    struct model_record *seen; /* owns; hot ones */
    uint32_t seen_count, seen_cold;
    bool is_done;
    int err;
    uint32_t wrong, failures, rooms, corrupt_lines, ring_lines;
    uint64_t hot_from, cold_from, durable_lsn; /* what a checkpoint would say */
    char last_line[512];
    bool prints;
};

/* ---- records that can be told ------------------------------------------------------------------ */

static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t draw(struct world *w)
{
    return mix(w->rng += 0x9e3779b97f4a7c15u);
}

static inline size_t draw_len(uint64_t draw)
{
    uint64_t kind = draw % 100;

    if (kind < 80)
        return draw / 100 % 200;
    return kind < 95 ? draw / 100 % 3000 : kind < 98 ? 5000 + draw / 100 % 3000 : draw / 100 % 40000;
}

/* The bytes live in `bytes`, of 64 KiB. */
static inline struct record record_of(uint64_t draw, char *bytes)
{
    size_t len = draw_len(draw);
    struct record record = {
        .type = RECORD_SET, .value_type = STORE_STRING, .db = (uint8_t)(draw >> 8 & 7),
        .expire_ms = draw % 3 == 0 ? 1 + draw % 1000 : 0,
        .key = bytes_of(bytes, 8), .value = bytes_of(bytes + 8, len),
    };
    uint64_t x = draw;

    memcpy(bytes, &draw, 8);
    for (size_t i = 0; i < len; i += 8) {
        x = mix(x + 1);
        memcpy(bytes + 8 + i, &x, 8);
    }
    record.slot = (uint16_t)(draw & 16383);
    return record;
}

static inline bool record_is(const struct record *record, uint64_t draw)
{
    static char bytes[65536];
    struct record want = record_of(draw, bytes);

    return record->type == want.type && record->db == want.db && record->expire_ms == want.expire_ms &&
           record->slot == want.slot && bytes_equal(record->key, want.key) &&
           bytes_equal(record->value, want.value);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static inline void world_line(void *arg, int level, const char *line, size_t len)
{
    struct world *w = arg;

    if (w->prints)
        (void)fprintf(stderr, "%.*s", (int)len, line);
    if (level == LOG_WARN && memmem(line, len, "its log ring is gone", 20) != NULL)
        w->ring_lines++;
    if (level <= LOG_ERROR) {
        w->corrupt_lines++;
        (void)snprintf(w->last_line, sizeof(w->last_line), "%.*s", (int)len, line);
    }
}

static inline void world_failed(void *arg, int err)
{
    struct world *w = arg;

    MAYBE(err);
    w->failures++;
}

static inline void world_room(void *arg)
{
    ((struct world *)arg)->rooms++;
}

static inline void world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    sim_options_calm(&w->sim_options);
    w->sim_options.disk.crash_old = w->sim_options.disk.crash_new = 4;
    w->sim_options.disk.crash_zero = w->sim_options.disk.crash_garbage = 1;
    w->sim_options.disk.crash_names_in_order = seed % 2 == 0;
    w->rng = seed * 1000003;
    w->sim = sim_create(seed, &w->sim_options);
    w->node = sim_node_create(w->sim, "log");
    w->io = sim_node_io(w->node);
    w->text = log_create_sink(world_line, w, LOG_INFO, "test");
    w->prints = getenv("LOG_TEST_PRINT") != NULL;
    sim_node_log_set(w->node, w->text);
    sim_disk_mkdir(w->node, "/data");
    w->model = must_zalloc(MODEL_MAX * sizeof(*w->model));
    w->seen = must_zalloc(MODEL_MAX * sizeof(*w->seen));
    w->options = (struct store_log_options){
        .dir = LOG_DIR, .ring_path = LOG_RING, .shard = 1, .shard_count = 4, .segment_size = 256 << 10,
        .ring_size = 64 << 10, .fsync = STORE_FSYNC_EVERYSEC, .direct = true, .arg = w, .failed = world_failed,
        .room = world_room,
    };
}

static inline void world_deinit(struct world *w)
{
    if (sim_node_is_running(w->node))
        sim_node_kill(w->node);
    store_log_destroy(&w->log);
    sim_destroy(&w->sim);
    log_destroy(&w->text);
    mem_free(w->model);
    mem_free(w->seen);
}

static inline void world_done(void *arg, int err)
{
    struct world *w = arg;

    w->is_done = true;
    w->err = err;
}

static inline bool world_wait(struct world *w)
{
    return sim_run_while_not(w->sim, &w->is_done, 600 * (uint64_t)SECOND);
}

static inline int world_open(struct world *w)
{
    w->options.io = w->io;
    assert_int_equal(store_log_create(&w->options, &w->log), 0);
    w->is_done = false;
    store_log_open(w->log, world_done, w);
    assert_true(world_wait(w));
    return w->err;
}

static inline int world_record(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold)
{
    struct world *w = arg;
    uint64_t draw;

    if (record->key.len != 8 || record_size(record) != size) {
        w->wrong++;
        return 0;
    }
    memcpy(&draw, record->key.data, 8);
    if (!record_is(record, draw))
        w->wrong++;
    if (is_cold) {
        bool is_known = false;

        w->seen_cold++;
        for (uint32_t i = 0; i < w->count; i++)
            is_known |= w->model[i].lsn == record->lsn && w->model[i].draw == draw;
        w->wrong += !is_known;
        return 0;
    }
    assert_true(w->seen_count < MODEL_MAX);
    w->seen[w->seen_count++] = (struct model_record){.lsn = record->lsn, .draw = draw, .address = address};
    return 0;
}

static inline int world_recover(struct world *w)
{
    struct store_log_replay replay = {
        .arg = w, .durable_lsn = w->durable_lsn, .record = world_record, .done = world_done,
    };

    w->seen_count = w->seen_cold = w->wrong = 0;
    w->is_done = false;
    store_log_recover(w->log, w->hot_from, w->cold_from, &replay);
    assert_true(world_wait(w));
    return w->err;
}

static inline int world_start(struct world *w)
{
    int err = world_open(w);

    return err != 0 ? err : world_recover(w);
}

static inline int world_close(struct world *w)
{
    w->is_done = false;
    store_log_close(w->log, world_done, w);
    assert_true(world_wait(w));
    store_log_destroy(&w->log);
    return w->err;
}

static inline void world_crash(struct world *w, bool is_power_cut)
{
    if (is_power_cut)
        sim_node_power_cut(w->node);
    else
        sim_node_kill(w->node);
    store_log_destroy(&w->log);
    w->io = sim_node_start(w->node);
}

/* ---- changes ------------------------------------------------------------------------------------- */

static inline int world_append_draw(struct world *w, uint64_t draw)
{
    static char bytes[65536];
    struct record record = record_of(draw, bytes);
    uint64_t address;
    int err = store_log_append(w->log, &record, &address);

    if (err != 0)
        return err;
    assert_true(w->count < MODEL_MAX);
    assert_true(w->count == 0 || record.lsn > w->model[w->count - 1].lsn);
    w->model[w->count++] = (struct model_record){
        .lsn = record.lsn, .draw = draw, .address = address, .unit = w->unit_next,
    };
    return 0;
}

static inline void world_room_wait(struct world *w)
{
    for (int i = 0; !store_log_has_room(w->log) && i < 10000; i++) {
        store_log_turn_end(w->log);
        sim_run_for(w->sim, 100);
    }
    assert_true(store_log_has_room(w->log));
}

static inline int world_append(struct world *w)
{
    int err;

    world_room_wait(w);
    err = world_append_draw(w, draw(w));

    w->unit_next++;
    return err;
}

/* A transaction of `count` records. */
static inline void world_transaction(struct world *w, uint32_t count)
{
    world_room_wait(w);
    store_log_atomic(w->log, true);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(world_append_draw(w, draw(w)), 0);
    store_log_atomic(w->log, false);
    w->unit_next++;
}

static inline void world_copy_cold(struct world *w, uint32_t i)
{
    static char bytes[65536];
    struct record record = record_of(w->model[i].draw, bytes);
    uint64_t address;
    int err;

    record.lsn = w->model[i].lsn;
    record.epoch = 1;
    for (int tries = 0; tries < 1000; tries++) {
        err = store_log_cold_append(w->log, &record, (unsigned)(w->model[i].draw % 3), &address);
        if (err != -ENOSPC)
            break;
        sim_run_for(w->sim, 1000); /* until the next segment's file is there */
    }
    assert_int_equal(err, 0);
}

static inline int world_flush(struct world *w)
{
    w->is_done = false;
    store_log_flush(w->log, world_done, w);
    assert_true(world_wait(w));
    return w->err;
}

/* ---- checks -------------------------------------------------------------------------------------- */

/* What was recovered is a prefix of the model, of whole units, with at least everything up to `promised`. The model
 * goes on from there. */
static inline void world_check_prefix(struct world *w, uint64_t promised)
{
    assert_int_equal(w->wrong, 0);
    assert_true(w->seen_count <= w->count);
    for (uint32_t i = 0; i < w->seen_count; i++) {
        assert_int_equal(w->seen[i].lsn, w->model[i].lsn);
        assert_int_equal(w->seen[i].draw, w->model[i].draw);
        w->model[i].address = w->seen[i].address;
    }
    if (w->seen_count < w->count) {
        assert_true(w->model[w->seen_count].lsn > promised);
        if (w->seen_count > 0)
            assert_true(w->model[w->seen_count].unit != w->model[w->seen_count - 1].unit);
    }
    w->count = w->seen_count;
    assert_true(store_log_last_lsn(w->log) >= (w->count > 0 ? w->model[w->count - 1].lsn : 0));
}

struct world_read {
    struct store_log_read read;
    bool is_done;
    int err;
    bool is_right;
    uint64_t draw, lsn;
};

static inline void world_read_done(struct store_log_read *read, int err)
{
    struct world_read *r = CONTAINER_OF(read, struct world_read, read);

    r->is_done = true;
    r->err = err;
    r->is_right = err == 0 && record_is(&read->record, r->draw) && read->record.lsn == r->lsn;
}

static inline int world_read(struct world *w, uint32_t i, bool *is_right)
{
    struct world_read r = {
        .read = {.address = w->model[i].address, .done = world_read_done, .size_hint = w->model[i].draw % 2 * 100},
        .draw = w->model[i].draw, .lsn = w->model[i].lsn,
    };

    store_log_read(w->log, &r.read);
    assert_false(r.is_done); /* from the loop */
    assert_true(sim_run_while_not(w->sim, &r.is_done, 100 * (uint64_t)SECOND));
    *is_right = r.is_right;
    return r.err;
}

static inline void world_check_reads(struct world *w, uint32_t step)
{
    for (uint32_t i = 0; i < w->count; i += step) {
        bool is_right;

        assert_int_equal(world_read(w, i, &is_right), 0);
        assert_true(is_right);
    }
}
