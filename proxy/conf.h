/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf.h - the configuration: twemproxy's YAML files, and Weir's own keys beside them.
 *
 * Reading resolves no name and opens nothing but the file: the result is plain data, complete (every
 * default filled in) and valid (every relation between keys checked). Nothing in it changes after
 * conf_load(); everything in it is owned by the struct conf and lives as long. Strings end with NUL and hold
 * none inside.
 *
 * Pools and the servers of a pool are sorted as twemproxy sorts them, by length of the name and then
 * its bytes: modula and colliding ketama points depend on it. Exception: a `distribution: jump` pool
 * keeps the order of its lines, as appending must not renumber.
 *
 * Times are milliseconds; -1 is "no limit".
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/conf/reader.h"
#include "common/ring/hash.h"
#include "common/ring/ring.h"

#define CONF_POOLS_MAX     10000u
#define CONF_SERVERS_MAX   RING_SERVERS_MAX /* of a pool */

/* A line under `servers:`. */
struct conf_server {
    const char *name;  /* the ring's label and the key in the stats: the given name, else host:port,
                        * without ":11211"; of an unnamed unix socket "path:", as twemproxy has it */
    const char *pname; /* "host:port:weight" */
    struct conf_address address; /* text is "host:port" or the path */
    uint32_t weight;             /* 1..RING_WEIGHT_MAX */
    bool has_name;               /* the name was given */
    bool is_spare;               /* role=spare: holds no keys until it stands in (eject: spare) */
    const struct ring_slots *slots; /* slots=0-5460,... */
    uint32_t slots_count;
    const struct ring_range *ranges; /* range=a..m */
    uint32_t ranges_count;
    uint32_t file_index; /* its place under `servers:`, from 0, before sorting */
};

/* `sentinel_master:` one shard of a Sentinel pool. */
struct conf_master {
    const char *name;
    uint32_t weight;
};

enum conf_members {
    CONF_MEMBERS_static,         /* `servers` are the shards */
    CONF_MEMBERS_redis_cluster,  /* `servers` are seeds; the slot map is asked from them */
    CONF_MEMBERS_sentinel,       /* `servers` are sentinels; `masters` are the shards */
    CONF_MEMBERS_weir,           /* `servers` are seeds of a Weir cluster */
};

enum conf_protocol {
    CONF_PROTOCOL_memcache,
    CONF_PROTOCOL_redis,
    CONF_PROTOCOL_auto, /* both: pools of Weir nodes */
};

enum conf_eject {
    CONF_EJECT_keep,   /* the ring stays; a dead server's keys get errors */
    CONF_EJECT_rehash, /* the ring is built over the live servers */
    CONF_EJECT_spare,  /* a spare takes the dead one's place in the ring */
};

enum conf_accept {
    CONF_ACCEPT_reuseport,
    CONF_ACCEPT_exclusive,
    CONF_ACCEPT_mutex,
};

struct conf_pool {
    const char *name;
    struct conf_position at;
    struct conf_address listen;

    /* twemproxy's keys */
    enum hash_kind hash;
    bool has_hash_tag;
    char hash_tag[2];
    enum ring_distribution distribution;
    int64_t timeout_ms; /* `timeout:`; -1 also for 0, as twemproxy takes it */
    uint32_t backlog;
    uint32_t client_connections; /* over all workers; 0: no limit */
    bool redis;                  /* protocol == redis */
    const char *redis_auth;      /* NULL: none. A secret: never printed */
    uint32_t redis_db;
    bool preconnect;
    bool tcpkeepalive;
    bool reuseport; /* accepted for twemproxy's sake; `weir: accept:` decides */
    bool auto_eject_hosts;
    uint32_t server_connections; /* for each worker and server, >= 1 */
    int64_t server_retry_timeout_ms;
    uint32_t server_failure_limit;
    struct conf_server *servers; /* sorted; see the head of this file */
    uint32_t servers_count;
    uint32_t spares_count; /* how many of them are spares */

    /* Weir's */
    enum conf_members members;
    enum conf_protocol protocol;
    int64_t connect_timeout_ms; /* these three: the key, else `timeout`, else */
    int64_t queue_timeout_ms;   /*   connect 5,000, queue -1, reply -1 */
    int64_t reply_timeout_ms;
    enum conf_eject eject;     /* default rehash with auto_eject_hosts, else keep */
    int64_t probe_interval_ms; /* of servers that look down; 0: no active probes */
    bool paranoid;             /* one request in flight a connection to a server */
    bool insecure; /* a public listener without a password is meant: no warning */
    struct conf_strings commands_allow; /* lower case: "flushall", "config|get", memcache's
                                        * "flush_all"; "*" or "all": every one. Each is known */
    struct conf_strings commands_deny;
    struct conf_master *masters; /* members: sentinel; sorted by name as servers are */
    uint32_t masters_count;
    const char *sentinel_auth; /* password of the sentinels, or NULL. A secret */
};

/* Bounds of what one client, pool or worker may hold. Sizes in bytes. */
struct conf_limits {
    uint64_t request_size_max;    /* all of a request */
    uint64_t value_size_max;      /* one value or argument */
    uint32_t key_size_max;        /* Redis keys; memcache's are 250 by its protocol */
    uint32_t args_max;            /* arguments of a request, keys of a multi-get */
    uint32_t line_max;            /* memcache command line, inline request */
    uint64_t client_output_max;   /* replies waiting for a client before it is read no more */
    uint64_t client_output_close; /* ... before it is closed: servers are shared, they cannot wait for it */
    uint32_t client_inflight_max; /* unanswered requests of a client before it is read no more */
    uint32_t upstream_queue_max;  /* requests in flight and queued on a server connection */
    uint64_t upstream_output_max; /* bytes queued to a server */
    uint64_t worker_memory_max;   /* buffers of a worker */
    uint32_t clients_max;         /* of all pools and workers; 0: as descriptors allow */
    int64_t auth_timeout_ms;      /* to authenticate, where a password is set */
    int64_t idle_timeout_ms;      /* clients without a request; -1: never closed */
};

/* The reserved mapping `weir:`. What a command line option overrides has a "not set" value. */
struct conf_process {
    bool is_present; /* the mapping is in the file */
    uint32_t version;
    uint32_t workers; /* 0: auto, one for each core */
    enum conf_accept accept;
    bool cpu_affinity_auto;
    const uint32_t *cpus; /* cpu_affinity as a list: of worker i, cpus[i % count] */
    uint32_t cpus_count;  /* 0 and not auto: no affinity */
    const char *user, *group; /* NULL: stay who we are; group NULL: the user's own */
    int64_t drain_timeout_ms;
    uint64_t rlimit_nofile; /* 0: raise the soft limit to the hard one */
    const char *pid_file;   /* NULL: not set (-p) */
    const char *control;    /* path of the control socket; NULL: not set (the default is the program's) */
    const char *log_file;   /* NULL: not set (-o) */
    int log_level;          /* 0..11; -1: not set (-v) */
    struct conf_address stats_listen; /* text NULL: not set (-a, -s) */
    int64_t stats_interval_ms;        /* -1: not set (-i) */
    bool stats_insecure;              /* a public stats address is meant */
    int64_t slowlog_threshold_ms;     /* -1: off */
    uint32_t slowlog_entries;         /* of a worker */
    uint32_t hotkeys_entries;         /* of a worker; 0: off */
    uint32_t hotkeys_sample;          /* one request in so many is looked at */
    uint64_t bigkeys_size;            /* a value above is reported */
    struct conf_limits limits;
};

struct conf {
    const char *path; /* as given */
    struct conf_process process;
    struct conf_pool *pools; /* sorted by length of the name, then its bytes */
    uint32_t pools_count;
    const struct conf_warning *warnings;
    uint32_t warnings_count;
    void *arena; /* private: owns everything above */
};

/* Reads, checks, completes. 0, or a negative ERR_ or errno with *error filled in and *out untouched. */
MUST_USE int conf_load(const char *path, struct conf **out, struct conf_error *error);
/* The same for bytes in memory; `path` is only for the texts. */
MUST_USE int conf_parse(const char *path, struct bytes yaml, struct conf **out,
                        struct conf_error *error);
void conf_destroy(struct conf **conf); /* NULL is fine; passwords are wiped */

/* NULL when there is none. */
const struct conf_pool *conf_pool_by_name(const struct conf *conf, struct bytes name);

/* The ring of a static or Sentinel pool. Its indices are those of `servers` (sentinel: of `masters`).
 * is_live: one for each, NULL: all are. Spares are never live in it: with `eject: spare` keep the
 * ring and put the spare in the dead server's place after the look-up.
 * ERR_UNSUPPORTED: members are a cluster, whose slot map makes the ring; -ENOMEM. */
MUST_USE int conf_pool_ring(const struct conf_pool *pool, const bool *is_live, struct ring **out);

/* Names as in the file. */
const char *conf_members_name(enum conf_members members);
const char *conf_protocol_name(enum conf_protocol protocol);
const char *conf_eject_name(enum conf_eject eject);
const char *conf_accept_name(enum conf_accept accept);

/* Prints the effective configuration, defaults included, passwords left out, as YAML that conf_parse()
 * takes (a password becomes a comment). `print` gets pieces of text. */
typedef void (*conf_print_fn)(void *arg, const char *text, size_t len);
void conf_describe(const struct conf *conf, conf_print_fn print, void *arg);
