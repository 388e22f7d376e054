/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "backend/conf.h"

#include "backend/store/record.h"
#include "common/base/mem.h"

#include <stdio.h>

const char *const node_conf_fsync_names[] = {"no", "everysec", "always", NULL};
const char *const node_conf_direct_names[] = {"false", "true", "auto", NULL};
_Static_assert(STORE_FSYNC_NO == 0 && STORE_FSYNC_EVERYSEC == 1 && STORE_FSYNC_ALWAYS == 2, "the names' order");

#define NOFILE_MIN 256u /* a small node starts with it; the master's part grows by shards and by cores */

/* ---- values ------------------------------------------------------------------------------------------ */

static int set_version(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    MAYBE(target);
    if (err == 0 && !bytes_equal(text, BYTES("1")))
        err = conf_fail(reader, item->value->at,
                        "conf: directive \"version\" has an invalid value; this program reads version 1");
    return err;
}

/* "auto" is 0, which `set` would not take. */
static int set_or_auto(struct conf_reader *reader, const struct conf_item *item, void *target,
                       int (*set)(struct conf_reader *reader, const struct conf_item *item, void *target))
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!bytes_equal(text, BYTES("auto")))
        return set(reader, item, target);
    *(uint32_t *)((char *)target + item->key->offset) = 0;
    return 0;
}

static int set_pages(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    int err = conf_set_size32(reader, item, target);

    if (err == 0 && *(uint32_t *)((char *)target + item->key->offset) % PAGE_SIZE_ != 0)
        err = conf_fail(reader, item->value->at,
                        "conf: directive \"%s\" has an invalid value; it takes a multiple of %u bytes", item->name,
                        PAGE_SIZE_);
    return err;
}

static int set_workers(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    return set_or_auto(reader, item, target, conf_set_u32);
}

static int set_segment_size(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    return set_or_auto(reader, item, target, set_pages);
}

/* 0 is "as many as may be". */
static int set_rlimit_nofile(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    int err = conf_set_u64(reader, item, target);
    uint64_t wanted = *(uint64_t *)((char *)target + item->key->offset);

    if (err == 0 && wanted != 0 && wanted < NOFILE_MIN)
        err = conf_fail(reader, item->value->at,
                        "conf: directive \"%s\" has an invalid value; it takes 0, or %u to %llu", item->name, NOFILE_MIN,
                        (unsigned long long)item->key->max);
    return err;
}

static int set_address(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (text.data[0] == '/' || memchr(text.data, ':', text.len) == NULL)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; a node listens on host:port, not on a path: write "
                         "127.0.0.1:7000",
                         item->name);
    return conf_set_listen(reader, item, target);
}

static int set_log_level(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    uint32_t level = 0;
    struct conf_key key = *item->key;
    struct conf_item number = *item;
    int err;

    key.offset = 0;
    number.key = &key;
    err = conf_set_u32(reader, &number, &level);
    if (err == 0)
        ((struct node_conf *)target)->log_level = (int)level;
    return err;
}

/* The kinds of one value; `given` has a bit for each database that is in it. */
struct kinds {
    struct node_conf *conf;
    uint32_t given;
};
_Static_assert(STORE_DBS <= 32, "a bit each");

static int set_kind(struct conf_reader *reader, const struct conf_item *item, struct conf_position at,
                    struct kinds *kinds, struct bytes db, struct bytes kind)
{
    bool is_cache = bytes_equal(kind, BYTES("cache"));
    uint32_t number;

    if (!conf_number(db, &number) || number >= STORE_DBS)
        return conf_fail(reader, at, "conf: directive \"%s\" has no database \"%.*s\"; they are 0 to %u", item->name,
                         CONF_SHOW(db), STORE_DBS - 1);
    if (!is_cache && !bytes_equal(kind, BYTES("store")))
        return conf_fail(reader, at, "conf: directive \"%s\" has an invalid kind \"%.*s\"; it is store or cache",
                         item->name, CONF_SHOW(kind));
    if ((kinds->given >> number & 1) != 0)
        return conf_fail(reader, at, "conf: directive \"%s\" has database %u twice; leave one of them out", item->name,
                         number);
    kinds->given |= 1u << number;
    kinds->conf->namespaces[number].is_cache = is_cache;
    return 0;
}

/* "0=cache,3=store", as on the command line. */
static int set_namespace_words(struct conf_reader *reader, const struct conf_item *item, struct kinds *kinds)
{
    struct conf_strings words;
    int err = conf_words(reader, item, STORE_DBS, &words);

    for (uint32_t i = 0; err == 0 && i < words.count; i++) {
        struct bytes db = bytes_of_string(words.items[i]), kind = BYTES_EMPTY;

        if (!conf_cut_last(&db, '=', &kind))
            return conf_fail(reader, item->value->at,
                             "conf: directive \"%s\" has an invalid value; write 0=cache,1=store", item->name);
        err = set_kind(reader, item, item->value->at, kinds, db, kind);
    }
    return err;
}

static int set_namespaces(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    const struct conf_node *db, *kind;
    struct kinds kinds = {.conf = target};

    if (item->value->kind != CONF_NODE_MAPPING)
        return set_namespace_words(reader, item, &kinds);
    for (db = item->value->first; db != NULL; db = db->next) {
        int err;

        kind = db->value->kind == CONF_NODE_MAPPING ? db->value->first : NULL;
        if (kind == NULL || kind->next != NULL || !bytes_equal(kind->text, BYTES("kind")) ||
            kind->value->kind != CONF_NODE_SCALAR)
            return conf_fail(reader, db->at,
                             "conf: directive \"namespaces.%.*s\" has an invalid value; write {kind: cache} or "
                             "{kind: store}",
                             CONF_SHOW(db->text));
        err = set_kind(reader, item, kind->value->at, &kinds, db->text, kind->value->text);
        if (err != 0)
            return err;
    }
    return 0;
}

/* ---- keys -------------------------------------------------------------------------------------------- */

static const struct conf_key keys[] = {
#define SETTING(key, set, field, least, most, names, value, what)                                  \
    {#key, set, offsetof(struct node_conf, field), least, most, names},
#include "backend/conf.def"
#undef SETTING
};

void node_conf_print_keys(void (*print)(const char *key, const char *value, const char *what))
{
#define SETTING(key, set, field, least, most, names, value, what) print(#key, value, what);
#include "backend/conf.def"
#undef SETTING
}

static int read_defaults(struct conf_reader *reader, struct node_conf *conf)
{
    struct conf_node root = {.kind = CONF_NODE_MAPPING};
    struct conf_position seen[ARRAY_COUNT(keys)] = {{0, 0}};
    const struct conf_position at = {1, 1};

#define SETTING(key, set, field, least, most, names, value, what)                                  \
    if ((value)[0] != '\0')                                                                        \
        conf_node_add(reader, &root, BYTES(#key), bytes_of_string(value), at);
#include "backend/conf.def"
#undef SETTING
    return conf_read_mapping(reader, &root, "", keys, ARRAY_COUNT(keys), conf, seen);
}

static int read_file(struct conf_reader *reader, const char *path, struct node_conf *conf)
{
    struct conf_position seen[ARRAY_COUNT(keys)] = {{0, 0}};
    struct conf_node *root = NULL;
    char *data;
    size_t len;
    mode_t mode;
    int err = conf_file_read(path, &data, &len, &mode, reader->error);

    if (err != 0) {
        reader->has_failed = true;
        return err;
    }
    reader->path = path;
    err = conf_yaml_read(reader, bytes_of(data, len), &root);
    if (err == 0)
        err = conf_read_mapping(reader, root, "", keys, ARRAY_COUNT(keys), conf, seen);
    if (err == 0 && seen[0].line == 0)
        err = conf_fail(reader, (struct conf_position){1, 1},
                        "conf: directive \"version\" is missing; write version: 1");
    if (err == 0 && conf->password != NULL && (mode & 0077) != 0)
        conf_warn(reader, (struct conf_position){1, 1},
                  "conf: there is a password, and other users may read the file (mode %04o); chmod 600",
                  (unsigned)(mode & 0777));
    explicit_bzero(data, len);
    mem_free(data);
    return err;
}

static int read_options(struct conf_reader *reader, const struct conf_option *options, uint32_t count,
                        struct node_conf *conf)
{
    struct conf_position seen[ARRAY_COUNT(keys)] = {{0, 0}};
    struct conf_node root = {.kind = CONF_NODE_MAPPING};

    reader->path = "command line";
    for (uint32_t i = 0; i < count; i++) {
        char key[64];
        size_t len = strnlen(options[i].key, sizeof(key));

        for (size_t k = 0; k < len; k++)
            key[k] = options[i].key[k] == '-' ? '_' : options[i].key[k];
        conf_node_add(reader, &root, bytes_of(key, len), bytes_of_string(options[i].value),
                      (struct conf_position){1, i + 1});
    }
    return conf_read_mapping(reader, &root, "", keys, ARRAY_COUNT(keys), conf, seen);
}

/* ---- relations --------------------------------------------------------------------------------------- */

/* Where the addresses were given: the file, or the options. */
struct sources {
    const char *listen, *stats;
};

static int check(struct conf_reader *reader, struct node_conf *conf, const struct sources *sources)
{
    const struct conf_position nowhere = {0, 0};

    reader->path = sources->listen;
    if (conf->listen.port + conf->workers > 65536)
        return conf_fail(reader, conf->listen.at, "conf: directive \"listen\" has an invalid value; worker i listens "
                                                  "on port + i, which is above 65535 for the last");
    reader->path = sources->stats;
    if (conf->stats.port >= conf->listen.port && conf->stats.port < conf->listen.port + MAX(conf->workers, 1u) &&
        strcmp(conf->stats.host, conf->listen.host) == 0)
        return conf_fail(reader, conf->stats.at, "conf: directive \"stats\" has the address of a worker; give it "
                                                 "another port");
    reader->path = sources->listen;
    if (conf->group != NULL && conf->user == NULL)
        return conf_fail(reader, nowhere, "conf: directive \"group\" is only valid with a user; add user:");
    if (conf->insecure)
        return 0;
    if (!conf_address_is_local(&conf->listen) && conf->password == NULL)
        return conf_fail(reader, conf->listen.at,
                         "conf: directive \"listen\" has an invalid value; without a password everybody who reaches it may "
                         "read and change the data: set password, use 127.0.0.1, or add insecure: true");
    reader->path = sources->stats;
    if (!conf_address_is_local(&conf->stats))
        return conf_fail(reader, conf->stats.at,
                         "conf: directive \"stats\" has an invalid value; whoever reaches it may read statistics without a "
                         "password: use 127.0.0.1, or add insecure: true");
    return 0;
}

int node_conf_read(const char *path, const struct conf_option *options, uint32_t options_count,
                   struct node_conf **out, struct conf_error *error)
{
    struct node_conf *conf = must_zalloc(sizeof(*conf));
    struct conf_reader reader = {.path = path != NULL ? path : "command line",
                                 .error = error,
                                 .arena = &conf->arena,
                                 .wants_what = "version: 1",
                                 .starts_with = "version: 1"};
    struct sources sources;
    const char *listen, *stats;
    int err;

    *error = (struct conf_error){.text = ""};
    err = read_defaults(&reader, conf);
    if (err == 0 && path != NULL)
        err = read_file(&reader, path, conf);
    sources.listen = sources.stats = reader.path;
    listen = conf->listen.text;
    stats = conf->stats.text;
    if (err == 0)
        err = read_options(&reader, options, options_count, conf);
    if (conf->listen.text != listen)
        sources.listen = reader.path;
    if (conf->stats.text != stats)
        sources.stats = reader.path;
    if (err == 0)
        err = check(&reader, conf, &sources);
    conf_arena_wipe(&reader.scratch);
    if (err != 0) {
        if (!reader.has_failed)
            conf_fail(&reader, (struct conf_position){0, 0}, "conf: %s", err_text(err));
        node_conf_destroy(&conf);
        return err;
    }
    conf->warnings = reader.warnings;
    conf->warnings_count = reader.warnings_count;
    *out = conf;
    return 0;
}

void node_conf_destroy(struct node_conf **conf)
{
    if (*conf == NULL)
        return;
    conf_arena_wipe(&(*conf)->arena);
    mem_free(*conf);
    *conf = NULL;
}
