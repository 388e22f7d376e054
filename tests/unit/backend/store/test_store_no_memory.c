/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory runs out in the middle of a change of the store. What was refused has changed nothing, neither in memory nor in the
 * log. But for a change of an object that the log has no memory for: it is in memory already, so the shard is read-only from
 * then on, and after a restart it never was.
 *
 * The same drawn life again and again, in which the first allocation of a change is refused, the second, and so on. But
 * for pages: without one for a segment's header the log cannot go on.
 */
#include "tests/unit/no_memory.h"

#include "backend/store/index.h"
#include "backend/store/slab.h"
#include "tests/unit/backend/store/store_world.h"

/* A sanitized run takes seven times as long. */
#ifdef TEST_ASAN
#define SEEDS 1u
#else
#define SEEDS 2u
#endif

enum { CHANGES = 250, KEYS = 12 };

void *__real_slab_get(struct slab *slab, size_t size);
void *__wrap_slab_get(struct slab *slab, size_t size);

void *__wrap_slab_get(struct slab *slab, size_t size)
{
    return no_memory_now() ? NULL : __real_slab_get(slab, size);
}

int __real_index_insert(struct index *index, uint64_t hash, struct entry *entry);
int __wrap_index_insert(struct index *index, uint64_t hash, struct entry *entry);

int __wrap_index_insert(struct index *index, uint64_t hash, struct entry *entry)
{
    return no_memory_now() ? ERR_FULL : __real_index_insert(index, hash, entry);
}

struct life {
    struct world w;
    struct world_value values[KEYS];
    uint64_t left; /* allocations of changes until one is refused */
    bool was_refused;
};

static struct {
    unsigned refused, revoked, broken, unnoticed;
} seen;

static void value_forget(struct world_value *value)
{
    mem_free(value->data);
    *value = (struct world_value){0};
}

static void value_is_string(struct world_value *value, struct bytes bytes)
{
    value_forget(value);
    value->kind = 1;
    value->data = must_alloc(bytes.len + 1);
    memcpy(value->data, bytes.data, bytes.len);
    value->len = bytes.len;
}

static void value_field(struct world_value *value, unsigned field, uint32_t number)
{
    bool is_any = false;

    if (value->kind != 2)
        value_forget(value);
    value->fields[field] = number;
    for (unsigned f = 0; f < WORLD_FIELDS; f++)
        is_any |= value->fields[f] != 0;
    value->kind = is_any ? 2 : 0;
}

/* What is between the two may be refused memory. */
static void refuse_begin(struct life *life)
{
    no_memory.refused = 0;
    no_memory.left = life->left;
}

static void refuse_end(struct life *life)
{
    life->left = no_memory.left;
    no_memory.left = 0;
    life->was_refused |= no_memory.refused > 0;
}

/* After a change with this end. True: the key is as the change makes it. */
static bool judge(struct life *life, uint16_t k, int err, uint64_t lsn_before)
{
    struct world *w = &life->w;

    if (err == 0) {
        seen.unnoticed += no_memory.refused > 0;
        return true;
    }
    assert_int_equal(err, ERR_FULL);
    assert_true(no_memory.refused > 0);
    if (w->store->stats.is_read_only) {
        seen.broken++;
        return false;
    }
    if (store_lsn(w->store) > lsn_before) { /* the log had a new key already */
        assert_int_equal(life->values[k].kind, 0);
        seen.revoked++;
    } else {
        seen.refused++;
    }
    return false;
}

static void change_string(struct life *life, uint16_t k)
{
    static const uint32_t sizes[] = {3, 40, 120, 600, 9000, 17000, 40000};
    struct world *w = &life->w;
    uint32_t len = sizes[world_random(w, ARRAY_COUNT(sizes))];
    char name[32], *data = must_alloc(len);
    uint64_t lsn = store_lsn(w->store);
    struct store_key key;
    int err;

    world_fill(data, len, 1 + (uint32_t)world_random(w, 1000000));
    store_find(w->store, 0, world_key(k, name), &key);
    refuse_begin(life);
    err = store_put_string(w->store, &key, bytes_of(data, len), NULL);
    refuse_end(life);
    if (judge(life, k, err, lsn))
        value_is_string(&life->values[k], bytes_of(data, len));
    mem_free(data);
}

static int field_change(struct world *w, struct store_key *key, struct bytes field, struct bytes value)
{
    struct object *object = store_object_open(w->store, key, STORE_HASH, value.len > 0);
    bool is_new;
    int err = 0, err_change;

    if (object == NULL)
        return value.len > 0 ? ERR_FULL : 0;
    if (value.len > 0) {
        err = hash_set(object, field, value, &is_new);
        if (err == 0) {
            effect_begin(store_effects(w->store), HASH_EFFECT_SET, 2);
            effect_bytes(store_effects(w->store), field);
            effect_bytes(store_effects(w->store), value);
        }
    } else if (hash_delete(object, field)) {
        effect_begin(store_effects(w->store), HASH_EFFECT_DELETE, 1);
        effect_bytes(store_effects(w->store), field);
    }
    err_change = store_change(w->store, key);
    return err != 0 ? err : err_change;
}

static void change_field(struct life *life, uint16_t k)
{
    struct world *w = &life->w;
    unsigned field = (unsigned)world_random(w, WORLD_FIELDS);
    uint32_t number = world_random(w, 3) == 0 ? 0 : 1 + (uint32_t)world_random(w, 1000000);
    char name[32], text[16], digits[16];
    struct bytes field_bytes = bytes_of(text, (size_t)snprintf(text, sizeof(text), "field-%u", field));
    struct bytes value = number == 0 ? BYTES_EMPTY
                                     : bytes_of(digits, (size_t)snprintf(digits, sizeof(digits), "%u", number));
    uint64_t lsn = store_lsn(w->store);
    struct store_key key;
    int err;

    if (life->values[k].kind == 1)
        return;
    assert_int_equal(world_find(w, 0, world_key(k, name), &key), 0);
    refuse_begin(life);
    err = field_change(w, &key, field_bytes, value);
    refuse_end(life);
    if (judge(life, k, err, lsn))
        value_field(&life->values[k], field, number);
}

static void change_expiry(struct life *life, uint16_t k)
{
    struct world *w = &life->w;
    uint64_t lsn = store_lsn(w->store);
    struct store_key key;
    char name[32];
    int err;

    assert_int_equal(world_find(w, 0, world_key(k, name), &key), 0);
    if (key.entry == NULL)
        return;
    refuse_begin(life);
    err = store_set_expire(w->store, &key, world_random(w, 3) == 0 ? 0 : store_now_ms(w->store) + 1000000000);
    refuse_end(life);
    MAYBE(judge(life, k, err, lsn));
}

/* Neither may lose anything: the one that takes away, the one that only moves it. */
static void change_less(struct life *life, uint16_t k)
{
    struct world *w = &life->w;
    uint64_t lsn = store_lsn(w->store);
    struct store_key key;
    char name[32];
    int err = 0;

    store_find(w->store, 0, world_key(k, name), &key);
    if (key.entry == NULL)
        return;
    refuse_begin(life);
    if (world_random(w, 2) == 0) {
        MAYBE(spill_entry(w->store, key.hash, &key.entry) > 0);
        refuse_end(life);
        return;
    }
    err = store_delete(w->store, &key);
    refuse_end(life);
    if (judge(life, k, err, lsn))
        value_forget(&life->values[k]);
}

static void check(struct life *life)
{
    uint64_t count = 0;

    for (uint16_t k = 0; k < KEYS; k++) {
        world_check_key(&life->w, 0, k, &life->values[k]);
        count += life->values[k].kind != 0;
    }
    assert_int_equal(store_count(life->w.store, 0), count);
}

/* False: there were not so many allocations. */
static bool live(uint64_t seed, uint64_t refuse)
{
    struct life life = {.left = refuse};
    struct world *w = &life.w;
    bool was_refused;

    world_init(w, seed, NULL);
    world_open(w);
    for (unsigned i = 0; i < CHANGES && !w->store->stats.is_read_only; i++) {
        uint16_t k = (uint16_t)world_random(w, KEYS);

        switch (world_random(w, 8)) {
        case 0:
        case 1: change_less(&life, k); break;
        case 2:
        case 3:
        case 4: change_field(&life, k); break;
        case 5: change_expiry(&life, k); break;
        default: change_string(&life, k); break;
        }
        if (life.was_refused && life.left == 0 && i % 16 == 0 && !w->store->stats.is_read_only)
            check(&life);
        if (i % 8 == 0) {
            store_turn_end(w->store);
            sim_run_for(w->sim, 2000);
        }
    }
    store_turn_end(w->store);
    if (!w->store->stats.is_read_only)
        check(&life);
    sim_run_for(w->sim, 3000000); /* what is too large for the log ring is written, too */
    world_die(w, false);
    assert_int_equal(w->marks.appended, w->lsn_last);
    world_open(w);
    check(&life);
    was_refused = life.was_refused;
    for (uint16_t k = 0; k < KEYS; k++)
        value_forget(&life.values[k]);
    world_deinit(w);
    return was_refused;
}

static void test_memory_and_log_agree(void **state)
{
    (void)state;
    no_memory.spares_pages = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (uint64_t refuse = 1; live(seed, refuse); refuse++)
            ;
    print_message("# %u changes refused, %u taken back, %u shards read-only, %u not noticed\n", seen.refused, seen.revoked,
                  seen.broken, seen.unnoticed);
    assert_true(seen.refused > 100);
    assert_true(seen.revoked > 10);
    assert_true(seen.broken > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_and_log_agree),
    };

    return cmocka_run_group_tests_name("store_no_memory", tests, NULL, NULL);
}
