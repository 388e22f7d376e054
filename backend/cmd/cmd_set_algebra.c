/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intersections, unions and differences of sets.
 *
 * Each gives its members one by one to a sink: the reply, a count, or the set that is to be stored. A union needs a
 * set of its own in any case, to tell each member once.
 */
#include "backend/cmd/handlers.h"
#include "backend/cmd/notify.h"
#include "backend/cmd/reply.h"
#include "backend/types/set.h"
#include "backend/types/types.h"
#include "common/base/mem.h"

#include <stdlib.h>

#define SOURCES_ON_STACK 16u

struct sources {
    const struct object *on_stack[SOURCES_ON_STACK];
    const struct object **sets; /* NULL: no such key, an empty set */
    uint32_t count, missing;
};

/* False: the error was replied. Always followed by sources_deinit(). */
static bool sources_read(struct cmd *c, uint32_t first, uint32_t count, struct sources *out)
{
    struct store_key key;

    *out = (struct sources){.sets = out->on_stack};
    if (count > SOURCES_ON_STACK) {
        out->sets = mem_alloc(count * sizeof(out->sets[0]));
        if (out->sets == NULL) {
            cmd_out_of_memory(c);
            return false;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!key_read(c, c->argv[first + i], STORE_SET, &key))
            return false;
        out->sets[out->count++] = key.entry != NULL ? entry_object(key.entry) : NULL;
        out->missing += key.entry == NULL;
    }
    return true;
}

static void sources_deinit(struct sources *sources)
{
    if (sources->sets != sources->on_stack)
        mem_free(sources->sets);
}

/* ---- where members go ----------------------------------------------------------------------- */

struct sink {
    struct cmd *c;
    uint64_t count, limit; /* limit 0: none */
    bool replies;
    struct object *set; /* NULL: none */
    int err;            /* ERR_FULL */
};

/* False: enough. */
static bool sink_put(struct sink *sink, struct bytes member)
{
    bool is_new;

    if (sink->set != NULL) {
        sink->err = set_add(sink->set, member, &is_new);
        if (sink->err != 0)
            return false;
    }
    if (sink->replies)
        reply_bulk(sink->c, member);
    sink->count++;
    return sink->limit == 0 || sink->count < sink->limit;
}

static int compare_counts(const void *a, const void *b)
{
    uint64_t x = set_count(*(const struct object *const *)a);
    uint64_t y = set_count(*(const struct object *const *)b);

    return x < y ? -1 : x > y;
}

/* The members of the smallest that all others have; small sets are asked first. */
static void intersect(const struct sources *sources, struct sink *sink)
{
    struct bytes member;
    struct set_walk walk;

    if (sources->missing > 0)
        return;
    qsort(sources->sets, sources->count, sizeof(sources->sets[0]), compare_counts);
    set_walk_init(&walk, sources->sets[0]);
    while (set_walk_next(&walk, &member)) {
        uint32_t i = 1;

        while (i < sources->count &&
               (sources->sets[i] == sources->sets[0] || set_has(sources->sets[i], member)))
            i++;
        if (i == sources->count && !sink_put(sink, member))
            return;
    }
}

static void subtract(const struct sources *sources, struct sink *sink)
{
    struct bytes member;
    struct set_walk walk;

    if (sources->sets[0] == NULL)
        return;
    set_walk_init(&walk, sources->sets[0]);
    while (set_walk_next(&walk, &member)) {
        uint32_t i = 1;

        while (i < sources->count &&
               (sources->sets[i] == NULL || !set_has(sources->sets[i], member)))
            i++;
        if (i == sources->count && !sink_put(sink, member))
            return;
    }
}

/* Into a set that the sink has. */
static void unite(const struct sources *sources, struct sink *sink)
{
    for (uint32_t i = 0; i < sources->count; i++) {
        struct bytes member;
        struct set_walk walk;

        if (sources->sets[i] == NULL)
            continue;
        set_walk_init(&walk, sources->sets[i]);
        while (set_walk_next(&walk, &member))
            if (!sink_put(sink, member))
                return;
    }
}

typedef void (*algebra_fn)(const struct sources *sources, struct sink *sink);

/* ---- the result as a reply ------------------------------------------------------------------ */

static void reply_result(struct cmd *c, algebra_fn algebra)
{
    struct sink sink = {.c = c, .replies = true};
    struct sources sources;

    if (sources_read(c, 1, c->argc - 1, &sources)) {
        reply_count_later(c);
        algebra(&sources, &sink);
        reply_count_set(c, sink.count);
    }
    sources_deinit(&sources);
}

void cmd_sinter(struct cmd *c)
{
    reply_result(c, intersect);
}

void cmd_sdiff(struct cmd *c)
{
    reply_result(c, subtract);
}

void cmd_sunion(struct cmd *c)
{
    struct sink sink = {.c = c};
    struct sources sources;
    struct bytes member;
    struct set_walk walk;

    if (!sources_read(c, 1, c->argc - 1, &sources))
        goto out;
    sink.set = set_create();
    if (sink.set != NULL)
        unite(&sources, &sink);
    if (sink.set == NULL || sink.err != 0) {
        cmd_out_of_memory(c);
        goto out;
    }
    reply_set(c, set_count(sink.set));
    set_walk_init(&walk, sink.set);
    while (set_walk_next(&walk, &member))
        reply_bulk(c, member);
out:
    if (sink.set != NULL)
        set_ops.destroy(sink.set);
    sources_deinit(&sources);
}

void cmd_sintercard(struct cmd *c)
{
    struct sink sink = {.c = c};
    struct sources sources;
    int64_t numkeys, limit = 0;

    if (!arg_i64_range(c, 1, 1, INT64_MAX, &numkeys, "ERR numkeys should be greater than 0"))
        return;
    if (numkeys > (int64_t)c->argc - 2) {
        reply_error(c, "ERR Number of keys can't be greater than number of args");
        return;
    }
    for (uint32_t i = 2 + (uint32_t)numkeys; i < c->argc; i += 2) {
        if (!arg_is(c, i, "limit") || i + 1 == c->argc) {
            reply_error(c, ERROR_SYNTAX);
            return;
        }
        if (!arg_i64_range(c, i + 1, 0, INT64_MAX, &limit, "ERR LIMIT can't be negative"))
            return;
    }
    if (sources_read(c, 2, (uint32_t)numkeys, &sources)) {
        sink.limit = (uint64_t)limit;
        intersect(&sources, &sink);
        reply_integer(c, (int64_t)sink.count);
    }
    sources_deinit(&sources);
}

/* ---- the result as a key -------------------------------------------------------------------- */

/* Takes the set over. */
static void store_result(struct cmd *c, struct object *set)
{
    const struct store_attributes none = {0};
    uint64_t count = set_count(set);
    struct store_key key;
    bool had_value;
    int err = 0;

    if (!key_write(c, c->argv[1], STORE_NONE, &key)) {
        set_ops.destroy(set);
        return;
    }
    had_value = key.entry != NULL;
    if (count > 0)
        err = store_put_object(c->store, &key, set, &none);
    else if (key.entry != NULL)
        err = store_delete(c->store, &key);
    if (count == 0 || err != 0)
        set_ops.destroy(set);
    if (!cmd_stored(c, err))
        return;
    if (count > 0)
        notify(c, NOTIFY_SET, c->info->name, key.name);
    else if (had_value)
        notify(c, NOTIFY_GENERIC, "del", key.name);
    reply_integer(c, (int64_t)count);
}

static void store_algebra(struct cmd *c, algebra_fn algebra)
{
    struct sink sink = {.c = c};
    struct sources sources;

    if (!sources_read(c, 2, c->argc - 2, &sources))
        goto out;
    sink.set = set_create();
    if (sink.set != NULL)
        store_object_limit(c->store, sink.set);
    if (sink.set != NULL)
        algebra(&sources, &sink);
    if (sink.set != NULL && sink.err == 0) {
        store_result(c, sink.set);
        goto out;
    }
    if (sink.set != NULL)
        set_ops.destroy(sink.set);
    cmd_out_of_memory(c);
out:
    sources_deinit(&sources);
}

void cmd_sinterstore(struct cmd *c)
{
    store_algebra(c, intersect);
}

void cmd_sunionstore(struct cmd *c)
{
    store_algebra(c, unite);
}

void cmd_sdiffstore(struct cmd *c)
{
    store_algebra(c, subtract);
}
