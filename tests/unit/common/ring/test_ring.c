/* SPDX-License-Identifier: Apache-2.0 */
/* Rings against their own definitions. Agreement with nutcracker is tests/e2e/test_placement.py's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/ring/ring.h"

#define SERVERS_MAX 256

struct fixture {
    char names[SERVERS_MAX][32];
    struct ring_server servers[SERVERS_MAX];
};

static void fill(struct fixture *f, uint32_t count)
{
    memset(f, 0, sizeof(*f));
    for (uint32_t i = 0; i < count; i++) {
        int len = snprintf(f->names[i], sizeof(f->names[i]), "10.0.0.%u:6379", i);

        f->servers[i] = (struct ring_server){
            .name = bytes_of(f->names[i], (size_t)len), .weight = 1, .is_live = true};
    }
}

static struct ring *make(const struct fixture *f, uint32_t count,
                         enum ring_distribution distribution)
{
    struct ring_options options = {.distribution = distribution, .hash = HASH_fnv1a_64};
    struct ring *ring = NULL;

    assert_int_equal(ring_create(&options, f->servers, count, &ring), 0);
    return ring;
}

static struct bytes number_key(uint32_t number, char text[static 16])
{
    return bytes_of(text, (size_t)snprintf(text, 16, "k%u", number));
}

/* The look-up of many keys at once says what it says of each: every hash and distribution, tags, keys of
 * one length and of mixed ones, empty ones, a step. */
static void check_each(const struct ring *ring)
{
    static char texts[64][16];
    struct bytes keys[64];
    uint32_t servers[64];

    for (uint32_t i = 0; i < 64; i++) {
        keys[i] = number_key(i < 32 ? 1000 + i : i * i * i, texts[i]);
        if (i % 11 == 10)
            keys[i].len = 0;
        if (i % 13 == 12)
            keys[i] = i % 2 == 0 ? BYTES("{tag}k") : BYTES("\xff\x80{tag}\xfe");
    }
    for (uint32_t step = 1; step <= 3; step++)
        for (uint32_t count = 0; count <= 64 / step; count++) {
            ring_lookup_each(ring, keys, step, count, servers);
            for (uint32_t i = 0; i < count; i++)
                assert_int_equal(servers[i], ring_lookup(ring, keys[(size_t)i * step], 0));
        }
}

static void test_many_keys_at_once_are_placed_as_alone(void **state)
{
    static const enum ring_distribution distributions[] = {RING_ketama, RING_modula, RING_jump,
                                                           RING_slots};
    struct fixture f;

    (void)state;
    fill(&f, 9);
    for (size_t d = 0; d < ARRAY_COUNT(distributions); d++)
        for (uint32_t hash = 0; hash < HASH_KIND_COUNT; hash++)
            for (uint32_t variant = 0; variant < 4; variant++) {
                struct ring_options options = {.distribution = distributions[d],
                                               .hash = (enum hash_kind)hash,
                                               .has_tag = (variant & 1) != 0,
                                               .tag_open = '{', .tag_close = '}'};
                struct ring *ring;

                assert_int_equal(ring_create(&options, f.servers, variant & 2 ? 1 : 9, &ring), 0);
                check_each(ring);
                ring_destroy(&ring);
            }
}

/* With equal weights nutcracker's floats lose a step for exactly these counts (below 250). */
static void test_ketama_rounds_in_single_precision(void **state)
{
    static const uint32_t short_counts[] = {25,  47,  50,  55,  61,  71,  94,  100, 107, 109,
                                            110, 115, 122, 142, 159, 163, 188, 193, 200, 209};
    struct fixture f;

    (void)state;
    fill(&f, SERVERS_MAX);
    for (uint32_t count = 1; count <= 209; count++) {
        struct ring *ring = make(&f, count, RING_ketama);
        uint32_t expected = 160;

        for (size_t i = 0; i < ARRAY_COUNT(short_counts); i++)
            expected = short_counts[i] == count ? 156 : expected;
        assert_int_equal(ring_server_share(ring, 0), expected);
        assert_int_equal(ring_server_share(ring, count - 1), expected);
        ring_destroy(&ring);
    }
}

static int compare_points(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

/* The definition, spelt out slowly: sort all points, walk to the first that is not below. */
struct slow_ketama {
    uint64_t points[SERVERS_MAX * 160];
    uint32_t count;
};

static void slow_build(struct slow_ketama *slow, const struct fixture *f, const struct ring *ring,
                       uint32_t count)
{
    slow->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t n = 0; n < ring_server_share(ring, i) / 4; n++) {
            char text[64];
            uint8_t digest[HASH_MD5_SIZE];

            snprintf(text, sizeof(text), "%s-%u", f->names[i], n);
            hash_md5_digest(bytes_of_string(text), digest);
            for (unsigned j = 0; j < HASH_MD5_SIZE; j += 4) {
                uint32_t value = (uint32_t)digest[j] | (uint32_t)digest[j + 1] << 8 |
                                 (uint32_t)digest[j + 2] << 16 | (uint32_t)digest[j + 3] << 24;

                slow->points[slow->count++] = (uint64_t)value << 32 | i;
            }
        }
    }
    qsort(slow->points, slow->count, sizeof(slow->points[0]), compare_points);
}

static uint32_t slow_lookup(const struct slow_ketama *slow, uint32_t hash)
{
    for (uint32_t i = 0; i < slow->count; i++) {
        if (slow->points[i] >> 32 >= hash)
            return (uint32_t)slow->points[i];
    }
    return (uint32_t)slow->points[0];
}

static void test_ketama_lookup_is_the_next_point(void **state)
{
    static struct slow_ketama slow;
    struct fixture f;

    (void)state;
    for (uint32_t count = 2; count < 60; count += 19) {
        struct ring *ring;

        fill(&f, count);
        f.servers[1].weight = 5;
        f.servers[0].is_live = count != 21;
        ring = make(&f, count, RING_ketama);
        slow_build(&slow, &f, ring, count);
        for (uint64_t hash = 0; hash <= UINT32_MAX; hash += 0x155555)
            assert_int_equal(ring_lookup_hash(ring, (uint32_t)hash),
                             slow_lookup(&slow, (uint32_t)hash));
        assert_int_equal(ring_lookup_hash(ring, UINT32_MAX), slow_lookup(&slow, UINT32_MAX));
        for (uint32_t i = 0; i < slow.count; i++) /* on a point: that one, not the next */
            assert_int_equal(ring_lookup_hash(ring, (uint32_t)(slow.points[i] >> 32)),
                             slow_lookup(&slow, (uint32_t)(slow.points[i] >> 32)));
        ring_destroy(&ring);
    }
}

static void test_ketama_ejection_moves_only_the_dead_servers_keys(void **state)
{
    struct fixture f;
    struct ring *all, *without;
    char text[16];

    (void)state;
    fill(&f, 10);
    all = make(&f, 10, RING_ketama);
    f.servers[3].is_live = false;
    without = make(&f, 10, RING_ketama);
    assert_int_equal(ring_live_count(without), 9);
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t before = ring_lookup(all, number_key(i, text), 0);
        uint32_t after = ring_lookup(without, number_key(i, text), 0);

        assert_true(after != 3);
        assert_true(before == 3 || before == after);
    }
    assert_true(ring_fingerprint(all) != ring_fingerprint(without));
    ring_destroy(&all);
    ring_destroy(&without);
}

static void test_modula_is_the_remainder_over_weights(void **state)
{
    static const uint32_t weights[][3] = {{1, 1, 1}, {3, 1, 7}, {70000, 1, 29999}, {1, 0, 0}};
    struct fixture f;

    (void)state;
    for (size_t set = 0; set < ARRAY_COUNT(weights); set++) {
        const uint32_t *w = weights[set];
        struct ring *ring;

        fill(&f, 3);
        for (uint32_t i = 0; i < 3; i++)
            f.servers[i].weight = w[i];
        ring = make(&f, 3, RING_modula);
        for (uint64_t hash = 0; hash <= UINT32_MAX; hash += 65521 * 3) {
            uint32_t unit = (uint32_t)hash % (w[0] + w[1] + w[2]);

            assert_int_equal(ring_lookup_hash(ring, (uint32_t)hash), unit < w[0]          ? 0
                                                                     : unit < w[0] + w[1] ? 1
                                                                                          : 2);
        }
        ring_destroy(&ring);
    }
}

static void test_random_takes_each_live_server_alike(void **state)
{
    struct fixture f;
    struct ring *ring;
    uint32_t hits[5] = {0};

    (void)state;
    fill(&f, 5);
    f.servers[2].is_live = false;
    f.servers[0].weight = 100;
    ring = make(&f, 5, RING_random);
    assert_true(ring_wants_random(ring));
    for (uint32_t i = 0; i < 4000; i++)
        hits[ring_lookup(ring, BYTES("same"), i * (UINT32_MAX / 4000))]++;
    assert_int_equal(hits[2], 0);
    assert_in_range(hits[0], 995, 1005);
    assert_in_range(hits[4], 995, 1005);
    assert_true(ring_lookup(ring, BYTES("x"), UINT32_MAX) == 4);
    ring_destroy(&ring);
}

static void test_jump_appending_moves_only_to_the_new_server(void **state)
{
    struct fixture f;
    struct ring *ten, *eleven;
    uint32_t moved = 0;
    char text[16];

    (void)state;
    fill(&f, 11);
    ten = make(&f, 10, RING_jump);
    eleven = make(&f, 11, RING_jump);
    for (uint32_t i = 0; i < 22000; i++) {
        uint32_t before = ring_lookup(ten, number_key(i, text), 0);
        uint32_t after = ring_lookup(eleven, number_key(i, text), 0);

        assert_true(before == after || after == 10);
        moved += before != after;
    }
    assert_in_range(moved, 1800, 2200);
    assert_true(ring_moved_share(ten, eleven, 20000) > 0.08);
    assert_true(ring_moved_share(ten, eleven, 20000) < 0.10);
    ring_destroy(&ten);
    ring_destroy(&eleven);
}

static void test_jump_spreads_a_dead_servers_keys_only(void **state)
{
    struct fixture f;
    struct ring *all, *without;
    uint32_t hits[4] = {0};
    char text[16];

    (void)state;
    fill(&f, 4);
    all = make(&f, 4, RING_jump);
    f.servers[1].is_live = false;
    without = make(&f, 4, RING_jump);
    for (uint32_t i = 0; i < 12000; i++) {
        uint32_t before = ring_lookup(all, number_key(i, text), 0);
        uint32_t after = ring_lookup(without, number_key(i, text), 0);

        assert_true(before == after || before == 1);
        if (before == 1)
            hits[after]++;
    }
    assert_int_equal(hits[1], 0);
    assert_in_range(hits[0], 800, 1200);
    assert_in_range(hits[3], 800, 1200);
    ring_destroy(&without);
    /* Nearly everything dead: the attempts run out, an answer there is. */
    for (uint32_t i = 0; i < 3; i++) {
        f.servers[i].is_live = i != 1;
        f.servers[i].weight = 1;
    }
    f.servers[1].weight = RING_WEIGHT_MAX;
    f.servers[3].is_live = true;
    without = make(&f, 4, RING_jump);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_not_equal(ring_lookup(without, number_key(i, text), 0), 1);
    ring_destroy(&all);
    ring_destroy(&without);
}

static void test_slots_split_evenly_like_redis_cli(void **state)
{
    struct fixture f;
    struct ring *ring;

    (void)state;
    fill(&f, 3);
    ring = make(&f, 3, RING_slots);
    assert_int_equal(ring_lookup_hash(ring, 0), 0);
    assert_int_equal(ring_lookup_hash(ring, 5460), 0);
    assert_int_equal(ring_lookup_hash(ring, 5461), 1);
    assert_int_equal(ring_lookup_hash(ring, 10922), 1);
    assert_int_equal(ring_lookup_hash(ring, 10923), 2);
    assert_int_equal(ring_lookup_hash(ring, 16383), 2);
    assert_int_equal(ring_gap_count(ring), 0);
    assert_int_equal(ring_lookup(ring, BYTES("foo"), 0), 2); /* slot 12182 */
    assert_int_equal(ring_lookup(ring, BYTES("x{foo}y"), 0), 2);
    assert_int_equal(ring_hash(ring, BYTES("x{foo}y")), 12182);
    ring_destroy(&ring);
}

static void test_slots_as_named(void **state)
{
    const struct ring_slots first[] = {{0, 99}, {200, 16383}}, second[] = {{100, 100}};
    struct fixture f;
    struct ring_options options = {.distribution = RING_slots};
    struct ring *ring;

    (void)state;
    fill(&f, 2);
    f.servers[0].slots = first, f.servers[0].slots_count = 2;
    f.servers[1].slots = second, f.servers[1].slots_count = 1;
    ring = make(&f, 2, RING_slots);
    assert_int_equal(ring_lookup_hash(ring, 100), 1);
    assert_int_equal(ring_lookup_hash(ring, 101), RING_NONE);
    assert_int_equal(ring_lookup_hash(ring, 99), 0);
    assert_int_equal(ring_gap_count(ring), 99);
    assert_int_equal(ring_server_share(ring, 1), 1);
    ring_destroy(&ring);
    /* One server that owns a part is no shortcut. */
    ring = make(&f, 1, RING_slots);
    assert_int_equal(ring_lookup_hash(ring, 150), RING_NONE);
    ring_destroy(&ring);
    f.servers[1].slots = first;
    assert_int_equal(ring_create(&options, f.servers, 2, &ring), ERR_INVALID);
}

static void test_ranges_are_bytewise(void **state)
{
    const struct ring_range low[] = {{BYTES_EMPTY, BYTES("h")}, {BYTES("x"), BYTES_EMPTY}};
    const struct ring_range high[] = {{BYTES("h"), BYTES("x")}};
    const struct ring_range over[] = {{BYTES("g"), BYTES("x")}};
    const struct ring_range gap[] = {{BYTES("h"), BYTES("w")}};
    struct ring_options options = {.distribution = RING_range};
    struct fixture f;
    struct ring *ring;

    (void)state;
    fill(&f, 2);
    f.servers[0].ranges = low, f.servers[0].ranges_count = 2;
    f.servers[1].ranges = high, f.servers[1].ranges_count = 1;
    ring = make(&f, 2, RING_range);
    assert_int_equal(ring_gap_count(ring), 0);
    assert_int_equal(ring_lookup(ring, BYTES_EMPTY, 0), 0);
    assert_int_equal(ring_lookup(ring, BYTES("gzzzz"), 0), 0);
    assert_int_equal(ring_lookup(ring, BYTES("h"), 0), 1);
    assert_int_equal(ring_lookup(ring, BYTES("wzz"), 0), 1);
    assert_int_equal(ring_lookup(ring, BYTES("x"), 0), 0);
    assert_int_equal(ring_lookup(ring, BYTES("\xff\xff"), 0), 0);
    ring_destroy(&ring);
    f.servers[1].ranges = gap;
    ring = make(&f, 2, RING_range);
    assert_int_equal(ring_gap_count(ring), 1);
    assert_int_equal(ring_lookup(ring, BYTES("wa"), 0), RING_NONE);
    ring_destroy(&ring);
    f.servers[1].ranges = over;
    assert_int_equal(ring_create(&options, f.servers, 2, &ring), ERR_INVALID);
}

static void test_one_server_takes_everything(void **state)
{
    static const enum ring_distribution all[] = {RING_ketama, RING_modula, RING_random, RING_jump,
                                                 RING_slots};
    struct fixture f;

    (void)state;
    fill(&f, 1);
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        struct ring *ring = make(&f, 1, all[i]);

        assert_int_equal(ring_lookup(ring, BYTES("x"), 77), 0);
        assert_int_equal(ring_lookup(ring, BYTES_EMPTY, 77), 0);
        ring_destroy(&ring);
        f.servers[0].is_live = false;
        ring = make(&f, 1, all[i]);
        assert_int_equal(ring_lookup(ring, BYTES("x"), 77), RING_NONE);
        ring_destroy(&ring);
        f.servers[0].is_live = true;
    }
}

static void test_empty_key_hashes_to_zero(void **state)
{
    struct ring_options options = {.distribution = RING_modula,
                                   .hash = HASH_murmur,
                                   .has_tag = true,
                                   .tag_open = '{',
                                   .tag_close = '}'};
    struct fixture f;
    struct ring *ring;

    (void)state;
    fill(&f, 7);
    assert_int_equal(ring_create(&options, f.servers, 7, &ring), 0);
    assert_int_equal(ring_hash(ring, BYTES_EMPTY), 0);
    assert_int_equal(ring_lookup(ring, BYTES_EMPTY, 0), 0);
    assert_int_equal(ring_hash(ring, BYTES("a{bc}d")), ring_hash(ring, BYTES("bc")));
    ring_destroy(&ring);
}

static void test_bad_servers_are_refused(void **state)
{
    struct ring_options options = {.distribution = RING_ketama};
    static struct ring_server many[50];
    struct fixture f;
    struct ring *ring = NULL;

    (void)state;
    fill(&f, 2);
    assert_int_equal(ring_create(&options, f.servers, 0, &ring), ERR_INVALID);
    f.servers[0].weight = RING_WEIGHT_MAX + 1;
    assert_int_equal(ring_create(&options, f.servers, 2, &ring), ERR_INVALID);
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        many[i] =
            (struct ring_server){.name = BYTES("x"), .weight = RING_WEIGHT_MAX, .is_live = true};
    assert_int_equal(ring_create(&options, many, 50, &ring), ERR_INVALID);
    assert_null(ring);
    assert_int_equal(ring_create(&options, many, 42, &ring), 0);
    ring_destroy(&ring);
}

static void test_fingerprint_sees_what_decides(void **state)
{
    struct ring_options options = {.distribution = RING_ketama, .hash = HASH_fnv1a_64};
    struct fixture f;
    struct ring *ring;
    uint64_t seen[8];
    size_t count = 0;

    (void)state;
    fill(&f, 4);
#define SEE()                                                                                      \
    do {                                                                                           \
        assert_int_equal(ring_create(&options, f.servers, 4, &ring), 0);                           \
        seen[count++] = ring_fingerprint(ring);                                                    \
        ring_destroy(&ring);                                                                       \
    } while (0)
    SEE();
    options.hash = HASH_md5;
    SEE();
    options.has_tag = true, options.tag_open = '{', options.tag_close = '}';
    SEE();
    f.servers[2].weight = 2;
    SEE();
    f.servers[1].name = BYTES("else");
    SEE();
    options.distribution = RING_modula;
    SEE();
    f.servers[3].is_live = false;
    SEE();
    f.servers[3].is_live = true;
    options.distribution = RING_jump;
    SEE();
#undef SEE
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
}

static void test_moved_share_counts_keys_that_change_label(void **state)
{
    struct fixture f, g;
    struct ring *a, *b;
    double moved;

    (void)state;
    fill(&f, 10);
    a = make(&f, 10, RING_ketama);
    assert_true(ring_moved_share(a, a, 1000) == 0);
    assert_true(ring_moved_share(a, a, 0) == 0);
    /* One of ten leaves: about a tenth. Indices shift, labels do not. */
    fill(&g, 10);
    memmove(&g.servers[4], &g.servers[5], 5 * sizeof(g.servers[0]));
    b = make(&g, 9, RING_ketama);
    moved = ring_moved_share(a, b, 20000);
    assert_true(moved > 0.07 && moved < 0.13);
    ring_destroy(&b);
    b = make(&g, 9, RING_random);
    assert_true(ring_moved_share(a, b, 10) > 0.88);
    ring_destroy(&a);
    ring_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_keys_at_once_are_placed_as_alone),
        cmocka_unit_test(test_ketama_rounds_in_single_precision),
        cmocka_unit_test(test_ketama_lookup_is_the_next_point),
        cmocka_unit_test(test_ketama_ejection_moves_only_the_dead_servers_keys),
        cmocka_unit_test(test_modula_is_the_remainder_over_weights),
        cmocka_unit_test(test_random_takes_each_live_server_alike),
        cmocka_unit_test(test_jump_appending_moves_only_to_the_new_server),
        cmocka_unit_test(test_jump_spreads_a_dead_servers_keys_only),
        cmocka_unit_test(test_slots_split_evenly_like_redis_cli),
        cmocka_unit_test(test_slots_as_named),
        cmocka_unit_test(test_ranges_are_bytewise),
        cmocka_unit_test(test_one_server_takes_everything),
        cmocka_unit_test(test_empty_key_hashes_to_zero),
        cmocka_unit_test(test_bad_servers_are_refused),
        cmocka_unit_test(test_fingerprint_sees_what_decides),
        cmocka_unit_test(test_moved_share_counts_keys_that_change_label),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
