/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INFO: the proxy's own sections, and the keyspace of all servers added up.
 */
#include "config.h"

#include "proxy/redis_local.h"

#include <unistd.h>

#define INFO_DBS_MAX 256

enum {
    INFO_SERVER = 1,
    INFO_CLIENTS = 2,
    INFO_STATS = 4,
    INFO_KEYSPACE = 8,
    INFO_CLUSTER = 16,
    INFO_PERSISTENCE = 32, /* libraries wait for loading:0 and role:master before they start */
    INFO_REPLICATION = 64,
    INFO_ALL = 127,
};

static unsigned info_sections(const struct resp_request *request)
{
    unsigned sections = 0;

    if (request->argc == 1)
        return INFO_ALL;
    for (uint32_t i = 1; i < request->argc; i++) {
        struct bytes name = request->argv[i];

        if (bytes_equal_nocase(name, BYTES("server")))
            sections |= INFO_SERVER;
        else if (bytes_equal_nocase(name, BYTES("clients")))
            sections |= INFO_CLIENTS;
        else if (bytes_equal_nocase(name, BYTES("stats")))
            sections |= INFO_STATS;
        else if (bytes_equal_nocase(name, BYTES("keyspace")))
            sections |= INFO_KEYSPACE;
        else if (bytes_equal_nocase(name, BYTES("cluster")))
            sections |= INFO_CLUSTER;
        else if (bytes_equal_nocase(name, BYTES("persistence")))
            sections |= INFO_PERSISTENCE;
        else if (bytes_equal_nocase(name, BYTES("replication")))
            sections |= INFO_REPLICATION;
        else if (bytes_equal_nocase(name, BYTES("all")) || bytes_equal_nocase(name, BYTES("default")) ||
                 bytes_equal_nocase(name, BYTES("everything")))
            sections |= INFO_ALL;
    }
    return sections;
}

static void info_own(struct pool *pool, unsigned sections, struct buffer *out)
{
    struct proxy *proxy = pool->proxy;
    uint64_t uptime_s = (io_wall_us(proxy->io) - proxy->start_wall_us) / 1000000;

    if (sections & INFO_SERVER)
        buffer_append_format(out,
                             "# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\nweir_version:%s\r\n"
                             "process_id:%d\r\nworker:%u\r\npool:%s\r\nuptime_in_seconds:%llu\r\n"
                             "uptime_in_days:%llu\r\narch_bits:64\r\nmultiplexing_api:epoll\r\n\r\n",
                             REDIS_VERSION_SPOKEN, PACKAGE_VERSION, proxy->worker_pid, proxy->worker_index,
                             pool->conf->name, (unsigned long long)uptime_s,
                             (unsigned long long)uptime_s / 86400);
    if (sections & INFO_CLIENTS)
        buffer_append_format(out, "# Clients\r\nconnected_clients:%u\r\nblocked_clients:0\r\n\r\n",
                             pool->client_count);
    if (sections & INFO_PERSISTENCE)
        buffer_append_string(out, "# Persistence\r\nloading:0\r\nasync_loading:0\r\n\r\n");
    if (sections & INFO_STATS)
        buffer_append_format(out,
                             "# Stats\r\ntotal_connections_received:%llu\r\n"
                             "total_commands_processed:%llu\r\ntotal_error_replies:%llu\r\n\r\n",
                             (unsigned long long)pool->counters[POOL_COUNT_client_accepted],
                             (unsigned long long)pool->counters[POOL_COUNT_client_requests],
                             (unsigned long long)pool->counters[POOL_COUNT_forward_error]);
    if (sections & INFO_REPLICATION)
        buffer_append_string(out, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n");
    if (sections & INFO_CLUSTER)
        buffer_append_string(out, "# Cluster\r\ncluster_enabled:0\r\n\r\n");
}

/* "db0:keys=1,expires=0,avg_ttl=0" of one server's reply is added to the sums. */
static void info_add_keyspace(struct bytes reply, uint64_t keys[INFO_DBS_MAX], uint64_t expires[INFO_DBS_MAX])
{
    struct bytes cursor = reply;
    struct resp_value value;
    const char *at, *end;

    if (!resp_next(&cursor, &value))
        return;
    at = value.payload.data;
    end = at + value.payload.len;
    while (at < end) {
        const char *eol = memchr(at, '\n', (size_t)(end - at));
        char line[128];
        unsigned db;
        unsigned long long key_count, expire_count;
        size_t len = (size_t)((eol == NULL ? end : eol) - at);

        if (len < sizeof(line) && len > 2 && at[0] == 'd') {
            memcpy(line, at, len);
            line[len] = '\0';
            if (sscanf(line, "db%3u:keys=%19llu,expires=%19llu", &db, &key_count, &expire_count) == 3 &&
                db < INFO_DBS_MAX) {
                keys[db] += key_count;
                expires[db] += expire_count;
            }
        }
        if (eol == NULL)
            break;
        at = eol + 1;
    }
}

bool redis_merge_info(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    unsigned sections = (unsigned)fanout->scan_cursor_node;
    uint64_t keys[INFO_DBS_MAX] = {0}, expires[INFO_DBS_MAX] = {0};
    struct buffer text = {0};
    char header[RESP_HEADER_MAX];
    bool is_ok;

    info_own(fanout->pool, sections, &text);
    if (sections & INFO_KEYSPACE) {
        buffer_append_string(&text, "# Keyspace\r\n");
        for (uint32_t i = 0; i < fanout->part_count; i++)
            info_add_keyspace(buffer_bytes(&fanout->parts[i].reply), keys, expires);
        for (unsigned db = 0; db < INFO_DBS_MAX; db++)
            if (keys[db] > 0)
                buffer_append_format(&text, "db%u:keys=%llu,expires=%llu,avg_ttl=0\r\n", db,
                                     (unsigned long long)keys[db], (unsigned long long)expires[db]);
    } else if (text.len >= 2) {
        text.len -= 2; /* the last section ends without an empty line */
    }
    is_ok = !text.failed &&
            outbuf_append(chunks, out, header, resp_compose_header(header, '$', (int64_t)text.len)) &&
            (text.len == 0 || outbuf_append(chunks, out, text.data, text.len)) &&
            outbuf_append(chunks, out, "\r\n", 2);
    buffer_deinit(&text);
    return is_ok;
}

void redis_info(struct client *client, const struct resp_request *request)
{
    unsigned sections = info_sections(request);

    fanout_redis_info(client, sections,
                      (sections & INFO_KEYSPACE) ? BYTES("*2\r\n$4\r\nINFO\r\n$8\r\nkeyspace\r\n")
                                                 : BYTES_EMPTY);
}
