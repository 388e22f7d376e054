/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cleaner takes along, and what it leaves behind, is judged by what is there after the next start: until then
 * memory knows better.
 */
#include "tests/unit/backend/store/store_world.h"

#define STAYING 24u

/* Overwrites of keys from WORLD_KEYS / 2 on. */
static void noise(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_set(w, 0, (uint16_t)(WORLD_KEYS / 2 + world_random(w, WORLD_KEYS / 2)), i + 1, 500);
        store_turn_end(w->store);
        sim_run_for(w->sim, 200);
    }
}

/* Of the keys that stay, those whose value was moved. */
static unsigned moved_count(struct world *w)
{
    unsigned count = 0;

    for (uint16_t k = 0; k < STAYING; k++) {
        const struct segment_info *info;
        struct store_key key;
        char name[32];

        store_find(w->store, 0, world_key(k, name), &key);
        assert_non_null(key.entry);
        info = store_log_segment_find(w->store->log, address_sequence(key.entry->address));
        assert_non_null(info);
        count += info->kind == SEGMENT_COLD;
    }
    return count;
}

/* Both versions of a value lie in the victim: only the newer one is moved. */
static void test_the_newest_version_is_moved(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 21, NULL);
    world_open(&w);
    for (uint16_t k = 0; k < STAYING; k++) {
        world_set(&w, 0, k, k + 1u, 300);
        world_set(&w, 0, k, k + 100u, 310);
        noise(&w, 30);
    }
    noise(&w, 5000);
    sim_run_for(w.sim, 2000000);
    assert_true(moved_count(&w) > STAYING / 2);
    world_close(&w);
    world_open(&w);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* ---- more keys than a checkpoint's page has ------------------------------------------------------ */

#define MANY 8000u

static void many_find(struct world *w, unsigned k, struct store_key *key, char name[32])
{
    assert_int_equal(world_find(w, 1, world_other_key(k, name), key), 0);
}

/* Between them, overwrites of a single key: what is dead in their segments. */
static void many_put(struct world *w)
{
    char name[32], value[120];
    struct store_key key;

    for (unsigned k = 0; k < MANY; k++) {
        world_fill(value, sizeof(value), k);
        many_find(w, k, &key, name);
        assert_int_equal(store_put_string(w->store, &key, bytes_of(value, sizeof(value)), NULL), 0);
        world_set(w, 0, 1, k + 1, 500);
        if (k % 4 == 0)
            store_turn_end(w->store);
        if (k % 16 == 0)
            sim_run_for(w->sim, 500);
    }
}

static unsigned many_moved(struct world *w)
{
    unsigned count = 0;

    for (unsigned k = 0; k < MANY; k++) {
        const struct segment_info *info;
        struct store_key key;
        char name[32];

        many_find(w, k, &key, name);
        info = store_log_segment_find(w->store->log, address_sequence(key.entry->address));
        assert_non_null(info);
        count += info->kind == SEGMENT_COLD;
    }
    return count;
}

static void many_check(struct world *w)
{
    char name[32], value[120];
    struct store_key key;

    for (unsigned k = 0; k < MANY; k++) {
        world_fill(value, sizeof(value), k);
        many_find(w, k, &key, name);
        assert_non_null(key.entry);
        assert_true(bytes_equal(store_string(key.entry), bytes_of(value, sizeof(value))));
    }
}

static void overwrite(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_set(w, 0, 1, i + 1, 500);
        store_turn_end(w->store);
        sim_run_for(w->sim, 200);
    }
}

/* Behind the last checkpoint values were moved and not changed. */
static void world_with_copies(struct world *w, uint64_t seed)
{
    unsigned before;

    world_init(w, seed, NULL);
    w->options.disk_max = 64u << 20; /* nothing is to be moved yet */
    world_open(w);
    many_put(w);
    world_checkpoint(w);
    before = many_moved(w);
    store_disk_max_set(w->store, 6u << 20);
    overwrite(w, 8000);
    assert_true(many_moved(w) > before + MANY / 10);
}

/* Values that were moved and not changed: the page that names them is written anew, for the place where they were is used
 * again. */
static void test_a_checkpoint_knows_what_was_moved(void **state)
{
    struct world w;

    (void)state;
    world_with_copies(&w, 22);
    for (unsigned i = 0; i < 3; i++) { /* the copies are behind where a recovery starts, the originals overwritten */
        world_checkpoint(&w);
        overwrite(&w, 1500);
    }
    world_checkpoint(&w);
    world_die(&w, true);
    world_open(&w);
    many_check(&w);
    world_deinit(&w);
}

struct last_copy {
    struct world *w;
    uint64_t address;
};

/* The last one in an open cold segment. */
static void last_copy_each(void *arg, struct entry *e)
{
    struct last_copy *last = arg;
    const struct segment_info *info = store_log_segment_find(last->w->store->log, address_sequence(e->address));

    if (info != NULL && info->kind == SEGMENT_COLD && info->state == SEGMENT_OPEN)
        last->address = MAX(last->address, e->address);
}

/* A cold segment is still open, and a checkpoint names what was copied there last. When that rots it is no torn write: a
 * file that would end before it would look empty, and be used again under the keys that are in it. */
static void test_a_damaged_copy_that_a_checkpoint_names_is_seen(void **state)
{
    struct world w;
    char path[64];
    struct last_copy last = {.w = &w};

    (void)state;
    world_with_copies(&w, 23);
    world_checkpoint(&w);
    index_page_each(w.store->index, 0, 0, last_copy_each, &last);
    assert_true(last.address != 0);
    (void)snprintf(path, sizeof(path), WORLD_DIR "/%06u.seg",
                   store_log_segment_find(w.store->log, address_sequence(last.address))->slot);
    world_die(&w, false);
    sim_disk_flip_bit(w.node, path, address_off(last.address) + RECORD_HEADER_SIZE, 3);
    assert_int_equal(world_try_open(&w), ERR_CORRUPT);
    world_give_up(&w);
    sim_disk_flip_bit(w.node, path, address_off(last.address) + RECORD_HEADER_SIZE, 3);
    world_open(&w);
    many_check(&w);
    world_deinit(&w);
}

static bool is_any_read(struct world *w)
{
    bool is_read = false;

    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++)
        is_read |= store_log_segment(w->store->log, i)->reads > 0;
    return is_read;
}

/* The store is closed while a victim is being read, by a disk that is slow to answer: what comes in when the log takes
 * nothing any more is not moved. */
static void test_closing_while_a_victim_is_read(void **state)
{
    unsigned hits = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 10; seed++) {
        struct world w;

        world_init(&w, seed, NULL);
        w.options.segment_size = 64u << 10;
        world_open(&w);
        for (uint16_t k = 0; k < STAYING; k++) {
            world_set(&w, 0, k, k + 1u, 300);
            noise(&w, 30);
        }
        for (unsigned i = 0; i < 2000 && !is_any_read(&w); i++) {
            sim_disk_stall(w.node, sim_now_us(w.sim) + 200000);
            if (i % 8 == 0)
                noise(&w, 1);
            MAYBE(sim_step(w.sim));
        }
        sim_disk_stall(w.node, 0); /* what was begun is slow, what follows is not */
        hits += is_any_read(&w);
        world_close(&w);
        world_open(&w);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
    assert_true(hits > 5);
}

/* ---- victims that cannot be read ------------------------------------------------------------------- */

struct lines {
    unsigned gave_up, corrupt;
};

static void line_seen(void *arg, int level, const char *line, size_t len)
{
    struct lines *lines = arg;

    MAYBE(level);
    lines->gave_up += memmem(line, len, "cannot be cleaned", 17) != NULL;
    lines->corrupt += memmem(line, len, "a segment does not verify", 25) != NULL;
}

enum harm { BIT_FLIPPED, READ_FAILS_ONCE, READ_FAILS, HARM_COUNT };

/* A segment in which a few values live cannot be read, or not at once. It stays as it is, and what is in it can be had
 * as far as it can be read; all others are cleaned as ever, writes find room, and the log is not flooded with it. */
static void test_a_victim_that_cannot_be_read(void **state)
{
    (void)state;
    for (unsigned harm = 0; harm < HARM_COUNT; harm++) {
        struct world w;
        struct lines lines = {0};
        struct log *text = log_create_sink(line_seen, &lines, LOG_INFO, "test");
        const struct segment_info *info;
        struct store_key key;
        uint64_t address, cleaned;
        char name[32], path[64];

        world_init(&w, 31, NULL);
        sim_node_log_set(w.node, text);
        w.options.segment_size = 64u << 10;
        w.options.disk_max = 24u * (64u << 10);
        world_open(&w);
        for (uint16_t k = 0; k < STAYING; k++) {
            world_set(&w, 0, k, k + 1u, 300);
            noise(&w, 30);
        }
        sim_run_for(w.sim, 3000000);
        store_find(w.store, 0, world_key(0, name), &key);
        address = key.entry->address;
        info = store_log_segment_find(w.store->log, address_sequence(address));
        assert_int_equal(info->state, SEGMENT_SEALED);
        (void)snprintf(path, sizeof(path), WORLD_DIR "/%06u.seg", info->slot);
        if (harm == BIT_FLIPPED)
            sim_disk_flip_bit(w.node, path, address_off(address) + RECORD_HEADER_SIZE + 100, 3);
        else
            sim_disk_fail(w.node, SIM_DISK_READ, path, -EIO, harm == READ_FAILS_ONCE ? 1 : 1000000);
        cleaned = w.store->stats.cleaner_segments;
        for (unsigned i = 0; i < 5000; i++) {
            assert_true(world_room_wait(&w, 4096));
            noise(&w, 1);
        }
        assert_true(w.store->stats.cleaner_segments > cleaned + 20);
        assert_true(lines.gave_up >= 1 && lines.gave_up <= 3);
        assert_int_equal(lines.corrupt > 0, harm == BIT_FLIPPED);
        store_find(w.store, 0, world_key(0, name), &key);
        assert_int_equal(key.entry->address == address, harm != READ_FAILS_ONCE);
        if (harm != READ_FAILS) {
            for (uint16_t k = 1; k < STAYING; k++) {
                store_find(w.store, 0, world_key(k, name), &key);
                assert_true(spill_entry(w.store, key.hash, &key.entry) > 0);
            }
        }
        world_check(&w, UINT64_MAX);
        assert_false(w.store->stats.is_read_only);
        world_deinit(&w);
        log_destroy(&text);
    }
}

/* ---- the scrubber --------------------------------------------------------------------------------- */

/* What nobody reads is read all the same, a piece a minute at most: damage of it is counted and told, once a round, and
 * harms nothing else. */
static void test_damage_that_nobody_reads_is_found(void **state)
{
    enum { LEN = 4000, ROUND_US = 1800 * 1000000 };
    struct world w;
    struct lines lines = {0};
    struct log *text = log_create_sink(line_seen, &lines, LOG_INFO, "test");
    const struct segment_info *info;
    struct store_key key;
    uint64_t seen;
    char name[32], path[64];

    (void)state;
    world_init(&w, 37, NULL);
    sim_node_log_set(w.node, text);
    w.options.segment_size = 64u << 10;
    world_open(&w);
    for (uint16_t k = 0; k < WORLD_KEYS; k++) {
        world_set(&w, 0, k, k + 1u, LEN);
        store_turn_end(w.store);
        sim_run_for(w.sim, 1000);
    }
    sim_run_for(w.sim, ROUND_US);
    seen = w.store->stats.scrubbed_bytes;
    assert_true(seen > (WORLD_KEYS - 20) * LEN);
    assert_int_equal(w.store->stats.corrupt_records + lines.corrupt, 0);

    store_find(w.store, 0, world_key(0, name), &key);
    info = store_log_segment_find(w.store->log, address_sequence(key.entry->address));
    assert_int_equal(info->state, SEGMENT_SEALED);
    (void)snprintf(path, sizeof(path), WORLD_DIR "/%06u.seg", info->slot);
    sim_disk_flip_bit(w.node, path, address_off(key.entry->address) + RECORD_HEADER_SIZE + 100, 3);
    sim_run_for(w.sim, ROUND_US);
    assert_true(w.store->stats.scrubbed_bytes > seen + (WORLD_KEYS - 40) * LEN);
    assert_true(w.store->stats.corrupt_records > 0 && w.store->stats.corrupt_records <= 10);
    assert_true(lines.corrupt > 0);
    world_check(&w, UINT64_MAX); /* the value is in memory still */
    assert_false(w.store->stats.is_read_only);
    world_deinit(&w);
    log_destroy(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_newest_version_is_moved),
        cmocka_unit_test(test_a_checkpoint_knows_what_was_moved),
        cmocka_unit_test(test_a_damaged_copy_that_a_checkpoint_names_is_seen),
        cmocka_unit_test(test_closing_while_a_victim_is_read),
        cmocka_unit_test(test_a_victim_that_cannot_be_read),
        cmocka_unit_test(test_damage_that_nobody_reads_is_found),
    };

    return cmocka_run_group_tests_name("store_cleaner", tests, NULL, NULL);
}
