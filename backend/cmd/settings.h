/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings.h - the settings that CONFIG GET and CONFIG SET know, under Redis's names.
 *
 * Whoever heeds a setting reads it here each time: no copy has to follow a change. What other modules must be
 * told (the store's memory and fsync) is told by settings.c.
 */
#pragma once
#include "backend/cmd/engine.h"

struct output_limit {
    uint64_t hard, soft; /* bytes; 0: none */
    uint64_t soft_seconds;
};
enum output_limit_class { OUTPUT_LIMIT_NORMAL, OUTPUT_LIMIT_REPLICA, OUTPUT_LIMIT_PUBSUB, OUTPUT_LIMIT_COUNT };

enum notify_flag {
    NOTIFY_KEYSPACE = 1 << 0,  /* K */
    NOTIFY_KEYEVENT = 1 << 1,  /* E */
    NOTIFY_GENERIC = 1 << 2,   /* g */
    NOTIFY_STRING = 1 << 3,    /* $ */
    NOTIFY_LIST = 1 << 4,      /* l */
    NOTIFY_SET = 1 << 5,       /* s */
    NOTIFY_HASH = 1 << 6,      /* h */
    NOTIFY_ZSET = 1 << 7,      /* z */
    NOTIFY_EXPIRED = 1 << 8,   /* x */
    NOTIFY_EVICTED = 1 << 9,   /* e */
    NOTIFY_STREAM = 1 << 10,   /* t */
    NOTIFY_KEY_MISS = 1 << 11, /* m: not among A */
    NOTIFY_MODULE = 1 << 13,   /* d */
    NOTIFY_NEW = 1 << 14,      /* n: not among A */
    NOTIFY_ALL = NOTIFY_GENERIC | NOTIFY_STRING | NOTIFY_LIST | NOTIFY_SET | NOTIFY_HASH | NOTIFY_ZSET |
                 NOTIFY_EXPIRED | NOTIFY_EVICTED | NOTIFY_STREAM | NOTIFY_MODULE,
};

struct settings {
    char *password; /* owns; NULL: none. requirepass */
    bool needs_password;
    uint64_t memory_max;
    uint64_t disk_max;       /* maxdisk: of the log; 0: what the file system has */
    uint8_t fsync;  /* enum store_fsync */
    bool evicts;    /* the first database is a cache */
    uint32_t clients_max;
    uint64_t clients_memory;  /* maxmemory-clients: bytes, or percent of memory_max; 0: no bound */
    bool clients_memory_is_percent;
    uint32_t timeout_s;      /* idle clients; 0: never */
    uint32_t tcp_keepalive_s;
    uint64_t bulk_max;       /* proto-max-bulk-len */
    uint64_t query_buffer_max;
    struct output_limit output_limits[OUTPUT_LIMIT_COUNT];
    int64_t slow_log_slower_than_us; /* negative: off */
    uint32_t slow_log_len_max;
    uint32_t latency_threshold_ms; /* 0: off */
    uint32_t replicas_min, replicas_lag_max_s; /* min-replicas-to-write and -max-lag; either 0: no replica is needed */
    bool latency_tracking;
    int log_level;           /* loglevel, as common/base/log.h counts */
    uint32_t notify;         /* enum notify_flag */
    bool active_expire;      /* DEBUG SET-ACTIVE-EXPIRE */
    uint32_t mc_value_max;   /* memcache-item-size-max: memcached's -I */
    struct object_limits limits; /* hash-max-listpack-entries and their like; the store has a copy */
    struct settings_text *texts; /* owns: values that are kept and given back, see settings.c */
};

/* 0 or ERR_FULL. */
MUST_USE int settings_create(const struct engine_options *options, struct settings **out);
void settings_destroy(struct settings **settings);
struct settings *settings_copy(const struct settings *settings);
/* Takes *settings; NULL: nothing changes. */
void settings_replace(struct engine *engine, struct settings **settings);
/* As CONFIG SET with a value that is known to be right: for the settings of the program's own configuration. */
void settings_take(struct engine *engine, struct bytes name, struct bytes text);
/* A password: its value is not shown to others. False for what is no setting. */
bool setting_is_secret(struct bytes name);
/* Whether this is requirepass; takes as long for a wrong one as for the right one. */
bool settings_password_fits(const struct settings *settings, struct bytes password);
