/* SPDX-License-Identifier: Apache-2.0 */
/*
 * geo.h - places on the earth as scores: 26 bits of latitude and of longitude, interleaved; and what is near to what.
 *
 * Every formula is evaluated in Redis's order, so that scores, distances and the order of results are equal to the
 * last bit. A score's even bits are the latitude's, from the lowest on.
 */
#pragma once
#include "common/base/base.h"

#define GEO_LON_MAX 180.0
#define GEO_LAT_MAX 85.05112878 /* as in Web Mercator */

struct geo_point {
    double lon, lat; /* degrees */
};

/* The point must be within the limits. */
double geo_score(struct geo_point point);
/* The middle of the score's cell; of any score. */
struct geo_point geo_point_of(double score);
/* On a sphere, in meters. */
double geo_distance(struct geo_point a, struct geo_point b);

/* The common geohash of a point: eleven letters, the last of which says nothing. */
#define GEO_TEXT_LEN 11u
void geo_text(struct geo_point point, char out[GEO_TEXT_LEN]);

/* A circle or a box around a point. */
struct geo_shape {
    struct geo_point center;
    bool is_box;
    double unit;          /* meters; the lengths below are in it */
    double radius;        /* a circle's */
    double width, height; /* a box's */
};
/* If so, the distance from its center, in meters. */
bool geo_shape_has(const struct geo_shape *shape, struct geo_point point, double *distance);

/* Scores from min on, up to but without max. */
struct geo_scores {
    double min, max;
};
#define GEO_SCORES_MAX 9u
/* Ranges that hold all points of a shape, the center's first; returns how many. None overlap. */
uint32_t geo_shape_scores(const struct geo_shape *shape, struct geo_scores out[GEO_SCORES_MAX]);
