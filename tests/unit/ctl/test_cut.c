/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a log is cut: at LSNs and times, with damage before and behind the cut; and that what stays is a whole log.
 */
#include "tests/unit/ctl/ctl_test.h"

#include "ctl/ctl.h"
#include "ctl/cut.h"
#include "ctl/range.h"

#define TURNS_MAX 400u

struct fixture {
    struct world w;
    struct folder folder;
    struct report report;
    struct shard shard;
    char dir[96], out[96];
    uint64_t turn_lsn[TURNS_MAX], turn_ms[TURNS_MAX];
    uint32_t turns;
};

/* Turns of one to some records, among them transactions and blobs, a second apart. */
static void fixture_write(struct fixture *f, uint64_t seed)
{
    struct world *w = &f->w;

    world_init(w, seed);
    w->options.shard = 0;
    w->options.shard_count = 1;
    assert_int_equal(world_start(w), 0);
    for (f->turns = 0; f->turns < 150; f->turns++) {
        store_log_wall_set(w->log, 1000000 + 1000 * f->turns);
        if (draw(w) % 4 == 0)
            world_transaction(w, 2 + (uint32_t)(draw(w) % 100)); /* some need more than one page write */
        else
            for (uint64_t i = draw(w) % 4 + 1; i > 0; i--)
                assert_int_equal(world_append(w), 0);
        store_log_turn_end(w->log);
        f->turn_lsn[f->turns] = store_log_last_lsn(w->log);
        f->turn_ms[f->turns] = 1000000 + 1000 * f->turns;
        if (f->turns % 5 == 0)
            assert_int_equal(world_flush(w), 0);
    }
    assert_int_equal(world_close(w), 0);
}

static void fixture_make(struct fixture *f, uint64_t seed)
{
    *f = (struct fixture){.report = {.out = nowhere()}};
    fixture_write(f, seed);
    folder_make(&f->folder);
    (void)snprintf(f->dir, sizeof(f->dir), "%s/shard-0", f->folder.in);
    (void)snprintf(f->out, sizeof(f->out), "%s/out", f->folder.path);
    world_dump(&f->w, f->dir);
}

static void fixture_end(struct fixture *f)
{
    folder_remove(&f->folder, 1);
    (void)fclose(f->report.out);
    world_deinit(&f->w);
}

static int cut_at(struct fixture *f, const struct shard_checkpoint *base, struct cut_limit limit, struct cut *cut)
{
    struct progress progress = {0};

    f->report.damages = 0;
    assert_int_equal(shard_open(f->dir, &f->report, &f->shard), 0);
    return cut_find(&f->shard, base, &limit, &progress, cut);
}

static int range_find_of(struct fixture *f, struct range *out)
{
    int err;

    assert_int_equal(shard_open(f->dir, &f->report, &f->shard), 0);
    err = range_find(&f->shard, out);
    shard_close(&f->shard);
    return err;
}

static struct cut_limit at_lsn(uint64_t lsn)
{
    return (struct cut_limit){.value = lsn};
}

static struct cut_limit at_time(uint64_t ms)
{
    return (struct cut_limit){.is_time = true, .value = ms};
}

/* What stays verifies. On a disk of its own, a recovery finds exactly the records up to the cut. */
static void stays(struct fixture *f, const struct cut *cut, uint64_t seed)
{
    struct world other;
    char path[64], shard[4096];

    assert_int_equal(mkdir(f->out, 0700), 0);
    world_init(&other, seed);
    other.options.shard = 0;
    other.options.shard_count = 1;
    sim_disk_mkdir(other.node, LOG_DIR);
    for (uint32_t i = 0; i < f->shard.count; i++) {
        const struct shard_segment *segment = &f->shard.segments[i];
        enum cut_part part = cut_part_of(cut, segment);

        if (segment->is_free || part == CUT_NONE)
            continue;
        assert_int_equal(part == CUT_SOME ? cut_compose(&f->shard, cut) : shard_load(&f->shard, segment), 0);
        (void)snprintf(path, sizeof(path), LOG_DIR "/%s", segment->name);
        sim_disk_put(other.node, path, bytes_of(f->shard.data, (size_t)segment->size));
        file_put(f->out, segment->name, bytes_of(f->shard.data, (size_t)segment->size));
    }
    assert_int_equal(sim_disk_peek(f->w.node, LOG_DIR "/shard", false, shard, sizeof(shard), 0), sizeof(shard));
    sim_disk_put(other.node, LOG_DIR "/shard", bytes_of(shard, sizeof(shard)));
    file_put(f->out, "shard", bytes_of(shard, sizeof(shard)));
    assert_int_equal(verify_directory(f->out, f->report.out), VERIFY_CLEAN);
    assert_int_equal(tree_remove(f->out), 0);
    assert_int_equal(world_start(&other), 0);
    assert_int_equal(other.wrong, 0);
    assert_true(other.seen_count <= f->w.count);
    for (uint32_t i = 0; i < other.seen_count; i++) {
        assert_int_equal(other.seen[i].lsn, f->w.model[i].lsn);
        assert_int_equal(other.seen[i].draw, f->w.model[i].draw);
    }
    if (other.seen_count < f->w.count)
        assert_true(f->w.model[other.seen_count].lsn > cut->lsn);
    if (other.seen_count > 0)
        assert_int_equal(other.seen[other.seen_count - 1].lsn, cut->lsn);
    assert_int_equal(world_close(&other), 0);
    world_deinit(&other);
}

static bool cuts_a_unit(const struct world *w, uint64_t lsn)
{
    for (uint32_t i = 0; i + 1 < w->count; i++)
        if (w->model[i].lsn <= lsn && w->model[i + 1].lsn > lsn)
            return w->model[i].unit == w->model[i + 1].unit;
    return false;
}

static void test_a_cut_at_an_lsn_takes_whole_units(void **state)
{
    struct fixture f;
    struct cut cut;

    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        uint64_t last;

        fixture_make(&f, seed);
        last = f.w.model[f.w.count - 1].lsn;
        for (uint64_t lsn = 0; lsn <= last + 1; lsn += 1 + lsn / 9) {
            uint64_t turn = 0;

            assert_int_equal(cut_at(&f, NULL, at_lsn(lsn), &cut), 0);
            for (uint32_t i = 0; i < f.turns; i++)
                turn = f.turn_lsn[i] <= lsn ? f.turn_lsn[i] : turn;
            assert_true(cut.lsn >= turn && cut.lsn <= lsn);
            assert_false(cuts_a_unit(&f.w, cut.lsn));
            assert_int_equal(cut.is_whole, lsn >= last);
            stays(&f, &cut, seed);
            shard_close(&f.shard);
        }
        fixture_end(&f);
    }
}

/* A turn has one time: a cut at it, or anywhere before the next, has all of the turn. */
static void test_a_cut_at_a_time_takes_whole_turns(void **state)
{
    struct fixture f;
    struct cut cut;

    (void)state;
    fixture_make(&f, 7);
    for (uint32_t i = 0; i + 1 < f.turns; i += 13) {
        for (uint32_t late = 0; late < 1000; late += 999) {
            assert_int_equal(cut_at(&f, NULL, at_time(f.turn_ms[i] + late), &cut), 0);
            assert_int_equal(cut.lsn, f.turn_lsn[i]);
            assert_int_equal(cut.wall_ms, f.turn_ms[i]);
            assert_int_equal(cut.next_ms, f.turn_ms[i + 1]);
            stays(&f, &cut, i);
            shard_close(&f.shard);
        }
    }
    assert_int_equal(cut_at(&f, NULL, at_time(f.turn_ms[f.turns - 1]), &cut), 0);
    assert_true(cut.is_whole);
    shard_close(&f.shard);
    assert_int_equal(cut_at(&f, NULL, at_time(f.turn_ms[0] - 1), &cut), 0);
    assert_int_equal(cut.lsn, 0);
    stays(&f, &cut, 7);
    shard_close(&f.shard);
    fixture_end(&f);
}

/* Q2: what a checkpoint shows cannot be taken back. */
static void test_no_cut_before_the_checkpoint(void **state)
{
    struct shard_checkpoint base = {0};
    struct fixture f;
    struct cut cut;

    (void)state;
    fixture_make(&f, 4);
    base.lsn_max = f.turn_lsn[20];
    assert_int_equal(cut_at(&f, &base, at_lsn(f.turn_lsn[19]), &cut), ERR_INVALID);
    shard_close(&f.shard);
    assert_int_equal(cut_at(&f, &base, at_lsn(f.turn_lsn[20]), &cut), 0);
    assert_int_equal(cut.lsn, f.turn_lsn[20]);
    shard_close(&f.shard);
    fixture_end(&f);
}

/* A header, a footer, the header of a free segment, or the file "lock", says that something was given back at that LSN. */
static void given_put(struct fixture *f, unsigned where, uint64_t lsn)
{
    char page[PAGE_SIZE_] = {0};
    struct segment_header header;
    uint32_t last;

    assert_int_equal(shard_open(f->dir, &f->report, &f->shard), 0);
    last = f->shard.count - 1;
    while (where == 1 && !f->shard.segments[last].is_footed)
        last--;
    header = f->shard.segments[last].header;
    header.given_lsn = lsn;
    if (where == 3) {
        struct given_page given = {.shard = f->shard.file.shard, .given_lsn = lsn};

        memcpy(given.uuid, f->shard.file.uuid, sizeof(given.uuid));
        given_page_encode(&given, page);
        file_put(f->dir, "lock", BYTES("weirshut"));
        file_write(f->dir, "lock", bytes_of(page, sizeof(page)), GIVEN_AT);
    } else if (where == 2) {
        header.kind = SEGMENT_HEADER_FREE;
        header.sequence += 100;
        header.size = 3 * PAGE_SIZE_;
        f->shard.data = must_zalloc(3 * PAGE_SIZE_);
        segment_header_encode(&header, f->shard.data);
        file_put(f->dir, "000063.seg", bytes_of(f->shard.data, 3 * PAGE_SIZE_));
    } else if (where == 1) {
        f->shard.segments[last].footer.given_lsn = lsn;
        segment_footer_encode(&f->shard.segments[last].footer, page);
        file_write(f->dir, f->shard.segments[last].name, bytes_of(page, sizeof(page)), header.size - PAGE_SIZE_);
    } else {
        segment_header_encode(&header, page);
        file_write(f->dir, f->shard.segments[last].name, bytes_of(page, sizeof(page)), 0);
    }
    shard_close(&f->shard);
}

/* Q2: nor what was given back since; wherever that is told. */
static void test_no_cut_before_what_was_given_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        struct shard_checkpoint base = {.meta.wall_ms = 77};
        uint32_t turn = 30 + 9 * i;
        struct fixture f;
        struct range range;
        struct cut cut;

        fixture_make(&f, 8 + i);
        base.lsn_max = f.turn_lsn[20];
        given_put(&f, i % 4, f.turn_lsn[turn]);
        assert_int_equal(cut_at(&f, &base, at_lsn(f.turn_lsn[turn - 1]), &cut), ERR_INVALID);
        assert_int_equal(range_begin(&f.shard, &base, &range), 0);
        assert_int_equal(range.from_lsn, f.turn_lsn[turn]);
        assert_int_equal(range.from_ms, f.turn_ms[turn]);
        shard_close(&f.shard);
        assert_int_equal(cut_at(&f, &base, at_time(range.from_ms - 1), &cut), ERR_INVALID);
        shard_close(&f.shard);
        assert_int_equal(cut_at(&f, &base, at_time(range.from_ms), &cut), 0);
        assert_int_equal(cut.lsn, f.turn_lsn[turn]);
        stays(&f, &cut, 8 + i);
        shard_close(&f.shard);
        assert_int_equal(range_find_of(&f, &range), 0);
        assert_int_equal(range.from_lsn, f.turn_lsn[turn]);
        assert_int_equal(range.to_lsn, f.turn_lsn[f.turns - 1]);
        fixture_end(&f);
    }
}

/* What is cut tells it on: what knew it may be behind the cut. */
static void test_a_cut_tells_what_was_given_back(void **state)
{
    struct segment_footer footer;
    struct fixture f;
    struct cut cut;

    (void)state;
    fixture_make(&f, 9);
    given_put(&f, 2, f.turn_lsn[40]);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[75]), &cut), 0);
    assert_int_equal(cut_compose(&f.shard, &cut), 0);
    assert_true(segment_footer_decode(f.shard.data + cut.segment->size - PAGE_SIZE_, &footer));
    assert_int_equal(footer.given_lsn, f.turn_lsn[40]);
    shard_close(&f.shard);
    fixture_end(&f);
}

/* So does what is restored, cut or whole, whatever told it in the source. */
static void test_what_is_restored_tells_what_was_given_back(void **state)
{
    (void)state;
    for (unsigned where = 0; where < 4; where++) {
        for (unsigned is_cut = 0; is_cut < 2; is_cut++) {
            char until[32], dir[128];
            struct fixture f;
            struct shard shard;

            fixture_make(&f, 9);
            given_put(&f, where, f.turn_lsn[40]);
            (void)snprintf(until, sizeof(until), "lsn:%llu", (unsigned long long)f.turn_lsn[75]);
            (void)snprintf(dir, sizeof(dir), "%s/shard-0", f.out);
            assert_int_equal(ctl_restore(f.folder.in, f.out, is_cut ? until : NULL, true), CTL_OK);
            assert_int_equal(verify_directory(dir, f.report.out), VERIFY_CLEAN);
            assert_int_equal(shard_open(dir, &f.report, &shard), 0);
            assert_int_equal(shard.given_lsn, f.turn_lsn[40]);
            shard_close(&shard);
            assert_int_equal(tree_remove(f.out), 0);
            fixture_end(&f);
        }
    }
}

/* Q5: damage before the cut is told, and there is no cut; damage behind it is not looked at. */
static void test_damage_matters_before_the_cut_alone(void **state)
{
    struct fixture f;
    struct cut cut;
    char name[24];
    uint64_t off;

    (void)state;
    fixture_make(&f, 5);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[75]), &cut), 0);
    (void)snprintf(name, sizeof(name), "%s", cut.segment->name);
    off = cut.page_off;
    shard_close(&f.shard);
    file_flip(f.dir, name, off + 100);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[10]), &cut), 0);
    assert_int_equal(f.report.damages, 0);
    stays(&f, &cut, 5);
    shard_close(&f.shard);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[75]), &cut), ERR_CORRUPT);
    assert_int_equal(f.report.damages, 1);
    shard_close(&f.shard);
    fixture_end(&f);
}

static void test_a_missing_segment_is_told(void **state)
{
    struct fixture f;
    struct cut cut;
    char path[160];

    (void)state;
    fixture_make(&f, 6);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[f.turns / 2]), &cut), 0);
    (void)snprintf(path, sizeof(path), "%s/%s", f.dir, cut.segment->name);
    shard_close(&f.shard);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(cut_at(&f, NULL, at_lsn(f.turn_lsn[f.turns - 1]), &cut), ERR_CORRUPT);
    assert_true(f.report.damages > 0);
    shard_close(&f.shard);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_at_an_lsn_takes_whole_units),
        cmocka_unit_test(test_a_cut_at_a_time_takes_whole_turns),
        cmocka_unit_test(test_no_cut_before_the_checkpoint),
        cmocka_unit_test(test_no_cut_before_what_was_given_back),
        cmocka_unit_test(test_a_cut_tells_what_was_given_back),
        cmocka_unit_test(test_what_is_restored_tells_what_was_given_back),
        cmocka_unit_test(test_damage_matters_before_the_cut_alone),
        cmocka_unit_test(test_a_missing_segment_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
