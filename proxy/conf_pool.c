/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pool: its keys, its servers, and what must hold between them.
 *
 * The keys come first, in any order; servers and everything that depends on two keys follow when
 * all are known.
 */
#include "config.h"

#include "proxy/conf_private.h"

#include "common/base/mem.h"
#include "common/command/command.h"
#include "common/proto/memcache.h"

#include <limits.h>
#include <stdlib.h>

#define TIME_MAX     ((uint64_t)INT_MAX)
#define COMMANDS_MAX 512
#define MASTERS_MAX  1024

const char *const conf_members_names[] = {"static", "redis-cluster", "sentinel", "weir", NULL};
const char *const conf_protocol_names[] = {"memcache", "redis", "auto", NULL};
const char *const conf_eject_names[] = {"keep", "rehash", "spare", NULL};

const char *conf_members_name(enum conf_members members)
{
    return conf_members_names[members];
}

const char *conf_protocol_name(enum conf_protocol protocol)
{
    return conf_protocol_names[protocol];
}

const char *conf_eject_name(enum conf_eject eject)
{
    return conf_eject_names[eject];
}

/* A pool on its way: the fields that keys fill in, and what is looked at later. */
struct draft {
    struct conf_pool pool; /* first: offsets of fields are those of struct conf_pool */
    const struct conf_node *servers, *masters;
};

/* ---- setters of pools alone
 * --------------------------------------------------------------------------- */

static int set_hash(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!hash_by_name(text, &((struct draft *)target)->pool.hash))
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"hash\" is not a valid hash; use one of one_at_a_time, md5, "
            "crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, "
            "jenkins");
    return 0;
}

static int set_distribution(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!ring_distribution_by_name(text, &((struct draft *)target)->pool.distribution))
        return conf_fail(reader, item->value->at,
                         "conf: directive \"distribution\" is not a valid distribution; use one of "
                         "ketama, modula, random, jump, slots, range");
    return 0;
}

static int set_hash_tag(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct conf_pool *pool = &((struct draft *)target)->pool;
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (text.len != 2)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"hash_tag\" is not a valid hash tag string with two "
                         "characters; write \"{}\"");
    pool->has_hash_tag = true;
    memcpy(pool->hash_tag, text.data, 2);
    return 0;
}

static int set_list(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    if (item->value->kind != CONF_NODE_LIST)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"%s\" has an invalid value; it takes a list, one line "
                         "\"- hostname:port:weight [name]\" for each server",
                         item->name);
    *(const struct conf_node **)((char *)target + item->key->offset) = item->value;
    return 0;
}

static int set_masters(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    if (item->value->kind == CONF_NODE_MAPPING)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"sentinel_master\" has an invalid value; write the name "
                         "that the sentinels monitor, or a list of them");
    ((struct draft *)target)->masters = item->value;
    return 0;
}

/* A row of either table: "flushall", "config|get", memcache's "flush_all"; "*" or "all" is every
 * one. */
static bool is_command(struct bytes name)
{
    const char *bar = memchr(name.data, '|', name.len);
    const struct command *parent;

    if (bytes_equal(name, BYTES("*")) || bytes_equal(name, BYTES("all")))
        return true;
    if (bar == NULL)
        return command_find(name) != NULL || mc_verb_find(name) != MC_none;
    parent = command_find(bytes_first(name, (size_t)(bar - name.data)));
    return parent != NULL &&
           command_find_sub(parent, bytes_skip(name, (size_t)(bar - name.data) + 1)) != NULL;
}

static int set_command_names(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct conf_strings *field = (struct conf_strings *)((char *)target + item->key->offset);
    int err = conf_words(reader, item, COMMANDS_MAX, field);

    for (uint32_t i = 0; err == 0 && i < field->count; i++) {
        char *name = (char *)field->items[i]; /* fresh copies, not shared yet */

        for (char *c = name; *c != '\0'; c++)
            *c = ascii_lower(*c);
        if (!is_command(bytes_of_string(name)))
            err = conf_fail(reader, item->value->at,
                            "conf: directive \"%s\" has an invalid value; \"%.*s\" is no command: "
                            "write flushall, config|get for a subcommand, or \"*\" for all",
                            item->name, CONF_SHOW(bytes_of_string(name)));
    }
    return err;
}

static int set_commands(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"allow", set_command_names, offsetof(struct conf_pool, commands_allow), 0, 0, NULL},
        {"deny", set_command_names, offsetof(struct conf_pool, commands_deny), 0, 0, NULL},
    };
    struct conf_position seen[ARRAY_COUNT(keys)] = {{0, 0}};
    const struct conf_pool *pool = target;
    int err;

    if (item->value->kind != CONF_NODE_MAPPING)
        return conf_fail(reader, item->value->at,
                         "conf: directive \"commands\" has an invalid value; write {allow: [..], "
                         "deny: [..]}");
    err =
        conf_read_mapping(reader, item->value, "commands.", keys, ARRAY_COUNT(keys), target, seen);
    for (uint32_t i = 0; err == 0 && i < pool->commands_allow.count; i++) {
        for (uint32_t j = 0; j < pool->commands_deny.count; j++) {
            if (strcmp(pool->commands_allow.items[i], pool->commands_deny.items[j]) == 0)
                return conf_fail(
                    reader, item->name_node->at,
                    "conf: directive \"commands\" has an invalid value; \"%s\" is both "
                    "allowed and denied",
                    pool->commands_allow.items[i]);
        }
    }
    return err;
}

/* ---- the table
 * ------------------------------------------------------------------------------------------ */

static const char *const tls_hint[] = {"put stunnel or haproxy in front until it is", NULL};
static const char *const users_hint[] = {"use redis_auth, one password for all", NULL};
static const char *const sentinels_hint[] = {
    "write members: sentinel, sentinel_master: NAME, and the sentinels under servers:", NULL};

#define FIELD(name) offsetof(struct conf_pool, name)
/* key, setter, field, least, most, names. The order is that of conf_describe(). */
#define POOL_KEYS(X)                                                                               \
    X(listen, conf_set_listen, FIELD(listen), 0, 0, NULL)                                          \
    X(members, conf_set_enum, FIELD(members), 0, 0, conf_members_names)                            \
    X(protocol, conf_set_enum, FIELD(protocol), 0, 0, conf_protocol_names)                         \
    X(redis, conf_set_bool, FIELD(redis), 0, 0, NULL)                                              \
    X(redis_auth, conf_set_string, FIELD(redis_auth), 1, 255, NULL)                                \
    X(redis_db, conf_set_u32, FIELD(redis_db), 0, INT_MAX, NULL)                                   \
    X(hash, set_hash, 0, 0, 0, NULL)                                                               \
    X(hash_tag, set_hash_tag, 0, 0, 0, NULL)                                                       \
    X(distribution, set_distribution, 0, 0, 0, NULL)                                               \
    X(timeout, conf_set_time_or_off, FIELD(timeout_ms), 0, TIME_MAX, NULL)                         \
    X(connect_timeout, conf_set_time_or_off, FIELD(connect_timeout_ms), 1, TIME_MAX, NULL)         \
    X(queue_timeout, conf_set_time_or_off, FIELD(queue_timeout_ms), 1, TIME_MAX, NULL)             \
    X(reply_timeout, conf_set_time_or_off, FIELD(reply_timeout_ms), 1, TIME_MAX, NULL)             \
    X(backlog, conf_set_u32, FIELD(backlog), 0, INT_MAX, NULL)                                     \
    X(client_connections, conf_set_u32, FIELD(client_connections), 0, INT_MAX, NULL)               \
    X(tcpkeepalive, conf_set_bool, FIELD(tcpkeepalive), 0, 0, NULL)                                \
    X(reuseport, conf_set_bool, FIELD(reuseport), 0, 0, NULL)                                      \
    X(preconnect, conf_set_bool, FIELD(preconnect), 0, 0, NULL)                                    \
    X(server_connections, conf_set_u32, FIELD(server_connections), 0, 10000, NULL)                 \
    X(auto_eject_hosts, conf_set_bool, FIELD(auto_eject_hosts), 0, 0, NULL)                        \
    X(server_retry_timeout, conf_set_time, FIELD(server_retry_timeout_ms), 0, TIME_MAX, NULL)      \
    X(server_failure_limit, conf_set_u32, FIELD(server_failure_limit), 0, INT_MAX, NULL)           \
    X(eject, conf_set_enum, FIELD(eject), 0, 0, conf_eject_names)                                  \
    X(probe_interval, conf_set_time, FIELD(probe_interval_ms), 0, TIME_MAX, NULL)                  \
    X(paranoid, conf_set_bool, FIELD(paranoid), 0, 0, NULL)                                        \
    X(insecure, conf_set_bool, FIELD(insecure), 0, 0, NULL)                                        \
    X(commands, set_commands, 0, 0, 0, NULL)                                                       \
    X(sentinel_master, set_masters, 0, 0, 0, NULL)                                                 \
    X(sentinel_auth, conf_set_string, FIELD(sentinel_auth), 1, 255, NULL)                          \
    X(servers, set_list, offsetof(struct draft, servers), 0, 0, NULL)                              \
    X(tls, conf_set_unsupported, 0, 0, 0, tls_hint)                                                \
    X(users, conf_set_unsupported, 0, 0, 0, users_hint)                                            \
    X(sentinels, conf_set_unsupported, 0, 0, 0, sentinels_hint)

enum pool_key {
#define X(name, ...) KEY_##name,
    POOL_KEYS(X)
#undef X
        KEY_COUNT
};

static const struct conf_key pool_keys[] = {
#define X(name, ...) {#name, __VA_ARGS__},
    POOL_KEYS(X)
#undef X
};

static void set_defaults(struct conf_pool *pool)
{
    *pool = (struct conf_pool){
        .hash = HASH_fnv1a_64,
        .distribution = RING_ketama,
        .timeout_ms = -1,
        .backlog = 512,
        .server_connections = 1,
        .server_retry_timeout_ms = 30000,
        .server_failure_limit = 2,
        .members = CONF_MEMBERS_static,
        .protocol = CONF_PROTOCOL_memcache,
        .probe_interval_ms = 1000,
    };
}

/* ---- relations between keys
 * -------------------------------------------------------------------------------- */

static int fail_pool(struct conf_reader *reader, const struct conf_position *seen,
                     enum pool_key key, const char *text)
{
    return conf_fail(reader, seen[key], "conf: directive \"%s:\" %s", pool_keys[key].name, text);
}

static int settle_protocol(struct conf_reader *reader, struct conf_pool *pool,
                           const struct conf_position *seen)
{
    bool is_redis = pool->redis;

    if (seen[KEY_protocol].line == 0)
        pool->protocol = is_redis ? CONF_PROTOCOL_redis : CONF_PROTOCOL_memcache;
    else if (seen[KEY_redis].line != 0 && is_redis != (pool->protocol == CONF_PROTOCOL_redis))
        return fail_pool(reader, seen, KEY_protocol,
                         "and \"redis:\" contradict each other; leave one of them out");
    pool->redis = pool->protocol == CONF_PROTOCOL_redis;
    if (pool->redis_auth != NULL && pool->protocol == CONF_PROTOCOL_memcache)
        return fail_pool(reader, seen, KEY_redis_auth,
                         "is only valid for a redis pool; add redis: true, or leave it out");
    return 0;
}

static void settle_timeouts(struct conf_pool *pool, const struct conf_position *seen)
{
    if (pool->timeout_ms == 0)
        pool->timeout_ms = -1;
    if (seen[KEY_connect_timeout].line == 0)
        pool->connect_timeout_ms = pool->timeout_ms > 0 ? pool->timeout_ms : 5000;
    if (seen[KEY_queue_timeout].line == 0)
        pool->queue_timeout_ms = pool->timeout_ms;
    if (seen[KEY_reply_timeout].line == 0)
        pool->reply_timeout_ms = pool->timeout_ms;
}

/* What a pool whose members come from elsewhere needs and cannot have. */
static int settle_members(struct conf_reader *reader, struct conf_pool *pool,
                          const struct conf_position *seen)
{
    bool is_cluster = pool->members == CONF_MEMBERS_redis_cluster;

    if (pool->members == CONF_MEMBERS_weir)
        return fail_pool(reader, seen, KEY_members,
                         "weir is not supported yet; list the nodes under servers: with members: "
                         "static and distribution: slots");
    if (pool->members != CONF_MEMBERS_static && pool->protocol != CONF_PROTOCOL_redis)
        return fail_pool(reader, seen, KEY_members,
                         "is only valid for a redis pool; add redis: true");
    if (is_cluster && seen[KEY_distribution].line != 0 && pool->distribution != RING_slots)
        return fail_pool(
            reader, seen, KEY_distribution,
            "has an invalid value; a Redis Cluster places keys by slots: leave it out");
    if (is_cluster)
        pool->distribution = RING_slots;
    if (is_cluster && pool->redis_db != 0)
        return fail_pool(reader, seen, KEY_redis_db,
                         "has an invalid value; a Redis Cluster has database 0 only");
    if (pool->members == CONF_MEMBERS_sentinel && seen[KEY_sentinel_master].line == 0)
        return fail_pool(reader, seen, KEY_members,
                         "sentinel needs the name of a master; add sentinel_master: mymaster");
    if (pool->members == CONF_MEMBERS_sentinel && pool->distribution == RING_range)
        return fail_pool(reader, seen, KEY_distribution,
                         "has an invalid value; a Sentinel pool cannot use range");
    if (pool->members != CONF_MEMBERS_sentinel &&
        (seen[KEY_sentinel_master].line != 0 || seen[KEY_sentinel_auth].line != 0))
        return fail_pool(reader, seen,
                         seen[KEY_sentinel_master].line != 0 ? KEY_sentinel_master
                                                             : KEY_sentinel_auth,
                         "is only valid for a Sentinel pool; add members: sentinel");
    return 0;
}

static int settle_placement(struct conf_reader *reader, struct conf_pool *pool,
                            const struct conf_position *seen)
{
    bool is_owned = pool->distribution == RING_slots || pool->distribution == RING_range;

    if (is_owned && seen[KEY_hash].line != 0 &&
        !(pool->distribution == RING_slots && pool->hash == HASH_crc16))
        return fail_pool(reader, seen, KEY_hash,
                         pool->distribution == RING_slots
                             ? "has an invalid value; slots are always crc16: leave it out"
                             : "has an invalid value; ranges hash nothing: leave it out");
    if (pool->distribution == RING_slots && pool->has_hash_tag &&
        memcmp(pool->hash_tag, "{}", 2) != 0)
        return fail_pool(reader, seen, KEY_hash_tag,
                         "has an invalid value; slots are always tagged by \"{}\": leave it out");
    if (pool->distribution == RING_slots) {
        pool->hash = HASH_crc16;
        pool->has_hash_tag = true;
        memcpy(pool->hash_tag, "{}", 2);
    }
    if (seen[KEY_eject].line == 0)
        pool->eject = pool->auto_eject_hosts && !is_owned && pool->members == CONF_MEMBERS_static
                          ? CONF_EJECT_rehash
                          : CONF_EJECT_keep;
    else if (pool->members != CONF_MEMBERS_static && pool->eject != CONF_EJECT_keep)
        return fail_pool(
            reader, seen, KEY_eject,
            "has an invalid value; the members of this pool fail over by themselves: use "
            "keep");
    else if (is_owned && pool->eject == CONF_EJECT_rehash)
        return fail_pool(
            reader, seen, KEY_eject,
            "has an invalid value; slots and ranges have owners and are not rehashed: use "
            "keep or spare");
    return 0;
}

/* ---- servers
 * ---------------------------------------------------------------------------------------------------
 */

int conf_compare_names(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);

    return a_len != b_len ? (a_len > b_len) - (a_len < b_len) : memcmp(a, b, a_len);
}

static int compare_servers(const void *left, const void *right)
{
    return conf_compare_names(((const struct conf_server *)left)->name,
                              ((const struct conf_server *)right)->name);
}

static int compare_masters(const void *left, const void *right)
{
    return conf_compare_names(((const struct conf_master *)left)->name,
                              ((const struct conf_master *)right)->name);
}

static int compare_server_names(const void *left, const void *right)
{
    const struct conf_server *a = *(const struct conf_server *const *)left;
    const struct conf_server *b = *(const struct conf_server *const *)right;
    int order = conf_compare_names(a->name, b->name);

    return order != 0 ? order : (a->file_index > b->file_index) - (a->file_index < b->file_index);
}

static int compare_server_addresses(const void *left, const void *right)
{
    const struct conf_server *a = *(const struct conf_server *const *)left;
    const struct conf_server *b = *(const struct conf_server *const *)right;
    int order = strcmp(a->address.text, b->address.text);

    return order != 0 ? order : (a->file_index > b->file_index) - (a->file_index < b->file_index);
}

static int check_names(struct conf_reader *reader, const struct conf_pool *pool)
{
    const struct conf_server **sorted =
        conf_alloc(&reader->scratch, pool->servers_count * sizeof(*sorted));

    for (uint32_t i = 0; i < pool->servers_count; i++)
        sorted[i] = &pool->servers[i];
    qsort(sorted, pool->servers_count, sizeof(*sorted), compare_server_names);
    for (uint32_t i = 1; i < pool->servers_count; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return conf_fail(
                reader, sorted[i]->address.at,
                "conf: pool '%s' has servers with same name '%s'; the other is in line "
                "%u: give each its own, \"hostname:port:weight NAME\"",
                pool->name, sorted[i]->name, sorted[i - 1]->address.at.line);
    }
    qsort(sorted, pool->servers_count, sizeof(*sorted), compare_server_addresses);
    for (uint32_t i = 1; i < pool->servers_count; i++) {
        if (strcmp(sorted[i - 1]->address.text, sorted[i]->address.text) == 0)
            conf_warn(reader, sorted[i]->address.at,
                      "conf: pool '%s' has the server %s twice, as '%s' and '%s'", pool->name,
                      sorted[i]->address.text, sorted[i - 1]->name, sorted[i]->name);
    }
    return 0;
}

static int check_roles(struct conf_reader *reader, const struct conf_pool *pool,
                       const struct conf_position *seen)
{
    uint64_t weight_total = 0;

    for (uint32_t i = 0; i < pool->servers_count; i++) {
        const struct conf_server *server = &pool->servers[i];

        weight_total += server->weight;
        if (server->slots_count > 0 &&
            (pool->distribution != RING_slots || pool->members != CONF_MEMBERS_static))
            return conf_fail(reader, server->address.at,
                             "conf: server '%s' has slots, but the pool does not use them; write "
                             "distribution: slots (and members: static)",
                             server->name);
        if (server->ranges_count > 0 && pool->distribution != RING_range)
            return conf_fail(reader, server->address.at,
                             "conf: server '%s' has a range, but the pool does not use it; write "
                             "distribution: range",
                             server->name);
        if (server->is_spare && (server->slots_count > 0 || server->ranges_count > 0))
            return conf_fail(reader, server->address.at,
                             "conf: server '%s' is a spare and holds no keys of its own; leave its "
                             "slots= or range= out",
                             server->name);
        if (server->is_spare && pool->eject != CONF_EJECT_spare)
            return conf_fail(reader, server->address.at,
                             "conf: server '%s' is a spare, but the pool would never use it; write "
                             "eject: spare",
                             server->name);
    }
    if (weight_total > UINT32_MAX)
        return fail_pool(reader, seen, KEY_servers,
                         "has an invalid value; the weights together exceed 4294967295");
    if (pool->eject == CONF_EJECT_spare && pool->spares_count == 0)
        return fail_pool(reader, seen, KEY_eject,
                         "spare needs a spare; write role=spare at the end of a server's line");
    return 0;
}

/* Every slot has one owner, or none is named at all and they are split evenly. */
static int check_slots(struct conf_reader *reader, const struct conf_pool *pool,
                       const struct conf_position *seen)
{
    const struct conf_server **owners =
        conf_alloc(&reader->scratch, HASH_SLOT_COUNT * sizeof(*owners));
    bool has_owners = false;

    for (uint32_t i = 0; i < pool->servers_count; i++) {
        const struct conf_server *server = &pool->servers[i];

        for (uint32_t j = 0; j < server->slots_count; j++) {
            has_owners = true;
            for (uint32_t slot = server->slots[j].first; slot <= server->slots[j].last; slot++) {
                if (owners[slot] != NULL)
                    return conf_fail(
                        reader, server->address.at,
                        "conf: slot %u belongs to both '%s' and '%s'; take it from one", slot,
                        owners[slot]->name, server->name);
                owners[slot] = server;
            }
        }
    }
    for (uint32_t slot = 0; has_owners && slot < HASH_SLOT_COUNT; slot++) {
        uint32_t last = slot;

        if (owners[slot] != NULL)
            continue;
        while (last + 1 < HASH_SLOT_COUNT && owners[last + 1] == NULL)
            last++;
        return conf_fail(
            reader, seen[KEY_servers],
            "conf: slots %u-%u belong to no server; give all of 0-16383 away, or leave "
            "slots= out everywhere for an even split",
            slot, last);
    }
    return 0;
}

static int check_ranges(struct conf_reader *reader, const struct conf_pool *pool,
                        const struct conf_position *seen)
{
    struct ring *ring = NULL;
    int err = conf_pool_ring(pool, NULL, &ring);
    bool has_gap;

    if (err == ERR_INVALID)
        return fail_pool(reader, seen, KEY_servers,
                         "has an invalid value; key ranges overlap, or one ends before it starts");
    if (err != 0)
        return err;
    has_gap = ring_gap_count(ring) > 0;
    ring_destroy(&ring);
    if (has_gap)
        return fail_pool(
            reader, seen, KEY_servers,
            "has an invalid value; some keys belong to no range=: start with range=..x, "
            "go on with range=x..y, end with range=y..");
    return 0;
}

static int read_servers(struct conf_reader *reader, struct draft *draft,
                        const struct conf_position *seen)
{
    struct conf_pool *pool = &draft->pool;
    const struct conf_node *list = draft->servers;
    uint32_t count = list != NULL ? list->count : 0;
    int err;

    if (count > CONF_SERVERS_MAX)
        return fail_pool(reader, seen, KEY_servers,
                         "has an invalid value; more than 65535 servers");
    pool->servers = conf_alloc(reader->arena, MAX(count, 1u) * sizeof(*pool->servers));
    for (const struct conf_node *node = list != NULL ? list->first : NULL; node != NULL;
         node = node->next) {
        struct conf_server *server = &pool->servers[pool->servers_count];

        err = conf_read_server(reader, node, pool->members == CONF_MEMBERS_static, server);
        if (err != 0)
            return err;
        server->file_index = pool->servers_count++;
        pool->spares_count += server->is_spare;
    }
    if (pool->servers_count == pool->spares_count)
        return conf_fail(reader, seen[KEY_servers].line != 0 ? seen[KEY_servers] : pool->at,
                         "conf: pool '%s' has no servers; add servers: and below it one line \"- "
                         "127.0.0.1:6379:1\" for each",
                         pool->name);
    if (pool->distribution != RING_jump)
        qsort(pool->servers, pool->servers_count, sizeof(*pool->servers), compare_servers);
    err = check_names(reader, pool);
    if (err == 0)
        err = check_roles(reader, pool, seen);
    if (err == 0 && pool->distribution == RING_slots && pool->members == CONF_MEMBERS_static)
        err = check_slots(reader, pool, seen);
    if (err == 0 && pool->distribution == RING_range)
        err = check_ranges(reader, pool, seen);
    return err;
}

static int read_masters(struct conf_reader *reader, struct draft *draft)
{
    struct conf_pool *pool = &draft->pool;
    const struct conf_node *node = draft->masters;
    uint32_t count = node->kind == CONF_NODE_LIST ? node->count : 1;

    if (count == 0 || count > MASTERS_MAX)
        return conf_fail(
            reader, node->at,
            "conf: directive \"sentinel_master\" has an invalid value; it takes 1 to %d "
            "names",
            MASTERS_MAX);
    pool->masters = conf_alloc(reader->arena, count * sizeof(*pool->masters));
    if (node->kind == CONF_NODE_LIST)
        node = node->first;
    for (; pool->masters_count < count; node = node->next) {
        int err = conf_read_master(reader, node, &pool->masters[pool->masters_count++]);

        if (err != 0)
            return err;
    }
    if (pool->distribution != RING_jump)
        qsort(pool->masters, count, sizeof(*pool->masters), compare_masters);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(pool->masters[i].name, pool->masters[j].name) == 0)
                return conf_fail(
                    reader, draft->masters->at,
                    "conf: directive \"sentinel_master\" has an invalid value; '%s' is "
                    "there twice",
                    pool->masters[i].name);
        }
    }
    return 0;
}

static void add_warnings(struct conf_reader *reader, const struct conf_pool *pool,
                         const struct conf_position *seen)
{
    if (pool->hash == HASH_crc32 && pool->distribution == RING_ketama && pool->servers_count > 1)
        conf_warn(reader, seen[KEY_hash],
                  "conf: pool '%s': crc32 has 15 bits, so that ketama puts nearly all keys on one "
                  "server; crc32a has 32 (and places keys elsewhere)",
                  pool->name);
    if (pool->redis_db != 0 && pool->protocol == CONF_PROTOCOL_memcache)
        conf_warn(reader, seen[KEY_redis_db],
                  "conf: pool '%s': redis_db has no effect on a memcache pool", pool->name);
    if (!conf_address_is_local(&pool->listen) && pool->redis_auth == NULL && !pool->insecure)
        conf_warn(reader, pool->listen.at,
                  "conf: pool '%s' listens on %s without a password; whoever reaches this machine "
                  "reaches the data (insecure: true silences this)",
                  pool->name, pool->listen.text);
}

int conf_read_pool(struct conf_reader *reader, const struct conf_node *key, struct conf_pool *pool)
{
    struct conf_position seen[KEY_COUNT] = {{0, 0}};
    struct draft draft = {0};
    int err;

    set_defaults(&draft.pool);
    if (key->text.len > 255)
        return conf_fail(reader, key->at, "conf: the name of a pool has more than 255 bytes");
    if (key->value->kind != CONF_NODE_MAPPING)
        return conf_fail(reader, key->at,
                         "conf: '%s' has invalid \"key:value\" at depth 1; pool '%.*s' takes keys: "
                         "below it, indented, listen: and servers: at least",
                         reader->path, CONF_SHOW(key->text));
    draft.pool.name = conf_copy(reader->arena, key->text);
    draft.pool.at = key->at;
    err = conf_read_mapping(reader, key->value, "", pool_keys, KEY_COUNT, &draft, seen);
    if (err != 0)
        return err;
    if (seen[KEY_listen].line == 0)
        return conf_fail(reader, key->at,
                         "conf: directive \"listen:\" is missing; pool '%s' needs it: listen: "
                         "127.0.0.1:22121",
                         draft.pool.name);
    if (draft.pool.server_connections == 0)
        return fail_pool(reader, seen, KEY_server_connections, "cannot be 0; 1 is the default");
    if ((err = settle_protocol(reader, &draft.pool, seen)) != 0 ||
        (err = settle_members(reader, &draft.pool, seen)) != 0 ||
        (err = settle_placement(reader, &draft.pool, seen)) != 0 ||
        (err = read_servers(reader, &draft, seen)) != 0)
        return err;
    if (draft.masters != NULL && (err = read_masters(reader, &draft)) != 0)
        return err;
    settle_timeouts(&draft.pool, seen);
    add_warnings(reader, &draft.pool, seen);
    *pool = draft.pool;
    return 0;
}
