/* SPDX-License-Identifier: Apache-2.0 */
/* The reserved top-level mapping `weir:`: what concerns the program, not a pool. */
#include "config.h"

#include "common/proto/memcache.h"
#include "proxy/conf_private.h"

#include <limits.h>

#define FILE_VERSION 1
#define WORKERS_MAX  1024
#define CPUS_MAX     1024
#define PATH_LEN_MAX 4095
#define UNIX_LEN_MAX 107
#define SIZE_TOP     (1ull << 40) /* no size in a configuration is above */
#define TIME_MAX     ((uint64_t)INT_MAX)

const char *const conf_accept_names[] = {"reuseport", "exclusive", "mutex", NULL};

const char *conf_accept_name(enum conf_accept accept)
{
    return conf_accept_names[accept];
}

void conf_process_defaults(struct conf_process *process)
{
    *process = (struct conf_process){
        .version = FILE_VERSION,
        .accept = CONF_ACCEPT_reuseport,
        .drain_timeout_ms = 30000,
        .log_level = -1,
        .stats_interval_ms = -1,
        .slowlog_threshold_ms = 10,
        .slowlog_entries = 128,
        .hotkeys_entries = 64,
        .hotkeys_sample = 64,
        .bigkeys_size = 64u << 10,
        .limits =
            {
                .request_size_max = 1u << 30,
                .value_size_max = 512u << 20,
                .key_size_max = 65535,
                .args_max = 1u << 20,
                .line_max = 1u << 20,
                .client_output_max = 1u << 20,
                .client_output_close = 256u << 20,
                .client_inflight_max = 1024,
                .upstream_queue_max = 65536,
                .upstream_output_max = 64u << 20,
                .worker_memory_max = 1u << 30,
                .auth_timeout_ms = 10000,
                .idle_timeout_ms = -1,
            },
    };
}

static int set_workers(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (bytes_equal(text, BYTES("auto"))) {
        ((struct conf_process *)target)->workers = 0;
        return 0;
    }
    return conf_set_u32(reader, item, target);
}

static int set_affinity(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct conf_process *process = target;
    struct conf_strings words;
    uint32_t *cpus;
    int err;

    if (item->value->kind == CONF_NODE_SCALAR && bytes_equal(item->value->text, BYTES("auto"))) {
        process->cpu_affinity_auto = true;
        return 0;
    }
    if (item->value->kind == CONF_NODE_SCALAR && bytes_equal(item->value->text, BYTES("off")))
        return 0;
    err = conf_words(reader, item, CPUS_MAX, &words);
    if (err != 0)
        return err;
    cpus = conf_alloc(reader->arena, (words.count + 1) * sizeof(*cpus));
    for (uint32_t i = 0; i < words.count; i++) {
        if (!conf_number(bytes_of_string(words.items[i]), &cpus[i]) || cpus[i] >= CPUS_MAX)
            return conf_fail(
                reader, item->value->at,
                "conf: directive \"%s\" has an invalid value; write auto, off, or a list "
                "of cores, [0, 1, 2]",
                item->name);
    }
    process->cpus = cpus;
    process->cpus_count = words.count;
    return 0;
}

static int set_version(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    struct bytes text;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    if (!bytes_equal(text, BYTES("1")))
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" has an invalid value; this program reads version 1",
            item->name);
    return 0;
}

static int set_level(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const char *const names[] = {"emerg", "alert",  "crit", "error",
                                        "warn",  "notice", "info", "debug"};
    int *field = &((struct conf_process *)target)->log_level;
    struct bytes text;
    uint32_t level;
    int err = conf_scalar(reader, item, &text);

    if (err != 0)
        return err;
    for (uint32_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (bytes_equal(text, bytes_of_string(names[i]))) {
            *field = (int)i;
            return 0;
        }
    }
    if (!conf_number(text, &level) || level > 11)
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" has an invalid value; write 0 to 11, or emerg, alert, "
            "crit, error, warn, notice, info, debug",
            item->name);
    *field = (int)level;
    return 0;
}

/* A mapping inside the mapping; `keys` is NULL-terminated by name. */
static int set_group(struct conf_reader *reader, const struct conf_item *item, void *target,
                     const char *prefix, const struct conf_key *keys, uint32_t count)
{
    struct conf_position seen[32] = {{0, 0}};

    ASSERT(count <= ARRAY_COUNT(seen));
    if (item->value->kind != CONF_NODE_MAPPING)
        return conf_fail(
            reader, item->value->at,
            "conf: directive \"%s\" has an invalid value; it takes a mapping, {%s: ..}", item->name,
            keys[0].name);
    return conf_read_mapping(reader, item->value, prefix, keys, count, target, seen);
}

#define FIELD(name) offsetof(struct conf_process, name)
#define LIMIT(name) offsetof(struct conf_process, limits.name)

static int set_log(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"file", conf_set_string, FIELD(log_file), 1, PATH_LEN_MAX, NULL},
        {"level", set_level, 0, 0, 0, NULL},
    };

    return set_group(reader, item, target, "log.", keys, ARRAY_COUNT(keys));
}

static int set_stats(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"listen", conf_set_listen, FIELD(stats_listen), 0, 0, NULL},
        {"interval", conf_set_time, FIELD(stats_interval_ms), 1, TIME_MAX, NULL},
        {"insecure", conf_set_bool, FIELD(stats_insecure), 0, 0, NULL},
    };
    const struct conf_process *process = target;
    int err = set_group(reader, item, target, "stats.", keys, ARRAY_COUNT(keys));

    if (err != 0 || process->stats_listen.text == NULL)
        return err;
    if (process->stats_listen.path != NULL)
        return conf_fail(
            reader, process->stats_listen.at,
            "conf: directive \"stats.listen\" has an invalid value; it takes host:port");
    if (!conf_address_is_local(&process->stats_listen) && !process->stats_insecure)
        return conf_fail(reader, process->stats_listen.at,
                         "conf: directive \"stats.listen\" has an invalid value; the stats have no "
                         "password: use 127.0.0.1, or add insecure: true beside it");
    return 0;
}

static int set_slowlog(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"threshold", conf_set_time_or_off, FIELD(slowlog_threshold_ms), 0, TIME_MAX, NULL},
        {"entries", conf_set_u32, FIELD(slowlog_entries), 1, 65536, NULL},
    };

    return set_group(reader, item, target, "slowlog.", keys, ARRAY_COUNT(keys));
}

static int set_hotkeys(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"entries", conf_set_u32, FIELD(hotkeys_entries), 0, 4096, NULL},
        {"sample", conf_set_u32, FIELD(hotkeys_sample), 1, 1000000, NULL},
    };

    return set_group(reader, item, target, "hotkeys.", keys, ARRAY_COUNT(keys));
}

static int set_bigkeys(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"size", conf_set_size64, FIELD(bigkeys_size), 1, SIZE_TOP, NULL},
    };

    return set_group(reader, item, target, "bigkeys.", keys, ARRAY_COUNT(keys));
}

static int set_limits(struct conf_reader *reader, const struct conf_item *item, void *target)
{
    static const struct conf_key keys[] = {
        {"request_size_max", conf_set_size64, LIMIT(request_size_max), 1024, SIZE_TOP, NULL},
        {"value_size_max", conf_set_size64, LIMIT(value_size_max), 1, 512u << 20, NULL},
        {"key_size_max", conf_set_size32, LIMIT(key_size_max), 1, 512u << 20, NULL},
        {"args_max", conf_set_u32, LIMIT(args_max), 1, INT_MAX, NULL},
        {"line_max", conf_set_size32, LIMIT(line_max), 512, MC_LINE_MAX, NULL},
        {"client_output_max", conf_set_size64, LIMIT(client_output_max), 4096, SIZE_TOP, NULL},
        {"client_output_close", conf_set_size64, LIMIT(client_output_close), 4096, SIZE_TOP, NULL},
        {"client_inflight_max", conf_set_u32, LIMIT(client_inflight_max), 1, 1u << 20, NULL},
        {"upstream_queue_max", conf_set_u32, LIMIT(upstream_queue_max), 1, 1u << 24, NULL},
        {"upstream_output_max", conf_set_size64, LIMIT(upstream_output_max), 65536, SIZE_TOP, NULL},
        {"worker_memory_max", conf_set_size64, LIMIT(worker_memory_max), 1u << 20, SIZE_TOP, NULL},
        {"clients_max", conf_set_u32, LIMIT(clients_max), 0, INT_MAX, NULL},
        {"auth_timeout", conf_set_time_or_off, LIMIT(auth_timeout_ms), 1, TIME_MAX, NULL},
        {"idle_timeout", conf_set_time_or_off, LIMIT(idle_timeout_ms), 1, TIME_MAX, NULL},
    };

    return set_group(reader, item, target, "limits.", keys, ARRAY_COUNT(keys));
}

int conf_read_process(struct conf_reader *reader, const struct conf_node *mapping,
                      struct conf_process *process)
{
    static const struct conf_key keys[] = {
        {"version", set_version, 0, 0, 0, NULL},
        {"workers", set_workers, FIELD(workers), 1, WORKERS_MAX, NULL},
        {"accept", conf_set_enum, FIELD(accept), 0, 0, conf_accept_names},
        {"cpu_affinity", set_affinity, 0, 0, 0, NULL},
        {"user", conf_set_string, FIELD(user), 1, 32, NULL},
        {"group", conf_set_string, FIELD(group), 1, 32, NULL},
        {"drain_timeout", conf_set_time, FIELD(drain_timeout_ms), 0, TIME_MAX, NULL},
        {"rlimit_nofile", conf_set_u64, FIELD(rlimit_nofile), 64, 1u << 30, NULL},
        {"pid_file", conf_set_string, FIELD(pid_file), 1, PATH_LEN_MAX, NULL},
        {"control", conf_set_string, FIELD(control), 1, UNIX_LEN_MAX, NULL},
        {"log", set_log, 0, 0, 0, NULL},
        {"stats", set_stats, 0, 0, 0, NULL},
        {"slowlog", set_slowlog, 0, 0, 0, NULL},
        {"hotkeys", set_hotkeys, 0, 0, 0, NULL},
        {"bigkeys", set_bigkeys, 0, 0, 0, NULL},
        {"limits", set_limits, 0, 0, 0, NULL},
    };
    struct conf_position seen[ARRAY_COUNT(keys)] = {{0, 0}};
    int err;

    if (mapping->kind != CONF_NODE_MAPPING)
        return conf_fail(reader, mapping->at,
                         "conf: directive \"weir\" has an invalid value; it takes a mapping that "
                         "starts with version: 1");
    process->is_present = true;
    err = conf_read_mapping(reader, mapping, "", keys, ARRAY_COUNT(keys), process, seen);
    if (err != 0)
        return err;
    if (seen[0].line == 0)
        return conf_fail(reader, mapping->at,
                         "conf: directive \"version\" is missing; write version: 1 in weir:");
    if (process->group != NULL && process->user == NULL)
        return conf_fail(reader, mapping->at,
                         "conf: directive \"group\" is only valid with a user; add user:");
    if (process->limits.value_size_max > process->limits.request_size_max)
        return conf_fail(
            reader, mapping->at,
            "conf: directive \"limits.value_size_max\" has an invalid value; it is above "
            "limits.request_size_max");
    return 0;
}
