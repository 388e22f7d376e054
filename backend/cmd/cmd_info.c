/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INFO: Redis's sections under Redis's names, and a section "store" of what only this server has.
 *
 * Fields of things that are not here (scripts, modules, replicas, forks, defragmentation) have the value that a Redis without
 * them shows. Left out is what has no such value and no meaning here: docs/commands.md.
 */
#include "config.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/latency.h"
#include "backend/cmd/pubsub.h"
#include "backend/cmd/settings.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define REDIS_VERSION "7.0.15"
#define RATE_MS_MIN   100u

typedef unsigned long long ull;

struct info {
    struct engine *engine;
    struct buffer *out;
    struct store_stats store; /* since the start */
};

/* Zeroes: of what never happens here. */
static void zeroes(struct info *info, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buffer_append_format(info->out, "%s:0\r\n", names[i]);
}

/* A name and a number. */
static void number(struct info *info, const char *name, uint64_t value)
{
    buffer_append_format(info->out, "%s:%llu\r\n", name, (ull)value);
}

static void text(struct info *info, const char *name, const char *value)
{
    buffer_append_format(info->out, "%s:%s\r\n", name, value);
}

/* "1.50M", as Redis writes it. */
static void human(struct info *info, const char *name, uint64_t bytes)
{
    static const char units[] = "BKMGTP";
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 2 < sizeof(units)) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        buffer_append_format(info->out, "%s:%lluB\r\n", name, (ull)bytes);
    else
        buffer_append_format(info->out, "%s:%.2f%c\r\n", name, value, units[unit]);
}

static void numbers_human(struct info *info, const char *name, uint64_t bytes)
{
    char long_name[64];

    number(info, name, bytes);
    snprintf(long_name, sizeof(long_name), "%s_human", name);
    human(info, long_name, bytes);
}

static void percent(struct info *info, const char *name, uint64_t part, uint64_t whole)
{
    buffer_append_format(info->out, "%s:%.2f%%\r\n", name, whole == 0 ? 0 : 100.0 * (double)part / (double)whole);
}

static void executable(struct info *info)
{
    char path[1024];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

    path[MAX(len, 0)] = '\0';
    text(info, "executable", path);
}

static void info_server(struct info *info)
{
    struct engine *engine = info->engine;
    uint64_t up_s = (engine->now_ms - engine->started_ms) / 1000;
    struct utsname name = {0};

    MAYBE(uname(&name));
    text(info, "redis_version", REDIS_VERSION);
    text(info, "redis_git_sha1", "00000000");
    text(info, "redis_git_dirty", "0");
    text(info, "redis_mode", "standalone");
    buffer_append_format(info->out, "weir_version:%s\r\nos:%s %s %s\r\n", PACKAGE_VERSION, name.sysname,
                         name.release, name.machine);
    number(info, "arch_bits", 8 * sizeof(void *));
    text(info, "monotonic_clock", "POSIX clock_gettime");
    text(info, "multiplexing_api", "epoll");
    text(info, "gcc_version", __VERSION__);
    number(info, "process_id", (uint64_t)getpid());
    text(info, "process_supervised", "no");
    buffer_append_format(info->out, "run_id:%016llx%016llx%08llx\r\n", (ull)engine->run_id[0],
                         (ull)engine->run_id[1], (ull)(engine->run_id[1] >> 32 ^ engine->run_id[0]) & 0xffffffff);
    number(info, "tcp_port", engine->options.port);
    number(info, "shard", engine->options.shard);
    number(info, "shards", engine->options.shard_count);
    number(info, "server_time_usec", io_wall_us(engine->io));
    number(info, "uptime_in_seconds", up_s);
    number(info, "uptime_in_days", up_s / 86400);
    text(info, "hz", "10");
    text(info, "configured_hz", "10");
    number(info, "lru_clock", engine->now_ms / 1000 & 0xffffff);
    executable(info);
    text(info, "config_file", engine->options.config_file != NULL ? engine->options.config_file : "");
    number(info, "io_threads_active", 0);
}

static void info_clients(struct info *info)
{
    struct engine *engine = info->engine;
    uint64_t blocked = 0, input_max = 0, output_max = 0;

    LIST_FOR_EACH (&engine->sessions, node) {
        const struct session *session = CONTAINER_OF(node, struct session, node);

        blocked += session->blocked != NULL || session->is_paused;
        input_max = MAX(input_max, (uint64_t)session->query_bytes);
        output_max = MAX(output_max, (uint64_t)session->out.len);
    }
    number(info, "connected_clients", engine->session_count);
    number(info, "cluster_connections", 0);
    number(info, "maxclients", engine->settings->clients_max);
    number(info, "client_recent_max_input_buffer", input_max);
    number(info, "client_recent_max_output_buffer", output_max);
    number(info, "blocked_clients", blocked);
    number(info, "tracking_clients", 0);
    number(info, "clients_in_timeout_table", 0);
}

static void info_memory(struct info *info)
{
    static const char *const scripts[] = {"used_memory_vm_eval", "used_memory_scripts_eval", "used_memory_vm_functions",
                                          "used_memory_functions"};
    static const char *const replicas[] = {"mem_replication_backlog", "mem_total_replication_buffers",
                                           "mem_cluster_links"};
    struct engine *engine = info->engine;
    uint64_t used = info->store.memory_bytes, buffers = engine_clients_bytes(engine);
    uint64_t dataset = info->store.entry_bytes + info->store.object_bytes;
    struct mem_usage heap;

    mem_usage_get(&heap);
    engine->memory_peak = MAX(engine->memory_peak, used);
    numbers_human(info, "used_memory", used);
    numbers_human(info, "used_memory_rss", heap.resident);
    numbers_human(info, "used_memory_peak", engine->memory_peak);
    percent(info, "used_memory_peak_perc", used, engine->memory_peak);
    number(info, "used_memory_overhead", info->store.index_bytes + buffers);
    number(info, "used_memory_dataset", dataset);
    percent(info, "used_memory_dataset_perc", dataset, used);
    number(info, "allocator_allocated", heap.allocated);
    number(info, "allocator_active", heap.active);
    number(info, "allocator_resident", heap.resident);
    numbers_human(info, "total_system_memory", (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    numbers_human(info, "used_memory_lua", 0);
    numbers_human(info, "used_memory_vm_total", 0);
    numbers_human(info, "used_memory_scripts", 0);
    zeroes(info, scripts, ARRAY_COUNT(scripts));
    number(info, "number_of_cached_scripts", 0);
    number(info, "number_of_functions", 0);
    number(info, "number_of_libraries", 0);
    numbers_human(info, "maxmemory", engine->settings->memory_max);
    text(info, "maxmemory_policy", engine->settings->evicts ? "allkeys-lfu" : "noeviction");
    buffer_append_format(info->out, "allocator_frag_ratio:%.2f\r\nallocator_rss_ratio:%.2f\r\n"
                         "mem_fragmentation_ratio:%.2f\r\n",
                         heap.allocated == 0 ? 0 : (double)heap.active / (double)heap.allocated,
                         heap.active == 0 ? 0 : (double)heap.resident / (double)heap.active,
                         used == 0 ? 0 : (double)heap.resident / (double)used);
    number(info, "allocator_frag_bytes", heap.active > heap.allocated ? heap.active - heap.allocated : 0);
    number(info, "allocator_rss_bytes", heap.resident > heap.active ? heap.resident - heap.active : 0);
    number(info, "mem_fragmentation_bytes", heap.resident > used ? heap.resident - used : 0);
    number(info, "mem_not_counted_for_evict", 0);
    zeroes(info, replicas, ARRAY_COUNT(replicas));
    number(info, "mem_clients_slaves", 0);
    number(info, "mem_clients_normal", buffers);
    number(info, "mem_aof_buffer", 0);
#ifdef HAVE_JEMALLOC
    text(info, "mem_allocator", "jemalloc");
#else
    text(info, "mem_allocator", "libc");
#endif
    number(info, "active_defrag_running", 0);
    number(info, "lazyfree_pending_objects", info->store.objects_freeing);
    number(info, "lazyfreed_objects", info->store.objects_freed - engine->stats_base.objects_freed);
}

static void info_persistence(struct info *info)
{
    struct engine *engine = info->engine;
    const char *status = info->store.is_read_only || info->store.write_errors > 0 ? "err" : "ok";
    uint64_t saved_ms = engine_last_save_ms(engine);
    static const char *const forks[] = {
        "current_cow_peak", "current_cow_size", "current_cow_size_age", "rdb_last_cow_size",
        "aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size", "aof_rewrites",
        "aof_rewrites_consecutive_failures",
    };

    text(info, "loading", "0");
    text(info, "async_loading", "0");
    text(info, "current_save_keys_processed", "0");
    text(info, "current_save_keys_total", "0");
    number(info, "rdb_changes_since_last_save",
           store_lsn(engine->store) > info->store.checkpoint_lsn
               ? store_lsn(engine->store) - info->store.checkpoint_lsn
               : 0);
    number(info, "rdb_bgsave_in_progress", info->store.is_checkpointing);
    number(info, "rdb_last_save_time", saved_ms / 1000);
    text(info, "rdb_last_bgsave_status", status);
    text(info, "rdb_last_bgsave_time_sec", "-1");
    text(info, "rdb_current_bgsave_time_sec", "-1");
    number(info, "rdb_saves", info->store.checkpoints);
    text(info, "aof_enabled", "1");
    text(info, "aof_rewrite_in_progress", "0");
    text(info, "aof_rewrite_scheduled", "0");
    text(info, "aof_last_rewrite_time_sec", "-1");
    text(info, "aof_current_rewrite_time_sec", "-1");
    text(info, "aof_last_bgrewrite_status", status);
    text(info, "aof_last_write_status", status);
    number(info, "aof_current_size", info->store.disk_bytes);
    number(info, "aof_base_size", 0);
    number(info, "aof_pending_rewrite", 0);
    number(info, "aof_buffer_length", 0);
    number(info, "aof_pending_bio_fsync", store_marks_of(engine->store).durable < store_marks_of(engine->store).written);
    number(info, "aof_delayed_fsync", engine->counters.parked_log);
    text(info, "current_fork_perc", "0.00");
    zeroes(info, forks, ARRAY_COUNT(forks));
    number(info, "recovered_lsn", info->store.recovered_lsn);
    number(info, "log_ring_lost", info->store.is_ring_lost);
}

static void rate_update(struct engine *engine)
{
    const struct engine_counters *counters = &engine->counters;
    uint64_t took_ms = engine->now_ms - engine->rate.at_ms;

    if (took_ms < RATE_MS_MIN)
        return;
    if (engine->rate.at_ms != 0 && counters->commands >= engine->rate.commands) {
        engine->rate.ops_per_s = (counters->commands - engine->rate.commands) * 1000 / took_ms;
        engine->rate.in_per_s = (counters->bytes_in - engine->rate.bytes_in) * 1000 / took_ms;
        engine->rate.out_per_s = (counters->bytes_out - engine->rate.bytes_out) * 1000 / took_ms;
    }
    engine->rate.at_ms = engine->now_ms;
    engine->rate.commands = counters->commands;
    engine->rate.bytes_in = counters->bytes_in;
    engine->rate.bytes_out = counters->bytes_out;
}

static void info_stats(struct info *info)
{
    struct engine *engine = info->engine;
    const struct engine_counters *counters = &engine->counters;
    struct pubsub_counts pubsub = pubsub_counts_all(engine);

    static const char *const defrag[] = {
        "active_defrag_hits", "active_defrag_misses", "active_defrag_key_hits", "active_defrag_key_misses",
        "total_active_defrag_time", "current_active_defrag_time", "dump_payload_sanitizations",
    };

    rate_update(engine);
    number(info, "total_connections_received", counters->connections);
    number(info, "total_commands_processed", counters->commands);
    number(info, "instantaneous_ops_per_sec", engine->rate.ops_per_s);
    number(info, "total_net_input_bytes", counters->bytes_in);
    number(info, "total_net_output_bytes", counters->bytes_out);
    number(info, "total_net_repl_input_bytes", 0);
    number(info, "total_net_repl_output_bytes", 0);
    buffer_append_format(info->out, "instantaneous_input_kbps:%.2f\r\ninstantaneous_output_kbps:%.2f\r\n",
                         (double)engine->rate.in_per_s / 1024, (double)engine->rate.out_per_s / 1024);
    text(info, "instantaneous_input_repl_kbps", "0.00");
    text(info, "instantaneous_output_repl_kbps", "0.00");
    number(info, "rejected_connections", counters->connections_rejected);
    number(info, "sync_full", 0);
    number(info, "sync_partial_ok", 0);
    number(info, "sync_partial_err", 0);
    number(info, "expired_keys", info->store.expirations - engine->stats_base.expirations);
    number(info, "evicted_keys", info->store.evictions - engine->stats_base.evictions);
    number(info, "evicted_clients", counters->connections_evicted);
    number(info, "keyspace_hits", counters->keyspace_hits);
    number(info, "keyspace_misses", counters->keyspace_misses);
    number(info, "pubsub_channels", pubsub.channels);
    number(info, "pubsub_patterns", pubsub.patterns);
    number(info, "pubsubshard_channels", pubsub.shard_channels);
    number(info, "latest_fork_usec", 0);
    number(info, "total_forks", 0);
    number(info, "migrate_cached_sockets", 0);
    number(info, "slave_expires_tracked_keys", 0);
    number(info, "tracking_total_keys", 0);
    number(info, "tracking_total_items", 0);
    number(info, "tracking_total_prefixes", 0);
    number(info, "unexpected_error_replies", 0);
    number(info, "total_error_replies", counters->errors);
    number(info, "io_threaded_reads_processed", 0);
    number(info, "io_threaded_writes_processed", 0);
    zeroes(info, defrag, ARRAY_COUNT(defrag));
}

static void info_replication(struct info *info)
{
    text(info, "role", "master");
    number(info, "connected_slaves", 0);
    text(info, "master_failover_state", "no-failover");
    buffer_append_format(info->out, "master_replid:%016llx%016llx%08llx\r\n", (ull)info->engine->run_id[1],
                         (ull)info->engine->run_id[0], (ull)info->engine->run_id[0] & 0xffffffff);
    text(info, "master_replid2", "0000000000000000000000000000000000000000");
    number(info, "master_repl_offset", store_lsn(info->engine->store));
    text(info, "second_repl_offset", "-1");
    number(info, "repl_backlog_active", 0);
    number(info, "repl_backlog_size", 1048576);
    number(info, "repl_backlog_first_byte_offset", 0);
    number(info, "repl_backlog_histlen", 0);
}

static void cpu(struct info *info, const char *name, struct timeval spent)
{
    buffer_append_format(info->out, "%s:%ld.%06ld\r\n", name, (long)spent.tv_sec, (long)spent.tv_usec);
}

static void info_cpu(struct info *info)
{
    struct rusage self = {0}, thread = {0};

    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_THREAD, &thread);
    cpu(info, "used_cpu_sys", self.ru_stime);
    cpu(info, "used_cpu_user", self.ru_utime);
    text(info, "used_cpu_sys_children", "0.000000");
    text(info, "used_cpu_user_children", "0.000000");
    cpu(info, "used_cpu_sys_main_thread", thread.ru_stime);
    cpu(info, "used_cpu_user_main_thread", thread.ru_utime);
}

static void info_modules(struct info *info)
{
    MAYBE(info);
}

static void info_commandstats(struct info *info)
{
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct engine *engine = info->engine;
        ull calls = engine->counters.per_command[id].calls, usec = engine->counters.per_command[id].usec;
        ull rejected = engine->counters.per_command[id].rejected, failed = engine->counters.per_command[id].failed;

        if (calls == 0 && rejected == 0 && failed == 0)
            continue;
        buffer_append_format(
            info->out, "cmdstat_%s:calls=%llu,usec=%llu,usec_per_call=%.2f,rejected_calls=%llu,failed_calls=%llu\r\n",
            command_by_id(id)->name, calls, usec, calls == 0 ? 0 : (double)usec / (double)calls, rejected,
            failed);
    }
}

static void info_errorstats(struct info *info)
{
    for (size_t i = 0; i < ENGINE_ERROR_STATS_MAX && info->engine->error_stats[i].count > 0; i++)
        buffer_append_format(info->out, "errorstat_%s:count=%llu\r\n", info->engine->error_stats[i].prefix,
                             (ull)info->engine->error_stats[i].count);
}

static void info_latencystats(struct info *info)
{
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        double p[3];

        if (latency_percentiles(info->engine->latency, id, p))
            buffer_append_format(info->out, "latency_percentiles_usec_%s:p50=%.3f,p99=%.3f,p99.9=%.3f\r\n",
                                 command_by_id(id)->name, p[0], p[1], p[2]);
    }
}

static void info_cluster(struct info *info)
{
    number(info, "cluster_enabled", 0);
}

static void info_keyspace(struct info *info)
{
    for (uint8_t db = 0; db < STORE_DBS; db++) {
        uint64_t keys = store_count(info->engine->store, db);

        if (keys > 0)
            buffer_append_format(info->out, "db%u:keys=%llu,expires=%llu,avg_ttl=0\r\n", db, (ull)keys,
                                 (ull)store_expiring_count(info->engine->store, db));
    }
}

static void info_store(struct info *info)
{
    const struct store_stats *store = &info->store;
    struct store_marks marks = store_marks_of(info->engine->store);

    number(info, "lsn_appended", marks.appended);
    number(info, "lsn_written", marks.written);
    number(info, "lsn_durable", marks.durable);
    number(info, "lsn_checkpoint", store->checkpoint_lsn);
    number(info, "hot_keys", store->hot_keys);
    number(info, "cold_keys", store->cold_keys);
    number(info, "index_bytes", store->index_bytes);
    number(info, "fetches", store->fetches);
    number(info, "spills", store->spills);
    number(info, "disk_bytes", store->disk_bytes);
    number(info, "disk_bound", store->disk_bound);
    number(info, "segments", store->segments);
    number(info, "segments_free", store->segments_free);
    number(info, "client_record_bytes", store->record_bytes_client);
    number(info, "bytes_written", store->bytes_written);
    buffer_append_format(info->out, "write_amplification:%.2f\r\n",
                         store->record_bytes_client == 0
                             ? 0
                             : (double)store->bytes_written / (double)store->record_bytes_client);
    number(info, "cleaner_bytes", store->cleaner_bytes);
    number(info, "checkpoint_bytes", store->checkpoint_bytes);
    number(info, "cleaner_segments", store->cleaner_segments);
    number(info, "cleaner_segments_by_index", store->cleaner_segments_by_index);
    number(info, "cleaner_segments_given_early", store->segments_given);
    number(info, "checkpoints", store->checkpoints);
    number(info, "corrupt_records", store->corrupt_records);
    number(info, "scrubbed_bytes", store->scrubbed_bytes);
    number(info, "write_errors", store->write_errors);
    number(info, "read_only", store->is_read_only);
    number(info, "disk_full", store->is_disk_full);
    number(info, "parked_for_cold", info->engine->counters.parked_cold);
    number(info, "parked_for_log", info->engine->counters.parked_log);
}

#define BY_DEFAULT 1u
#define BY_ALL     2u

static const struct section {
    const char *name, *title;
    void (*compose)(struct info *info);
    uint8_t when;
} sections[] = {
    {"server", "Server", info_server, BY_DEFAULT},
    {"clients", "Clients", info_clients, BY_DEFAULT},
    {"memory", "Memory", info_memory, BY_DEFAULT},
    {"persistence", "Persistence", info_persistence, BY_DEFAULT},
    {"stats", "Stats", info_stats, BY_DEFAULT},
    {"replication", "Replication", info_replication, BY_DEFAULT},
    {"cpu", "CPU", info_cpu, BY_DEFAULT},
    {"modules", "Modules", info_modules, BY_DEFAULT},
    {"commandstats", "Commandstats", info_commandstats, BY_ALL},
    {"errorstats", "Errorstats", info_errorstats, BY_DEFAULT},
    {"latencystats", "Latencystats", info_latencystats, BY_ALL},
    {"cluster", "Cluster", info_cluster, BY_DEFAULT},
    {"keyspace", "Keyspace", info_keyspace, BY_DEFAULT},
    {"store", "Store", info_store, BY_DEFAULT},
};

static bool is_wanted(const struct cmd *c, const struct section *section)
{
    if (c->argc == 1)
        return section->when == BY_DEFAULT;
    for (uint32_t i = 1; i < c->argc; i++) {
        if (arg_is(c, i, section->name) || arg_is(c, i, "all") || arg_is(c, i, "everything") ||
            (arg_is(c, i, "default") && section->when == BY_DEFAULT))
            return true;
    }
    return false;
}

void cmd_info(struct cmd *c)
{
    struct buffer out = {0};
    struct info info = {.engine = c->engine, .out = &out};

    store_stats_get(c->store, &info.store);
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        if (!is_wanted(c, &sections[i]))
            continue;
        buffer_append_format(&out, "%s# %s\r\n", out.len == 0 ? "" : "\r\n", sections[i].title);
        sections[i].compose(&info);
    }
    if (out.failed)
        cmd_out_of_memory(c);
    else
        reply_verbatim(c, "txt", buffer_bytes(&out));
    buffer_deinit(&out);
}

void engine_error_note(struct engine *engine, const char *error)
{
    size_t len = strcspn(error, " ");

    for (size_t i = 0; i < ENGINE_ERROR_STATS_MAX; i++) {
        char *prefix = engine->error_stats[i].prefix;

        if (engine->error_stats[i].count == 0) {
            len = MIN(len, sizeof(engine->error_stats[i].prefix) - 1);
            memcpy(prefix, error, len);
            prefix[len] = '\0';
        } else if (strncmp(prefix, error, len) != 0 || prefix[len] != '\0') {
            continue;
        }
        engine->error_stats[i].count++;
        return;
    }
}
