/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cleaner chooses, and where its copies go: which victim, which stream; and segments of a size that is not the
 * one there was before. Of the counts of live bytes, which only choose, some are set here as they are wanted.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/cleaner_private.h"

#define SEGMENT (64u << 10)
#define DISK    (3u << 20)

static void overwrite(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (store_may_write(w->store, 0) == 0)
            world_set(w, 0, (uint16_t)(1 + world_random(w, 8)), i + 1, 500);
        store_turn_end(w->store);
        sim_run_for(w->sim, 200);
    }
}

/* ---- victims ---------------------------------------------------------------------------------- */

static struct segment_info *sealed(struct world *w, uint32_t i)
{
    for (uint32_t at = 0; at < store_log_segment_count(w->store->log); at++)
        if (store_log_segment(w->store->log, at)->state == SEGMENT_SEALED && i-- == 0)
            return store_log_segment(w->store->log, at);
    fail_msg("too few segments");
    return NULL;
}

/* All but two have nothing dead: `percent` of the older one lives, and of the younger one. The ages are so many segments.
 * Whether the older one is the victim. */
static bool is_older_chosen(struct world *w, uint64_t age_older, unsigned percent_older, uint64_t age_younger,
                            unsigned percent_younger)
{
    uint64_t next = store_log_next_sequence(w->store->log), older = next - age_older + 1;
    uint64_t younger = next - age_younger + 1, victim;

    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++) {
        struct segment_info *segment = store_log_segment(w->store->log, i);

        segment->live_bytes = MAX(segment->record_bytes, segment->size);
        if (segment->sequence == older || segment->sequence == younger) {
            assert_int_equal(segment->state, SEGMENT_SEALED);
            segment->live_bytes = segment->record_bytes / 100 *
                                  (segment->sequence == older ? percent_older : percent_younger);
        }
    }
    clean_plan_forget(w->store);
    victim = clean_plan_of(w->store)->victim;
    assert_true(victim == older || victim == younger);
    return victim == older;
}

static void test_which_victim(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 1, NULL);
    w.options.segment_size = SEGMENT;
    w.options.disk_max = 64 * DISK;
    world_open(&w);
    overwrite(&w, 2500); /* nothing has been cleaned yet: the sequences have no gaps */
    assert_int_equal(w.store->stats.cleaner_segments, 0);
    store_disk_max_set(w.store, store_log_segment_count(w.store->log) * SEGMENT); /* room is short */

    assert_true(is_older_chosen(&w, 16, 50, 4, 50));
    assert_false(is_older_chosen(&w, 16, 50, 15, 30));
    /* Four times as old outweighs twice as much to gain from the same work, and no more than that. */
    assert_true(is_older_chosen(&w, 16, 50, 4, 36));
    assert_false(is_older_chosen(&w, 16, 50, 4, 25));
    /* Nothing lives there: nothing is better. */
    assert_false(is_older_chosen(&w, 8, 10, 4, 0));
    world_deinit(&w);
}

/* Nobody chooses a segment that somebody holds, or that is full of what lives. */
static void test_which_never(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 2, NULL);
    w.options.segment_size = SEGMENT;
    w.options.disk_max = 64 * DISK;
    world_open(&w);
    overwrite(&w, 2500);
    store_disk_max_set(w.store, store_log_segment_count(w.store->log) * SEGMENT);
    for (uint32_t i = 0; i < store_log_segment_count(w.store->log); i++)
        store_log_segment(w.store->log, i)->live_bytes = SEGMENT;
    clean_plan_forget(w.store);
    assert_int_equal(clean_plan_of(w.store)->victim, 0);
    sealed(&w, 2)->live_bytes = sealed(&w, 3)->live_bytes = sealed(&w, 4)->live_bytes = 0;
    sealed(&w, 2)->pins++;
    clean_plan_forget(w.store);
    assert_int_equal(clean_plan_of(w.store)->victim, sealed(&w, 3)->sequence);
    sealed(&w, 2)->pins--;
    world_deinit(&w);
}

/* ---- streams ---------------------------------------------------------------------------------- */

static void test_which_stream(void **state)
{
    struct world w;
    uint64_t now, lsn;

    (void)state;
    world_init(&w, 3, NULL);
    world_open(&w);
    overwrite(&w, 1000);
    now = store_now_ms(w.store);
    lsn = store_lsn(w.store);
    assert_int_equal(cleaner_class(w.store, now + 1000, lsn), 0);
    assert_int_equal(cleaner_class(w.store, now + 2 * 3600 * 1000, lsn), 1);
    /* How old what is cleaned gets is not known yet. */
    assert_int_equal(cleaner_class(w.store, 0, lsn), 2);
    w.store->cleaner->hot_age = 100;
    assert_int_equal(cleaner_class(w.store, 0, lsn - 199), 3);
    assert_int_equal(cleaner_class(w.store, now + 48 * 3600 * 1000, lsn - 199), 3);
    assert_int_equal(cleaner_class(w.store, 0, lsn - 200), 2);
    assert_int_equal(cleaner_class(w.store, now + 1000, lsn - 200), 0);
    world_deinit(&w);
}

/* It is about the records that a disk has room for. */
static void test_how_old_what_is_cleaned_gets(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 4, NULL);
    w.options.segment_size = SEGMENT;
    w.options.disk_max = DISK;
    world_open(&w);
    for (uint16_t k = 20; k < 60; k++) {
        world_set(&w, 0, k, k, 500);
        overwrite(&w, 20);
    }
    assert_int_equal(w.store->cleaner->hot_age, 0);
    overwrite(&w, 40000);
    assert_in_range(w.store->cleaner->hot_age, DISK / 1200, DISK / 300);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A cold copy. */
static int copy(struct world *w, unsigned class, uint32_t seed)
{
    char value[4000];
    struct record record = {
        .type = RECORD_SET, .lsn = 1 + seed, .epoch = 1, .key = BYTES("a copy"), .value = bytes_of(value, sizeof(value))};
    uint64_t address;

    world_fill(value, sizeof(value), seed);
    return store_log_cold_append(w->store->log, &record, class, &address);
}

/* The disk is full: what one stream has no segment for goes where another one has room, to the last byte. */
static void test_no_stream_starves_beside_another(void **state)
{
    struct world w;
    uint32_t count = 0, in_time = 0;

    (void)state;
    world_init(&w, 5, NULL);
    w.options.segment_size = SEGMENT;
    w.options.disk_max = 16 * SEGMENT;
    world_open(&w);
    sim_run_for(w.sim, 1000000);
    for (unsigned class = 1; class < 4; class++)
        assert_int_equal(copy(&w, class, class), 0);
    for (; count < 1000 && in_time < 20; count++) {
        int err = copy(&w, 0, count);

        in_time = err == 0 ? 0 : in_time + 1;
        if (err != 0) {
            assert_int_equal(err, -ENOSPC);
            sim_run_for(w.sim, 100000); /* for the next file */
        }
    }
    assert_true(count - in_time < 1000);
    for (uint32_t i = 0; i < store_log_segment_count(w.store->log); i++) {
        const struct segment_info *segment = store_log_segment(w.store->log, i);

        if (segment->kind == SEGMENT_COLD)
            assert_true(segment->record_bytes > SEGMENT * 3 / 4);
    }
    world_deinit(&w);
}

/* ---- sizes ------------------------------------------------------------------------------------ */

static unsigned count_of_size(struct world *w, uint64_t size)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++)
        count += store_log_segment(w->store->log, i)->size == size;
    return count;
}

static void test_the_size_by_default(void **state)
{
    const struct {
        uint64_t disk, file_system;
        uint32_t size;
    } cases[] = {
        {0, 0, 64u << 20},
        {16u << 20, 1ull << 40, 2u << 20},
        {512u << 20, 1ull << 40, 2u << 20},
        {2047ull << 20, 0, 2u << 20},
        {2048ull << 20, 0, 4u << 20},
        {5ull << 30, 0, 8u << 20},
        {100ull << 30, 1u << 20, 64u << 20},
        {1ull << 40, 0, 64u << 20},
        {0, 5ull << 30, 8u << 20},
        {0, 100ull << 30, 64u << 20},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct world w;

        world_init(&w, 6, NULL);
        w.options.segment_size = 0;
        w.options.disk_max = cases[i].disk;
        w.options.file_system = cases[i].file_system;
        world_open(&w);
        world_set(&w, 0, 1, 1, 10);
        store_turn_end(w.store);
        assert_int_equal(count_of_size(&w, cases[i].size), 1);
        world_deinit(&w);
    }
}

/* The setting changes, or `disk`: what there is goes on, and makes room for files of the new size by and by. */
static void test_another_size_than_before(void **state)
{
    const uint32_t sizes[] = {4 * SEGMENT, 2 * SEGMENT, 4 * SEGMENT, 8 * SEGMENT};
    struct world w;

    (void)state;
    world_init(&w, 7, NULL);
    w.options.disk_max = 2 * DISK;
    for (size_t i = 0; i < 2 * ARRAY_COUNT(sizes); i++) {
        struct store_stats stats;
        uint32_t before = w.options.segment_size;

        w.options.segment_size = sizes[i % ARRAY_COUNT(sizes)];
        world_open(&w);
        world_check(&w, UINT64_MAX);
        if (i > 0)
            assert_true(count_of_size(&w, before) > 0);
        for (uint16_t k = 20; k < 60; k++)
            world_set(&w, 0, k, k + (uint32_t)i, 500);
        overwrite(&w, 40000);
        world_check(&w, UINT64_MAX);
        store_stats_get(w.store, &stats);
        assert_true(stats.disk_bytes <= w.options.disk_max + 3 * w.options.segment_size);
        assert_int_equal(count_of_size(&w, before), before == w.options.segment_size ? stats.segments : 0);
        if (i % 2 == 0) {
            world_close(&w);
        } else {
            world_die(&w, false);
            world_forget_after(&w, w.marks.appended);
        }
    }
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_victim),
        cmocka_unit_test(test_which_never),
        cmocka_unit_test(test_which_stream),
        cmocka_unit_test(test_how_old_what_is_cleaned_gets),
        cmocka_unit_test(test_no_stream_starves_beside_another),
        cmocka_unit_test(test_the_size_by_default),
        cmocka_unit_test(test_another_size_than_before),
    };

    return cmocka_run_group_tests_name("store_plan", tests, NULL, NULL);
}
