/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading: the file, the pools against each other, and the memory of it all.
 */
#include "config.h"

#include "proxy/conf_private.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- pools against each other
 * -------------------------------------------------------------------------------- */

static int compare_pools(const void *left, const void *right)
{
    return conf_compare_names(((const struct conf_pool *)left)->name,
                              ((const struct conf_pool *)right)->name);
}

static int compare_positions(struct conf_position a, struct conf_position b)
{
    if (a.line != b.line)
        return a.line > b.line ? 1 : -1;
    return (a.column > b.column) - (a.column < b.column);
}

/* Where it is, not how it is written: "[::1]:1" and "::1:1" are one place. */
static int compare_places(const struct conf_address *a, const struct conf_address *b)
{
    if ((a->path != NULL) != (b->path != NULL))
        return a->path != NULL ? 1 : -1;
    if (a->path != NULL)
        return strcmp(a->path, b->path);
    if (a->port != b->port)
        return a->port > b->port ? 1 : -1;
    return strcmp(a->host, b->host);
}

static int compare_listens(const void *left, const void *right)
{
    const struct conf_pool *a = *(const struct conf_pool *const *)left;
    const struct conf_pool *b = *(const struct conf_pool *const *)right;
    int order = compare_places(&a->listen, &b->listen);

    return order != 0 ? order : compare_positions(a->listen.at, b->listen.at);
}

static int check_listens(struct conf_reader *reader, const struct conf *conf)
{
    const struct conf_pool **sorted =
        conf_alloc(&reader->scratch, conf->pools_count * sizeof(*sorted));

    for (uint32_t i = 0; i < conf->pools_count; i++)
        sorted[i] = &conf->pools[i];
    qsort(sorted, conf->pools_count, sizeof(*sorted), compare_listens);
    for (uint32_t i = 1; i < conf->pools_count; i++) {
        if (compare_places(&sorted[i - 1]->listen, &sorted[i]->listen) == 0)
            return conf_fail(
                reader, sorted[i]->listen.at,
                "conf: pools '%s' and '%s' have the same listen address '%s'; give each "
                "its own port",
                sorted[i - 1]->name, sorted[i]->name, sorted[i]->listen.text);
    }
    for (uint32_t i = 0; conf->process.stats_listen.text != NULL && i < conf->pools_count; i++) {
        if (compare_places(&conf->process.stats_listen, &conf->pools[i].listen) == 0)
            return conf_fail(
                reader, conf->pools[i].listen.at,
                "conf: pool '%s' and the stats have the same listen address '%s'; give "
                "each its own port",
                conf->pools[i].name, conf->pools[i].listen.text);
    }
    return 0;
}

static int check_pool_names(struct conf_reader *reader, struct conf *conf)
{
    qsort(conf->pools, conf->pools_count, sizeof(*conf->pools), compare_pools);
    for (uint32_t i = 1; i < conf->pools_count; i++) {
        const struct conf_pool *a = &conf->pools[i - 1], *b = &conf->pools[i];
        bool is_a_first = compare_positions(a->at, b->at) < 0;

        if (strcmp(a->name, b->name) == 0)
            return conf_fail(reader, is_a_first ? b->at : a->at,
                             "conf: '%s' has pools with same name '%s'; the other is in line %u: "
                             "rename one",
                             reader->path, a->name, is_a_first ? a->at.line : b->at.line);
    }
    return 0;
}

/* A pool may be called "weir", as long as it looks like one. */
static bool is_process_mapping(const struct conf_node *key)
{
    if (!bytes_equal(key->text, BYTES("weir")))
        return false;
    if (key->value->kind != CONF_NODE_MAPPING)
        return true;
    for (const struct conf_node *node = key->value->first; node != NULL; node = node->next) {
        if (bytes_equal(node->text, BYTES("listen")))
            return false;
    }
    return true;
}

static int read_root(struct conf_reader *reader, struct conf *conf, const struct conf_node *root)
{
    int err = 0;

    if (root->count > CONF_POOLS_MAX + 1)
        return conf_fail(reader, root->at, "conf: '%s' has more than %u pools; split it",
                         reader->path, CONF_POOLS_MAX);
    conf->pools = conf_alloc(reader->arena, (root->count + 1) * sizeof(*conf->pools));
    for (const struct conf_node *key = root->first; err == 0 && key != NULL; key = key->next) {
        if (!is_process_mapping(key))
            err = conf_read_pool(reader, key, &conf->pools[conf->pools_count++]);
        else if (conf->process.is_present)
            err = conf_fail(reader, key->at,
                            "conf: directive \"weir\" is a duplicate; put both mappings into one");
        else
            err = conf_read_process(reader, key->value, &conf->process);
    }
    if (err != 0)
        return err;
    if (conf->pools_count == 0)
        return conf_fail(
            reader, root->at,
            "conf: '%s' has no pools; add one: a name, and below it listen: and servers:",
            reader->path);
    if (conf->pools_count > CONF_POOLS_MAX)
        return conf_fail(reader, root->at, "conf: '%s' has more than %u pools; split it",
                         reader->path, CONF_POOLS_MAX);
    err = check_pool_names(reader, conf);
    return err != 0 ? err : check_listens(reader, conf);
}

int conf_parse(const char *path, struct bytes yaml, struct conf **out, struct conf_error *error)
{
    struct conf *conf = must_zalloc(sizeof(*conf));
    struct conf_arena *arena = must_zalloc(sizeof(*arena));
    struct conf_reader reader = {.path = path, .error = error, .conf = conf, .arena = arena,
                                 .wants_what = "at least one pool",
                                 .starts_with = "the name of a pool and a colon"};
    struct conf_node *root = NULL;
    int err;

    *error = (struct conf_error){.text = ""};
    conf->arena = arena;
    conf->path = conf_copy(arena, bytes_of_string(path));
    conf_process_defaults(&conf->process);
    err = conf_yaml_read(&reader, yaml, &root);
    if (err == 0)
        err = read_root(&reader, conf, root);
    conf_arena_wipe(&reader.scratch);
    if (err != 0) {
        if (!reader.has_failed)
            conf_fail(&reader, (struct conf_position){0, 0}, "conf: %s", err_text(err));
        conf_destroy(&conf);
        return err;
    }
    conf->warnings = reader.warnings;
    conf->warnings_count = reader.warnings_count;
    *out = conf;
    return 0;
}

void conf_destroy(struct conf **conf)
{
    struct conf_arena *arena;

    if (*conf == NULL)
        return;
    arena = (*conf)->arena;
    conf_arena_wipe(arena);
    mem_free(arena);
    mem_free(*conf);
    *conf = NULL;
}

/* ---- the file
 * ---------------------------------------------------------------------------------------------- */

/* A password that other users of the machine can read. */
static void warn_of_mode(struct conf_reader *reader, const struct conf *conf, mode_t mode)
{
    for (uint32_t i = 0; i < conf->pools_count && (mode & 0077) != 0; i++) {
        const struct conf_pool *pool = &conf->pools[i];

        if (pool->redis_auth == NULL && pool->sentinel_auth == NULL)
            continue;
        conf_warn(reader, pool->at,
                  "conf: pool '%s' has a password, and other users may read the file (mode %04o); "
                  "chmod 600",
                  pool->name, (unsigned)(mode & 0777));
        return;
    }
}

int conf_load(const char *path, struct conf **out, struct conf_error *error)
{
    struct conf *conf = NULL;
    char *data;
    size_t len;
    mode_t mode;
    int err = conf_file_read(path, &data, &len, &mode, error);

    if (err != 0)
        return err;
    err = conf_parse(path, bytes_of(data, len), &conf, error);
    if (err == 0) {
        struct conf_reader reader = {.path = path,
                                     .error = error,
                                     .conf = conf,
                                     .arena = conf->arena,
                                     .warnings = (struct conf_warning *)conf->warnings,
                                     .warnings_count = conf->warnings_count};

        warn_of_mode(&reader, conf, mode);
        conf->warnings = reader.warnings;
        conf->warnings_count = reader.warnings_count;
        *out = conf;
    }
    explicit_bzero(data, len);
    mem_free(data);
    return err;
}

/* ---- use
 * ------------------------------------------------------------------------------------------------------
 */

const struct conf_pool *conf_pool_by_name(const struct conf *conf, struct bytes name)
{
    for (uint32_t i = 0; i < conf->pools_count; i++) {
        if (bytes_equal(bytes_of_string(conf->pools[i].name), name))
            return &conf->pools[i];
    }
    return NULL;
}

int conf_pool_ring(const struct conf_pool *pool, const bool *is_live, struct ring **out)
{
    bool is_sentinel = pool->members == CONF_MEMBERS_sentinel;
    uint32_t count = is_sentinel ? pool->masters_count : pool->servers_count;
    struct ring_options options = {
        .distribution = pool->distribution,
        .hash = pool->hash,
        .has_tag = pool->has_hash_tag,
        .tag_open = pool->hash_tag[0],
        .tag_close = pool->hash_tag[1],
    };
    struct ring_server *servers;
    int err;

    if (pool->members == CONF_MEMBERS_redis_cluster || pool->members == CONF_MEMBERS_weir)
        return ERR_UNSUPPORTED;
    servers = mem_zalloc(count * sizeof(*servers));
    if (servers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        const struct conf_server *server = is_sentinel ? NULL : &pool->servers[i];

        servers[i].is_live = is_live == NULL || is_live[i];
        if (is_sentinel) {
            servers[i].name = bytes_of_string(pool->masters[i].name);
            servers[i].weight = pool->masters[i].weight;
            continue;
        }
        servers[i].name = bytes_of_string(server->name);
        servers[i].weight = server->is_spare ? 0 : server->weight;
        servers[i].slots = server->slots;
        servers[i].slots_count = server->slots_count;
        servers[i].ranges = server->ranges;
        servers[i].ranges_count = server->ranges_count;
    }
    err = ring_create(&options, servers, count, out);
    mem_free(servers);
    return err;
}
