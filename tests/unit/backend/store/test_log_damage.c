/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that lies: flipped bits, stale and misdirected reads and writes, cut and swapped files. What comes out is
 * right, or an error with file and offset; never a wrong record, never less than was durable without a word.
 */
#include "tests/unit/backend/store/log_test.h"

#include "backend/store/segment.h"

/* A few segments of everything; closed, or killed when all was durable. */
static void fill(struct world *w, uint64_t seed, bool is_closed)
{
    world_init(w, seed);
    w->options.ring_path = NULL;
    assert_int_equal(world_start(w), 0);
    for (int i = 0; i < 150; i++) {
        if (i % 10 == 0)
            world_transaction(w, 3);
        else
            assert_int_equal(world_append(w), 0);
        if (i % 4 == 0)
            store_log_turn_end(w->log);
        if (i % 9 == 0)
            world_copy_cold(w, (uint32_t)(draw(w) % w->count));
        if (i % 20 == 0)
            assert_int_equal(world_flush(w), 0);
    }
    assert_int_equal(world_flush(w), 0);
    if (is_closed) {
        assert_int_equal(world_close(w), 0);
        return;
    }
    world_crash(w, true);
}

struct names {
    char path[64][64];
    uint32_t count;
};

static void name_each(void *arg, const char *path)
{
    struct names *names = arg;

    if (strncmp(path, LOG_DIR "/", sizeof(LOG_DIR)) != 0 || strstr(path, "lock") != NULL || names->count == 64)
        return;
    (void)snprintf(names->path[names->count++], 64, "%s", path);
}

/* All of it is right, or refused. `tail` records at the end may be gone: without a footer nothing but the next page
 * write knows that the last was durable. */
static bool check(struct world *w, uint32_t tail)
{
    struct model_record *model = w->model;
    uint32_t count = w->count;
    int err = world_start(w);

    if (err != 0) {
        assert_true(err == ERR_CORRUPT || err == ERR_INVALID);
        assert_true(w->corrupt_lines > 0);
        return false;
    }
    assert_int_equal(w->wrong, 0);
    assert_true(w->seen_count <= count && w->seen_count + tail >= count);
    for (uint32_t i = 0; i < w->seen_count; i++) {
        bool is_right;

        assert_int_equal(w->seen[i].lsn, model[i].lsn);
        assert_int_equal(w->seen[i].draw, model[i].draw);
        if (i % 16 == 0) {
            err = world_read(w, i, &is_right);
            assert_true(err == ERR_CORRUPT || is_right);
        }
    }
    return true;
}

static void test_a_flipped_bit_is_seen_or_harmless(void **state)
{
    uint32_t refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct names names = {0};
        struct world w;
        uint64_t off;
        char *path;
        ssize_t size;

        fill(&w, seed, seed % 2 == 0);
        sim_disk_each(w.node, true, name_each, &names);
        do {
            path = names.path[draw(&w) % names.count];
            size = sim_disk_size(w.node, path, true);
        } while (size <= 0); /* one that was being made */
        off = draw(&w) % 3 == 0 ? draw(&w) % 512 : draw(&w) % MIN((uint64_t)size, 65536u);
        sim_disk_flip_bit(w.node, path, off, (unsigned)(draw(&w) % 8));
        refused += !check(&w, seed % 2 == 0 ? 0 : 40);
        world_deinit(&w);
    }
    assert_in_range(refused, 20, 110);
}

static void test_a_record_that_rots_later_is_told_when_read(void **state)
{
    struct world w;
    uint32_t told = 0;
    char path[64];

    (void)state;
    fill(&w, 7, true);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    for (uint32_t i = 0; i < w.count; i += 5) {
        const struct segment_info *info = store_log_segment_find(w.log, address_sequence(w.model[i].address));
        uint64_t off = address_off(w.model[i].address) + draw(&w) % 40; /* header, key */
        bool is_right;

        (void)snprintf(path, sizeof(path), LOG_DIR "/%06u.seg", info->slot);
        sim_disk_flip_bit(w.node, path, off, (unsigned)(draw(&w) % 8));
        assert_int_equal(world_read(&w, i, &is_right), ERR_CORRUPT);
        assert_non_null(strstr(w.last_line, path));
        told++;
    }
    assert_true(told > 20);
    world_deinit(&w);
}

/* Segments are read as they were when they had half of their records: a record that is newer than that is refused, an older
 * one is right. */
static void test_stale_reads_give_no_wrong_record(void **state)
{
    struct names names = {0};
    struct world w;
    uint32_t refused = 0, right = 0, half;

    (void)state;
    world_init(&w, 12);
    assert_int_equal(world_start(&w), 0);
    for (half = 0; half < 40; half++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    sim_disk_each(w.node, false, name_each, &names);
    for (uint32_t i = 0; i < names.count; i++)
        if (strstr(names.path[i], ".seg") != NULL)
            sim_disk_stale_mark(w.node, names.path[i]);
    for (uint32_t i = half; i < 120; i++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    for (uint32_t i = 0; i < w.count; i++) {
        bool is_right;
        int err;

        for (uint32_t n = 0; n < names.count; n++)
            if (strstr(names.path[n], ".seg") != NULL)
                sim_disk_stale_reads(w.node, names.path[n], 2);
        err = world_read(&w, i, &is_right);
        assert_int_equal(err, i < half ? 0 : ERR_CORRUPT);
        assert_true(err != 0 || is_right);
        refused += err != 0;
        right += err == 0;
    }
    assert_int_equal(right, half);
    assert_int_equal(refused, w.count - half);
    assert_true(w.corrupt_lines >= refused);
    world_deinit(&w);
}

static void test_misdirected_reads_give_no_wrong_record(void **state)
{
    struct world w;
    char path[64];
    uint32_t refused = 0;

    (void)state;
    fill(&w, 8, true);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    for (uint32_t i = 0; i < w.count; i++) {
        const struct segment_info *info = store_log_segment_find(w.log, address_sequence(w.model[i].address));
        int64_t shift = 16 * (int64_t)(1 + draw(&w) % 2000);
        bool is_right;
        int err;

        (void)snprintf(path, sizeof(path), LOG_DIR "/%06u.seg", info->slot);
        sim_disk_misdirect_read(w.node, path, draw(&w) % 2 == 0 ? shift : -shift);
        err = world_read(&w, i, &is_right);
        assert_true(err == 0 || err == ERR_CORRUPT);
        refused += err != 0;
        if (err == 0 && !is_right) { /* another whole record: the caller's key or LSN tells */
            struct world_read r = {
                .read = {.address = w.model[i].address, .done = world_read_done, .key = BYTES("otherkey")},
            };

            store_log_read(w.log, &r.read);
            assert_true(sim_run_while_not(w.sim, &r.is_done, 100 * (uint64_t)SECOND));
            assert_int_equal(r.err, ERR_CORRUPT);
        }
    }
    assert_true(refused > w.count / 2);
    world_deinit(&w);
}

/* A write that went elsewhere leaves a hole where it belongs and covers what does not belong there. */
static void test_a_misdirected_write_is_seen(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world w;
        const struct segment_info *info;
        int64_t pages;
        char path[64];

        world_init(&w, seed);
        w.options.ring_path = NULL;
        assert_int_equal(world_start(&w), 0);
        for (int i = 0; i < 30; i++)
            assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        info = store_log_segment_find(w.log, store_log_hot_sequence(w.log));
        (void)snprintf(path, sizeof(path), LOG_DIR "/%06u.seg", info->slot);
        pages = (int64_t)(1 + draw(&w) % 4);
        sim_disk_misdirect_write(w.node, path, 4096 * (seed % 2 == 0 ? pages : -pages));
        for (int i = 0; i < 60; i++) {
            assert_int_equal(world_append(&w), 0);
            if (i % 10 == 0)
                assert_int_equal(world_flush(&w), 0);
        }
        assert_int_equal(world_close(&w), 0);
        assert_false(check(&w, 0)); /* at least the hole is seen: the segment has a footer */
        world_deinit(&w);
    }
}

/* Whether the log cannot do without what a cut takes: a segment that has a header, or less than any has. */
static bool is_missed(const struct world *w, const char *path, uint64_t size)
{
    struct segment_header header;
    char page[4096];

    if (sim_disk_size(w->node, path, true) <= (ssize_t)size)
        return false;
    if (size < 3 * sizeof(page) || strstr(path, ".seg") == NULL)
        return true;
    assert_int_equal(sim_disk_peek(w->node, path, true, page, sizeof(page), 0), sizeof(page));
    return segment_header_decode(page, &header);
}

static void test_cut_files_are_refused(void **state)
{
    static const uint64_t sizes[] = {512, 8192, 16384};
    uint32_t refused = 0, harmless = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct names names = {0};
        struct world w;
        uint64_t size = sizes[seed % ARRAY_COUNT(sizes)];
        bool is_refused;
        char *path;

        fill(&w, seed, true);
        sim_disk_each(w.node, true, name_each, &names);
        path = names.path[draw(&w) % names.count];
        is_refused = is_missed(&w, path, size);
        sim_disk_cut_file(w.node, path, size);
        assert_int_equal(!check(&w, 0), is_refused);
        refused += is_refused;
        harmless += !is_refused;
        world_deinit(&w);
    }
    assert_true(refused > 30 && harmless > 5);
}

/* A file is empty, as one that was being made: all of them, one after the other. A hot one is missed, the newest by what a
 * checkpoint knows. Of a cold one the log alone knows nothing: all hot records are there. */
static void test_lost_files_are_missed(void **state)
{
    uint32_t missed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint32_t count = 1;

        for (uint32_t at = 0; at < count; at++) {
            struct names names = {0};
            struct world w;
            struct segment_header header;
            char page[4096] = {0}, *path = names.path[at];
            bool is_hot, is_opened;

            fill(&w, seed, true);
            w.durable_lsn = w.model[w.count - 1].lsn;
            sim_disk_each(w.node, true, name_each, &names);
            count = names.count;
            assert_true(sim_disk_peek(w.node, path, true, page, sizeof(page), 0) >= 0);
            is_hot = segment_header_decode(page, &header) &&
                     (header.kind == SEGMENT_HOT || (header.flags & SEGMENT_IS_HOT) != 0);
            sim_disk_cut_file(w.node, path, 0);
            is_opened = check(&w, 0);
            assert_true(is_opened != (is_hot || strstr(path, ".seg") == NULL));
            missed += is_hot;
            world_deinit(&w);
        }
    }
    assert_true(missed > 6);
}

/* Another directory's segment put in here. */
static void test_a_foreign_segment_is_refused(void **state)
{
    struct world a, b;
    static char bytes[256 << 10];

    (void)state;
    fill(&a, 3, true);
    fill(&b, 4, true);
    assert_int_equal(sim_disk_peek(b.node, LOG_DIR "/000001.seg", true, bytes, sizeof(bytes), 0), sizeof(bytes));
    sim_disk_put(a.node, LOG_DIR "/000001.seg", bytes_of(bytes, sizeof(bytes)));
    assert_int_equal(world_open(&a), ERR_CORRUPT);
    assert_non_null(strstr(a.last_line, "another directory"));
    world_deinit(&a);
    world_deinit(&b);
}

/* The newest segment's first page write rots, and it has no footer yet. What its other page writes know was durable: so
 * it is not taken for one that was never begun. With nothing behind it, it looks as a torn one does. */
static void test_a_damaged_start_of_the_newest_segment_is_seen(void **state)
{
    (void)state;
    for (unsigned pages = 1; pages <= 3; pages++) {
        static const char zeros[4096];
        const struct segment_info *info;
        struct world w;
        char path[64];
        uint64_t sequence;

        world_init(&w, pages);
        w.options.ring_path = NULL;
        assert_int_equal(world_start(&w), 0);
        for (int i = 0; i < 20; i++)
            assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        sequence = store_log_hot_sequence(w.log);
        while (store_log_hot_sequence(w.log) == sequence) {
            assert_int_equal(world_append(&w), 0);
            store_log_turn_end(w.log);
        }
        assert_int_equal(world_flush(&w), 0);
        for (unsigned i = 1; i < pages; i++) {
            assert_int_equal(world_append(&w), 0);
            assert_int_equal(world_flush(&w), 0);
        }
        info = store_log_segment_find(w.log, store_log_hot_sequence(w.log));
        (void)snprintf(path, sizeof(path), LOG_DIR "/%06u.seg", info->slot);
        world_crash(&w, true);
        sim_disk_overwrite(w.node, path, 4096, bytes_of(zeros, sizeof(zeros)));
        if (pages == 1) {
            assert_int_equal(world_start(&w), 0);
        } else {
            assert_int_equal(world_start(&w), ERR_CORRUPT);
            assert_non_null(strstr(w.last_line, "store: the log cannot be recovered"));
            assert_true(w.corrupt_lines >= 2); /* the first one says where */
        }
        world_deinit(&w);
    }
}

/* A recovery that begins where segments were given back, as from an older checkpoint, must not take what is left for all
 * there is: also when nothing was written since the last flush, so that no page write knows of it. */
static void test_a_log_whose_start_was_given_back_is_refused(void **state)
{
    struct world w;
    uint64_t first;

    (void)state;
    world_init(&w, 11);
    w.options.fsync = STORE_FSYNC_NO;
    w.options.ring_path = NULL;
    assert_int_equal(world_start(&w), 0);
    assert_int_equal(world_append(&w), 0);
    first = store_log_hot_sequence(w.log);
    for (unsigned rolls = 0; rolls < 2;) {
        uint64_t sequence = store_log_hot_sequence(w.log);

        assert_int_equal(world_append(&w), 0);
        store_log_turn_end(w.log);
        rolls += store_log_hot_sequence(w.log) != sequence;
    }
    assert_int_equal(world_flush(&w), 0);
    sim_run_for(w.sim, SECOND);
    for (uint32_t i = 0; i < store_log_segment_count(w.log); i++)
        if (store_log_segment(w.log, i)->sequence < store_log_hot_sequence(w.log))
            store_log_cleaned(w.log, store_log_segment(w.log, i)->sequence);
    store_log_release(w.log, store_log_hot_sequence(w.log), store_log_cold_sequence(w.log));
    sim_run_for(w.sim, SECOND);
    world_crash(&w, true);
    w.hot_from = first;
    assert_int_equal(world_start(&w), ERR_CORRUPT);
    assert_true(w.corrupt_lines >= 2);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flipped_bit_is_seen_or_harmless),
        cmocka_unit_test(test_a_record_that_rots_later_is_told_when_read),
        cmocka_unit_test(test_stale_reads_give_no_wrong_record),
        cmocka_unit_test(test_misdirected_reads_give_no_wrong_record),
        cmocka_unit_test(test_a_misdirected_write_is_seen),
        cmocka_unit_test(test_cut_files_are_refused),
        cmocka_unit_test(test_lost_files_are_missed),
        cmocka_unit_test(test_a_foreign_segment_is_refused),
        cmocka_unit_test(test_a_damaged_start_of_the_newest_segment_is_seen),
        cmocka_unit_test(test_a_log_whose_start_was_given_back_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
