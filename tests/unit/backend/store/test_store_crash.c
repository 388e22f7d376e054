/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crashes, one after the other: a short life is lived again and again, and ends after one more of the world's events
 * each time, in every way a disk may forget. Two events between which nothing reached disk or log count as one.
 *
 *     life ──event──event──event──X   power cut: unsynced sectors old, new, zero, garbage, drawn; or kill -9
 *                                 └──> open, look, live on, cut again, open, look, close, open, look
 *
 * A sample by default; STORE_SEEDS=N: after every event, and N draws of what is lost, from STORE_SEED=FROM on. And all has
 * come but two sectors, any two of a few, a sample of many; with STORE_SEEDS after every event.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/checkpoint_private.h"
#include "backend/store/log_private.h"

#include <stdlib.h>

#define SEGMENT     (64u << 10)
#define EVENTS_MAX  20000u
#define CUTS_MAX    4096u
#define PAIRS_MAX    24u /* pending sectors of which every pair is lost; of more, */
#define PAIRS_OF_MANY 100u /* so many pairs */
#define PAIRS_SAMPLE 6u  /* the short run: of each state, and of so many states of a life in each mode */
#ifdef DCHECK_ON /* sanitized: ten times as slow */
#define PAIRS_EVENTS 3u
#define PAIRS_EACH_MIN 0u
#else
#define PAIRS_EVENTS 24u
#define PAIRS_EACH_MIN 60u
#endif
#define UNITS_MAX   64u

struct crash;

/* An end of a life. */
struct cut {
    uint32_t event, pending; /* sectors that are not durable then */
};

struct script {
    const char *name;
    void (*live)(struct crash *c);
    uint64_t disk_max;
    bool ring, blobs; /* blobs: what is too big for the ring, and there when it is written */
};

struct crash {
    struct world w;
    const struct script *script;
    uint64_t event, cut; /* so far; where it ends */
    bool is_over, has_opened, flush_is_to_fail;
    uint64_t durable, appended, last; /* promised before the store that is being opened; last: was given */
    uint64_t checkpoint_lsn;          /* of the newest checkpoint that was told */
    struct unit {
        uint64_t first, last;
    } units[UNITS_MAX]; /* transactions */
    uint32_t unit_count;
    uint64_t checkpoints_wanted;
    uint64_t seen[8]; /* what the world looked like at the last event that counted */
    struct cut *cuts; /* where it looked otherwise; NULL: not wanted */
    uint32_t cut_count;
};

/* ---- the world, event by event ------------------------------------------------------------------ */

static void marks_see(struct crash *c)
{
    if (!c->has_opened)
        return;
    world_see_marks(&c->w);
    c->durable = c->w.marks.durable;
    c->appended = c->w.marks.appended;
    c->last = c->w.lsn_last;
    c->checkpoint_lsn = c->w.store->stats.checkpoint_lsn;
}

/* Whether something came to disk or log since the last call. */
static bool has_changed(struct crash *c)
{
    const struct sim_stats *stats = sim_stats(c->w.sim);
    uint64_t now[ARRAY_COUNT(c->seen)] = {
        stats->file_ops, sim_disk_pending(c->w.node), sim_disk_pending_names(c->w.node), sim_disk_used(c->w.node),
        c->w.marks.appended, c->w.marks.written, c->w.marks.durable, c->has_opened,
    };
    bool is_changed = memcmp(now, c->seen, sizeof(now)) != 0;

    memcpy(c->seen, now, sizeof(now));
    return is_changed;
}

/* False: the life is over, and whatever the script still wants does not happen. */
static bool goes_on(struct crash *c)
{
    if (c->is_over)
        return false;
    marks_see(c);
    if (c->cuts != NULL && has_changed(c) && c->cut_count < CUTS_MAX)
        c->cuts[c->cut_count++] =
            (struct cut){(uint32_t)c->event, (uint32_t)(sim_disk_pending(c->w.node) / 512)};
    c->is_over = c->event++ == c->cut;
    return !c->is_over;
}

static void events(struct crash *c, unsigned count)
{
    for (unsigned i = 0; i < count && goes_on(c); i++)
        MAYBE(sim_step(c->w.sim));
}

static void until(struct crash *c, bool (*is_so)(struct crash *c))
{
    for (unsigned i = 0; i < EVENTS_MAX && !c->is_over && !is_so(c); i++)
        events(c, 1);
    assert_true(c->is_over || is_so(c));
}

static bool is_told(struct crash *c)
{
    return c->w.is_told;
}

/* What the log ring has for the next process. */
static bool is_in_doubt(struct crash *c)
{
    return ((const struct ring_header *)(const void *)c->w.store->log->ring.base)->doubt != 0;
}

static bool is_durable(struct crash *c)
{
    return c->w.marks.durable == c->w.lsn_last || c->w.options.fsync == STORE_FSYNC_NO;
}

/* ---- what scripts are made of ------------------------------------------------------------------- */

static void start(struct crash *c)
{
    struct world *w = &c->w;

    if (c->is_over)
        return;
    w->options.io = w->io;
    w->is_told = false;
    w->err = store_create(&w->options, world_told, w, &w->store);
    assert_int_equal(w->err, 0);
    until(c, is_told);
    assert_int_equal(w->err, 0);
    c->has_opened = w->is_told;
    events(c, 1);
}

/* The process dies and another one comes. */
static void again(struct crash *c)
{
    if (c->is_over)
        return;
    marks_see(c);
    sim_node_kill(c->w.node);
    store_destroy(&c->w.store);
    c->has_opened = false;
    c->w.io = sim_node_start(c->w.node);
    start(c);
}

static void stop(struct crash *c)
{
    struct world *w = &c->w;

    if (c->is_over)
        return;
    w->is_told = false;
    store_turn_end(w->store);
    store_close(w->store, world_told, w);
    until(c, is_told);
    if (c->is_over)
        return;
    marks_see(c);
    store_destroy(&w->store);
    c->has_opened = false;
    sim_node_kill(w->node);
    w->io = sim_node_start(w->node);
    start(c);
}

static bool may_write(struct crash *c)
{
    return !c->is_over && store_may_write(c->w.store, 1) == 0;
}

static void put(struct crash *c, uint16_t k, uint32_t seed, uint32_t len)
{
    if (may_write(c))
        world_set(&c->w, 0, k, seed, len);
}

static void gone(struct crash *c, uint16_t k)
{
    if (may_write(c))
        world_delete(&c->w, 0, k);
}

/* A cold one is left alone: a script does not wait where it cannot be cut. */
static void field(struct crash *c, uint16_t k, uint8_t f, uint32_t number)
{
    char name[32];
    struct store_key key;

    if (!may_write(c))
        return;
    store_find(c->w.store, 0, world_key(k, name), &key);
    if (key.entry == NULL || !entry_is_cold(key.entry))
        world_field(&c->w, 0, k, f, number);
}

static void turn(struct crash *c, unsigned count)
{
    if (c->is_over)
        return;
    store_turn_end(c->w.store);
    events(c, count);
}

static void cold(struct crash *c, uint16_t k)
{
    char name[32];
    struct store_key key;

    if (c->is_over)
        return;
    store_find(c->w.store, 0, world_key(k, name), &key);
    if (key.entry != NULL && !entry_is_cold(key.entry))
        spill_entry(c->w.store, key.hash, &key.entry);
}

static bool is_checkpointed(struct crash *c)
{
    return c->w.store->stats.checkpoints >= c->checkpoints_wanted && !checkpoint_is_running(c->w.store);
}

static void checkpoint(struct crash *c)
{
    if (c->is_over)
        return;
    c->checkpoints_wanted = c->w.store->stats.checkpoints + 1;
    store_checkpoint(c->w.store);
    until(c, is_checkpointed);
}

static void together(struct crash *c, bool begins)
{
    struct unit *unit = &c->units[c->unit_count % UNITS_MAX];

    if (c->is_over)
        return;
    if (begins) {
        unit->first = c->w.count;
        store_atomic_begin(c->w.store);
        return;
    }
    store_atomic_end(c->w.store);
    if (unit->first == c->w.count)
        return;
    unit->first = c->w.ops[unit->first].lsn;
    unit->last = store_lsn(c->w.store);
    c->unit_count++;
    assert_true(c->unit_count < UNITS_MAX);
}

/* ---- the lives ---------------------------------------------------------------------------------- */

static void live_first(struct crash *c)
{
    start(c);
    put(c, 1, 11, 100);
    turn(c, 10);
    put(c, 2, 12, 700);
    gone(c, 1);
    turn(c, 2);
    put(c, 1, 13, 20);
    turn(c, 0);
    until(c, is_durable);
    put(c, 3, 14, 20);
    turn(c, 10);
    stop(c);
    put(c, 2, 15, 50);
    turn(c, 10);
}

static void live_checkpoint(struct crash *c)
{
    start(c);
    for (uint16_t k = 1; k < 8; k++)
        put(c, k, k + 20u, 100);
    field(c, 8, 0, 1);
    field(c, 8, 1, 2);
    turn(c, 10);
    checkpoint(c);
    gone(c, 2);
    put(c, 3, 31, 3000);
    field(c, 8, 2, 3);
    turn(c, 3);
    checkpoint(c);
    put(c, 2, 32, 10);
    field(c, 8, 0, 0);
    turn(c, 0);
    until(c, is_durable);
    checkpoint(c);
    gone(c, 3);
    turn(c, 10);
}

/* Segments are filled and sealed; a value gets a segment of its own. */
static void live_seal(struct crash *c)
{
    start(c);
    for (uint32_t i = 0; i < 40; i++) {
        put(c, (uint16_t)(i % 9), i + 1, 5000 + i * 30);
        turn(c, 3);
    }
    put(c, 10, 50, 30000);
    turn(c, 5);
    put(c, 11, 51, 90000);
    gone(c, 4);
    turn(c, 5);
    checkpoint(c);
    put(c, 11, 52, 40);
    turn(c, 20);
}

/* Little room: everything is cleaned, freed and used again. */
static void live_recycle(struct crash *c)
{
    start(c);
    for (uint32_t i = 0; i < 260; i++) {
        if (i % 8 == 0)
            put(c, (uint16_t)(20 + i / 8), i + 1000, 300); /* these stay */
        put(c, (uint16_t)(i % 5), i + 1, 4000 + i % 7 * 500);
        if (i % 11 == 0)
            gone(c, (uint16_t)(i % 5));
        turn(c, 4);
        if (i % 6 == 0)
            events(c, 60);
    }
    turn(c, 40);
    assert_true(c->is_over || c->w.store->stats.cleaner_segments > 1);
}

static void live_collections(struct crash *c)
{
    start(c);
    for (uint32_t i = 0; i < 60; i++) {
        field(c, (uint16_t)(1 + i % 4), (uint8_t)(i % WORLD_FIELDS), i % 7 == 0 ? 0 : i + 1);
        if (i % 3 == 0)
            turn(c, 4);
        if (i % 13 == 0)
            cold(c, (uint16_t)(1 + i % 4));
        if (i % 25 == 24)
            checkpoint(c);
    }
    gone(c, 2);
    field(c, 2, 1, 5);
    turn(c, 6);
    again(c);
    field(c, 2, 2, 6);
    field(c, 1, 2, 6);
    turn(c, 6);
    checkpoint(c);
    turn(c, 6);
}

static void live_transactions(struct crash *c)
{
    start(c);
    for (uint32_t i = 0; i < 12; i++) {
        together(c, true);
        put(c, 1, i + 1, 900);
        put(c, 2, i + 2, 9000);
        field(c, 3, (uint8_t)(i % WORLD_FIELDS), i + 1);
        gone(c, 4);
        together(c, false);
        turn(c, i % 4);
        put(c, 4, i + 3, 10);
        turn(c, i % 3);
    }
    checkpoint(c);
    together(c, true);
    put(c, 1, 80, 30);
    put(c, 5, 81, 20000);
    put(c, 6, 82, 20000);
    put(c, 7, 83, 20000);
    together(c, false);
    turn(c, 30);
}

/* Killed again and again; what the ring has is written by the next one. */
static void live_restarts(struct crash *c)
{
    start(c);
    for (uint32_t i = 0; i < 5; i++) {
        put(c, 1, i + 1, 100);
        turn(c, i);
        put(c, (uint16_t)(2 + i), i + 2, 8000);
        gone(c, (uint16_t)(1 + i));
        turn(c, 2 * i);
        again(c);
        if (i == 2)
            checkpoint(c);
    }
    put(c, 1, 90, 10);
    turn(c, 20);
    stop(c);
    again(c);
    put(c, 2, 91, 10);
    turn(c, 20);
}

static void live_flush(struct crash *c)
{
    start(c);
    for (uint16_t k = 1; k < 6; k++)
        put(c, k, k, 50);
    turn(c, 4);
    checkpoint(c);
    if (may_write(c))
        world_flush(&c->w, 0);
    put(c, 2, 70, 50);
    turn(c, 4);
    checkpoint(c);
    put(c, 3, 71, 50);
    turn(c, 4);
    checkpoint(c);
    turn(c, 4);
}

static void flush_fails(struct crash *c, bool is_of_log)
{
    char path[LOG_PATH_MAX] = WORLD_DIR "/MANIFEST";

    if (c->is_over)
        return;
    if (is_of_log)
        log_segment_path(c->w.store->log, c->w.store->log->hot_segment->info.slot, path);
    sim_disk_fail(c->w.node, SIM_DISK_DATASYNC, path, -EIO, 1);
    c->flush_is_to_fail = true;
}

/* A kernel tells of a failed flush once: to the process that has asked. If that dies before it has heard, nobody knows. */
static bool is_error_unheard(struct crash *c)
{
    return c->flush_is_to_fail && !sim_disk_is_to_fail(c->w.node) && !is_in_doubt(c);
}

/* A flush fails, and the next process copies what is in doubt: rescue.tmp takes one file's name after the other's. */
static void live_rescue(struct crash *c)
{
    start(c);
    for (uint16_t k = 1; k < 5; k++)
        put(c, k, k, 200);
    turn(c, 10);
    checkpoint(c);
    for (uint32_t i = 0; i < 2; i++) {
        put(c, 2, i + 40, 3000);
        gone(c, 1);
        flush_fails(c, i == 0);
        turn(c, 2);
        if (!c->is_over)
            store_checkpoint(c->w.store); /* flushes the log, and MANIFEST */
        until(c, is_in_doubt);
        c->flush_is_to_fail = c->flush_is_to_fail && c->is_over;
        again(c);
        assert_true(c->is_over || !is_in_doubt(c));
        put(c, 1, i + 50, 60);
        turn(c, 6);
        checkpoint(c);
    }
    put(c, 3, 60, 10);
    turn(c, 10);
    stop(c);
}

static const struct script scripts[] = {
    {"first", live_first, 0, true, false},
    {"first, no ring", live_first, 0, false, false},
    {"checkpoint", live_checkpoint, 0, true, false},
    {"seal", live_seal, 0, true, true},
    {"seal, no ring", live_seal, 0, false, true},
    {"recycle", live_recycle, 12 * SEGMENT, true, false},
    {"collections", live_collections, 0, true, false},
    {"transactions", live_transactions, 0, true, true},
    {"transactions, no ring", live_transactions, 0, false, true},
    {"restarts", live_restarts, 0, true, true},
    {"flush", live_flush, 0, true, false},
    {"rescue", live_rescue, 0, true, false},
};

/* ---- one life, and what is left of it ----------------------------------------------------------- */

static void line_print(void *arg, int level, const char *line, size_t len)
{
    MAYBE(arg != NULL);
    MAYBE(level);
    (void)fprintf(stderr, "%.*s", (int)len, line);
}

static void event_print(void *arg, uint64_t now_us, const char *node, const char *what, uint64_t id, uint64_t value)
{
    const struct crash *c = arg;

    MAYBE(node != NULL);
    if (strcmp(what, "turn") != 0)
        (void)fprintf(stderr, "  %llu us, event %llu: %s %llu %llu\n", (unsigned long long)now_us,
                      (unsigned long long)c->event, what, (unsigned long long)id, (unsigned long long)value);
}

static void begin(struct crash *c, const struct script *script, enum store_fsync fsync, uint64_t seed, uint64_t cut)
{
    *c = (struct crash){.script = script, .cut = cut};
    world_init(&c->w, seed, NULL);
    if (getenv("STORE_PRINT") != NULL && cut != UINT64_MAX)
        sim_node_log_set(c->w.node, log_create_sink(line_print, NULL, LOG_INFO, "test"));
    if (getenv("STORE_TRACE") != NULL && cut != UINT64_MAX)
        sim_trace_set(c->w.sim, event_print, c);
    c->w.options.segment_size = SEGMENT;
    c->w.options.ring_size = 1u << 18;
    c->w.options.fsync = fsync;
    c->w.options.disk_max = script->disk_max;
    if (!script->ring)
        c->w.options.ring_path = NULL;
}

static bool is_ring_lost(const struct world *w)
{
    struct store_stats stats;

    store_stats_get(w->store, &stats);
    assert_int_equal(stats.recovered_lsn, store_marks_of(w->store).appended);
    return stats.is_ring_lost;
}

/* A ring that is gone is told when something sealed is missing, and never after a kill. */
static void ring_judge(const struct crash *c, bool is_killed, uint64_t lsn)
{
    bool is_lost = is_ring_lost(&c->w);

    if (is_killed || c->w.options.ring_path == NULL)
        assert_false(is_lost);
    else if (lsn < c->appended)
        assert_true(is_lost);
}

/* The store that is opened now holds a prefix: all that was durable, nothing that never was, units whole. */
static void judge(struct crash *c, bool is_killed)
{
    struct world *w = &c->w;
    uint64_t lsn;

    world_open(w);
    lsn = store_marks_of(w->store).appended; /* store_lsn() may be of a transaction that was given up */
    assert_true(lsn >= c->durable);
    assert_true(lsn <= c->last);
    assert_true(w->store->stats.checkpoint_lsn >= c->checkpoint_lsn); /* the older one is for damage, not for this */
    if (is_killed && w->options.ring_path != NULL)
        assert_true(lsn >= c->appended);
    if (is_killed && w->options.ring_path != NULL && !c->script->blobs)
        assert_int_equal(lsn, c->appended);
    ring_judge(c, is_killed, lsn);
    for (uint32_t i = 0; i < c->unit_count; i++)
        assert_false(lsn >= c->units[i].first && lsn < c->units[i].last);
    world_forget_after(w, lsn);
    world_check(w, lsn);
    c->unit_count = 0;
    c->has_opened = true;
    marks_see(c);
}

static void end(struct crash *c, bool with_host)
{
    sim_disk_fail_no_more(c->w.node);
    if (with_host)
        sim_node_power_cut(c->w.node);
    else
        sim_node_kill(c->w.node);
    store_destroy(&c->w.store);
    c->w.io = sim_node_start(c->w.node);
}

static void live_on(struct crash *c, uint32_t seed)
{
    struct world *w = &c->w;

    for (uint32_t i = 0; i < 12; i++) {
        for (unsigned j = 0; j < 1000 && store_may_write(w->store, 1) == ERR_AGAIN; j++)
            sim_run_for(w->sim, 1000);
        if (store_may_write(w->store, 1) != 0)
            break;
        switch (i % 4) {
        case 0: world_set(w, 0, (uint16_t)((seed + i) % WORLD_KEYS), seed + i, 200); break;
        case 1: world_field(w, 0, 8, (uint8_t)(i % WORLD_FIELDS), seed + i); break;
        case 2: world_delete(w, 0, (uint16_t)((seed + i) % 9)); break;
        default: store_turn_end(w->store); break;
        }
        if (i == 6)
            store_checkpoint(w->store);
        sim_run_for(w->sim, seed * 37 % 400);
    }
    store_turn_end(w->store);
    sim_run_for(w->sim, seed % 3 * 30000);
    marks_see(c);
}

/* `lives` more, each ended in that way. The first one after a kill is cut when it has just opened. */
static void aftermath(struct crash *c, bool is_killed, bool with_host, unsigned lives)
{
    judge(c, is_killed);
    for (unsigned i = 0; i < lives; i++) {
        if (i > 0 || !is_killed || !with_host)
            live_on(c, (uint32_t)(c->cut + i * 7 + 100));
        end(c, with_host);
        judge(c, !with_host);
    }
    world_close(&c->w);
    world_open(&c->w);
    assert_false(is_ring_lost(&c->w));
    world_check(&c->w, UINT64_MAX);
}

struct ending {
    const char *name;
    bool is_kill, cuts_after; /* cuts_after: killed, and when it is open again the power is cut */
    enum sim_disk_outcome outcome;
};
static const struct ending endings[] = {
    {"kill", true, false, SIM_DISK_DRAWN},    {"old", false, true, SIM_DISK_OLD},
    {"new", false, true, SIM_DISK_NEW},       {"zero", false, true, SIM_DISK_ZERO},
    {"garbage", false, true, SIM_DISK_GARBAGE}, {"drawn", false, true, SIM_DISK_DRAWN},
    {"kill, old", true, true, SIM_DISK_OLD},  {"kill, drawn", true, true, SIM_DISK_DRAWN},
    {"kill, garbage", true, true, SIM_DISK_GARBAGE},
};

static void weights_set(struct sim *sim, uint64_t seed)
{
    sim_options(sim)->disk.crash_old = 4;
    sim_options(sim)->disk.crash_new = 4;
    sim_options(sim)->disk.crash_zero = seed % 3;
    sim_options(sim)->disk.crash_garbage = seed / 3 % 3;
    sim_options(sim)->disk.crash_names_in_order = seed % 2 == 0;
}

static uint32_t cuts_find(const struct script *script, enum store_fsync fsync, uint64_t seed, struct cut *cuts)
{
    struct crash c;
    uint32_t count;

    begin(&c, script, fsync, seed, UINT64_MAX);
    c.cuts = cuts;
    script->live(&c);
    assert_false(c.is_over);
    world_check(&c.w, UINT64_MAX);
    count = c.cut_count;
    assert_true(count < CUTS_MAX);
    world_deinit(&c.w);
    return count;
}

/* STORE_TELL=1 says where it is; STORE_ONLY="that line", or the beginning of one, lives nothing else, and STORE_PRINT=1
 * prints the log. */
static bool is_asked_for(const char *what, enum store_fsync fsync, uint64_t seed, uint64_t cut, const char *how)
{
    const char *only = getenv("STORE_ONLY");
    char line[160];

    (void)snprintf(line, sizeof(line), "%s fsync=%d seed=%llu at=%llu %s", what, (int)fsync,
                   (unsigned long long)seed, (unsigned long long)cut, how);
    if (getenv("STORE_TELL") != NULL)
        print_message("# %s\n", line);
    return only == NULL || strncmp(only, line, strlen(only)) == 0;
}

static void crash_once(const struct script *script, enum store_fsync fsync, uint64_t seed, uint32_t cut,
                       const struct ending *ending)
{
    struct crash c;

    if (!is_asked_for(script->name, fsync, seed, cut, ending->name))
        return;
    begin(&c, script, fsync, seed, cut);
    script->live(&c);
    assert_true(c.is_over);
    if (ending->is_kill && is_error_unheard(&c)) {
        world_deinit(&c.w);
        return;
    }
    weights_set(c.w.sim, seed + cut);
    sim_disk_crash_set(c.w.node, ending->outcome);
    end(&c, !ending->is_kill);
    aftermath(&c, ending->is_kill, ending->cuts_after, 1 + cut % 2);
    world_deinit(&c.w);
}

/* After every event, in every way. The sample takes one in `stride`, another one for each way. */
static void test_every_crash_leaves_a_prefix(void **state)
{
    static const uint64_t sample = 110;
    struct cut *cuts = must_alloc(sizeof(*cuts) * CUTS_MAX);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(scripts); i++) {
        for (uint64_t seed = world_seed_first(); seed < world_seed_first() + MAX(world_seeds(), 1u); seed++) {
            enum store_fsync fsync = (enum store_fsync)((i + seed) % 3);
            uint32_t count = cuts_find(&scripts[i], fsync, seed, cuts);
            uint32_t stride = world_seeds() != 0 ? 1 : (uint32_t)MAX(count * ARRAY_COUNT(endings) / sample, 1u);

            for (uint32_t e = 0; e < ARRAY_COUNT(endings); e++)
                for (uint32_t n = e * 3 % stride; n < count; n += stride)
                    crash_once(&scripts[i], fsync, seed, cuts[n].event, &endings[e]);
        }
    }
    mem_free(cuts);
}

/* ---- two lost sectors --------------------------------------------------------------------------- */

static void pair_once(const struct script *script, enum store_fsync fsync, const struct cut *cut, uint64_t a, uint64_t b)
{
    struct crash c;
    char how[48];

    (void)snprintf(how, sizeof(how), "lost %llu %llu", (unsigned long long)a, (unsigned long long)b);
    if (!is_asked_for(script->name, fsync, 1, cut->event, how))
        return;
    begin(&c, script, fsync, 1, cut->event);
    script->live(&c);
    assert_int_equal(sim_disk_pending(c.w.node) / 512, cut->pending);
    sim_disk_crash_lose(c.w.node, a, b);
    end(&c, true);
    aftermath(&c, false, true, 0);
    world_deinit(&c.w);
}

/* The n-th of a sample: first and last, neighbours, any two, the last alone, the first; then neighbours and any by turns. */
static void pair_choose(const struct cut *cut, uint32_t n, uint64_t *a, uint64_t *b)
{
    uint64_t draw = ((uint64_t)cut->event << 20 | n) * 0x9e3779b97f4a7c15u, last = cut->pending - 1;

    draw = (draw ^ draw >> 29) * 0xbf58476d1ce4e5b9u;
    *a = n == 0 || n == 4 ? 0 : n == 3 ? last : (draw >> 40) % cut->pending;
    *b = n == 0 || n == 3 ? last : n == 4 ? 0 : n % 2 == 1 ? MIN(*a + 1, last) : (draw >> 10) % cut->pending;
}

/* Every pair, if they are no more than `max`; else so many of them. */
static uint32_t pairs_of(const struct script *script, enum store_fsync fsync, const struct cut *cut, uint32_t max)
{
    uint64_t pending = cut->pending, a, b;

    if (pending * (pending + 1) / 2 > max) {
        for (uint32_t n = 0; n < max; n++) {
            pair_choose(cut, n, &a, &b);
            pair_once(script, fsync, cut, a, b);
        }
        return max;
    }
    for (a = 0; a < pending; a++)
        for (b = a; b < pending; b++)
            pair_once(script, fsync, cut, a, b);
    return (uint32_t)(pending * (pending + 1) / 2);
}

/* All arrived but two sectors: in every life, in every mode, after every event at which some were on their way. All pairs of
 * up to PAIRS_MAX of them, a sample of more. The short run takes so many events, and so many pairs of each. */
static void test_every_two_lost_sectors(void **state)
{
    uint32_t few_max = world_seeds() != 0 ? PAIRS_MAX * (PAIRS_MAX + 1) / 2 : PAIRS_SAMPLE;
    uint32_t many_max = world_seeds() != 0 ? PAIRS_OF_MANY : PAIRS_SAMPLE, many = 0;
    struct cut *cuts = must_alloc(sizeof(*cuts) * CUTS_MAX);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(scripts); i++) {
        for (unsigned mode = 0; mode < 3; mode++) {
            enum store_fsync fsync = (enum store_fsync)mode;
            uint32_t count = cuts_find(&scripts[i], fsync, 1, cuts), left = 0, events = 0, pairs = 0, stride;

            for (uint32_t n = 0; n < count; n++)
                if (cuts[n].pending > 0)
                    cuts[left++] = cuts[n];
            stride = world_seeds() != 0 ? 1 : MAX(left / PAIRS_EVENTS, 1u);
            for (uint32_t n = (uint32_t)(i + mode) % stride; n < left; n += stride, events++) {
                bool is_many = cuts[n].pending > PAIRS_MAX;

                pairs += pairs_of(&scripts[i], fsync, &cuts[n], is_many ? many_max : few_max);
                many += is_many;
            }
            assert_true(events >= MIN(left, PAIRS_EVENTS));
            assert_true(pairs > PAIRS_EACH_MIN);
            if (world_seeds() != 0)
                print_message("# %s fsync=%u: %u pairs after %u events\n", scripts[i].name, mode, pairs, events);
        }
    }
    assert_true(many > PAIRS_EVENTS * 4);
    mem_free(cuts);
}

static void values_set(struct world *w, uint16_t from, uint16_t count)
{
    for (uint16_t k = from; k < from + count; k++)
        world_set(w, 0, k, k + 1u, 100);
    store_turn_end(w->store);
}

/* Nothing has been written behind the file's durable end in the same 4096 bytes. */
static void rest_is_empty(const struct world *w, const char *path, uint64_t end)
{
    static const char zeros[CHECKPOINT_ALIGN];
    char rest[CHECKPOINT_ALIGN] = {0};
    size_t size = (size_t)((CHECKPOINT_ALIGN - end % CHECKPOINT_ALIGN) % CHECKPOINT_ALIGN);

    assert_true(sim_disk_peek(w->node, path, false, rest, size, end) >= 0);
    assert_memory_equal(rest, zeros, sizeof(rest));
}

/* The power fails while a checkpoint is on its way into the file of the one before, and takes the sectors with it that are
 * being written: none has a byte of the one before in it, which the next start goes by. */
static void test_a_torn_checkpoint_leaves_the_one_before(void **state)
{
    static const enum sim_disk_outcome outcomes[] = {SIM_DISK_OLD, SIM_DISK_NEW, SIM_DISK_ZERO, SIM_DISK_GARBAGE};
    unsigned inside = 0;

    (void)state;
    for (unsigned i = 0; i < 5 * ARRAY_COUNT(outcomes); i++) {
        struct world w;
        uint64_t end, lsn;
        char path[CHECKPOINT_PATH_MAX];

        world_init(&w, i, NULL);
        world_open(&w);
        values_set(&w, 0, (uint16_t)(10 + i));
        world_checkpoint(&w);
        values_set(&w, 5, (uint16_t)(1 + i));
        world_checkpoint(&w);
        checkpoint_path(w.store, w.store->checkpoint->file_number, path);
        end = w.store->checkpoint->file_end;
        assert_int_equal(sim_disk_size(w.node, path, true), end);
        inside += end % CHECKPOINT_ALIGN != 0;
        values_set(&w, 2, 9);
        lsn = w.store->stats.checkpoint_lsn;
        store_checkpoint(w.store);
        for (unsigned j = 0; sim_disk_size(w.node, path, false) == (ssize_t)end; j++) {
            assert_true(j < 1000);
            MAYBE(sim_step(w.sim));
        }
        assert_int_equal(sim_disk_size(w.node, path, true), end);
        rest_is_empty(&w, path, end);
        sim_disk_crash_set(w.node, outcomes[i % ARRAY_COUNT(outcomes)]);
        world_die(&w, true);
        world_open(&w);
        assert_int_equal(w.store->stats.checkpoint_lsn, lsn);
        assert_true(store_marks_of(w.store).appended >= w.marks.durable);
        world_forget_after(&w, store_marks_of(w.store).appended);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
    assert_true(inside > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_crash_leaves_a_prefix),
        cmocka_unit_test(test_every_two_lost_sectors),
        cmocka_unit_test(test_a_torn_checkpoint_leaves_the_one_before),
    };

    test_leaks_begin(); /* by those who are killed in the middle of an operation */
    return cmocka_run_group_tests_name("store_crash", tests, NULL, NULL);
}
