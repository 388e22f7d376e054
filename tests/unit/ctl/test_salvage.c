/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl salvage over damage at a known place: what comes out, what is lost, and that it is whole again.
 */
#include "tests/unit/ctl/ctl_test.h"

#include "backend/store/key_hash.h"

#define KEYS  300u
#define TWICE 40u /* keys below were written a second time */

struct place {
    uint64_t address;
    size_t size;
};

struct fixture {
    struct folder folder;
    unsigned shards;
    char in[96], out[96];
    struct place places[2][KEYS + TWICE];
    uint32_t seen[2][KEYS]; /* version + 1; 0: not there */
    char *told;             /* owns */
};

static size_t value_len(uint32_t number)
{
    return number % 50 == 7 ? 3000 : 20 + number % 60;
}

static struct bytes value_of(uint32_t number, uint32_t version, char out[4096])
{
    size_t len = value_len(number);

    for (size_t i = 0; i < len; i++)
        out[i] = (char)('a' + (number * 7 + version * 3 + i) % 26);
    return bytes_of(out, len);
}

static struct place put(struct world *w, uint32_t number, uint32_t version)
{
    char key[32], value[4096];
    int len = snprintf(key, sizeof(key), "key:%u", number);
    struct record record = {.type = RECORD_SET, .value_type = STORE_STRING, .key = bytes_of(key, (size_t)len)};
    struct place place;

    record.value = value_of(number, version, value);
    record.slot = key_slot(record.key);
    world_room_wait(w);
    assert_int_equal(store_log_append(w->log, &record, &place.address), 0);
    place.size = record_size(&record);
    if (number % 7 == 0)
        store_log_turn_end(w->log);
    if (number % 40 == 0)
        assert_int_equal(world_flush(w), 0);
    return place;
}

static void shard_dir(const char *parent, unsigned shard, char out[160])
{
    (void)snprintf(out, 160, "%s/shard-%u", parent, shard);
}

static void shard_write(struct fixture *f, unsigned shard)
{
    struct world w;
    char dir[160];

    world_init(&w, 20 + shard);
    w.options.shard = shard;
    w.options.shard_count = f->shards;
    assert_int_equal(world_start(&w), 0);
    for (uint32_t i = 0; i < KEYS; i++)
        f->places[shard][i] = put(&w, i, 0);
    assert_int_equal(world_flush(&w), 0);
    for (uint32_t i = 0; i < TWICE; i++)
        f->places[shard][KEYS + i] = put(&w, i, 1);
    assert_int_equal(world_close(&w), 0);
    shard_dir(f->in, shard, dir);
    world_dump(&w, dir);
    world_deinit(&w);
}

static void fixture_make(struct fixture *f, unsigned shards)
{
    *f = (struct fixture){.shards = shards};
    folder_make(&f->folder);
    (void)snprintf(f->in, sizeof(f->in), "%s", f->folder.in);
    (void)snprintf(f->out, sizeof(f->out), "%s/out", f->folder.path);
    for (unsigned i = 0; i < shards; i++)
        shard_write(f, i);
}

static void fixture_end(struct fixture *f)
{
    folder_remove(&f->folder, f->shards);
    mem_free(f->told);
}

/* Turns over a byte of that record, `from_end` before its end, or of its segment. */
static void damage(struct fixture *f, unsigned shard, const struct place *place, uint64_t from_end, bool is_header)
{
    struct report report = {.out = stderr};
    uint64_t sequence = address_sequence(place->address), off = address_off(place->address);
    struct shard opened;
    char dir[160];
    bool is_found = false;

    shard_dir(f->in, shard, dir);
    assert_int_equal(shard_open(dir, &report, &opened), 0);
    for (uint32_t i = 0; i < opened.count; i++) {
        if (opened.segments[i].is_free || opened.segments[i].sequence != sequence)
            continue;
        file_flip(dir, opened.segments[i].name, is_header ? 100 : off + place->size - from_end);
        is_found = true;
    }
    assert_true(is_found);
    shard_close(&opened);
}

/* Runs it with what it says kept. */
static int salvage(struct fixture *f)
{
    return salvage_run(f->in, f->out, &f->told);
}

static void record_seen(struct fixture *f, unsigned shard, const struct record *record)
{
    char key[32], value[4096];
    uint64_t number;

    if (record->type != RECORD_SET) { /* NOP, SWAP: no key */
        assert_int_equal(record->key.len, 0);
        return;
    }
    (void)snprintf(key, sizeof(key), "%.*s", BYTES_ARG(record->key));
    assert_true(bytes_to_u64(bytes_of_string(key + 4), KEYS - 1, &number));
    for (uint32_t version = 0; version < 2; version++)
        if (bytes_equal(record->value, value_of((uint32_t)number, version, value)))
            f->seen[shard][number] = version + 1;
    assert_true(f->seen[shard][number] > 0);
}

static void page_seen(struct fixture *f, unsigned shard, const struct shard_page *page)
{
    struct bytes rest = bytes_skip(page->data, PAGE_HEADER_SIZE);

    while (rest.len > 0) {
        struct frame frame;
        struct bytes records;

        assert_true(frame_decode(rest, &frame));
        for (records = frame_records(rest, &frame); records.len > 0;) {
            struct record record;
            size_t size = record_decode(records, &record);

            assert_true(size > 0);
            record_seen(f, shard, &record);
            records = bytes_skip(records, size);
        }
        rest = bytes_skip(rest, frame.size);
    }
}

/* What came out verifies; f->seen says what it is. */
static void read_out(struct fixture *f)
{
    FILE *out = nowhere();

    for (unsigned shard = 0; shard < f->shards; shard++) {
        struct report report = {.out = out};
        struct shard opened;
        char dir[160];

        shard_dir(f->out, shard, dir);
        assert_int_equal(verify_directory(dir, out), VERIFY_CLEAN);
        assert_int_equal(shard_open(dir, &report, &opened), 0);
        for (uint32_t i = 0; i < opened.count; i++) {
            const struct shard_segment *segment = &opened.segments[i];
            struct shard_page page;
            bool has_header;

            if (segment->is_free)
                continue;
            assert_int_equal(shard_load(&opened, segment), 0);
            for (uint64_t off = PAGE_SIZE_; off < shard_segment_end(&opened, segment); off += page_size(&page.page)) {
                assert_null(shard_page_at(&opened, segment, off, &page, &has_header));
                page_seen(f, shard, &page);
            }
        }
        shard_close(&opened);
    }
    (void)fclose(out);
}

/* All keys of the shard with their newest value, but that one; which has `version`, -1: it is lost. */
static void has_all_but(const struct fixture *f, unsigned shard, uint32_t number, int version)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t newest = i < TWICE ? 2 : 1;

        if (f->seen[shard][i] != (i == number ? (uint32_t)(version + 1) : newest))
            fail_msg("shard %u: key %u: version %d", shard, i, (int)f->seen[shard][i] - 1);
    }
}

static void test_without_damage_all_of_it_is_there(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f, 1);
    assert_int_equal(salvage(&f), CTL_OK);
    assert_non_null(strstr(f.told, "all of it is there"));
    read_out(&f);
    has_all_but(&f, 0, KEYS, -1);
    fixture_end(&f);
}

/* Only the record itself is lost: not the others of its frame and page write, before or behind it. */
static void test_a_damaged_record_is_lost_alone(void **state)
{
    static const uint32_t numbers[] = {50, 107, 299};
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        fixture_make(&f, 1);
        damage(&f, 0, &f.places[0][numbers[i]], value_len(numbers[i]), false);
        assert_int_equal(salvage(&f), CTL_OK);
        assert_non_null(strstr(f.told, "damage: file="));
        assert_null(strstr(f.told, "all of it is there"));
        read_out(&f);
        has_all_but(&f, 0, numbers[i], -1);
        fixture_end(&f);
    }
}

/* Without a checkpoint nobody knows that there was a newer one: the value from before, and the gap is told. */
static void test_the_value_before_a_damaged_one(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f, 1);
    damage(&f, 0, &f.places[0][KEYS + 15], value_len(15), false);
    assert_int_equal(salvage(&f), CTL_OK);
    assert_non_null(strstr(f.told, "damage: file="));
    read_out(&f);
    has_all_but(&f, 0, 15, 0);
    fixture_end(&f);
}

/* A header says nothing that the page writes behind it do not say. */
static void test_a_damaged_header_loses_nothing(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f, 1);
    damage(&f, 0, &f.places[0][50], 0, true);
    assert_int_equal(salvage(&f), CTL_OK);
    read_out(&f);
    has_all_but(&f, 0, KEYS, -1);
    fixture_end(&f);
}

static void test_two_damaged_shards_lose_their_own(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f, 2);
    damage(&f, 0, &f.places[0][60], 5, false);
    damage(&f, 1, &f.places[1][200], 5, false);
    assert_int_equal(salvage(&f), CTL_OK);
    read_out(&f);
    has_all_but(&f, 0, 60, -1);
    has_all_but(&f, 1, 200, -1);
    fixture_end(&f);
}

/* The node would not start with one shard less. */
static void test_a_missing_shard_comes_out_empty(void **state)
{
    struct fixture f;
    char dir[160];

    (void)state;
    fixture_make(&f, 2);
    shard_dir(f.in, 0, dir);
    assert_int_equal(tree_remove(dir), 0);
    assert_int_equal(salvage(&f), CTL_OK);
    assert_non_null(strstr(f.told, "shard 0 was missing"));
    read_out(&f);
    has_all_but(&f, 1, KEYS, -1);
    for (uint32_t i = 0; i < KEYS; i++)
        assert_int_equal(f.seen[0][i], 0);
    fixture_end(&f);
}

/* The shard's own file has its identity and the seed of its hashes: segments know the first, and a new seed does. */
static void test_a_damaged_shard_file_loses_nothing(void **state)
{
    struct fixture f;
    char dir[160];

    (void)state;
    fixture_make(&f, 1);
    shard_dir(f.in, 0, dir);
    file_flip(dir, "shard", 20);
    assert_int_equal(salvage(&f), CTL_OK);
    read_out(&f);
    has_all_but(&f, 0, KEYS, -1);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_damage_all_of_it_is_there),
        cmocka_unit_test(test_a_damaged_record_is_lost_alone),
        cmocka_unit_test(test_the_value_before_a_damaged_one),
        cmocka_unit_test(test_a_damaged_header_loses_nothing),
        cmocka_unit_test(test_two_damaged_shards_lose_their_own),
        cmocka_unit_test(test_a_missing_shard_comes_out_empty),
        cmocka_unit_test(test_a_damaged_shard_file_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
