/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places: sorted sets whose scores are cells of the earth. Searching is cmd_geo_search.c's.
 */
#include "backend/cmd/cmd_geo.h"
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/reply.h"
#include "common/base/mem.h"

#include <stdio.h>

bool geo_arg_point(struct cmd *c, uint32_t i, struct geo_point *out)
{
    if (!arg_double(c, i, &out->lon) || !arg_double(c, i + 1, &out->lat))
        return false;
    if (out->lon >= -GEO_LON_MAX && out->lon <= GEO_LON_MAX && out->lat >= -GEO_LAT_MAX &&
        out->lat <= GEO_LAT_MAX)
        return true;
    reply_error_format(c, "ERR invalid longitude,latitude pair %f,%f", out->lon, out->lat);
    return false;
}

bool geo_arg_unit(struct cmd *c, uint32_t i, double *meters)
{
    if (arg_is(c, i, "m")) {
        *meters = 1;
    } else if (arg_is(c, i, "km")) {
        *meters = 1000;
    } else if (arg_is(c, i, "ft")) {
        *meters = 0.3048;
    } else if (arg_is(c, i, "mi")) {
        *meters = 1609.34;
    } else {
        reply_error(c, "ERR unsupported unit provided. please use M, KM, FT, MI");
        return false;
    }
    return true;
}

bool geo_member_point(const struct object *zset, struct bytes member, struct geo_point *out)
{
    double score;

    if (zset == NULL || !zset_score(zset, member, &score))
        return false;
    *out = geo_point_of(score);
    return true;
}

static void reply_coordinate(struct cmd *c, double value)
{
    char text[FORMAT_HUMAN_DOUBLE_MAX + 3];
    size_t len;

    if (c->session->resp == 2) {
        reply_human_double(c, value);
        return;
    }
    text[0] = ',';
    len = 1 + format_human_double(value, text + 1);
    memcpy(text + len, "\r\n", 2);
    reply_raw(c->session, bytes_of(text, len + 2));
}

void geo_reply_point(struct cmd *c, struct geo_point point)
{
    reply_array(c, 2);
    reply_coordinate(c, point.lon);
    reply_coordinate(c, point.lat);
}

#define DISTANCE_TEXT_MAX 400u /* of the largest double */

void geo_reply_distance(struct cmd *c, double distance)
{
    char text[DISTANCE_TEXT_MAX];
    int len = snprintf(text, sizeof(text), "%.4f", distance);

    ASSERT(len > 0 && len < (int)sizeof(text));
    reply_bulk(c, bytes_of(text, (size_t)len));
}

/* Longitude, latitude, member ... from argument `first` on. */
static void add_places(struct cmd *c, const struct zadd *how, uint32_t first)
{
    uint32_t count = (c->argc - first) / 3;
    double *scores = mem_alloc(count * sizeof(scores[0]));

    if (scores == NULL) {
        cmd_out_of_memory(c);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct geo_point point;

        if (!geo_arg_point(c, first + 3 * i, &point))
            goto out;
        scores[i] = geo_score(point);
    }
    zset_add_reply(c, how, scores, count, first + 2, 3);
out:
    mem_free(scores);
}

void cmd_geoadd(struct cmd *c)
{
    struct zadd how = {0};
    uint32_t first = 2;

    for (; first < c->argc; first++) {
        if (arg_is(c, first, "NX"))
            how.nx = true;
        else if (arg_is(c, first, "XX"))
            how.xx = true;
        else if (arg_is(c, first, "CH"))
            how.ch = true;
        else
            break;
    }
    if ((c->argc - first) % 3 != 0 || first == c->argc || (how.nx && how.xx))
        reply_error(c, ERROR_SYNTAX);
    else
        add_places(c, &how, first);
}

void cmd_geopos(struct cmd *c)
{
    const struct object *zset;

    if (!zset_read(c, 1, &zset))
        return;
    reply_array(c, c->argc - 2);
    for (uint32_t i = 2; i < c->argc; i++) {
        struct geo_point point;

        if (geo_member_point(zset, c->argv[i], &point))
            geo_reply_point(c, point);
        else
            reply_null_array(c);
    }
}

void cmd_geohash(struct cmd *c)
{
    const struct object *zset;

    if (!zset_read(c, 1, &zset))
        return;
    reply_array(c, c->argc - 2);
    for (uint32_t i = 2; i < c->argc; i++) {
        struct geo_point point;
        char text[GEO_TEXT_LEN];

        if (!geo_member_point(zset, c->argv[i], &point)) {
            reply_null(c);
            continue;
        }
        geo_text(point, text);
        reply_bulk(c, bytes_of(text, sizeof(text)));
    }
}

void cmd_geodist(struct cmd *c)
{
    const struct object *zset;
    struct geo_point a, b;
    double unit = 1;

    if (c->argc > 5) {
        reply_error(c, ERROR_SYNTAX);
        return;
    }
    if ((c->argc == 5 && !geo_arg_unit(c, 4, &unit)) || !zset_read(c, 1, &zset))
        return;
    if (geo_member_point(zset, c->argv[2], &a) && geo_member_point(zset, c->argv[3], &b))
        geo_reply_distance(c, geo_distance(a, b) / unit);
    else
        reply_null(c);
}
