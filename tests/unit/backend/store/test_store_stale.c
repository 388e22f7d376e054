/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that gives back what was there before: a write never came to the medium, or a read is answered from an old copy.
 * Every checksum in such bytes is right. They are of the same place's past: of an earlier life of a segment that was used
 * again, of an older checkpoint, of the file before it was written.
 *
 *     life ──copy──copy──copy── ... ──X     one place as it was in one of the copies  ──> open, read all of it
 *
 * What is promised: a value is right or refused, with file and offset; what was durable is there or the start is
 * refused. But for the end of the log (test_the_end_of_the_log_may_be_old()), of which nothing else knows.
 *
 * A sample by default; STORE_SEEDS=N: that many times as much.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/checkpoint_private.h"
#include "backend/store/log_private.h"

#include <stdlib.h>

#define SEGMENT    (64u << 10)
#define COPIES_MAX 40u
#define NAMES_MAX  96u

struct past {
    struct world w;
    struct sim_disk_copy *copies[COPIES_MAX]; /* owns; the last one: the end of the life */
    uint32_t count;
    struct world_errors errors;
    uint64_t end_lsn;
    uint32_t hot_slot; /* the open hot segment's at the end */
};

static void begin(struct past *p, uint64_t seed)
{
    memset(p, 0, sizeof(*p));
    world_init(&p->w, seed, NULL);
    world_errors_init(&p->errors, &p->w);
    p->w.options.segment_size = SEGMENT;
    p->w.options.ring_size = 1u << 18;
    p->w.options.disk_max = 14u * SEGMENT; /* segments are used again */
    p->w.value_max = 1500;
}

static void end(struct past *p)
{
    for (uint32_t i = 0; i < p->count; i++)
        sim_disk_copy_destroy(&p->copies[i]);
    world_deinit(&p->w);
    world_errors_deinit(&p->errors);
}

/* ---- a life, and what its disk was at many moments ---------------------------------------------- */

static void durable_wait(struct world *w)
{
    store_turn_end(w->store);
    for (unsigned i = 0; i < 500 && store_marks_of(w->store).durable < store_lsn(w->store); i++)
        sim_run_for(w->sim, 10000);
    assert_int_equal(store_marks_of(w->store).durable, store_lsn(w->store));
}

static void copy_take(struct past *p)
{
    assert_true(p->count < COPIES_MAX);
    p->copies[p->count++] = sim_disk_copy_create(p->w.node);
}

static void live(struct past *p)
{
    struct world *w = &p->w;

    world_open(w);
    for (unsigned i = 0; i + 2 < COPIES_MAX; i++) {
        assert_true(world_live_in_room(w, 40));
        world_spill(w, 10);
        if (world_random(w, 4) == 0)
            store_checkpoint(w->store);
        sim_run_for(w->sim, world_random(w, 400000));
        if (world_random(w, 3) == 0)
            durable_wait(w);
        copy_take(p);
    }
    durable_wait(w);
    assert_true(w->store->stats.cleaner_segments > 10);
    p->end_lsn = store_lsn(w->store);
    p->hot_slot = w->store->log->hot_segment->info.slot;
}

/* Closed, or all of it durable when the power fails. */
static void live_to_the_end(struct past *p, bool is_closed)
{
    struct world *w = &p->w;

    live(p);
    if (is_closed) {
        world_close(w);
    } else {
        sim_disk_crash_set(w->node, SIM_DISK_NEW);
        world_die(w, true);
    }
    sim_disk_sync(w->node);
    copy_take(p);
}

static void restore(struct past *p)
{
    sim_node_kill(p->w.node);
    store_destroy(&p->w.store);
    sim_disk_copy_restore(p->w.node, p->copies[p->count - 1]);
    p->w.io = sim_node_start(p->w.node);
}

/* ---- one place as it was ------------------------------------------------------------------------ */

struct names {
    char path[NAMES_MAX][96];
    uint32_t count;
};

static void name_each(void *arg, const char *path)
{
    struct names *names = arg;

    if (strncmp(path, WORLD_DIR "/", sizeof(WORLD_DIR)) == 0 && names->count < NAMES_MAX)
        (void)snprintf(names->path[names->count++], sizeof(names->path[0]), "%s", path);
}

enum reach { REACH_SECTOR, REACH_PAGE, REACH_PAGES, REACH_FILE, REACH_COUNT };

struct place {
    char path[96], from[96];
    uint32_t copy;
    enum reach reach;
    uint64_t off, size;
};

static bool is_checkpoint(const char *path)
{
    return strstr(path, "/checkpoint.") != NULL;
}

/* A checkpoint's file is a new one: what its blocks had before is an older one's. */
static void from_choose(struct past *p, struct place *place, const struct names *names)
{
    const char *path;

    (void)snprintf(place->from, sizeof(place->from), "%s", place->path);
    if (!is_checkpoint(place->path))
        return;
    path = names->path[world_random(&p->w, names->count)];
    if (is_checkpoint(path))
        (void)snprintf(place->from, sizeof(place->from), "%s", path);
    else
        (void)snprintf(place->from, sizeof(place->from), WORLD_DIR "/checkpoint.%u", 1 + (unsigned)world_random(&p->w, 6));
}

/* False: there it was always as it is. */
static bool revert(struct past *p, struct place *place)
{
    static const uint64_t sizes[] = {[REACH_SECTOR] = 512, [REACH_PAGE] = 4096, [REACH_PAGES] = 4 * 4096};
    struct world *w = &p->w;
    struct names names = {0};
    uint64_t size;

    sim_disk_each(w->node, true, name_each, &names);
    (void)snprintf(place->path, sizeof(place->path), "%s", names.path[world_random(w, names.count)]);
    from_choose(p, place, &names);
    size = (uint64_t)MAX(sim_disk_size(w->node, place->path, true), 1);
    place->copy = (uint32_t)world_random(w, p->count - 1);
    place->reach = (enum reach)world_random(w, REACH_COUNT);
    place->off = 0;
    place->size = size;
    if (place->reach != REACH_FILE) {
        place->size = sizes[place->reach];
        place->off = world_random(w, 3) == 0 ? world_random(w, MIN(size, 8192u)) : world_random(w, size);
        place->off = place->off / place->size * place->size;
    }
    return sim_disk_revert(w->node, place->path, p->copies[place->copy], place->from, place->off, place->size);
}

/* ---- lost writes -------------------------------------------------------------------------------- */

struct seen {
    uint32_t tried, not_opened, refused, shorter;
};

static void place_tell(const struct place *place)
{
    if (getenv("STORE_TELL") != NULL)
        print_message("# %s from %s of copy %u, %llu bytes at %llu\n", place->path, place->from, place->copy,
                      (unsigned long long)place->size, (unsigned long long)place->off);
}

static bool is_hot_path(const struct past *p, const char *path)
{
    char hot[96];

    (void)snprintf(hot, sizeof(hot), WORLD_DIR "/%06u.seg", p->hot_slot);
    return strcmp(hot, path) == 0;
}

/* It is opened, or refused with a line; then false. */
static bool open_or_refused(struct past *p, struct seen *seen)
{
    uint32_t lines = p->errors.count;

    seen->tried++;
    if (world_try_open(&p->w) == 0)
        return true;
    assert_true(p->w.err == ERR_CORRUPT || p->w.err == ERR_INVALID);
    assert_true(p->errors.count > lines);
    seen->not_opened++;
    return false;
}

/* How far the store that was opened goes. A closed one has all; else the newest segment may have lost what only it knew. */
static uint64_t lsn_judge(struct past *p, const char *path, bool is_closed, struct seen *seen)
{
    uint64_t lsn = store_marks_of(p->w.store).appended;

    assert_true(lsn <= p->end_lsn);
    if (lsn == p->end_lsn)
        return lsn;
    assert_false(is_closed);
    assert_true(is_hot_path(p, path));
    seen->shorter++;
    return lsn;
}

static void seen_print(const char *what, const struct seen *seen)
{
    print_message("# %s: %u tried, %u not opened, %u values refused, %u shorter\n", what, seen->tried, seen->not_opened,
                  seen->refused, seen->shorter);
}

/* One write never came to the medium: a sector, a page, some of them, or all that was written to a file since. */
static void test_a_lost_write_is_seen(void **state)
{
    struct seen seen = {0};
    uint32_t kinds[4] = {0}; /* refused starts: by segments, checkpoints, MANIFEST, others */

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(4); seed++) {
        struct past p;
        bool is_closed = seed % 2 == 0;

        begin(&p, seed);
        live_to_the_end(&p, is_closed);
        for (unsigned i = 0; i < 600; i++) {
            struct place place;
            uint32_t before = seen.not_opened;

            restore(&p);
            if (!revert(&p, &place))
                continue;
            place_tell(&place);
            if (open_or_refused(&p, &seen))
                seen.refused += world_refused_count(&p.w, &p.errors, lsn_judge(&p, place.path, is_closed, &seen));
            kinds[strstr(place.path, ".seg") != NULL ? 0 : is_checkpoint(place.path) ? 1
                  : strstr(place.path, "MANIFEST") != NULL ? 2 : 3] += seen.not_opened > before;
        }
        end(&p);
    }
    seen_print("lost writes", &seen);
    assert_true(seen.tried > world_times(4) * 100);
    assert_true(seen.not_opened > seen.tried / 5 && seen.not_opened < seen.tried * 4 / 5);
    assert_true(seen.refused > world_times(4));
    assert_true(kinds[0] > world_times(4) * 20 && kinds[1] > world_times(4) && kinds[2] > world_times(4) * 2);
}

/* The newest segment is read as it was, from some page on, when the power fails, and nothing that came later says that it
 * had more. That looks as a torn end does, and is cut: what is left is a prefix, and all that a checkpoint knew. */
static void test_the_end_of_the_log_may_be_old(void **state)
{
    struct seen seen = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(6); seed++) {
        struct past p;
        struct world *w = &p.w;
        struct place place;
        uint64_t known, segment_end;

        begin(&p, seed);
        live(&p);
        world_checkpoint(w);
        durable_wait(w);
        copy_take(&p);
        known = w->marks.durable = store_marks_of(w->store).durable;
        for (unsigned i = 0; i < 4; i++) {
            assert_true(world_live_in_room(w, 3));
            durable_wait(w);
        }
        p.end_lsn = store_lsn(w->store);
        p.hot_slot = w->store->log->hot_segment->info.slot;
        segment_end = w->store->log->hot_segment->info.used_bytes;
        sim_disk_crash_set(w->node, SIM_DISK_NEW);
        world_die(w, true);
        copy_take(&p);
        (void)snprintf(place.path, sizeof(place.path), WORLD_DIR "/%06u.seg", p.hot_slot);
        for (uint64_t off = 0; off < segment_end; off += 4096) {
            uint64_t lsn;

            restore(&p);
            if (!sim_disk_revert(w->node, place.path, p.copies[p.count - 2], place.path, off, segment_end - off) ||
                !open_or_refused(&p, &seen))
                continue;
            lsn = lsn_judge(&p, place.path, false, &seen);
            assert_true(lsn >= known);
            assert_int_equal(world_refused_count(&p.w, &p.errors, lsn), 0);
        }
        end(&p);
    }
    seen_print("old ends", &seen);
    assert_true(seen.shorter > world_times(6));
}

/* ---- checkpoints that begin in the same place --------------------------------------------------- */

static uint64_t checkpoint_end_of(const struct world *w, char path[CHECKPOINT_PATH_MAX])
{
    const struct checkpoint *c = w->store->checkpoint;

    checkpoint_path(w->store, c->file_number, path);
    return (c->file_end + CHECKPOINT_ALIGN - 1) / CHECKPOINT_ALIGN * CHECKPOINT_ALIGN;
}

/* A checkpoint is cut off when its records are on the medium, and MANIFEST does not name them yet. The next one begins in
 * the same place, with records of the same length, and one of its writes is lost; others build upon it. */
static void cut_off_once(unsigned starts)
{
    struct past p;
    struct world *w = &p.w;
    char path[CHECKPOINT_PATH_MAX];
    uint64_t at;

    begin(&p, starts);
    w->options.disk_max = 0;
    world_open(w);
    for (unsigned i = 0; i < starts; i++) { /* sequences grow, and with them what a place takes in a record */
        world_set(w, 0, 1, i, 100);
        world_close(w);
        world_open(w);
    }
    for (uint16_t k = 0; k < 10; k++)
        world_set(w, 0, k, k + 1u, 100);
    world_checkpoint(w);
    at = checkpoint_end_of(w, path);
    world_set(w, 0, 1, 100, 100);
    store_turn_end(w->store);
    store_checkpoint(w->store);
    for (unsigned i = 0; sim_disk_size(w->node, path, true) <= (ssize_t)at; i++) {
        assert_true(i < 10000);
        MAYBE(sim_step(w->sim));
    }
    sim_disk_crash_set(w->node, SIM_DISK_NEW);
    world_die(w, true);
    copy_take(&p);
    world_open(w);
    assert_int_equal(checkpoint_end_of(w, path), at);
    world_set(w, 0, 1, 200, 100);
    world_checkpoint(w);
    for (uint16_t k = 20; k < 50; k++) {
        world_set(w, 0, k, k, 5000);
        store_turn_end(w->store);
        sim_run_for(w->sim, 10000);
    }
    world_checkpoint(w);
    p.end_lsn = store_lsn(w->store);
    world_close(w);
    copy_take(&p);
    restore(&p);
    assert_true(sim_disk_revert(w->node, path, p.copies[0], path, at, CHECKPOINT_ALIGN));
    assert_int_equal(world_try_open(w), ERR_CORRUPT);
    assert_true(p.errors.count > 1); /* the first one says where */
    end(&p);
}

static void test_a_record_of_a_checkpoint_that_was_cut_off(void **state)
{
    (void)state;
    for (unsigned starts = 0; starts < 8; starts++)
        cut_off_once(starts);
}

/* ---- old reads ---------------------------------------------------------------------------------- */

/* The next reads of one file see it as it was in one of the copies, or empty. */
static void reads_make_old(struct past *p, struct place *place, uint32_t count)
{
    struct world *w = &p->w;
    struct names names = {0};

    sim_disk_each(w->node, false, name_each, &names);
    (void)snprintf(place->path, sizeof(place->path), "%s", names.path[world_random(w, names.count)]);
    (void)snprintf(place->from, sizeof(place->from), "%s", place->path);
    place->copy = (uint32_t)world_random(w, p->count);
    place->off = 0;
    place->size = count; /* reads */
    MAYBE(sim_disk_stale_mark_as(w->node, place->path, p->copies[place->copy]));
    sim_disk_stale_reads(w->node, place->path, count);
    place_tell(place);
}

static void reads_are_right(struct world *w)
{
    struct names names = {0};

    sim_disk_each(w->node, false, name_each, &names);
    for (uint32_t i = 0; i < names.count; i++)
        sim_disk_stale_reads(w->node, names.path[i], 0);
}

/* What is read of one file at a start is old. Whatever comes of it, the medium is right: the next start has all of it. */
static void test_old_reads_at_a_start(void **state)
{
    struct seen seen = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(4); seed++) {
        struct past p;
        struct world *w = &p.w;
        bool is_closed = seed % 2 == 0;

        begin(&p, seed + 1000);
        live_to_the_end(&p, is_closed);
        for (unsigned i = 0; i < 150; i++) {
            struct place place;
            uint64_t lsn = p.end_lsn;

            restore(&p);
            reads_make_old(&p, &place, 1 + (uint32_t)world_random(w, i % 2 == 0 ? 4 : 40));
            if (open_or_refused(&p, &seen)) {
                lsn = lsn_judge(&p, place.path, is_closed, &seen);
                seen.refused += world_refused_count(&p.w, &p.errors, lsn);
            }
            world_give_up(w);
            reads_are_right(w);
            world_open(w);
            assert_int_equal(store_marks_of(w->store).appended, lsn);
            assert_int_equal(world_refused_count(&p.w, &p.errors, lsn), 0);
        }
        end(&p);
    }
    seen_print("old reads at a start", &seen);
    assert_true(seen.not_opened > seen.tried / 10);
}

/* While it lives what is read of one file after the other is old: values, what the cleaner moves, what is scrubbed. A value
 * is right or refused, nothing that is wrong is written: in the end all of it is there. */
static void test_old_reads_of_a_running_store(void **state)
{
    uint32_t refused = 0, corrupt = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(4); seed++) {
        struct past p;
        struct world *w = &p.w;
        uint64_t cleaned;

        begin(&p, seed + 2000);
        live(&p);
        cleaned = w->store->stats.cleaner_segments;
        for (unsigned i = 0; i < 60; i++) {
            struct place place;

            world_spill(w, 60);
            reads_make_old(&p, &place, 1 + (uint32_t)world_random(w, 4));
            if (i % 2 == 0)
                refused += world_refused_count(&p.w, &p.errors, UINT64_MAX);
            assert_true(world_live_in_room(w, 20));
            sim_run_for(w->sim, i % 10 == 0 ? 61000000 : 20000);
        }
        reads_are_right(w);
        assert_int_equal(world_refused_count(&p.w, &p.errors, UINT64_MAX), 0);
        assert_true(w->store->stats.cleaner_segments > cleaned + 10);
        assert_true(w->store->stats.scrubbed_bytes > 0);
        assert_false(w->store->stats.is_read_only);
        corrupt += (uint32_t)w->store->stats.corrupt_records;
        if (seed % 2 == 0)
            world_close(w);
        else
            world_die(w, false);
        world_open(w);
        world_check(w, UINT64_MAX);
        end(&p);
    }
    print_message("# old reads while it runs: %u values refused, %u told\n", refused, corrupt);
    assert_true(refused > world_times(4));
    assert_true(corrupt > refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_write_is_seen),
        cmocka_unit_test(test_the_end_of_the_log_may_be_old),
        cmocka_unit_test(test_a_record_of_a_checkpoint_that_was_cut_off),
        cmocka_unit_test(test_old_reads_at_a_start),
        cmocka_unit_test(test_old_reads_of_a_running_store),
    };

    return cmocka_run_group_tests_name("store_stale", tests, NULL, NULL);
}
