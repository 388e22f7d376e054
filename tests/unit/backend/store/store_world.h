/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_world.h - a store on a simulated disk, beside a model of what it must hold.
 *
 * Every record is remembered with its LSN. Whatever happened to process or host, the store that is opened again must
 * show exactly what the records up to some LSN make, and that LSN is bounded by what was promised:
 *
 *     killed        all that was sealed (appended) is there, and nothing else
 *     power cut     at least what was durable, at most what was appended: a prefix
 */
#pragma once
#include "tests/unit/test.h"

#include "backend/store/checkpoint.h"
#include "backend/store/cleaner.h"
#include "backend/store/effect.h"
#include "backend/store/store_private.h"
#include "backend/types/hash.h"
#include "backend/types/string.h"
#include "backend/types/types.h"
#include "common/base/mem.h"
#include "common/io/io_sim.h"
#include "common/io/io_sim_disk.h"

#include <stdio.h>
#include <stdlib.h>

#define WORLD_KEYS   64u
#define WORLD_FIELDS 6u
#define WORLD_DBS    2u
#define WORLD_DIR    "/data/shard-0"
#define WORLD_OPEN_US 60000000ull

enum world_kind { WORLD_SET, WORLD_DELETE, WORLD_FIELD, WORLD_FIELD_GONE, WORLD_APPEND, WORLD_FLUSH, WORLD_SWAP };

struct world_op {
    uint64_t lsn;
    uint8_t kind, db, field;
    uint16_t key;
    uint32_t seed, len; /* of the value; WORLD_FIELD: seed is the number */
};

struct world_value {
    uint8_t kind; /* 0: absent; 1: string; 2: hash */
    uint32_t fields[WORLD_FIELDS]; /* 0: absent */
    char *data;
    size_t len;
};

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct io *io;
    struct store *store;
    struct store_options options;
    struct world_op *ops;
    size_t count, cap;
    struct store_marks marks; /* as last seen alive */
    uint64_t lsn_last;        /* and the last LSN that was given */
    bool is_told, counts_lie; /* counts_lie: what lives was falsified, nothing is counted again */
    int err;
    uint64_t random;
    uint32_t value_max;
};

static inline uint64_t world_random(struct world *w, uint64_t below)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return below == 0 ? 0 : (w->random >> 33) % below;
}

static inline struct bytes world_key(uint16_t key, char out[32])
{
    int len = snprintf(out, 32, "key:%u%s", key, key % 7 == 0 ? ":with-a-longer-name" : "");

    return bytes_of(out, (size_t)MIN(len, 31));
}

/* Of as many keys as a test wants, none of the model's. */
static inline struct bytes world_other_key(unsigned k, char out[32])
{
    return bytes_of(out, (size_t)snprintf(out, 32, "one-of-many-%u", k));
}

static inline void world_fill(char *data, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (char)(seed >> 24);
    }
}

/* ---- how much of it ---- */

/* STORE_SEEDS; 0: a sample is enough. */
static inline uint64_t world_seeds(void)
{
    const char *count = getenv("STORE_SEEDS");

    return count != NULL ? strtoull(count, NULL, 10) : 0;
}

/* STORE_SEED: where they begin. */
static inline uint64_t world_seed_first(void)
{
    const char *from = getenv("STORE_SEED");

    return from != NULL ? strtoull(from, NULL, 10) : 1;
}

/* A sample, or STORE_SEEDS times as much. */
static inline uint64_t world_times(uint64_t sample)
{
    return sample * MAX(world_seeds(), 1u);
}

/* ---- life ---- */

static inline void world_told(void *arg, int err)
{
    struct world *w = arg;

    w->is_told = true;
    w->err = err;
}

static inline void world_init(struct world *w, uint64_t seed, const struct sim_options *options)
{
    *w = (struct world){.random = seed * 2654435761u + 1, .value_max = 600};
    w->sim = sim_create(seed, options);
    w->node = sim_node_create(w->sim, "node");
    w->io = sim_node_io(w->node);
    sim_disk_mkdir(w->node, "/data");
    w->options = (struct store_options){
        .dir = WORLD_DIR,
        .ring_path = "/dev/shm/weir-test-0",
        .shard_count = 1,
        .fsync = STORE_FSYNC_EVERYSEC,
        .segment_size = 256u << 10,
        .ring_size = 1u << 20,
        .direct = true,
        .types = {[STORE_STRING] = &string_ops, [STORE_HASH] = &hash_ops},
    };
}

static inline int world_try_open(struct world *w)
{
    w->options.io = w->io;
    w->is_told = false;
    w->err = store_create(&w->options, world_told, w, &w->store);
    if (w->err != 0)
        return w->err;
    sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
    assert_true(w->is_told);
    return w->err;
}

static inline void world_open(struct world *w)
{
    assert_int_equal(world_try_open(w), 0);
}

/* Of what would not open nothing is left. */
static inline void world_give_up(struct world *w)
{
    sim_node_kill(w->node);
    store_destroy(&w->store);
    w->io = sim_node_start(w->node);
}

static inline void world_see_marks(struct world *w)
{
    w->marks = store_marks_of(w->store);
    w->lsn_last = store_lsn(w->store);
    assert_true(w->marks.durable <= w->marks.written && w->marks.written <= w->marks.appended); /* S3 */
}

/* The process dies between two events of the world. */
static inline void world_die(struct world *w, bool with_host)
{
    world_see_marks(w);
    if (with_host)
        sim_node_power_cut(w->node);
    else
        sim_node_kill(w->node);
    store_destroy(&w->store);
    w->io = sim_node_start(w->node);
}

static inline void world_audit(struct world *w)
{
    char why[128];

    if (!w->counts_lie && !store_audit(w->store, why, sizeof(why)))
        fail_msg("audit: %s", why);
}

static inline void world_close(struct world *w)
{
    w->is_told = false;
    world_audit(w);
    store_turn_end(w->store);
    store_close(w->store, world_told, w);
    sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
    assert_true(w->is_told);
    world_see_marks(w);
    store_destroy(&w->store);
    sim_node_kill(w->node);
    w->io = sim_node_start(w->node);
}

static inline void world_deinit(struct world *w)
{
    if (w->store != NULL) {
        sim_node_kill(w->node);
        store_destroy(&w->store);
    }
    sim_destroy(&w->sim);
    mem_free(w->ops);
}

/* ---- what it says ---- */

/* Errors that its processes log. STORE_PRINT=1 shows every line. */
struct world_errors {
    struct log *text; /* owns */
    uint32_t count;
    char last[600];
};

static inline void world_errors_line(void *arg, int level, const char *line, size_t len)
{
    struct world_errors *errors = arg;

    if (getenv("STORE_PRINT") != NULL)
        (void)fprintf(stderr, "%.*s", (int)len, line);
    if (level > LOG_ERROR)
        return;
    errors->count++;
    (void)snprintf(errors->last, sizeof(errors->last), "%.*s", (int)len, line);
}

static inline void world_errors_init(struct world_errors *errors, struct world *w)
{
    *errors = (struct world_errors){.text = log_create_sink(world_errors_line, errors, LOG_INFO, "test")};
    sim_node_log_set(w->node, errors->text);
}

/* After the world's end. */
static inline void world_errors_deinit(struct world_errors *errors)
{
    log_destroy(&errors->text);
}

/* ---- changes ---- */

static inline void world_note(struct world *w, struct world_op op)
{
    if (w->count == w->cap) {
        w->cap = w->cap == 0 ? 256 : w->cap * 2;
        w->ops = must_realloc(w->ops, sizeof(*w->ops) * w->cap);
    }
    op.lsn = store_lsn(w->store);
    w->ops[w->count++] = op;
}

static inline void world_fetched(struct store_waiter *waiter, int err)
{
    world_told(waiter->arg, err);
}

/* Finds a key and brings its value into memory. */
static inline int world_find(struct world *w, uint8_t db, struct bytes name, struct store_key *key)
{
    for (int i = 0; i < 10; i++) {
        struct store_waiter waiter = {.done = world_fetched, .arg = w};

        store_find(w->store, db, name, key);
        if (key->entry == NULL || !entry_is_cold(key->entry))
            return 0;
        store_turn_end(w->store);
        w->is_told = false;
        store_fetch(w->store, key, &waiter);
        sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
        assert_true(w->is_told);
        if (w->err != 0)
            return w->err;
    }
    fail_msg("a value does not stay in memory");
    return 0;
}

static inline void world_set(struct world *w, uint8_t db, uint16_t k, uint32_t seed, uint32_t len)
{
    char name[32], *data = must_alloc(len + 1);
    struct store_key key;

    world_fill(data, len, seed);
    store_find(w->store, db, world_key(k, name), &key);
    if (store_put_string(w->store, &key, bytes_of(data, len), NULL) == 0)
        world_note(w, (struct world_op){.kind = WORLD_SET, .db = db, .key = k, .seed = seed, .len = len});
    mem_free(data);
}

static inline void world_delete(struct world *w, uint8_t db, uint16_t k)
{
    char name[32];
    struct store_key key;

    store_find(w->store, db, world_key(k, name), &key);
    if (key.entry != NULL && store_delete(w->store, &key) == 0)
        world_note(w, (struct world_op){.kind = WORLD_DELETE, .db = db, .key = k});
}

/* A field gets a number; 0: it goes. What is no hash is deleted first. */
static inline void world_field(struct world *w, uint8_t db, uint16_t k, uint8_t field, uint32_t number)
{
    char name[32], text[16], value[16];
    struct store_key key;
    struct object *object;
    struct bytes field_bytes = bytes_of(text, (size_t)snprintf(text, sizeof(text), "field-%u", field));
    struct bytes value_bytes = bytes_of(value, (size_t)snprintf(value, sizeof(value), "%u", number));
    bool is_new = false;

    if (world_find(w, db, world_key(k, name), &key) != 0)
        return;
    if (key.entry != NULL && entry_type(key.entry) != STORE_HASH)
        world_delete(w, db, k);
    store_find(w->store, db, world_key(k, name), &key);
    if (key.entry != NULL && entry_type(key.entry) != STORE_HASH)
        return; /* no room even for a tombstone */
    object = store_object_open(w->store, &key, STORE_HASH, number != 0);
    if (object == NULL)
        return;
    if (number != 0) {
        assert_int_equal(hash_set(object, field_bytes, value_bytes, &is_new), 0);
        effect_begin(store_effects(w->store), HASH_EFFECT_SET, 2);
        effect_bytes(store_effects(w->store), field_bytes);
        effect_bytes(store_effects(w->store), value_bytes);
    } else if (hash_delete(object, field_bytes)) {
        effect_begin(store_effects(w->store), HASH_EFFECT_DELETE, 1);
        effect_bytes(store_effects(w->store), field_bytes);
    } else {
        return;
    }
    if (store_change(w->store, &key) == 0)
        world_note(w, (struct world_op){.kind = number != 0 ? WORLD_FIELD : WORLD_FIELD_GONE, .db = db, .key = k,
                                        .field = field, .seed = number});
}

static inline void world_append(struct world *w, uint8_t db, uint16_t k, uint32_t seed, uint32_t len)
{
    char name[32], data[256];
    struct store_key key;
    struct object *object;

    len = MIN(len, (uint32_t)sizeof(data));
    world_fill(data, len, seed);
    if (world_find(w, db, world_key(k, name), &key) != 0 || key.entry == NULL || entry_type(key.entry) != STORE_STRING ||
        !store_string_in_place(w->store, &key))
        return;
    object = store_object_open(w->store, &key, STORE_STRING, false);
    assert_int_equal(string_append(object, bytes_of(data, len)), 0);
    string_effect_append(store_effects(w->store), bytes_of(data, len));
    if (store_change(w->store, &key) == 0)
        world_note(w, (struct world_op){.kind = WORLD_APPEND, .db = db, .key = k, .seed = seed, .len = len});
}

static inline void world_flush(struct world *w, uint8_t db)
{
    if (store_flush(w->store, db) == 0)
        world_note(w, (struct world_op){.kind = WORLD_FLUSH, .db = db});
}

/* The two databases that the model knows. */
static inline void world_swap(struct world *w)
{
    if (store_swap(w->store, 0, 1) == 0)
        world_note(w, (struct world_op){.kind = WORLD_SWAP});
}

static inline void world_random_op(struct world *w)
{
    uint8_t db = (uint8_t)(world_random(w, 10) == 0);
    uint16_t k = (uint16_t)world_random(w, WORLD_KEYS);
    uint32_t seed = 1 + (uint32_t)world_random(w, 1000000);
    uint32_t len = (uint32_t)world_random(w, w->value_max);

    /* As the dispatcher does before every command. */
    if (store_may_write(w->store, true) != 0) {
        store_turn_end(w->store);
        sim_run_for(w->sim, 10000);
        return;
    }
    switch (world_random(w, 16)) {
    case 0:
    case 1: world_delete(w, db, k); break;
    case 2:
    case 3:
    case 4:
    case 5: world_field(w, db, k, (uint8_t)world_random(w, WORLD_FIELDS), seed); break;
    case 6: world_field(w, db, k, (uint8_t)world_random(w, WORLD_FIELDS), 0); break;
    case 7: world_append(w, db, k, seed, len); break;
    case 8: world_set(w, db, k, seed, world_random(w, 8) == 0 ? 17000 + len : STRING_DELTA_MIN - 300 + len); break;
    case 9:
        if (world_random(w, 40) == 0)
            world_flush(w, world_random(w, 4) == 0 ? STORE_DBS : db);
        else if (world_random(w, 10) == 0)
            world_swap(w);
        break;
    default: world_set(w, db, k, seed, len); break;
    }
}

#define WORLD_WAIT_MAX 5000u

/* Large records that got a whole segment, as the file system had no room for files of their own. */
static inline uint32_t world_placed_count(struct world *w)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++) {
        const struct segment_info *info = store_log_segment(w->store->log, i);

        count += info->kind == SEGMENT_BLOB && info->size == w->options.segment_size;
    }
    return count;
}

/* As a parked client: until so many bytes may be written. False: no room has come. */
static inline bool world_room_wait(struct world *w, size_t bytes)
{
    for (unsigned i = 0; i < WORLD_WAIT_MAX && store_may_write(w->store, bytes) == ERR_AGAIN; i++) {
        store_turn_end(w->store);
        sim_run_for(w->sim, 1000);
    }
    return store_may_write(w->store, bytes) == 0;
}

/* So many changes, in turns, each when there is room. False: there was none for one. */
static inline bool world_live_in_room(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!world_room_wait(w, 4096))
            return false;
        world_random_op(w);
        if (world_random(w, 3) == 0)
            store_turn_end(w->store);
        if (world_random(w, 4) == 0)
            sim_run_for(w->sim, world_random(w, 3000));
    }
    store_turn_end(w->store);
    return true;
}

/* Makes some hot values cold. */
static inline void world_spill(struct world *w, uint32_t tries)
{
    for (uint32_t i = 0; i < tries; i++) {
        char name[32];
        struct store_key key;

        store_find(w->store, 0, world_key((uint16_t)world_random(w, WORLD_KEYS), name), &key);
        if (key.entry != NULL && !entry_is_cold(key.entry))
            spill_entry(w->store, key.hash, &key.entry);
    }
}

/* Changes, background work, cold values and time, in turns of chance. */
static inline void world_live(struct world *w, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        if (world_random(w, 4) == 0)
            store_turn_end(w->store);
        if (world_random(w, 60) == 0)
            store_checkpoint(w->store);
        if (world_random(w, 10) == 0)
            world_spill(w, 4);
        if (world_random(w, 3) == 0)
            sim_run_for(w->sim, world_random(w, 3000));
        world_random_op(w);
    }
}

/* Begins a checkpoint, and ends it. */
static inline void world_checkpoint(struct world *w)
{
    uint64_t before = w->store->stats.checkpoints;

    store_turn_end(w->store);
    store_checkpoint(w->store);
    for (unsigned i = 0; i < 1000 && w->store->stats.checkpoints == before; i++)
        sim_run_for(w->sim, 10000);
    assert_true(w->store->stats.checkpoints > before);
}

/* ---- the model ---- */

static inline void world_expect(const struct world *w, uint64_t lsn, struct world_value values[WORLD_DBS][WORLD_KEYS])
{
    memset(values, 0, sizeof(struct world_value) * WORLD_DBS * WORLD_KEYS);
    for (size_t i = 0; i < w->count && w->ops[i].lsn <= lsn; i++) {
        const struct world_op *op = &w->ops[i];
        struct world_value *value = &values[op->db % WORLD_DBS][op->key];

        if (op->kind == WORLD_SWAP) {
            for (unsigned k = 0; k < WORLD_KEYS; k++) {
                struct world_value other = values[0][k];

                values[0][k] = values[1][k];
                values[1][k] = other;
            }
            continue;
        }
        if (op->kind == WORLD_FLUSH) {
            for (unsigned db = 0; db < WORLD_DBS; db++)
                for (unsigned k = 0; k < WORLD_KEYS && (op->db == STORE_DBS || op->db == db); k++) {
                    mem_free(values[db][k].data);
                    values[db][k] = (struct world_value){0};
                }
            continue;
        }
        if (op->kind == WORLD_FIELD || op->kind == WORLD_FIELD_GONE) {
            bool is_any = false;

            value->kind = 2;
            value->fields[op->field] = op->seed;
            for (unsigned f = 0; f < WORLD_FIELDS; f++)
                is_any |= value->fields[f] != 0;
            value->kind = is_any ? 2 : 0;
            continue;
        }
        if (op->kind == WORLD_APPEND) {
            value->data = must_realloc(value->data, value->len + op->len + 1);
            world_fill(value->data + value->len, op->len, op->seed);
            value->len += op->len;
            continue;
        }
        mem_free(value->data);
        *value = (struct world_value){0};
        if (op->kind == WORLD_SET) {
            value->kind = 1;
            value->len = op->len;
            value->data = must_alloc(op->len + 1);
            world_fill(value->data, op->len, op->seed);
        }
    }
}

static inline void world_check_key(struct world *w, uint8_t db, uint16_t k, const struct world_value *value)
{
    char name[32];
    struct store_key key;

    assert_int_equal(world_find(w, db, world_key(k, name), &key), 0);
    if (value->kind == 0) {
        assert_null(key.entry);
        return;
    }
    assert_non_null(key.entry);
    if (value->kind == 1) {
        struct bytes seen;

        assert_int_equal(entry_type(key.entry), STORE_STRING);
        seen = store_string(key.entry);
        assert_int_equal(seen.len, value->len);
        assert_memory_equal(seen.data, value->data, value->len);
        return;
    }
    assert_int_equal(entry_type(key.entry), STORE_HASH);
    for (unsigned f = 0; f < WORLD_FIELDS; f++) {
        char text[16], number[16];
        struct bytes seen, field = bytes_of(text, (size_t)snprintf(text, sizeof(text), "field-%u", f));
        bool is_there = hash_get(entry_object(key.entry), field, &seen);

        assert_int_equal(is_there, value->fields[f] != 0);
        if (is_there)
            assert_true(bytes_equal(seen, bytes_of(number, (size_t)snprintf(number, sizeof(number), "%u",
                                                                            value->fields[f]))));
    }
}

/* The store holds exactly what the records up to `lsn` make. */
static inline void world_check(struct world *w, uint64_t lsn)
{
    struct world_value(*values)[WORLD_KEYS] = must_alloc(sizeof(struct world_value) * WORLD_DBS * WORLD_KEYS);
    uint64_t counts[WORLD_DBS] = {0};

    world_expect(w, lsn, values);
    for (uint8_t db = 0; db < WORLD_DBS; db++) {
        for (uint16_t k = 0; k < WORLD_KEYS; k++) {
            counts[db] += values[db][k].kind != 0;
            world_check_key(w, db, k, &values[db][k]);
            mem_free(values[db][k].data);
        }
        assert_int_equal(store_count(w->store, db), counts[db]);
    }
    mem_free(values);
    world_audit(w);
}

/* Every key is what the records up to `lsn` make, or refused with a line that says where; never another value, never
 * gone. */
static inline uint32_t world_refused_count(struct world *w, const struct world_errors *errors, uint64_t lsn)
{
    struct world_value(*values)[WORLD_KEYS] = must_alloc(sizeof(struct world_value) * WORLD_DBS * WORLD_KEYS);
    uint32_t refused = 0;

    world_expect(w, lsn, values);
    for (uint8_t db = 0; db < WORLD_DBS; db++) {
        for (uint16_t k = 0; k < WORLD_KEYS; k++) {
            char name[32];
            struct store_key key;
            uint32_t lines = errors->count;
            int err = world_find(w, db, world_key(k, name), &key);

            if (err == 0) {
                world_check_key(w, db, k, &values[db][k]);
            } else {
                assert_int_equal(err, ERR_CORRUPT);
                assert_true(errors->count > lines);
                assert_non_null(strstr(errors->last, "offset="));
                refused++;
            }
            mem_free(values[db][k].data);
        }
    }
    mem_free(values);
    return refused;
}

/* What comes after `lsn` never happened. */
static inline void world_forget_after(struct world *w, uint64_t lsn)
{
    while (w->count > 0 && w->ops[w->count - 1].lsn > lsn)
        w->count--;
}

/* Closed, killed or without power, and started again. */
static inline void world_end_life(struct world *w)
{
    uint64_t lsn;

    switch (world_random(w, 3)) {
    case 0:
        world_close(w);
        world_open(w);
        world_check(w, UINT64_MAX);
        return;
    case 1:
        sim_run_for(w->sim, world_random(w, 2000));
        world_die(w, false);
        world_open(w);
        lsn = store_lsn(w->store);
        if (w->options.ring_path != NULL)
            assert_int_equal(lsn, w->marks.appended);
        break;
    default:
        world_die(w, true);
        world_open(w);
        lsn = store_lsn(w->store);
        break;
    }
    assert_true(lsn >= w->marks.durable);
    /* Without a ring `appended` is what was written; more may have been on its way. */
    assert_true(lsn <= (w->options.ring_path != NULL ? w->marks.appended : w->lsn_last));
    world_forget_after(w, lsn);
    world_check(w, lsn);
}
