/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a key while its value is read: it is changed and goes cold again, goes away, cannot be read. And the
 * chains that a recovery leaves to be read.
 *
 * Every read of the store goes by way of this file (--wrap), which counts it, and changes the key as soon as the read is
 * on its way: so exactly those come back too late that a test wants.
 */
#include "tests/unit/backend/store/store_world.h"

#define RESTARTS_MAX 16u /* as fetch.c */

enum shape { INLINE, LONG, HASH, SHAPE_COUNT };

static struct {
    uint32_t count;      /* reads submitted */
    uint32_t changes;    /* the key is changed after each of the first so many, */
    struct world *world; /* here, */
    enum shape shape;    /* to this */
    size_t refused_size; /* an allocation of so many zeroed bytes fails; 0: none */
    uint32_t refused;
    bool no_growth;      /* nothing that is allocated can grow */
} seams;

void __real_store_log_read(struct store_log *log, struct store_log_read *read);
void __wrap_store_log_read(struct store_log *log, struct store_log_read *read);
void *__real_mem_zalloc(size_t size);
void *__wrap_mem_zalloc(size_t size);
void *__real_mem_realloc(void *pointer, size_t size);
void *__wrap_mem_realloc(void *pointer, size_t size);

void *__wrap_mem_zalloc(size_t size)
{
    if (size == seams.refused_size && size != 0) {
        seams.refused++;
        return NULL;
    }
    return __real_mem_zalloc(size);
}

void *__wrap_mem_realloc(void *pointer, size_t size)
{
    return seams.no_growth ? NULL : __real_mem_realloc(pointer, size);
}

/* ---- keys that are changed while they are read --------------------------------------------------- */

enum { KEY = 3 };

static void find(struct world *w, struct store_key *key)
{
    char name[32];

    store_find(w->store, 0, world_key(KEY, name), key);
    key->name = BYTES_EMPTY; /* nobody needs it, and it ends here */
}

static void put(struct world *w, enum shape shape, uint32_t number)
{
    if (shape != HASH) {
        world_set(w, 0, KEY, number, (shape == LONG ? 20000 : 100) + number);
        return;
    }
    world_delete(w, 0, KEY);
    world_field(w, 0, KEY, 1, number);
    world_field(w, 0, KEY, 2, number + 1);
}

/* Its record may still be in memory only. */
static void make_cold(struct world *w)
{
    struct store_key key;
    char name[32];

    store_find(w->store, 0, world_key(KEY, name), &key);
    assert_non_null(key.entry);
    assert_true(spill_entry(w->store, key.hash, &key.entry) > 0);
    assert_true(entry_is_cold(key.entry));
}

/* A cold value that is on the disk. */
static void begin(struct world *w, enum shape shape)
{
    world_init(w, 7, NULL);
    world_open(w);
    put(w, shape, 1);
    store_turn_end(w->store);
    make_cold(w);
    sim_run_for(w->sim, 3000000);
    seams.count = 0;
}

static void fetch(struct world *w, struct store_waiter *waiter)
{
    struct store_key key;
    char name[32];

    *waiter = (struct store_waiter){.done = world_fetched, .arg = w};
    w->is_told = false;
    store_find(w->store, 0, world_key(KEY, name), &key);
    store_fetch(w->store, &key, waiter);
    assert_false(w->is_told); /* F1 */
}

void __wrap_store_log_read(struct store_log *log, struct store_log_read *read)
{
    __real_store_log_read(log, read);
    if (seams.count++ < seams.changes) {
        put(seams.world, seams.shape, 100 + seams.count);
        store_turn_end(seams.world->store);
        make_cold(seams.world);
    }
}

/* Each of the first `changes` reads comes back to a key that was changed after it had begun, and is cold again. */
static void change_while_read(struct world *w, enum shape first, enum shape then, uint32_t changes)
{
    struct store_waiter waiter;

    begin(w, first);
    seams.world = w;
    seams.shape = then;
    seams.changes = changes;
    fetch(w, &waiter);
    sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
    seams.changes = 0;
    assert_true(w->is_told);
}

/* F2: whatever was read before, what becomes hot is the newest value: with one read for each change, and one more. */
static void test_a_changed_key_is_read_anew(void **state)
{
    static const uint32_t counts[] = {0, 1, 2, 5, RESTARTS_MAX};

    (void)state;
    for (unsigned first = 0; first < SHAPE_COUNT; first++)
        for (unsigned then = 0; then < SHAPE_COUNT; then++)
            for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
                struct world w;
                struct store_key key;

                change_while_read(&w, (enum shape)first, (enum shape)then, counts[i]);
                assert_int_equal(w.err, 0);
                assert_int_equal(seams.count, counts[i] + 1);
                assert_int_equal(w.store->stats.fetches, 1);
                find(&w, &key);
                assert_non_null(key.entry);
                assert_false(entry_is_cold(key.entry));
                world_check(&w, UINT64_MAX);
                assert_int_equal(w.store->stats.corrupt_records, 0);
                world_deinit(&w);
            }
}

/* Once too often: who waits is told to look again, and finds a value that is still cold. Who does so gets the newest. */
static void test_a_key_that_never_rests_is_given_up(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPE_COUNT; shape++) {
        struct world w;
        struct store_key key;
        struct store_waiter waiter;

        change_while_read(&w, INLINE, (enum shape)shape, RESTARTS_MAX + 1);
        assert_int_equal(w.err, 0);
        assert_int_equal(seams.count, RESTARTS_MAX + 1);
        find(&w, &key);
        assert_true(entry_is_cold(key.entry));
        fetch(&w, &waiter);
        sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
        assert_true(w.is_told);
        assert_int_equal(w.err, 0);
        find(&w, &key);
        assert_false(entry_is_cold(key.entry));
        assert_int_equal(seams.count, RESTARTS_MAX + 2);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

enum meanwhile { GETS_HOT, IS_DELETED, IS_FLUSHED, COMES_ANEW, MEANWHILE_COUNT };

/* The key is not cold any more when its old value has been read: that is dropped, and there is no second read. */
static void test_what_was_read_too_late_is_dropped(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPE_COUNT; shape++)
        for (unsigned what = 0; what < MEANWHILE_COUNT; what++) {
            struct world w;
            struct store_waiter waiter;

            begin(&w, (enum shape)shape);
            fetch(&w, &waiter);
            switch ((enum meanwhile)what) {
            case GETS_HOT: world_set(&w, 0, KEY, 50, 70); break;
            case IS_DELETED: world_delete(&w, 0, KEY); break;
            case IS_FLUSHED: world_flush(&w, 0); break;
            case COMES_ANEW:
                world_flush(&w, 0);
                world_set(&w, 0, KEY, 50, 70);
                break;
            case MEANWHILE_COUNT: break;
            }
            store_turn_end(w.store);
            sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
            assert_true(w.is_told);
            assert_int_equal(w.err, 0);
            assert_int_equal(seams.count, 1);
            world_check(&w, UINT64_MAX);
            world_deinit(&w);
        }
}

/* Two wait, one goes away meanwhile; the read starts anew; one read each, and the one that waits is told once. */
static void test_waiters_live_through_a_restart(void **state)
{
    struct world w;
    struct store_waiter waiter, other = {.done = world_fetched, .arg = NULL};
    struct store_key key;
    char name[32];

    (void)state;
    begin(&w, LONG);
    fetch(&w, &waiter);
    store_find(w.store, 0, world_key(KEY, name), &key);
    store_fetch(w.store, &key, &other);
    assert_int_equal(w.store->stats.fetch_hits_waiting, 1);
    put(&w, LONG, 9);
    store_turn_end(w.store);
    make_cold(&w);
    store_fetch_cancel(&other);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    assert_true(w.is_told);
    assert_int_equal(seams.count, 2);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A read fails: that is told, the value stays where it is, and can be had later. Not if the key was changed meanwhile. */
static void test_a_failed_read(void **state)
{
    (void)state;
    for (unsigned is_changed = 0; is_changed < 2; is_changed++) {
        struct world w;
        struct store_waiter waiter;
        struct store_key key;

        begin(&w, LONG);
        sim_disk_fail(w.node, SIM_DISK_READ, NULL, -EIO, 1);
        fetch(&w, &waiter);
        if (is_changed) {
            put(&w, LONG, 2);
            store_turn_end(w.store);
            make_cold(&w);
        }
        sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
        assert_true(w.is_told);
        assert_int_equal(w.err, is_changed ? 0 : -EIO);
        find(&w, &key);
        assert_int_equal(entry_is_cold(key.entry), !is_changed);
        assert_int_equal(w.store->stats.corrupt_records, 0);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

/* ---- places that hold another record -------------------------------------------------------------- */

static void path_of(struct world *w, uint64_t address, char path[64])
{
    const struct segment_info *segment = store_log_segment_find(w->store->log, address_sequence(address));

    assert_non_null(segment);
    (void)snprintf(path, 64, WORLD_DIR "/%06u.seg", segment->slot);
    assert_true(sim_disk_size(w->node, path, false) > 0);
}

/* As a write that went to another place would leave it: the bytes of one record where the other was. */
static void misplace(struct world *w, uint64_t from, uint64_t to, size_t size)
{
    char path[64], *data = must_alloc(size);

    path_of(w, from, path);
    assert_int_equal(sim_disk_peek(w->node, path, false, data, size, address_off(from)), size);
    path_of(w, to, path);
    sim_disk_overwrite(w->node, path, address_off(to), bytes_of(data, size));
    mem_free(data);
}

static uint64_t address_now(struct world *w)
{
    struct store_key key;

    find(w, &key);
    return key.entry->address;
}

/* An older record of the same key verifies, but it is not what the entry names: it is refused, never served. */
static void test_an_older_record_in_its_place_is_refused(void **state)
{
    struct world w;
    struct store_key key;
    struct store_waiter waiter;
    uint64_t old;

    (void)state;
    world_init(&w, 7, NULL);
    world_open(&w);
    world_set(&w, 0, KEY, 1, 200);
    old = address_now(&w);
    world_set(&w, 0, KEY, 2, 200);
    store_turn_end(w.store);
    sim_run_for(w.sim, 3000000);
    find(&w, &key);
    misplace(&w, old, key.entry->address, store_record_bytes(key.entry));
    make_cold(&w);
    fetch(&w, &waiter);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    assert_true(w.is_told);
    assert_int_equal(w.err, ERR_CORRUPT);
    assert_int_equal(w.store->stats.corrupt_records, 1);
    find(&w, &key);
    assert_true(entry_is_cold(key.entry));
    world_deinit(&w);
}

/* ---- chains ---------------------------------------------------------------------------------------- */

static struct chain *chain_of(struct world *w, uint16_t k)
{
    struct store_key key;
    char name[32];

    store_find(w->store, 0, world_key(k, name), &key);
    return key.entry == NULL ? NULL : chain_find(w->store, key.hash, key.entry);
}

static void reopen(struct world *w)
{
    store_turn_end(w->store);
    sim_run_for(w->sim, 3000000);
    world_die(w, false);
    world_open(w);
}

/* A chain of four deltas, each as long as the others. */
static void begin_chain(struct world *w)
{
    world_init(w, 7, NULL);
    world_open(w);
    for (uint8_t field = 0; field < 4; field++)
        world_field(w, 0, KEY, field, 1000u + field);
    reopen(w);
    assert_int_equal(chain_of(w, KEY)->count, 4);
}

/* The deltas are read one after the other. At each of them the key is changed: what was put together so far is dropped,
 * and of the new value nothing is missing and nothing is twice. */
static void test_a_chain_is_read_anew(void **state)
{
    (void)state;
    for (uint32_t at = 1; at <= 4; at++)
        for (unsigned then = 0; then < SHAPE_COUNT; then++) {
            struct world w;
            struct store_waiter waiter;

            begin_chain(&w);
            seams.count = 0;
            fetch(&w, &waiter);
            while (seams.count < at)
                assert_true(sim_step(w.sim));
            assert_false(w.is_told);
            put(&w, (enum shape)then, 77);
            store_turn_end(w.store);
            make_cold(&w);
            assert_null(w.store->chains);
            sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
            assert_true(w.is_told);
            assert_int_equal(w.err, 0);
            assert_int_equal(seams.count, at + 1);
            world_check(&w, UINT64_MAX);
            world_deinit(&w);
        }
}

/* Another delta of the chain lies where one should be. */
static void test_another_delta_in_its_place_is_refused(void **state)
{
    struct world w;
    struct store_waiter waiter;
    struct store_key key;
    const struct chain *chain;

    (void)state;
    begin_chain(&w);
    chain = chain_of(&w, KEY);
    assert_int_equal(chain->deltas[1].size, chain->deltas[2].size);
    misplace(&w, chain->deltas[1].address, chain->deltas[2].address, chain->deltas[2].size);
    fetch(&w, &waiter);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    assert_true(w.is_told);
    assert_int_equal(w.err, ERR_CORRUPT);
    find(&w, &key);
    assert_true(entry_is_cold(key.entry));
    assert_int_equal(chain_of(&w, KEY)->count, 4);
    world_deinit(&w);
}

/* No memory for what a delta adds: that is no damage. With memory it can be had. */
static void test_a_chain_without_memory(void **state)
{
    struct world w;
    struct store_waiter waiter;
    struct store_key key;

    (void)state;
    begin_chain(&w);
    fetch(&w, &waiter);
    seams.no_growth = true;
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    seams.no_growth = false;
    assert_true(w.is_told);
    assert_int_equal(w.err, ERR_FULL);
    assert_int_equal(w.store->stats.corrupt_records, 0);
    find(&w, &key);
    assert_true(entry_is_cold(key.entry));
    assert_int_equal(chain_of(&w, KEY)->count, 4);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* ---- many chains ---- */

enum { MANY = 20000, CHAIN_LISTS = 4096 };

static void numbered(unsigned i, char name[16], struct store_key *key, struct world *w)
{
    store_find(w->store, 0, bytes_of(name, (size_t)snprintf(name, 16, "h%u", i)), key);
}

static void field_set(struct world *w, unsigned i, uint32_t number)
{
    char name[16], text[16];
    struct store_key key;
    struct object *object;
    bool is_new;
    struct bytes value = bytes_of(text, (size_t)snprintf(text, sizeof(text), "%u", number));

    numbered(i, name, &key, w);
    object = store_object_open(w->store, &key, STORE_HASH, true);
    assert_int_equal(hash_set(object, BYTES("f"), value, &is_new), 0);
    effect_begin(store_effects(w->store), HASH_EFFECT_SET, 2);
    effect_bytes(store_effects(w->store), BYTES("f"));
    effect_bytes(store_effects(w->store), value);
    assert_int_equal(store_change(w->store, &key), 0);
}

static void field_check(struct world *w, unsigned i, uint32_t number)
{
    char name[16], text[16];
    struct store_key key;
    struct bytes seen;

    numbered(i, name, &key, w);
    assert_int_equal(world_find(w, 0, key.name, &key), 0);
    assert_non_null(key.entry);
    assert_true(hash_get(entry_object(key.entry), BYTES("f"), &seen));
    assert_true(bytes_equal(seen, bytes_of(text, (size_t)snprintf(text, sizeof(text), "%u", number))));
}

static void many_in_room(struct world *w, uint32_t round)
{
    for (unsigned i = 0; i < MANY; i++) {
        assert_true(world_room_wait(w, 4096));
        field_set(w, i, round * MANY + i);
        if (i % 16 == 0)
            store_turn_end(w->store);
    }
}

/* More chains than the first table is made for, also where there is no memory for a larger one: each is found with both
 * its deltas, each value is whole, and when the last was read nothing of them is left. */
static void test_a_recovery_with_many_chains(void **state)
{
    (void)state;
    for (unsigned is_refused = 0; is_refused < 2; is_refused++) {
        struct world w;

        world_init(&w, 11, NULL);
        w.options.segment_size = 2u << 20;
        world_open(&w);
        many_in_room(&w, 0);
        many_in_room(&w, 1);
        seams.refused = 0;
        seams.refused_size = is_refused ? sizeof(struct chain *) * CHAIN_LISTS * 4 : 0;
        reopen(&w);
        seams.refused_size = 0;
        assert_int_equal(seams.refused > 0, is_refused);
        for (unsigned i = 0; i < MANY; i++) {
            char name[16];
            struct store_key key;
            const struct chain *chain;

            numbered(i, name, &key, &w);
            assert_non_null(key.entry);
            chain = chain_find(w.store, key.hash, key.entry);
            assert_non_null(chain);
            assert_true(bytes_equal(bytes_of(chain->key, chain->key_len), key.name));
            assert_int_equal(chain->count, 2);
            assert_int_equal(chain->base_lsn, chain->deltas[0].lsn);
            assert_int_equal(entry_lsn(key.entry), chain->deltas[1].lsn);
        }
        for (unsigned i = 0; i < MANY; i++)
            field_check(&w, i, MANY + i);
        assert_null(w.store->chains);
        world_deinit(&w);
    }
}

/* ---- deltas that come in any order, and twice ---- */

static uint64_t live_bytes(struct world *w, uint64_t address)
{
    return store_log_segment_find(w->store->log, address_sequence(address))->live_bytes;
}

/* Y3: by LSN, whatever comes first. A delta that comes again is the same one at another place: it is read there, it
 * counts as live there and no more where it was, and the chain is as old as its first delta's place. */
static void test_deltas_in_any_order_and_twice(void **state)
{
    enum { SIZE = 64 };
    struct world w;
    struct store_key key;
    struct chain *chain;
    uint64_t old, new, old_live, new_live;

    (void)state;
    world_init(&w, 7, NULL);
    world_open(&w);
    world_set(&w, 0, KEY, 1, 100);
    old = address_now(&w);
    for (unsigned i = 0; i < 400; i++) { /* until another segment is open */
        assert_true(world_room_wait(&w, 4096));
        world_set(&w, 0, (uint16_t)(KEY + 1 + i % 4), i, 2000);
    }
    world_set(&w, 0, KEY, 2, 100);
    new = address_now(&w);
    assert_true(address_sequence(new) > address_sequence(old));
    find(&w, &key);
    chain = chain_add(w.store, key.hash, 0, BYTES("chain"));
    chain->base_lsn = 5;

    old_live = live_bytes(&w, old);
    new_live = live_bytes(&w, new);
    assert_int_equal(chain_delta_add(w.store, chain, 9, new, SIZE), 0);
    assert_int_equal(chain->chain_sequence, address_sequence(new));
    assert_int_equal(chain_delta_add(w.store, chain, 5, old, SIZE), 0);
    assert_int_equal(chain_delta_add(w.store, chain, 7, old + 4, SIZE), 0);
    assert_int_equal(chain->count, 3);
    assert_int_equal(chain->chain_sequence, address_sequence(old));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(chain->deltas[i].lsn, 5 + 2 * i);
    assert_int_equal(live_bytes(&w, old), old_live + 2 * SIZE);
    assert_int_equal(live_bytes(&w, new), new_live + SIZE);

    /* In the middle, the first, and back again. */
    assert_int_equal(chain_delta_add(w.store, chain, 7, new + 8, SIZE), 0);
    assert_int_equal(chain->deltas[1].address, new + 8);
    assert_int_equal(chain->chain_sequence, address_sequence(old));
    assert_int_equal(chain_delta_add(w.store, chain, 5, new + 12, SIZE), 0);
    assert_int_equal(chain->deltas[0].address, new + 12);
    assert_int_equal(chain->chain_sequence, address_sequence(new));
    assert_int_equal(live_bytes(&w, old), old_live);
    assert_int_equal(live_bytes(&w, new), new_live + 3 * SIZE);
    assert_int_equal(chain_delta_add(w.store, chain, 5, old, SIZE), 0);
    assert_int_equal(chain->chain_sequence, address_sequence(old));
    assert_int_equal(chain->count, 3);

    /* An image takes those up to it. */
    chain_image_set(w.store, chain, 7);
    assert_int_equal(chain->count, 1);
    assert_int_equal(chain->deltas[0].lsn, 9);
    assert_int_equal(chain->chain_sequence, address_sequence(new));
    assert_int_equal(live_bytes(&w, old), old_live);
    assert_int_equal(live_bytes(&w, new), new_live + SIZE);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_changed_key_is_read_anew),
        cmocka_unit_test(test_a_key_that_never_rests_is_given_up),
        cmocka_unit_test(test_what_was_read_too_late_is_dropped),
        cmocka_unit_test(test_waiters_live_through_a_restart),
        cmocka_unit_test(test_a_failed_read),
        cmocka_unit_test(test_an_older_record_in_its_place_is_refused),
        cmocka_unit_test(test_a_chain_is_read_anew),
        cmocka_unit_test(test_another_delta_in_its_place_is_refused),
        cmocka_unit_test(test_a_chain_without_memory),
        cmocka_unit_test(test_a_recovery_with_many_chains),
        cmocka_unit_test(test_deltas_in_any_order_and_twice),
    };

    return cmocka_run_group_tests_name("store_fetch", tests, NULL, NULL);
}
