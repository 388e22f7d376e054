/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The earth as a grid of 2^step by 2^step cells. A search takes the finest grid whose cell at the center and the
 * eight around it cover the shape, and looks at the scores of those cells:
 *
 *     NW  N  NE
 *      W  C  E        a cell of step s is the scores bits << (52 - 2 s) .. (bits + 1) << (52 - 2 s)
 *     SW  S  SE
 */
#include "backend/types/geo.h"

#include <math.h>

#define STEP_MAX       26u
#define EARTH_RADIUS   6372797.560856 /* meters */
#define HALF_MERCATOR  20037726.37    /* meters: half of the equator */
#define DEGREE         (M_PI / 180.0)

struct cell {
    uint32_t lat, lon; /* of the grid, from south and west */
    unsigned step;     /* 0: left out */
};

struct area {
    double lat_min, lat_max, lon_min, lon_max;
};

/* ---- cells and scores --------------------------------------------------------------------------- */

/* The bits of a number at the even places of another. */
static uint64_t spread(uint64_t x)
{
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
    x = (x | x << 2) & 0x3333333333333333u;
    return (x | x << 1) & 0x5555555555555555u;
}

static uint32_t gather(uint64_t x)
{
    x &= 0x5555555555555555u;
    x = (x | x >> 1) & 0x3333333333333333u;
    x = (x | x >> 2) & 0x0f0f0f0f0f0f0f0fu;
    x = (x | x >> 4) & 0x00ff00ff00ff00ffu;
    x = (x | x >> 8) & 0x0000ffff0000ffffu;
    return (uint32_t)(x | x >> 16);
}

static uint64_t cell_bits(const struct cell *cell)
{
    return spread(cell->lat) | spread(cell->lon) << 1;
}

/* On the upper limits the index is one past the grid, as Redis has it. */
static struct cell cell_at(struct geo_point point, double lat_max, unsigned step)
{
    double lat = (point.lat + lat_max) / (lat_max + lat_max);
    double lon = (point.lon + GEO_LON_MAX) / (GEO_LON_MAX + GEO_LON_MAX);
    double cells = (double)(1u << step);

    return (struct cell){
        .lat = (uint32_t)(lat * cells), .lon = (uint32_t)(lon * cells), .step = step};
}

static struct area cell_area(const struct cell *cell)
{
    double cells = (double)(1u << cell->step);
    double lat_size = GEO_LAT_MAX + GEO_LAT_MAX, lon_size = GEO_LON_MAX + GEO_LON_MAX;

    return (struct area){
        .lat_min = -GEO_LAT_MAX + cell->lat / cells * lat_size,
        .lat_max = -GEO_LAT_MAX + (cell->lat + 1.0) / cells * lat_size,
        .lon_min = -GEO_LON_MAX + cell->lon / cells * lon_size,
        .lon_max = -GEO_LON_MAX + (cell->lon + 1.0) / cells * lon_size,
    };
}

/* Around the world if need be. */
static struct cell cell_beside(const struct cell *cell, int lat, int lon)
{
    uint32_t mask = (1u << cell->step) - 1;
    struct cell beside = *cell;

    if (lat != 0)
        beside.lat = (cell->lat + (uint32_t)lat) & mask;
    if (lon != 0)
        beside.lon = (cell->lon + (uint32_t)lon) & mask;
    return beside;
}

double geo_score(struct geo_point point)
{
    struct cell cell = cell_at(point, GEO_LAT_MAX, STEP_MAX);

    return (double)cell_bits(&cell);
}

/* What a processor makes of a double that is no such integer, without undefined behavior. */
static uint64_t bits_of(double score)
{
    if (score < 0)
        return (uint64_t)(score > -0x1p63 ? (int64_t)score : INT64_MIN);
    return score < 0x1p64 ? (uint64_t)score : 0;
}

struct geo_point geo_point_of(double score)
{
    uint64_t bits = bits_of(score);
    struct cell cell = {.lat = gather(bits), .lon = gather(bits >> 1), .step = STEP_MAX};
    struct area area = cell_area(&cell);
    struct geo_point point = {
        .lon = (area.lon_min + area.lon_max) / 2,
        .lat = (area.lat_min + area.lat_max) / 2,
    };

    point.lon = MIN(MAX(point.lon, -GEO_LON_MAX), GEO_LON_MAX);
    point.lat = MIN(MAX(point.lat, -GEO_LAT_MAX), GEO_LAT_MAX);
    return point;
}

void geo_text(struct geo_point point, char out[GEO_TEXT_LEN])
{
    static const char letters[] = "0123456789bcdefghjkmnpqrstuvwxyz";
    struct cell cell = cell_at(point, 90, STEP_MAX);
    uint64_t bits = cell_bits(&cell);

    /* 52 bits are ten letters of five, and two bits that are told as none. */
    for (uint32_t i = 0; i < GEO_TEXT_LEN - 1; i++)
        out[i] = letters[bits >> (52 - (i + 1) * 5) & 0x1f];
    out[GEO_TEXT_LEN - 1] = letters[0];
}

/* ---- distances ---------------------------------------------------------------------------------- */

static double radians(double degrees)
{
    return degrees * DEGREE;
}

static double degrees(double radians)
{
    return radians / DEGREE;
}

static double lat_distance(double a, double b)
{
    return EARTH_RADIUS * fabs(radians(b) - radians(a));
}

double geo_distance(struct geo_point a, struct geo_point b)
{
    double v = sin((radians(b.lon) - radians(a.lon)) / 2), u, h;

    if (v == 0.0)
        return lat_distance(a.lat, b.lat);
    u = sin((radians(b.lat) - radians(a.lat)) / 2);
    h = u * u + cos(radians(a.lat)) * cos(radians(b.lat)) * v * v;
    return 2.0 * EARTH_RADIUS * asin(sqrt(h));
}

bool geo_shape_has(const struct geo_shape *shape, struct geo_point point, double *distance)
{
    struct geo_point beside = {.lon = shape->center.lon, .lat = point.lat};

    if (shape->is_box) {
        if (lat_distance(point.lat, shape->center.lat) > shape->height * shape->unit / 2 ||
            geo_distance(point, beside) > shape->width * shape->unit / 2)
            return false;
        *distance = geo_distance(shape->center, point);
        return true;
    }
    *distance = geo_distance(shape->center, point);
    return *distance <= shape->radius * shape->unit;
}

/* ---- searching ---------------------------------------------------------------------------------- */

static struct area shape_bounds(const struct geo_shape *shape)
{
    struct geo_point center = shape->center;
    double height = shape->unit * (shape->is_box ? shape->height / 2 : shape->radius);
    double width = shape->unit * (shape->is_box ? shape->width / 2 : shape->radius);
    double lat_delta = degrees(height / EARTH_RADIUS);
    /* Meridians come nearer to each other towards the poles: the side that is farther from the equator counts. */
    double far_lat = center.lat < 0 ? center.lat - lat_delta : center.lat + lat_delta;
    double lon_delta = degrees(width / EARTH_RADIUS / cos(radians(far_lat)));

    return (struct area){
        .lat_min = center.lat - lat_delta, .lat_max = center.lat + lat_delta,
        .lon_min = center.lon - lon_delta, .lon_max = center.lon + lon_delta,
    };
}

/* The finest step at which a circle fits into nine cells, near enough. */
static unsigned step_estimate(double meters, double lat)
{
    int step = 1;

    if (meters == 0)
        return STEP_MAX;
    for (; meters < HALF_MERCATOR; meters *= 2)
        step++;
    step -= 2;
    if (fabs(lat) > 66)
        step--;
    if (fabs(lat) > 80)
        step--;
    return (unsigned)MIN(MAX(step, 1), (int)STEP_MAX);
}

/* Whether the cells around `cell` do not reach as far as the bounds. */
static bool is_too_fine(const struct cell *cell, const struct area *bounds)
{
    struct cell north = cell_beside(cell, 1, 0), south = cell_beside(cell, -1, 0);
    struct cell east = cell_beside(cell, 0, 1), west = cell_beside(cell, 0, -1);

    return cell_area(&north).lat_max < bounds->lat_max ||
           cell_area(&south).lat_min > bounds->lat_min ||
           cell_area(&east).lon_max < bounds->lon_max || cell_area(&west).lon_min > bounds->lon_min;
}

/* Whether the cell to that side is outside of the bounds, as the one in the middle reaches farther. */
static bool is_useless(const struct area *area, const struct area *bounds, int lat, int lon)
{
    return (lat < 0 && area->lat_min < bounds->lat_min) ||
           (lat > 0 && area->lat_max > bounds->lat_max) ||
           (lon < 0 && area->lon_min < bounds->lon_min) ||
           (lon > 0 && area->lon_max > bounds->lon_max);
}

static double shape_reach(const struct geo_shape *shape)
{
    double half_width = shape->width / 2, half_height = shape->height / 2;

    if (!shape->is_box)
        return shape->radius * shape->unit;
    return sqrt(half_width * half_width + half_height * half_height) * shape->unit;
}

uint32_t geo_shape_scores(const struct geo_shape *shape, struct geo_scores out[GEO_SCORES_MAX])
{
    static const struct {
        int lat, lon;
    } sides[GEO_SCORES_MAX] = {{0, 0},  {1, 0},  {-1, 0}, {0, 1},  {0, -1},
                               {1, 1}, {1, -1}, {-1, 1}, {-1, -1}};
    struct area bounds = shape_bounds(shape), area;
    unsigned step = step_estimate(shape_reach(shape), shape->center.lat);
    struct cell cell = cell_at(shape->center, GEO_LAT_MAX, step);
    uint32_t count = 0;
    size_t last = 0;

    if (step > 1 && is_too_fine(&cell, &bounds)) {
        step--;
        cell = cell_at(shape->center, GEO_LAT_MAX, step);
    }
    area = cell_area(&cell);
    for (size_t i = 0; i < GEO_SCORES_MAX; i++) {
        struct cell side = cell_beside(&cell, sides[i].lat, sides[i].lon);
        struct cell before = cell_beside(&cell, sides[last].lat, sides[last].lon);
        unsigned shift = 2 * (STEP_MAX - step);

        if (step >= 2 && is_useless(&area, &bounds, sides[i].lat, sides[i].lon))
            continue;
        /* With two cells around the world the one to the east is the one to the west. */
        if (last != 0 && cell_bits(&side) == cell_bits(&before))
            continue;
        out[count].min = (double)(cell_bits(&side) << shift);
        out[count++].max = (double)((cell_bits(&side) + 1) << shift);
        last = i;
    }
    return count;
}
