/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a recovery finds after a death at any moment: kills with the ring, power cuts, again and again.
 */
#include "backend/store/ring.h"
#include "tests/unit/backend/store/log_test.h"

/* One random thing that a store does. */
static void step(struct world *w)
{
    uint64_t kind = draw(w) % 100;

    if (kind < 60) {
        MAYBE(world_append(w) == 0);
    } else if (kind < 68) {
        world_transaction(w, 2 + (uint32_t)(draw(w) % 6));
    } else if (kind < 74 && w->count > 0) {
        world_copy_cold(w, (uint32_t)(draw(w) % w->count));
    } else if (kind < 76) {
        store_log_flush(w->log, world_done, w);
    } else if (kind < 95) {
        store_log_turn_end(w->log);
        for (uint64_t i = draw(w) % 8; i > 0; i--)
            MAYBE(sim_step(w->sim));
    } else {
        store_log_turn_end(w->log);
        sim_run_for(w->sim, draw(w) % 800000);
    }
}

struct plan {
    uint32_t lives, steps;
    bool power_cuts, kills;
    enum store_fsync fsync;
    bool no_ring, resizes;
};

/* The settings of the next start: what is in the ring was put there with another size. */
static void ring_resize(struct world *w, const struct plan *plan)
{
    static const uint32_t pages[] = {16, 17, 100, 256, 257, 600};

    if (plan->resizes)
        w->options.ring_size = pages[draw(w) % ARRAY_COUNT(pages)] * 4096;
}

/* Lives and deaths. After each, what was promised is there, and it is a prefix of what was done. */
static void run(uint64_t seed, const struct plan *plan)
{
    struct world w;
    uint64_t promised = 0;

    world_init(&w, seed);
    w.options.fsync = plan->fsync;
    if (plan->no_ring)
        w.options.ring_path = NULL;
    for (uint32_t life = 0; life < plan->lives; life++) {
        bool is_cut = plan->power_cuts && (!plan->kills || draw(&w) % 2 == 0);
        struct store_marks marks;

        if (draw(&w) % 4 == 0) { /* dies while it recovers */
            struct store_log_replay replay = {.arg = &w, .record = world_record, .done = world_done};
            bool is_cut_now = plan->power_cuts && is_cut;

            if (is_cut_now || !plan->power_cuts || plan->kills) {
                ring_resize(&w, plan);
                assert_int_equal(world_open(&w), 0);
                w.seen_count = 0;
                store_log_recover(w.log, 0, 0, &replay);
                for (uint64_t i = draw(&w) % 60; i > 0; i--)
                    MAYBE(sim_step(w.sim));
                world_crash(&w, false);
            }
        }
        ring_resize(&w, plan);
        assert_int_equal(world_start(&w), 0);
        world_check_prefix(&w, promised);
        world_check_reads(&w, 1 + w.count / 16);
        for (uint32_t i = 0; i < plan->steps; i++)
            step(&w);
        for (uint64_t i = draw(&w) % 40; i > 0; i--)
            MAYBE(sim_step(w.sim));
        marks = store_log_marks(w.log);
        assert_true(marks.durable <= marks.written && marks.written <= marks.appended);
        promised = is_cut ? marks.durable : plan->no_ring ? marks.written : marks.appended;
        world_crash(&w, is_cut);
        if (is_cut)
            MAYBE(w.seen_cold);
    }
    ring_resize(&w, plan);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, promised);
    world_check_reads(&w, 1);
    assert_int_equal(w.corrupt_lines, 0);
    world_deinit(&w);
}

/* A sanitized run takes thirty times as long: it sees a part of the seeds. */
#ifdef TEST_ASAN
#define SHARE 4u
#else
#define SHARE 1u
#endif

static void run_many(const char *name, struct plan plan, uint64_t seeds)
{
    const char *only = getenv("LOG_TEST_SEED"), *many = getenv("LOG_TEST_SEEDS");
    uint64_t from = only != NULL ? strtoull(only, NULL, 10) : 1;
    uint64_t count = only != NULL ? 1 : many != NULL ? strtoull(many, NULL, 10) : MAX(seeds / SHARE, 2u);

    for (uint64_t seed = from; seed < from + count; seed++) {
        plan.fsync = (enum store_fsync)(seed % 3);
        if (getenv("LOG_TEST_TRACE") != NULL)
            (void)fprintf(stderr, "# %s seed %llu\n", name, (unsigned long long)seed);
        run(seed, &plan);
    }
}

static void test_a_killed_process_loses_nothing_that_was_sealed(void **state)
{
    (void)state;
    run_many("kill", (struct plan){.lives = 5, .steps = 60, .kills = true}, 60);
}

static void test_another_ring_size_loses_nothing_that_was_sealed(void **state)
{
    (void)state;
    run_many("resize", (struct plan){.lives = 6, .steps = 60, .kills = true, .resizes = true}, 60);
    run_many("resize, cut", (struct plan){.lives = 8, .steps = 40, .kills = true, .power_cuts = true, .resizes = true},
             30);
}

/* A kill with an answered change in the ring alone; the ring's size. */
static size_t world_crash_with_ring(struct world *w)
{
    size_t size;

    world_init(w, 7);
    assert_int_equal(world_start(w), 0);
    assert_int_equal(world_append(w), 0);
    store_log_turn_end(w->log);
    assert_int_equal(io_shared_size(w->io, LOG_RING, &size), 0);
    world_crash(w, false);
    return size;
}

/* The new size is used at last, and a start with the same one leaves it alone. */
static void test_a_ring_gets_its_new_size(void **state)
{
    struct world w;
    size_t before, after;

    (void)state;
    before = world_crash_with_ring(&w);
    w.options.ring_size *= 2;
    assert_int_equal(world_open(&w), 0);
    assert_int_equal(io_shared_size(w.io, LOG_RING, &after), 0);
    assert_int_equal(after, before); /* what is in it was not read yet */
    assert_int_equal(world_recover(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    assert_int_equal(io_shared_size(w.io, LOG_RING, &after), 0);
    assert_true(after > before + w.options.ring_size / 2 - 1);
    world_crash(&w, false);
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(io_shared_size(w.io, LOG_RING, &before), 0);
    assert_int_equal(after, before);
    world_deinit(&w);
}

/* The start fails; the one after it, with the size of before, has all and does not tell of changes that may be missing. */
static void test_a_ring_that_cannot_have_its_new_size_is_not_missed(void **state)
{
    struct world w;
    size_t before;

    (void)state;
    before = world_crash_with_ring(&w);
    sim_shared_max_set(w.node, before);
    w.options.ring_size *= 2;
    assert_int_equal(world_start(&w), -ENOSPC);
    world_crash(&w, false);
    w.options.ring_size /= 2;
    assert_int_equal(world_start(&w), 0);
    assert_false(store_log_is_ring_lost(w.log));
    world_check_prefix(&w, UINT64_MAX);
    world_deinit(&w);
}

/* Nothing is opened with it, whatever size is wanted, and nothing of it is lost when it is ours again. */
static void test_a_ring_of_another_user_ends_the_start(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 7);
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(world_append(&w), 0);
    store_log_turn_end(w.log);
    for (int i = 0; i < 2; i++) {
        world_crash(&w, false);
        sim_shared_foreign_set(w.node, true);
        assert_int_equal(world_open(&w), -EPERM);
        w.options.ring_size *= 2;
    }
    world_crash(&w, false);
    sim_shared_foreign_set(w.node, false);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A whole ring's header, with any bit of its constant part or hash turned, is damaged: never of another boot, nor not begun. One
 * without a hash is not begun only if nothing is in it. */
static void test_no_bit_of_a_rings_header_makes_it_another(void **state)
{
    static const unsigned char boot[16] = {1, 2, 3}, other_boot[16] = {4}, uuid[16] = {5, 6};
    static char base[2 * 4096] __attribute__((aligned(4096)));
    struct ring_header *header = (struct ring_header *)(void *)base;
    const size_t check = offsetof(struct ring_header, check);

    (void)state;
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_OTHER);
    base[4096] = 1; /* something in its table */
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_DAMAGED);
    ring_header_make(header, 3, ring_size(4), boot, uuid, false);
    header->appended = 7;
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_OURS);
    assert_int_equal(ring_kind_of(base, 4, 3, other_boot, uuid), RING_KIND_OTHER);
    for (size_t bit = 0; bit < 8 * (check + sizeof(header->check)); bit++) {
        if (bit / 8 >= offsetof(struct ring_header, appended) && bit / 8 < check)
            continue;
        base[bit / 8] = (char)(base[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_DAMAGED);
        base[bit / 8] = (char)(base[bit / 8] ^ 1 << bit % 8);
    }
    header->check = 0;
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_DAMAGED);
    header->version = 1; /* which has none */
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_OURS);
    header->version = 2;
    base[4096] = 0;
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_DAMAGED);
    header->appended = 0;
    assert_int_equal(ring_kind_of(base, 4, 3, boot, uuid), RING_KIND_OTHER);
}

/* What was sealed and not written yet takes more segments than are free: they are smaller now, the free ones of before are
 * of no use, and beside them `disk_max` has no room. A start makes as many as it needs. */
static void test_what_the_ring_has_takes_many_small_segments(void **state)
{
    struct world w;
    uint64_t bytes = 0;

    (void)state;
    world_init(&w, 11);
    w.options.segment_size = w.options.ring_size = 2 << 20;
    assert_int_equal(world_start(&w), 0);
    sim_run_for(w.sim, SECOND); /* there are three */
    while (bytes < 118 << 10) {
        uint64_t drawn = draw(&w);

        if (draw_len(drawn) > 4000)
            continue;
        assert_int_equal(world_append_draw(&w, drawn), 0);
        store_log_turn_end(w.log);
        bytes += draw_len(drawn) + 100;
        w.unit_next++;
    }
    world_crash(&w, false);
    w.options.segment_size = 64 << 10;
    w.options.disk_max = 6 << 20;
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    world_check_reads(&w, 1);
    world_deinit(&w);
}

static void test_without_a_ring_what_was_written_is_there(void **state)
{
    (void)state;
    run_many("no ring", (struct plan){.lives = 5, .steps = 60, .kills = true, .no_ring = true}, 40);
}

static void test_a_power_cut_loses_nothing_that_was_durable(void **state)
{
    (void)state;
    run_many("cut", (struct plan){.lives = 5, .steps = 60, .power_cuts = true}, 60);
}

static void test_kills_and_power_cuts_in_any_order(void **state)
{
    (void)state;
    run_many("both", (struct plan){.lives = 8, .steps = 40, .kills = true, .power_cuts = true}, 60);
}

/* The process dies at any moment while it makes its first files. The next one sees their names, writes to one, and at
 * once the power fails: a name that nobody had made durable would be gone, and with it what was flushed. */
static void test_a_name_that_was_only_seen_is_made_durable(void **state)
{
    (void)state;
    for (uint32_t events = 0; events < 200; events++) {
        struct world w;

        world_init(&w, 1);
        w.options.io = w.io;
        assert_int_equal(store_log_create(&w.options, &w.log), 0);
        store_log_open(w.log, world_done, &w);
        for (uint32_t i = 0; i < events; i++)
            MAYBE(sim_step(w.sim));
        world_crash(&w, false);
        assert_int_equal(world_start(&w), 0);
        assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        sim_disk_crash_set(w.node, SIM_DISK_OLD);
        world_crash(&w, true);
        assert_int_equal(world_start(&w), 0);
        world_check_prefix(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

/* Segments are given back when the power fails. Of each, header and footer may be old, new or torn; what is opened next
 * must not take that for damage. */
static void test_a_segment_that_is_being_freed_is_no_damage(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct world w;
        uint32_t freed = 0;

        world_init(&w, seed);
        sim_options(w.sim)->disk.crash_garbage = 4;
        assert_int_equal(world_start(&w), 0);
        for (int i = 0; i < 700; i++)
            assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        sim_run_for(w.sim, 2 * SECOND); /* footers */
        w.hot_from = store_log_hot_sequence(w.log);
        w.cold_from = store_log_cold_sequence(w.log);
        for (uint32_t i = 0; i < store_log_segment_count(w.log); i++) {
            const struct segment_info *info = store_log_segment(w.log, i);

            if (info->sequence >= w.hot_from || info->state != SEGMENT_SEALED)
                continue;
            store_log_cleaned(w.log, info->sequence);
            freed++;
        }
        assert_true(freed > 0);
        store_log_release(w.log, w.hot_from, w.cold_from);
        for (uint64_t i = seed % 20; i > 0; i--)
            MAYBE(sim_step(w.sim));
        world_crash(&w, true);
        assert_int_equal(world_start(&w), 0);
        assert_int_equal(w.wrong, 0);
        world_deinit(&w);
    }
}

/* The end of the log is torn, a whole segment behind it is let go of. Then a checkpoint is made, and before that segment
 * is marked as free the process dies once more: it must not count as the log. Either nothing was written since, or what
 * was is still in the ring only, and continues what was left. */
static void cut_twice(bool is_kill)
{
    static const char zeros[4096];
    const struct segment_info *info;
    struct world w;
    uint64_t lsn, sequence, end;
    char path[64];

    world_init(&w, 7);
    w.options.fsync = STORE_FSYNC_NO;
    w.options.ring_path = NULL;
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    lsn = store_log_last_lsn(w.log);
    sequence = store_log_hot_sequence(w.log);
    info = store_log_segment_find(w.log, sequence);
    end = info->used_bytes;
    (void)snprintf(path, sizeof(path), LOG_DIR "/%06u.seg", info->slot);
    while (store_log_hot_sequence(w.log) == sequence || store_log_marks(w.log).written < store_log_last_lsn(w.log)) {
        if (store_log_hot_sequence(w.log) == sequence)
            assert_int_equal(world_append(&w), 0);
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 10000);
    }
    assert_int_equal(store_log_marks(w.log).durable, lsn);
    sim_disk_crash_set(w.node, SIM_DISK_NEW);
    world_crash(&w, true);
    sim_disk_overwrite(w.node, path, end, bytes_of(zeros, sizeof(zeros)));
    w.options.ring_path = LOG_RING;
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(store_log_marks(w.log).appended, lsn);
    world_check_prefix(&w, lsn);
    w.hot_from = store_log_hot_sequence(w.log); /* as a checkpoint notes it */
    if (is_kill) {
        assert_int_equal(world_append(&w), 0);
        store_log_turn_end(w.log);
        lsn = store_log_marks(w.log).appended;
    }
    world_crash(&w, !is_kill);
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(store_log_marks(w.log).appended, lsn);
    world_deinit(&w);
}

static void test_what_was_cut_stays_cut(void **state)
{
    (void)state;
    cut_twice(false);
    cut_twice(true);
}

static void start_told(struct world *w, bool is_lost)
{
    w->ring_lines = 0;
    assert_int_equal(world_start(w), 0);
    assert_true(store_log_is_ring_lost(w->log) == is_lost);
    assert_int_equal(w->ring_lines, is_lost);
    assert_int_equal(store_log_recovered_lsn(w->log), store_log_marks(w->log).appended);
    world_check_prefix(w, 0);
}

static void live(struct world *w)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(world_append(w), 0);
    store_log_turn_end(w->log);
}

/* A start after a power cut says that there was a ring, once; nothing is said after a clean stop, a kill, or of a new
 * directory. A start that was killed before it had recovered leaves it to the next one. */
static void test_a_ring_that_is_gone_is_told(void **state)
{
    struct store_log_replay replay;
    struct world w;

    (void)state;
    world_init(&w, 5);
    replay = (struct store_log_replay){.arg = &w, .record = world_record, .done = world_done};
    start_told(&w, false);
    live(&w);
    world_crash(&w, false);
    start_told(&w, false);
    live(&w);
    world_crash(&w, true);
    start_told(&w, true);
    live(&w);
    world_crash(&w, false);
    start_told(&w, false);
    live(&w);
    assert_int_equal(world_close(&w), 0);
    start_told(&w, false);
    live(&w);
    world_crash(&w, true);
    assert_int_equal(world_open(&w), 0);
    store_log_recover(w.log, 0, 0, &replay);
    assert_true(sim_step(w.sim));
    world_crash(&w, false);
    start_told(&w, true);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_process_loses_nothing_that_was_sealed),
        cmocka_unit_test(test_another_ring_size_loses_nothing_that_was_sealed),
        cmocka_unit_test(test_a_ring_gets_its_new_size),
        cmocka_unit_test(test_a_ring_that_cannot_have_its_new_size_is_not_missed),
        cmocka_unit_test(test_a_ring_of_another_user_ends_the_start),
        cmocka_unit_test(test_no_bit_of_a_rings_header_makes_it_another),
        cmocka_unit_test(test_what_the_ring_has_takes_many_small_segments),
        cmocka_unit_test(test_without_a_ring_what_was_written_is_there),
        cmocka_unit_test(test_a_power_cut_loses_nothing_that_was_durable),
        cmocka_unit_test(test_kills_and_power_cuts_in_any_order),
        cmocka_unit_test(test_a_name_that_was_only_seen_is_made_durable),
        cmocka_unit_test(test_a_segment_that_is_being_freed_is_no_damage),
        cmocka_unit_test(test_what_was_cut_stays_cut),
        cmocka_unit_test(test_a_ring_that_is_gone_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
