/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of a store whose cleaner gives segments back that the newest checkpoint names: verify finds no damage. If one
 * more is taken away, which may be needed or not, verify and a start agree about it; and when both are content, nothing is
 * missing.
 */
#include "tests/unit/backend/store/store_world.h"
#include "tests/unit/ctl/ctl_folder.h"

#define LIVES 3u

struct fixture {
    struct world w;
    struct folder folder;
    char dir[96];
    FILE *out;
    struct report report;
    uint64_t hot_from; /* of the newest checkpoint */
    uint64_t gone, refused, passed;
};

/* Then the power is cut, with all changes on the disk: nothing is in the ring alone, of which verify knows nothing, and
 * what is seen is what is durable, which is all that a copy of the disk brings back. */
static void live(struct world *w)
{
    assert_true(world_live_in_room(w, 500 + (unsigned)world_random(w, 500)));
    w->is_told = false;
    store_log_flush(w->store->log, world_told, w);
    sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
    assert_true(w->is_told && w->err == 0);
    world_die(w, true);
}

static void shard_look(struct fixture *f, struct shard *shard)
{
    struct shard_checkpoint checkpoints[2];
    unsigned count;

    assert_int_equal(shard_open(f->dir, &f->report, shard), 0);
    count = shard_checkpoints(shard, checkpoints);
    f->hot_from = count > 0 ? checkpoints[0].meta.hot_from : 0;
    for (unsigned i = 0; i < count; i++)
        shard_checkpoint_free(&checkpoints[i]);
}

static uint64_t damages_of(struct fixture *f)
{
    struct progress progress = {0};
    struct verify_summary sum;
    struct shard shard;

    f->report.damages = 0;
    assert_int_equal(shard_open(f->dir, &f->report, &shard), 0);
    assert_int_equal(verify_shard(&shard, &progress, &sum), 0);
    shard_close(&shard);
    f->gone += sum.gone;
    return f->report.damages;
}

/* As if the cleaner had given that segment back. */
static void without_one(struct fixture *f, const struct shard_segment *segment)
{
    struct world *w = &f->w;
    struct segment_header header = segment->header;
    char path[64], page[PAGE_SIZE_], before[PAGE_SIZE_];
    bool is_refused;

    (void)snprintf(path, sizeof(path), WORLD_DIR "/%s", segment->name);
    assert_int_equal(sim_disk_peek(w->node, path, false, before, sizeof(before), 0), sizeof(before));
    header.kind = SEGMENT_HEADER_FREE;
    segment_header_encode(&header, page);
    file_write(f->dir, segment->name, bytes_of(page, sizeof(page)), 0);
    sim_disk_overwrite(w->node, path, 0, bytes_of(page, sizeof(page)));
    is_refused = world_try_open(w) != 0;
    if (is_refused != (damages_of(f) > 0))
        fail_msg("segment %llu: a start %s, verify tells of %llu damages", (unsigned long long)segment->sequence,
                 is_refused ? "is refused" : "is content", (unsigned long long)f->report.damages);
    if (is_refused) {
        world_give_up(w);
        f->refused++;
    } else {
        world_check(w, UINT64_MAX);
        world_die(w, false);
        f->passed++;
    }
    file_write(f->dir, segment->name, bytes_of(before, sizeof(before)), 0);
}

static void each_without_one(struct fixture *f)
{
    struct sim_disk_copy *copy = sim_disk_copy_create(f->w.node);
    struct shard shard;

    shard_look(f, &shard);
    for (uint32_t i = 0; i < shard.count; i++) {
        const struct shard_segment *segment = &shard.segments[i];

        /* A blob's file is removed when it is given back, and hot ones from there on never are. */
        if (segment->is_free || segment->is_blob || (segment->is_hot && segment->sequence >= f->hot_from))
            continue;
        without_one(f, segment);
        sim_node_kill(f->w.node);
        sim_disk_copy_restore(f->w.node, copy);
        f->w.io = sim_node_start(f->w.node);
    }
    shard_close(&shard);
    sim_disk_copy_destroy(&copy);
}

static void lives(struct fixture *f, uint64_t seed)
{
    struct world *w = &f->w;

    world_init(w, seed, NULL);
    w->options.segment_size = 64u << 10;
    w->options.ring_size = 1u << 18;
    w->options.disk_max = 1u << 20;
    w->value_max = 3000;
    for (unsigned life = 0; life < LIVES; life++) {
        world_open(w);
        live(w);
        disk_dump(w->node, WORLD_DIR, f->dir);
        assert_int_equal(damages_of(f), 0);
        each_without_one(f);
        assert_int_equal(tree_remove(f->dir), 0);
    }
    world_deinit(w);
}

static void test_verify_and_a_start_agree(void **state)
{
    struct fixture f = {.out = nowhere()};

    (void)state;
    folder_make(&f.folder);
    (void)snprintf(f.dir, sizeof(f.dir), "%s/shard-0", f.folder.in);
    f.report.out = f.out;
    for (uint64_t seed = 1; seed <= 6; seed++)
        lives(&f, seed);
    folder_remove(&f.folder, 1);
    (void)fclose(f.out);
    print_message("# %llu keys' places gone; one segment less: %llu refused, %llu content\n", (unsigned long long)f.gone,
                  (unsigned long long)f.refused, (unsigned long long)f.passed);
    assert_true(f.gone > 0 && f.refused > 0 && f.passed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_and_a_start_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
