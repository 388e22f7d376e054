/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint that names a place in a segment which is gone: whether verify takes it for damage, and whether salvage
 * calls the key lost, for everything that the log may say of the key.
 */
#include "tests/unit/ctl/ctl_checkpoint.h"

#include "backend/store/key_hash.h"

#define KEY "named"
#define DB  2u

enum step {
    STEP_NONE,
    STEP_HOT_OLD,        /* before the checkpoint, beside the place that it names: what that is a copy of, */
    STEP_COPY_OLD,       /* another copy */
    STEP_COPY,           /* since */
    STEP_SET,
    STEP_SET_OTHER_KEY,
    STEP_SET_OTHER_DB,
    STEP_TOMB,
    STEP_TOMB_OTHER_DB,
    STEP_FLUSH,
    STEP_FLUSH_OTHER_DB,
    STEP_FLUSH_ALL,
    STEP_SWAP,
    STEP_DELTA,          /* of the value that the place has */
    STEP_DELTA_CREATES,
    STEP_IMAGE,          /* of what was there when the checkpoint began */
    STEP_IMAGE_DELTA,    /* of what the last delta made */
    STEP_IMAGE_OTHER,    /* of an earlier life */
};

struct gone_case {
    const char *what;
    bool has_chain;      /* the checkpoint knows of a delta as well */
    enum step steps[3];
    bool is_damage, is_lost;
};

struct fixture {
    struct world w;
    struct folder folder;
    char dir[96], out[96];
    struct checkpoint_meta meta;
    struct checkpoint_key key;
    uint64_t last_lsn; /* of the key's records in the hot log */
};

/* ---- what the log has ------------------------------------------------------------------------- */

static struct record record_make(uint8_t type, uint8_t db, const char *key)
{
    struct record record = {.type = type, .db = db, .value_type = STORE_STRING, .value = BYTES("of some length")};

    if (key != NULL) {
        record.key = bytes_of_string(key);
        record.slot = key_slot(record.key);
    }
    if (type == RECORD_TOMB || type == RECORD_FLUSH)
        record.value = bytes_of("", 0);
    return record;
}

static uint64_t hot_put(struct fixture *f, struct record record)
{
    uint64_t address;

    world_room_wait(&f->w);
    assert_int_equal(store_log_append(f->w.log, &record, &address), 0);
    store_log_turn_end(f->w.log);
    return record.lsn;
}

static uint64_t cold_put(struct fixture *f, struct record record, uint64_t lsn, unsigned class)
{
    uint64_t address;
    int err = -ENOSPC;

    record.lsn = lsn;
    record.epoch = 1;
    for (int tries = 0; err == -ENOSPC && tries < 1000; tries++) {
        err = store_log_cold_append(f->w.log, &record, class, &address);
        if (err == -ENOSPC)
            sim_run_for(f->w.sim, 1000); /* until the next segment's file is there */
    }
    assert_int_equal(err, 0);
    return address;
}

static void delta_put(struct fixture *f, uint64_t base)
{
    struct record record = record_make(RECORD_DELTA, DB, KEY);

    record.value_type = STORE_HASH;
    record.base_lsn = base;
    f->last_lsn = hot_put(f, record);
}

static void image_put(struct fixture *f, uint64_t base, uint64_t lsn)
{
    struct record record = record_make(RECORD_IMAGE, DB, KEY);

    record.value_type = STORE_HASH;
    record.base_lsn = base;
    MAYBE(cold_put(f, record, lsn, 1) > 0);
}

static void step_do(struct fixture *f, enum step step)
{
    uint64_t place_lsn = f->key.has_chain ? f->key.image_lsn : f->key.lsn;
    struct record swap = {.type = RECORD_SWAP, .value = bytes_of("\2\1\0\3\4\5\6\7\10\11\12\13\14\15\16\17", 16)};

    switch (step) {
    case STEP_NONE:
    case STEP_HOT_OLD:
    case STEP_COPY_OLD: break;
    case STEP_COPY: MAYBE(cold_put(f, record_make(RECORD_SET, DB, KEY), place_lsn, 1) > 0); break;
    case STEP_SET: f->last_lsn = hot_put(f, record_make(RECORD_SET, DB, KEY)); break;
    case STEP_SET_OTHER_KEY: hot_put(f, record_make(RECORD_SET, DB, KEY "-not")); break;
    case STEP_SET_OTHER_DB: hot_put(f, record_make(RECORD_SET, DB + 1, KEY)); break;
    case STEP_TOMB: hot_put(f, record_make(RECORD_TOMB, DB, KEY)); break;
    case STEP_TOMB_OTHER_DB: hot_put(f, record_make(RECORD_TOMB, DB + 1, KEY)); break;
    case STEP_FLUSH: hot_put(f, record_make(RECORD_FLUSH, DB, NULL)); break;
    case STEP_FLUSH_OTHER_DB: hot_put(f, record_make(RECORD_FLUSH, DB + 1, NULL)); break;
    case STEP_FLUSH_ALL: hot_put(f, record_make(RECORD_FLUSH, STORE_DBS, NULL)); break;
    case STEP_SWAP: hot_put(f, swap); break;
    case STEP_DELTA: delta_put(f, f->key.has_chain ? f->key.base_lsn : place_lsn); break;
    case STEP_DELTA_CREATES: delta_put(f, 0); break;
    case STEP_IMAGE: image_put(f, f->key.base_lsn, f->key.lsn); break;
    case STEP_IMAGE_DELTA: image_put(f, f->key.has_chain ? f->key.base_lsn : place_lsn, f->last_lsn); break;
    case STEP_IMAGE_OTHER: image_put(f, 1, place_lsn - 1); break;
    }
}

/* ---- the directory ---------------------------------------------------------------------------- */

/* Other keys' records, the named one, and the copy of it that the checkpoint is going to name. */
static void before_write(struct fixture *f, const struct gone_case *c)
{
    struct record set = record_make(RECORD_SET, DB, KEY);
    uint64_t lsn, address;

    for (unsigned i = 0; i < 5; i++)
        hot_put(f, record_make(RECORD_SET, DB, "not-named"));
    /* Else it was in another segment: all that is left of it is an LSN that others do not have. */
    lsn = hot_put(f, c->steps[0] == STEP_HOT_OLD ? set : record_make(RECORD_NOP, 0, NULL));
    f->key = (struct checkpoint_key){
        .address = cold_put(f, set, lsn, 0), .lsn = lsn, .type = STORE_STRING, .db = DB, .key = BYTES(KEY),
        .value_len = (uint32_t)set.value.len,
    };
    /* Another open segment, with something before its mark. */
    sim_run_for(f->w.sim, SECOND); /* its file is there */
    if (c->steps[0] == STEP_COPY_OLD)
        address = cold_put(f, set, lsn, 1);
    else
        address = cold_put(f, record_make(RECORD_SET, DB, "not-named"), 1, 1);
    assert_true(address_sequence(address) != address_sequence(f->key.address));
    if (c->has_chain) {
        f->key.has_chain = true;
        f->key.image_lsn = f->key.base_lsn = lsn;
        delta_put(f, lsn);
        f->key.lsn = f->last_lsn;
    }
    assert_int_equal(world_flush(&f->w), 0);
}

static void fixture_make(struct fixture *f, const struct gone_case *c)
{
    struct world *w = &f->w;

    *f = (struct fixture){.last_lsn = 0};
    folder_make(&f->folder);
    (void)snprintf(f->dir, sizeof(f->dir), "%s/shard-0", f->folder.in);
    (void)snprintf(f->out, sizeof(f->out), "%s/out", f->folder.path);
    world_init(w, 3);
    w->options.shard = 0;
    w->options.shard_count = 1;
    assert_int_equal(world_start(w), 0);
    before_write(f, c);
    f->meta = (struct checkpoint_meta){
        .lsn = store_log_last_lsn(w->log), .epoch = 1, .wall_ms = 1, .hot_from = store_log_hot_sequence(w->log),
        .cold_from = store_log_cold_sequence(w->log), .next_sequence = store_log_next_sequence(w->log),
    };
    for (uint8_t db = 0; db < STORE_DBS; db++)
        f->meta.places[db] = db;
    store_log_cold_marks(w->log, f->meta.cold_marks);
    for (size_t i = 0; i < ARRAY_COUNT(c->steps); i++)
        step_do(f, c->steps[i]);
    assert_int_equal(world_flush(w), 0);
    assert_int_equal(world_close(w), 0);
    world_dump(w, f->dir);
    checkpoint_write(f->dir, f->meta, &f->key, 1);
}

static void fixture_end(struct fixture *f)
{
    folder_remove(&f->folder, 1);
    world_deinit(&f->w);
}

/* The segment of that place: its file is removed, or says that it is free. */
static void segment_lose(const struct fixture *f, bool is_removed)
{
    struct report report = {.out = stderr};
    struct shard shard;
    bool is_found = false;

    assert_int_equal(shard_open(f->dir, &report, &shard), 0);
    for (uint32_t i = 0; i < shard.count; i++) {
        struct shard_segment *segment = &shard.segments[i];
        char path[SHARD_PATH_MAX];

        if (segment->is_free || segment->sequence != address_sequence(f->key.address))
            continue;
        is_found = true;
        shard_path(&shard, segment->name, path);
        if (is_removed) {
            assert_int_equal(unlink(path), 0);
            continue;
        }
        assert_int_equal(shard_load(&shard, segment), 0);
        segment->header.kind = SEGMENT_HEADER_FREE;
        segment_header_encode(&segment->header, shard.data);
        file_put(f->dir, segment->name, bytes_of(shard.data, (size_t)segment->size));
    }
    assert_true(is_found);
    shard_close(&shard);
}

/* ---- what is made of it ----------------------------------------------------------------------- */

static void verify_check(const struct fixture *f, const struct gone_case *c, bool is_gone)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    int code;

    assert_non_null(out);
    code = verify_directory(f->dir, out);
    (void)fclose(out);
    if (code != (c->is_damage ? VERIFY_DAMAGED : VERIFY_CLEAN))
        fail_msg("verify, %s: %d\n%s", c->what, code, text);
    assert_true((strstr(text, "given back  the segments of 1 ") != NULL) == (is_gone && !c->is_damage));
    if (c->is_damage) {
        assert_non_null(strstr(text, "a key of the checkpoint has no record here"));
        assert_non_null(strstr(text, "damage      1\n"));
    }
    free(text);
}

static void salvage_check(struct fixture *f, const struct gone_case *c)
{
    char *told;

    assert_int_equal(salvage_run(f->folder.in, f->out, &told), CTL_OK);
    if ((strstr(told, "lost        1 keys") != NULL) != c->is_lost || (strstr(told, "lost: db") != NULL) != c->is_lost ||
        (strstr(told, "all of it is there") != NULL) == c->is_lost || strstr(told, "lack changes") != NULL)
        fail_msg("salvage, %s:\n%s", c->what, told);
    mem_free(told);
}

static const struct gone_case cases[] = {
    {"nothing", false, {0}, true, true},
    {"a copy", false, {STEP_COPY}, false, false},
    /* A recovery takes what the checkpoint names, which chose between the two: the place is missed. Salvage takes all. */
    {"a copy from before", false, {STEP_COPY_OLD}, true, false},
    {"the first one", false, {STEP_HOT_OLD}, true, false},
    {"a copy from before and one since", false, {STEP_COPY_OLD, STEP_COPY}, false, false},
    {"a new value", false, {STEP_SET}, false, false},
    {"another key", false, {STEP_SET_OTHER_KEY}, true, true},
    {"the key of another database", false, {STEP_SET_OTHER_DB}, true, true},
    {"a tombstone", false, {STEP_TOMB}, false, false},
    {"another tombstone", false, {STEP_TOMB_OTHER_DB}, true, true},
    {"a flush", false, {STEP_FLUSH}, false, false},
    {"a flush of another database", false, {STEP_FLUSH_OTHER_DB}, true, true},
    {"a flush of all", false, {STEP_FLUSH_ALL}, false, false},
    {"a swap", false, {STEP_SWAP}, true, true},
    {"a delta on it", false, {STEP_DELTA}, true, true},
    {"a delta on it, and a copy", false, {STEP_DELTA, STEP_COPY}, false, false},
    {"a delta on it, and its image", false, {STEP_DELTA, STEP_IMAGE_DELTA}, false, false},
    {"another life", false, {STEP_DELTA_CREATES}, false, false},
    {"deltas: nothing", true, {0}, true, true},
    {"deltas: a copy", true, {STEP_COPY}, false, false},
    {"deltas: an image", true, {STEP_IMAGE}, false, false},
    {"deltas: another, on an image", true, {STEP_DELTA, STEP_IMAGE}, false, false},
    {"deltas: another, and its image", true, {STEP_DELTA, STEP_IMAGE_DELTA}, false, false},
    {"deltas: another", true, {STEP_DELTA}, true, true},
    {"deltas: an image of an earlier life", true, {STEP_IMAGE_OTHER}, true, true},
    {"deltas: a tombstone", true, {STEP_TOMB}, false, false},
    {"deltas: a flush", true, {STEP_FLUSH}, false, false},
};

static void test_gone_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_COUNT(cases); i++) {
        const struct gone_case *c = &cases[i / 2];
        struct fixture f;

        fixture_make(&f, c);
        segment_lose(&f, i % 2 == 0);
        verify_check(&f, c, true);
        salvage_check(&f, c);
        fixture_end(&f);
    }
}

/* With the place there, whatever the log says besides. */
static void test_places_that_are_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct gone_case c = cases[i];
        struct fixture f;

        c.is_damage = c.is_lost = false;
        fixture_make(&f, &c);
        verify_check(&f, &c, false);
        salvage_check(&f, &c);
        fixture_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gone_places),
        cmocka_unit_test(test_places_that_are_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
