/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places near to a place: GEORADIUS and its kin, and GEOSEARCH, which are one search with different words.
 */
#include "backend/cmd/cmd_geo.h"
#include "backend/cmd/cmd_zset.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/reply.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum search_kind { BY_POINT, BY_MEMBER, SEARCH, SEARCH_STORE };
enum search_order { UNSORTED, NEAREST_FIRST, FARTHEST_FIRST };

struct search {
    enum search_kind kind;
    bool may_store;            /* GEORADIUS with STORE */
    const struct object *zset; /* NULL: no such key */
    struct geo_shape shape;
    bool has_center, by_member, has_radius, has_box;
    bool with_distance, with_hash, with_point;
    enum search_order order;
    int64_t count; /* 0: all */
    bool any;      /* the first `count` found will do */
    uint32_t store_at; /* the key's argument; 0: the result is replied */
    bool store_distance;
};

struct found {
    struct bytes member; /* a view into the set */
    struct geo_point point;
    double distance, score;
    uint64_t index; /* in the order of finding */
};

struct finds {
    struct found *list; /* owns */
    uint64_t count, cap;
};

/* ---- parsing ------------------------------------------------------------------------------------ */

static bool length_parse(struct cmd *c, uint32_t i, const char *error, double *out)
{
    if (parse_double(c->argv[i], out))
        return true;
    reply_error(c, error);
    return false;
}

static bool radius_parse(struct cmd *c, uint32_t i, struct geo_shape *shape)
{
    if (!length_parse(c, i, "ERR need numeric radius", &shape->radius))
        return false;
    if (shape->radius < 0) {
        reply_error(c, "ERR radius cannot be negative");
        return false;
    }
    return geo_arg_unit(c, i + 1, &shape->unit);
}

static bool box_parse(struct cmd *c, uint32_t i, struct geo_shape *shape)
{
    shape->is_box = true;
    if (!length_parse(c, i, "ERR need numeric width", &shape->width) ||
        !length_parse(c, i + 1, "ERR need numeric height", &shape->height))
        return false;
    if (shape->width < 0 || shape->height < 0) {
        reply_error(c, "ERR height or width cannot be negative");
        return false;
    }
    return geo_arg_unit(c, i + 2, &shape->unit);
}

/* Without a set there is nothing to look up, but the words are to be read on. */
static bool center_of_member(struct cmd *c, uint32_t i, struct search *s)
{
    if (s->zset == NULL || geo_member_point(s->zset, c->argv[i], &s->shape.center))
        return true;
    reply_error(c, "ERR could not decode requested zset member");
    return false;
}

/* How many arguments the words took; 0: they are none of these; < 0: the error was replied. */
static int plain_option(struct cmd *c, uint32_t i, struct search *s)
{
    if (arg_is(c, i, "WITHDIST")) {
        s->with_distance = true;
    } else if (arg_is(c, i, "WITHHASH")) {
        s->with_hash = true;
    } else if (arg_is(c, i, "WITHCOORD")) {
        s->with_point = true;
    } else if (arg_is(c, i, "ANY")) {
        s->any = true;
    } else if (arg_is(c, i, "ASC")) {
        s->order = NEAREST_FIRST;
    } else if (arg_is(c, i, "DESC")) {
        s->order = FARTHEST_FIRST;
    } else if (arg_is(c, i, "COUNT") && i + 1 < c->argc) {
        if (!arg_i64(c, i + 1, &s->count))
            return -1;
        if (s->count <= 0) {
            reply_error(c, "ERR COUNT must be > 0");
            return -1;
        }
        return 2;
    } else {
        return 0;
    }
    return 1;
}

static int store_option(struct cmd *c, uint32_t i, struct search *s)
{
    bool is_distance = arg_is(c, i, "STOREDIST");

    if (s->kind == SEARCH_STORE && is_distance) {
        s->store_distance = true;
        return 1;
    }
    if (!s->may_store || i + 1 >= c->argc || (!is_distance && !arg_is(c, i, "STORE")))
        return 0;
    s->store_at = i + 1;
    s->store_distance = is_distance;
    return 2;
}

/* GEOSEARCH's own: center and shape. */
static int shape_option(struct cmd *c, uint32_t i, struct search *s)
{
    uint32_t left = c->argc - i - 1;

    if (s->kind != SEARCH && s->kind != SEARCH_STORE)
        return 0;
    if (arg_is(c, i, "FROMMEMBER") && left >= 1 && (!s->has_center || s->by_member)) {
        s->has_center = s->by_member = true;
        return center_of_member(c, i + 1, s) ? 2 : -1;
    }
    if (arg_is(c, i, "FROMLONLAT") && left >= 2 && !s->by_member) {
        s->has_center = true;
        return geo_arg_point(c, i + 1, &s->shape.center) ? 3 : -1;
    }
    if (arg_is(c, i, "BYRADIUS") && left >= 2 && !s->has_box) {
        s->has_radius = true;
        return radius_parse(c, i + 1, &s->shape) ? 3 : -1;
    }
    if (arg_is(c, i, "BYBOX") && left >= 3 && !s->has_radius) {
        s->has_box = true;
        return box_parse(c, i + 1, &s->shape) ? 4 : -1;
    }
    return 0;
}

static bool options_parse(struct cmd *c, uint32_t i, struct search *s)
{
    while (i < c->argc) {
        int taken = plain_option(c, i, s);

        if (taken == 0)
            taken = store_option(c, i, s);
        if (taken == 0)
            taken = shape_option(c, i, s);
        if (taken == 0)
            reply_error(c, ERROR_SYNTAX);
        if (taken <= 0)
            return false;
        i += (uint32_t)taken;
    }
    return true;
}

/* What options cannot go without, or together. */
static bool options_check(struct cmd *c, const struct search *s)
{
    bool is_search = s->kind == SEARCH || s->kind == SEARCH_STORE;

    if (s->store_at != 0 && (s->with_distance || s->with_hash || s->with_point)) {
        reply_error_format(
            c, "ERR %s is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            s->kind == SEARCH_STORE ? "GEOSEARCHSTORE" : "STORE option in GEORADIUS");
        return false;
    }
    if (is_search && !s->has_center) {
        reply_error_format(
            c, "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for %.*s",
            BYTES_ARG(c->argv[0]));
        return false;
    }
    if (is_search && !s->has_radius && !s->has_box) {
        reply_error_format(c, "ERR exactly one of BYRADIUS and BYBOX can be specified for %.*s",
                           BYTES_ARG(c->argv[0]));
        return false;
    }
    if (s->any && s->count == 0) {
        reply_error(c, "ERR the ANY argument requires COUNT argument");
        return false;
    }
    return true;
}

/* The words in front of the options; *i is behind them then. */
static bool head_parse(struct cmd *c, struct search *s, uint32_t *i)
{
    switch (s->kind) {
    case BY_POINT:
        *i = 6;
        return geo_arg_point(c, 2, &s->shape.center) && radius_parse(c, 4, &s->shape);
    case BY_MEMBER:
        *i = 5;
        /* Without a set the radius is not looked at. */
        return center_of_member(c, 2, s) && (s->zset == NULL || radius_parse(c, 3, &s->shape));
    case SEARCH:
        *i = 2;
        return true;
    case SEARCH_STORE:
        *i = 3;
        s->store_at = 1;
        return true;
    }
    UNREACHABLE("all kinds are above");
}

/* ---- finding ------------------------------------------------------------------------------------ */

static bool finds_add(struct finds *finds, const struct found *found)
{
    if (finds->count == finds->cap) {
        uint64_t cap = MAX(2 * finds->cap, 8ull);
        struct found *list = mem_realloc(finds->list, cap * sizeof(list[0]));

        if (list == NULL)
            return false;
        finds->list = list;
        finds->cap = cap;
    }
    finds->list[finds->count] = *found;
    finds->list[finds->count].index = finds->count;
    finds->count++;
    return true;
}

/* In one range of scores. False: out of memory. */
static bool find_in(const struct search *s, const struct geo_scores *scores, uint64_t max,
                    struct finds *finds)
{
    struct zset_range range = {
        .min = {.kind = ZSET_BOUND_SCORE, .score = scores->min},
        .max = {.kind = ZSET_BOUND_SCORE, .score = scores->max},
    };
    struct zset_walk walk;
    struct found found;
    uint64_t first, count;

    zset_range_ranks(s->zset, &range, &first, &count);
    zset_walk_init(&walk, s->zset, first, count, false);
    while (finds->count < max && zset_walk_next(&walk, &found.member, &found.score)) {
        found.point = geo_point_of(found.score);
        if (geo_shape_has(&s->shape, found.point, &found.distance) && !finds_add(finds, &found))
            return false;
    }
    return true;
}

static bool find(const struct search *s, struct finds *finds)
{
    struct geo_scores scores[GEO_SCORES_MAX];
    uint32_t count = geo_shape_scores(&s->shape, scores);
    uint64_t max = s->any ? (uint64_t)s->count : UINT64_MAX;

    for (uint32_t i = 0; i < count && finds->count < max; i++)
        if (!find_in(s, &scores[i], max, finds))
            return false;
    return true;
}

static int compare_near(const void *a, const void *b)
{
    const struct found *left = a, *right = b;

    if (left->distance != right->distance)
        return left->distance < right->distance ? -1 : 1;
    return left->index < right->index ? -1 : 1;
}

static int compare_far(const void *a, const void *b)
{
    const struct found *left = a, *right = b;

    if (left->distance != right->distance)
        return left->distance > right->distance ? -1 : 1;
    return left->index < right->index ? -1 : 1;
}

/* ---- the result --------------------------------------------------------------------------------- */

static void reply_finds(struct cmd *c, const struct search *s, const struct finds *finds,
                        uint64_t count)
{
    uint32_t extras = (uint32_t)s->with_distance + s->with_hash + s->with_point;

    reply_array(c, count);
    for (uint64_t i = 0; i < count; i++) {
        const struct found *found = &finds->list[i];

        if (extras > 0)
            reply_array(c, 1 + extras);
        reply_bulk(c, found->member);
        if (s->with_distance)
            geo_reply_distance(c, found->distance / s->shape.unit);
        if (s->with_hash)
            reply_integer(c, fabs(found->score) < 0x1p63 ? (int64_t)found->score : INT64_MIN);
        if (s->with_point)
            geo_reply_point(c, found->point);
    }
}

static void store_finds(struct cmd *c, const struct search *s, const struct finds *finds,
                        uint64_t count)
{
    struct object *zset = zset_object_create();

    if (zset != NULL)
        store_object_limit(c->store, zset);
    for (uint64_t i = 0; i < count && zset != NULL; i++) {
        const struct found *found = &finds->list[i];
        double score = s->store_distance ? found->distance / s->shape.unit : found->score;

        if (zset_set(zset, found->member, score, NULL) != 0) {
            zset_object_destroy(zset);
            zset = NULL;
        }
    }
    /* GEOSEARCHSTORE has its target first. */
    zset_store_reply(c, s->store_at, zset, s->store_at == 1 ? "geosearchstore" : "georadiusstore");
}

static void search_reply(struct cmd *c, struct search *s)
{
    struct finds finds = {0};
    uint64_t count;

    if (s->zset != NULL && !find(s, &finds)) {
        cmd_out_of_memory(c);
        goto out;
    }
    /* A count without an order means the nearest. */
    if (s->count != 0 && s->order == UNSORTED && !s->any)
        s->order = NEAREST_FIRST;
    if (s->order != UNSORTED && finds.count > 0)
        qsort(finds.list, finds.count, sizeof(finds.list[0]),
              s->order == NEAREST_FIRST ? compare_near : compare_far);
    count = s->count == 0 ? finds.count : MIN((uint64_t)s->count, finds.count);
    if (s->store_at != 0)
        store_finds(c, s, &finds, count);
    else
        reply_finds(c, s, &finds, count);
out:
    mem_free(finds.list);
}

static void search(struct cmd *c, enum search_kind kind, bool may_store)
{
    struct search s = {.kind = kind, .may_store = may_store};
    uint32_t i;

    if (zset_read(c, kind == SEARCH_STORE ? 2 : 1, &s.zset) && head_parse(c, &s, &i) &&
        options_parse(c, i, &s) && options_check(c, &s))
        search_reply(c, &s);
}

void cmd_georadius(struct cmd *c)
{
    search(c, BY_POINT, true);
}

void cmd_georadius_ro(struct cmd *c)
{
    search(c, BY_POINT, false);
}

void cmd_georadiusbymember(struct cmd *c)
{
    search(c, BY_MEMBER, true);
}

void cmd_georadiusbymember_ro(struct cmd *c)
{
    search(c, BY_MEMBER, false);
}

void cmd_geosearch(struct cmd *c)
{
    search(c, SEARCH, false);
}

void cmd_geosearchstore(struct cmd *c)
{
    search(c, SEARCH_STORE, false);
}
