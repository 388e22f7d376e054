/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/backup.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BACKUP_DIR "/data/backup"
#define FILES_MAX  256u

/* ---- what weirctl does, in the simulator ------------------------------------------------------ */

struct keeper {
    struct world *w;
    uint64_t id;
    struct backup_status status;
    char names[FILES_MAX][BACKUP_NAME_MAX];
    struct io_op op;
    bool is_done;
};

static void keeper_done(struct io_op *op)
{
    struct keeper *keeper = op->arg;

    keeper->is_done = true;
}

static ssize_t keeper_wait(struct keeper *keeper)
{
    sim_run_while_not(keeper->w->sim, &keeper->is_done, WORLD_OPEN_US);
    assert_true(keeper->is_done);
    keeper->is_done = false;
    return keeper->op.result;
}

static void keeper_start(struct keeper *keeper, struct world *w)
{
    *keeper = (struct keeper){.w = w, .op = {.done = keeper_done}};
    keeper->op.arg = keeper;
    assert_int_equal(backup_start(w->store, &keeper->id), 0);
}

/* Until it is ready; others go on meanwhile, or nobody does anything. */
static void keeper_wait_ready(struct keeper *keeper, bool is_quiet)
{
    struct world *w = keeper->w;

    for (unsigned i = 0; i < 5000; i++) {
        backup_status_get(w->store, keeper->id, &keeper->status);
        if (keeper->status.state != BACKUP_RUNNING)
            break;
        if (!is_quiet)
            world_live(w, 1);
        sim_run_for(w->sim, 2000);
    }
    assert_int_equal(keeper->status.state, BACKUP_READY);
    assert_true(keeper->status.file_count <= FILES_MAX);
    for (uint32_t i = 0; i < keeper->status.file_count; i++)
        backup_file_name(w->store, i, keeper->names[i]);
}

static void keeper_ready(struct keeper *keeper)
{
    keeper_wait_ready(keeper, false);
}

static void file_copy(struct world *w, const char *from, const char *to)
{
    ssize_t size = sim_disk_size(w->node, from, false);
    char *data = must_zalloc((size_t)size + 1);

    assert_int_equal(sim_disk_peek(w->node, from, false, data, (size_t)size, 0), size);
    sim_disk_put(w->node, to, bytes_of(data, (size_t)size));
    mem_free(data);
}

/* One file; the names are durable when all are there. */
static void keeper_take(struct keeper *keeper, uint32_t i)
{
    char from[128], to[128];
    const char *name = keeper->names[i];

    (void)snprintf(from, sizeof(from), WORLD_DIR "/%s", name);
    (void)snprintf(to, sizeof(to), BACKUP_DIR "/%s", name);
    if (strcmp(name, "MANIFEST") == 0 || strcmp(name, "shard") == 0) {
        file_copy(keeper->w, from, to);
        return;
    }
    io_link(keeper->w->io, &keeper->op, from, to);
    assert_int_equal(keeper_wait(keeper), 0);
}

static void keeper_all(struct keeper *keeper)
{
    for (uint32_t i = 0; i < keeper->status.file_count; i++) {
        keeper_take(keeper, i);
        world_live(keeper->w, 3);
    }
    io_dirsync(keeper->w->io, &keeper->op, BACKUP_DIR);
    assert_int_equal(keeper_wait(keeper), 0);
}

/* A store of its own in the same world, on what the backup has. */
static struct world other_open(const struct world *w, uint64_t disk_max)
{
    struct world other = *w;

    other.options.dir = BACKUP_DIR;
    other.options.ring_path = "/dev/shm/weir-test-backup";
    other.options.disk_max = disk_max;
    other.store = NULL;
    assert_int_equal(world_try_open(&other), 0);
    return other;
}

static void other_close(struct world *other)
{
    other->is_told = false;
    store_turn_end(other->store);
    store_close(other->store, world_told, other);
    sim_run_while_not(other->sim, &other->is_told, WORLD_OPEN_US);
    assert_true(other->is_told);
    store_destroy(&other->store);
}

/* Opens the backup as a store of its own, in the same world, and looks at all of it. */
static void backup_check(struct world *w, uint64_t lsn, bool lives_on)
{
    struct world other = other_open(w, w->options.disk_max);

    assert_int_equal(store_lsn(other.store), lsn);
    other.ops = must_alloc(w->count * sizeof(*w->ops));
    memcpy(other.ops, w->ops, w->count * sizeof(*w->ops));
    other.cap = w->count;
    world_forget_after(&other, lsn);
    world_check(&other, lsn);
    if (lives_on) { /* it recycles, and writes checkpoints: what it shares is not touched */
        world_live(&other, 1000);
        store_turn_end(other.store);
        world_check(&other, UINT64_MAX);
    }
    other_close(&other);
    mem_free(other.ops);
    w->random = other.random;
}

static void backup_forget(struct world *w)
{
    struct keeper keeper = {.w = w, .op = {.done = keeper_done}};
    char path[128];

    keeper.op.arg = &keeper;
    for (unsigned i = 0; i < 2000; i++) {
        (void)snprintf(path, sizeof(path), i < 1000 ? BACKUP_DIR "/%06u.seg" : BACKUP_DIR "/checkpoint.%u", i % 1000);
        io_unlink(w->io, &keeper.op, path);
        MAYBE(keeper_wait(&keeper) != 0);
    }
    io_unlink(w->io, &keeper.op, BACKUP_DIR "/MANIFEST");
    MAYBE(keeper_wait(&keeper) != 0);
}

static void backup_world(struct world *w, uint64_t seed)
{
    world_init(w, seed, NULL);
    w->options.fsync = (enum store_fsync)(seed % 3);
    w->options.disk_max = 14u * (256u << 10); /* so that segments come round often */
    w->value_max = 3000;
    sim_disk_mkdir(w->node, BACKUP_DIR);
    world_open(w);
}

/* ---- tests ------------------------------------------------------------------------------------ */

/* Changes, checkpoints and the cleaner go on while the files are linked, and long after: the backup opens as what the store
 * was when they were held, and the store that lives on with the same files stays what it is. */
static void test_backup_is_the_state_of_one_moment(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world w;
        struct keeper keeper;
        uint64_t cleaned;

        backup_world(&w, seed);
        for (unsigned round = 0; round < 2; round++) {
            world_live(&w, 300);
            keeper_start(&keeper, &w);
            keeper_ready(&keeper);
            keeper_all(&keeper);
            assert_true(backup_end(w.store, keeper.id));
            assert_false(backup_end(w.store, keeper.id));
            cleaned = w.store->stats.cleaner_segments;
            for (unsigned i = 0; i < 200 && w.store->stats.cleaner_segments < cleaned + 8; i++)
                world_live(&w, 100);
            assert_true(w.store->stats.cleaner_segments >= cleaned + 8);
            world_check(&w, UINT64_MAX);
            backup_check(&w, keeper.status.lsn, true);
            world_check(&w, UINT64_MAX);
            world_close(&w);
            world_open(&w);
            world_check(&w, UINT64_MAX);
            backup_forget(&w);
        }
        world_deinit(&w);
    }
}

/* A sum of what each linked file has. */
static void keeper_sums(const struct keeper *keeper, uint64_t sums[FILES_MAX])
{
    for (uint32_t i = 0; i < keeper->status.file_count; i++) {
        char path[128], *data;
        ssize_t size;

        (void)snprintf(path, sizeof(path), BACKUP_DIR "/%s", keeper->names[i]);
        size = sim_disk_size(keeper->w->node, path, false);
        data = must_zalloc((size_t)size + 1);
        assert_int_equal(sim_disk_peek(keeper->w->node, path, false, data, (size_t)size, 0), size);
        sums[i] = XXH3_64bits(data, (size_t)size);
        mem_free(data);
    }
}

/* B1, B4: from the moment on at which it is ready nothing of it changes, whether all was durable before it began (nobody has
 * written for a while: no flush is needed then) or not. */
static void test_what_is_linked_does_not_change(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint64_t sums[FILES_MAX], later[FILES_MAX];
        struct world w;
        struct keeper keeper;

        backup_world(&w, seed);
        world_live(&w, 300);
        if (seed % 2 == 0) {
            store_turn_end(w.store);
            sim_run_for(w.sim, 3000 * 1000ull);
        }
        keeper_start(&keeper, &w);
        keeper_wait_ready(&keeper, seed % 2 == 0);
        for (uint32_t i = 0; i < keeper.status.file_count; i++)
            keeper_take(&keeper, i);
        keeper_sums(&keeper, sums);
        assert_true(backup_end(w.store, keeper.id));
        world_live(&w, 300);
        store_turn_end(w.store);
        sim_run_for(w.sim, 3000 * 1000ull);
        keeper_sums(&keeper, later);
        for (uint32_t i = 0; i < keeper.status.file_count; i++)
            assert_int_equal(sums[i], later[i]);
        world_deinit(&w);
    }
}

/* Killed, or without power, after any number of links: the store is what it would have been without them; and when all
 * names were durable, so is the backup. */
static void test_crash_during_a_backup(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct world w;
        struct keeper keeper;
        uint64_t lsn;
        bool with_host = seed % 2 == 0, is_whole = seed % 3 == 0;

        backup_world(&w, seed);
        world_live(&w, 400);
        keeper_start(&keeper, &w);
        keeper_ready(&keeper);
        if (is_whole)
            keeper_all(&keeper);
        for (uint32_t i = 0; i < world_random(&w, keeper.status.file_count) && !is_whole; i++)
            keeper_take(&keeper, i);
        world_live(&w, 20);
        world_die(&w, with_host);
        world_open(&w);
        lsn = store_lsn(w.store);
        assert_true(lsn >= w.marks.durable);
        if (!with_host)
            assert_int_equal(lsn, w.marks.appended);
        world_forget_after(&w, lsn);
        world_check(&w, lsn);
        assert_false(backup_end(w.store, keeper.id)); /* B3 */
        world_live(&w, 600);
        world_check(&w, UINT64_MAX);
        if (is_whole && keeper.status.lsn <= lsn)
            backup_check(&w, keeper.status.lsn, false);
        world_close(&w);
        world_open(&w);
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

/* Nothing that a backup has linked may be used again, and a node with a smaller disk has no room for anything new before
 * some of it went. It goes, and writes are taken. */
static void test_life_on_a_smaller_disk(void **state)
{
    struct world w, other;
    struct keeper keeper;

    (void)state;
    backup_world(&w, 3);
    world_live(&w, 3000);
    store_turn_end(w.store);
    keeper_start(&keeper, &w);
    keeper_ready(&keeper);
    keeper_all(&keeper);
    assert_true(backup_end(w.store, keeper.id));
    other = other_open(&w, 9u * (256u << 10));
    assert_true(other.store->stats.checkpoints == 0);
    for (unsigned i = 0; i < 3000; i++) {
        struct store_key key;
        char name[32];
        int err;

        for (unsigned wait = 0; (err = store_may_write(other.store, 3000)) == ERR_AGAIN && wait < 5000; wait++)
            sim_run_for(other.sim, 1000);
        assert_int_equal(err, 0);
        store_find(other.store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "new:%u", i % 20)), &key);
        assert_int_equal(store_put_string(other.store, &key, bytes_of(w.options.dir, 1), NULL), 0);
        if (i % 8 == 0)
            store_turn_end(other.store);
    }
    other_close(&other);
    world_deinit(&w);
}

/* Who does not ask any more does not hold the files for ever; who asks does, and no checkpoint is written meanwhile. */
static void test_lease(void **state)
{
    struct world w;
    struct keeper keeper;
    uint64_t checkpoints, other;

    (void)state;
    backup_world(&w, 1);
    world_live(&w, 200);
    keeper_start(&keeper, &w);
    keeper_ready(&keeper);
    checkpoints = w.store->stats.checkpoints;
    for (unsigned i = 0; i < 3; i++) {
        store_checkpoint(w.store);
        sim_run_for(w.sim, (BACKUP_LEASE_MS - 1000) * 1000ull);
        backup_status_get(w.store, keeper.id, &keeper.status);
        assert_int_equal(keeper.status.state, BACKUP_READY);
        assert_int_equal(backup_start(w.store, &other), ERR_EXISTS);
        backup_status_get(w.store, keeper.id + 1, &keeper.status);
        assert_int_equal(keeper.status.state, BACKUP_NONE);
        assert_false(backup_end(w.store, keeper.id + 1));
    }
    assert_int_equal(w.store->stats.checkpoints, checkpoints);
    sim_run_for(w.sim, (BACKUP_LEASE_MS + 1000) * 1000ull);
    backup_status_get(w.store, keeper.id, &keeper.status);
    assert_int_equal(keeper.status.state, BACKUP_NONE);
    assert_false(backup_end(w.store, keeper.id));
    assert_true(w.store->stats.checkpoints > checkpoints);
    assert_int_equal(backup_start(w.store, &other), 0);
    MAYBE(backup_end(w.store, other));
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A flush that fails: the backup is told as failed, or its end is. */
static void test_disk_that_fails(void **state)
{
    struct world w;
    struct keeper keeper;

    (void)state;
    backup_world(&w, 2);
    world_live(&w, 200);
    store_turn_end(w.store);
    sim_disk_fail(w.node, SIM_DISK_DATASYNC, NULL, -EIO, 1);
    keeper_start(&keeper, &w);
    for (unsigned i = 0; i < 1000; i++) {
        backup_status_get(w.store, keeper.id, &keeper.status);
        if (keeper.status.state != BACKUP_RUNNING)
            break;
        sim_run_for(w.sim, 5000);
    }
    assert_int_equal(keeper.status.state, BACKUP_FAILED);
    assert_false(backup_end(w.store, keeper.id));
    assert_int_equal(backup_start(w.store, &keeper.id), -EROFS);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup_is_the_state_of_one_moment),
        cmocka_unit_test(test_what_is_linked_does_not_change),
        cmocka_unit_test(test_crash_during_a_backup),
        cmocka_unit_test(test_life_on_a_smaller_disk),
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_disk_that_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
