/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf.h - the node's settings: a YAML file, and options of the same names on top of it.
 *
 * `listen: 127.0.0.1:7000` in the file is `--listen 127.0.0.1:7000` on the command line. Plain data, complete and
 * checked; nothing changes after conf_read(). An error says file:line:column, or "command line" and the option.
 */
#pragma once
#include "backend/store/store.h"
#include "common/conf/reader.h"

enum node_direct { NODE_DIRECT_FALSE, NODE_DIRECT_TRUE, NODE_DIRECT_AUTO };

struct node_conf {
    /* These need a new start to change: */
    struct conf_address listen; /* worker i listens on port + i */
    const char *dir;
    uint32_t workers;           /* shards; 0: one for each core */
    uint32_t segment_size, ring_size;
    unsigned direct; /* enum node_direct */
    bool sandbox;
    bool insecure;   /* true: said aloud that an address may be open to everybody */
    uint32_t memcache_db;
    struct store_namespace namespaces[STORE_DBS];
    struct conf_address stats;
    const char *user, *group, *pid_file, *log_file;
    int log_level;
    bool cpu_affinity;
    uint64_t rlimit_nofile;
    /* These are applied by HUP: */
    uint64_t memory;            /* of all workers together; 0: no bound */
    uint64_t clients_memory;    /* likewise: of that, for what clients hold */
    uint64_t disk;              /* likewise */
    unsigned fsync;             /* enum store_fsync */
    const char *password;       /* NULL: none. A secret */
    uint32_t clients_max;       /* of each worker */
    int64_t drain_timeout_ms;

    const struct conf_warning *warnings;
    uint32_t warnings_count;
    struct conf_arena arena;    /* owns everything above */
};

/* An option as given: "listen", "127.0.0.1:7000". */
struct conf_option {
    const char *key, *value; /* '-' in the key counts as '_' */
};

/* `path` NULL: options and defaults alone. Errors as conf_load()'s of the proxy: *error has one line. */
MUST_USE int node_conf_read(const char *path, const struct conf_option *options, uint32_t options_count,
                            struct node_conf **out, struct conf_error *error);
void node_conf_destroy(struct node_conf **conf); /* passwords are wiped */

extern const char *const node_conf_fsync_names[]; /* "no", "everysec", "always", NULL */
extern const char *const node_conf_direct_names[];
/* For --help: each key with its default and what it is. */
void node_conf_print_keys(void (*print)(const char *key, const char *value, const char *what));
