/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/geo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct geo_point palermo = {.lon = 13.361389, .lat = 38.115556};
static const struct geo_point catania = {.lon = 15.087269, .lat = 37.502669};

/* What redis 7.0.15 keeps and says. */
static void test_scores_and_distances_are_those_of_redis(void **state)
{
    (void)state;
    char text[GEO_TEXT_LEN];
    struct geo_point a = geo_point_of(geo_score(palermo)), b = geo_point_of(geo_score(catania));

    assert_true(geo_score(palermo) == 3479099956230698.0);
    assert_true(geo_score(catania) == 3479447370796909.0);
    assert_true(fabs(geo_distance(a, b) - 166274.1516) < 0.0001);
    assert_true(geo_distance(a, a) == 0);
    geo_text(a, text);
    assert_memory_equal(text, "sqc8b49rny0", GEO_TEXT_LEN);
    geo_text(b, text);
    assert_memory_equal(text, "sqdtr74hyu0", GEO_TEXT_LEN);
}

static struct geo_point random_point(double lon_max, double lat_max)
{
    return (struct geo_point){.lon = ((double)rand() / RAND_MAX * 2 - 1) * lon_max,
                              .lat = ((double)rand() / RAND_MAX * 2 - 1) * lat_max};
}

/* A cell is some decimeters wide: there and back moves a point by less. */
static void test_a_point_comes_back(void **state)
{
    (void)state;

    srand(1);
    for (uint32_t i = 0; i < 10000; i++) {
        struct geo_point point = random_point(GEO_LON_MAX, GEO_LAT_MAX);
        double score = geo_score(point);
        struct geo_point back = geo_point_of(score);

        assert_true(score >= 0 && score < 0x1p52);
        assert_true(fabs(back.lon - point.lon) < 6e-6 && fabs(back.lat - point.lat) < 3e-6);
        assert_true(geo_score(back) == score);
    }
}

/* Sorted sets may have any score. */
static void test_any_score_is_some_point(void **state)
{
    (void)state;
    static const double scores[] = {-1, INFINITY, -INFINITY, 1e300, 0x1p63, -0x1p63, 0x1p64, 0.5, -0.0};

    for (size_t i = 0; i < sizeof(scores) / sizeof(scores[0]); i++) {
        struct geo_point point = geo_point_of(scores[i]);

        assert_true(fabs(point.lon) <= GEO_LON_MAX && fabs(point.lat) <= GEO_LAT_MAX);
    }
}

/* Whatever lies in a shape has a score in exactly one of its ranges. */
static void test_ranges_cover_the_shape(void **state)
{
    (void)state;
    uint32_t inside = 0;

    srand(2);
    for (uint32_t i = 0; i < 2000; i++) {
        double size = pow(10, rand() % 6 + 1);
        struct geo_shape shape = {
            .center = random_point(120, 60), .is_box = rand() % 2, .unit = 1,
            .radius = size, .width = size * (1 + rand() % 3), .height = size * (1 + rand() % 3)};
        struct geo_scores scores[GEO_SCORES_MAX];
        uint32_t count = geo_shape_scores(&shape, scores);

        assert_in_range(count, 1, GEO_SCORES_MAX);
        for (uint32_t j = 0; j < 200; j++) {
            struct geo_point near = random_point(size / 50000, size / 80000), point;
            double distance, score;
            uint32_t hits = 0;

            near.lon = fmax(-180, fmin(180, near.lon + shape.center.lon));
            near.lat = fmax(-85, fmin(85, near.lat + shape.center.lat));
            score = geo_score(near);
            point = geo_point_of(score);
            if (!geo_shape_has(&shape, point, &distance))
                continue;
            inside++;
            for (uint32_t k = 0; k < count; k++)
                hits += score >= scores[k].min && score < scores[k].max;
            assert_int_equal(hits, 1);
        }
    }
    assert_true(inside > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_and_distances_are_those_of_redis),
        cmocka_unit_test(test_a_point_comes_back),
        cmocka_unit_test(test_any_score_is_some_point),
        cmocka_unit_test(test_ranges_cover_the_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
