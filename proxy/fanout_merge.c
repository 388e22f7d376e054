/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a split request become one reply (fanout.c, F2 and F3). Every part is there, whole; what does
 * not have the shape that was asked for makes all of it an error.
 */
#include "proxy/proxy_private.h"

/* A large chunk from the start where all that will be merged does not fit into a small one. */
static bool merge_begin(struct fanout *fanout, struct outbuf *out)
{
    size_t total = RESP_HEADER_MAX;

    for (uint32_t i = 0; i < fanout->part_count; i++)
        total += fanout->parts[i].reply.len;
    return outbuf_reserve(&fanout->pool->proxy->chunks, out, MIN(total, (size_t)OUTBUF_RESERVE_MAX)) !=
           NULL;
}

/* Of the part's next element; 0: there is none. */
static size_t merge_next_len(const struct fanout_part *part)
{
    return resp_value_len(bytes_skip(buffer_bytes(&part->reply), part->walk));
}

static void merge_order(struct fanout *fanout, struct outbuf *out, bool *is_ok)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    char header[RESP_HEADER_MAX];

    *is_ok = merge_begin(fanout, out) &&
             outbuf_append(chunks, out, header,
                           resp_compose_header(header, '*', (int64_t)fanout->key_count));
    for (uint32_t i = 0; *is_ok && i < fanout->key_count; i++) {
        struct fanout_part *part = &fanout->parts[fanout->owners[i]];
        size_t len = part->knows_lens ? *part->lens++ : merge_next_len(part);

        if (len == 0) {
            *is_ok = false;
            fanout->error = ERROR_backend_protocol;
            return;
        }
        *is_ok = outbuf_append(chunks, out, part->reply.data + part->walk, len);
        part->walk += (uint32_t)len;
    }
}

/* Reads each part's array header; false: one is not an array of its key_count. */
static bool merge_open_arrays(struct fanout *fanout)
{
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        struct bytes cursor = buffer_bytes(&fanout->parts[i].reply);
        struct resp_value value;

        if (!resp_next(&cursor, &value) || value.type != '*' ||
            value.integer != (int64_t)fanout->parts[i].key_count)
            return false;
        fanout->parts[i].walk = (uint32_t)(fanout->parts[i].reply.len - cursor.len);
    }
    return true;
}

static bool merge_sum(struct fanout *fanout, struct outbuf *out)
{
    uint64_t sum = 0; /* whatever servers say: it may wrap, as theirs would */
    char line[RESP_HEADER_MAX];

    for (uint32_t i = 0; i < fanout->part_count; i++) {
        struct bytes cursor = buffer_bytes(&fanout->parts[i].reply);
        struct resp_value value;

        if (!resp_next(&cursor, &value) || value.type != ':')
            return false;
        sum += (uint64_t)value.integer;
    }
    return outbuf_append(&fanout->pool->proxy->chunks, out, line,
                         resp_compose_header(line, ':', (int64_t)sum));
}

static bool merge_concat(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    int64_t count = 0;
    char header[RESP_HEADER_MAX];
    char type = '*';

    for (uint32_t i = 0; i < fanout->part_count; i++) {
        struct bytes cursor = buffer_bytes(&fanout->parts[i].reply);
        struct resp_value value;

        if (!resp_next(&cursor, &value) || (value.type != '*' && value.type != '~' && value.type != '%') ||
            value.is_null)
            return false;
        type = value.type;
        count += value.integer;
        fanout->parts[i].walk = (uint32_t)(fanout->parts[i].reply.len - cursor.len);
    }
    if (!outbuf_append(chunks, out, header, resp_compose_header(header, type, count)))
        return false;
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        struct bytes body = bytes_skip(buffer_bytes(&fanout->parts[i].reply), fanout->parts[i].walk);

        if (!outbuf_append(chunks, out, body.data, body.len))
            return false;
    }
    return true;
}

/* Every part is an array of as many elements as the first: the merged one's header goes out. */
static bool merge_open_like_arrays(struct fanout *fanout, struct outbuf *out, int64_t *count)
{
    struct bytes first = buffer_bytes(&fanout->parts[0].reply);
    char line[RESP_HEADER_MAX];
    struct resp_value head;

    if (!resp_next(&first, &head) || head.type != '*' || head.integer < 0)
        return false;
    *count = head.integer;
    for (uint32_t i = 0; i < fanout->part_count; i++)
        fanout->parts[i].key_count = (uint32_t)head.integer;
    return merge_open_arrays(fanout) &&
           outbuf_append(&fanout->pool->proxy->chunks, out, line,
                         resp_compose_header(line, '*', head.integer));
}

/* The part's next scalar, also as it stands in the reply. */
static bool part_next(struct fanout_part *part, struct resp_value *value, struct bytes *wire)
{
    struct bytes whole = bytes_skip(buffer_bytes(&part->reply), part->walk), cursor = whole;

    if (!resp_next(&cursor, value))
        return false;
    *wire = bytes_first(whole, whole.len - cursor.len);
    part->walk += (uint32_t)wire->len;
    return true;
}

/* Arrays of 0 and 1, one from each server, combined by and. */
static bool merge_and(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    char line[RESP_HEADER_MAX];
    int64_t count;

    if (!merge_open_like_arrays(fanout, out, &count))
        return false;
    for (int64_t k = 0; k < count; k++) {
        int64_t all = 1;

        for (uint32_t i = 0; i < fanout->part_count; i++) {
            struct resp_value value;
            struct bytes wire;

            if (!part_next(&fanout->parts[i], &value, &wire) || value.type != ':')
                return false;
            all = all && value.integer != 0;
        }
        if (!outbuf_append(chunks, out, line, resp_compose_header(line, ':', all)))
            return false;
    }
    return true;
}

/* Pairs of name and count: the same names in the same order from each server, counts added. */
static bool merge_pairs(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    char line[RESP_HEADER_MAX];
    int64_t count;

    if (!merge_open_like_arrays(fanout, out, &count))
        return false;
    for (int64_t k = 0; k < count; k++) {
        uint64_t sum = 0;
        struct bytes name = BYTES_EMPTY;

        for (uint32_t i = 0; i < fanout->part_count; i++) {
            struct resp_value value;

            if (!part_next(&fanout->parts[i], &value, &name) || (k % 2 == 1 && value.type != ':'))
                return false;
            sum += (uint64_t)value.integer;
        }
        if (k % 2 == 1)
            name = bytes_of(line, resp_compose_header(line, ':', (int64_t)sum));
        if (!outbuf_append(chunks, out, name.data, name.len))
            return false;
    }
    return true;
}

/* One server was the right one; the others said that there is nothing to do. */
static bool merge_any_ok(struct fanout *fanout, struct outbuf *out)
{
    struct bytes chosen = buffer_bytes(&fanout->parts[0].reply);

    for (uint32_t i = 0; i < fanout->part_count; i++)
        if (fanout->parts[i].reply.len > 0 && fanout->parts[i].reply.data[0] != '-')
            chosen = buffer_bytes(&fanout->parts[i].reply);
    return outbuf_append(&fanout->pool->proxy->chunks, out, chosen.data, chosen.len);
}

/* What cursors are multiples of. Where members come and go it does not follow their count: a cursor that
 * is out stays good. */
uint32_t scan_node_count(const struct pool *pool)
{
    return pool->discovery == NULL ? pool->server_count : pool->server_cap;
}

/* The first node from this one on that takes keys; 0: there is none. */
uint32_t scan_node_from(const struct pool *pool, uint32_t node)
{
    while (pool->discovery != NULL && node < pool->server_count && pool->servers[node].is_gone)
        node++;
    return node < pool->server_count ? node : 0;
}

/* SCAN: [cursor of the node, keys] -> [cursor of the pool, keys]. */
static bool merge_scan(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    uint32_t nodes = scan_node_count(fanout->pool);
    struct bytes cursor = buffer_bytes(&fanout->parts[0].reply);
    struct resp_value value;
    uint64_t node_cursor, next;
    char digits[20], header[RESP_HEADER_MAX];
    size_t len;

    if (!resp_next(&cursor, &value) || value.type != '*' || value.integer != 2 ||
        !resp_next(&cursor, &value) || value.type != '$' ||
        !bytes_to_u64(value.payload, UINT64_MAX, &node_cursor))
        return false;
    if (node_cursor != 0)
        next = node_cursor > (UINT64_MAX - nodes) / nodes ? UINT64_MAX
                                                          : node_cursor * nodes + fanout->scan_cursor_node;
    else
        next = scan_node_from(fanout->pool, (uint32_t)fanout->scan_cursor_node + 1);
    if (next == UINT64_MAX)
        return false;
    len = u64_to_digits(next, digits);
    return outbuf_append(chunks, out, "*2\r\n", 4) &&
           outbuf_append(chunks, out, header, resp_compose_header(header, '$', (int64_t)len)) &&
           outbuf_append(chunks, out, digits, len) && outbuf_append(chunks, out, "\r\n", 2) &&
           outbuf_append(chunks, out, cursor.data, cursor.len);
}

static bool merge_memcache_get(struct fanout *fanout, struct outbuf *out)
{
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;

    if (!merge_begin(fanout, out))
        return false;
    for (uint32_t i = 0; i < fanout->key_count; i++) {
        const struct fanout_item *item = &fanout->items[i];
        const char *reply = fanout->parts[fanout->owners[i]].reply.data;

        if (item->len > 0 && !outbuf_append(chunks, out, reply + item->off, item->len))
            return false;
    }
    return outbuf_append(chunks, out, "END\r\n", 5);
}

static bool merge_first(struct fanout *fanout, struct outbuf *out)
{
    struct bytes reply = buffer_bytes(&fanout->parts[0].reply);

    return outbuf_append(&fanout->pool->proxy->chunks, out, reply.data, reply.len);
}

bool fanout_merge(struct fanout *fanout, struct outbuf *out)
{
    bool is_ok = false;

    for (uint32_t i = 0; i < fanout->part_count; i++)
        if (fanout->parts[i].reply.failed) {
            fanout->error = ERROR_reply_too_large;
            return false;
        }
    if (!dialect_is_resp(fanout->dialect))
        return fanout->key_count > 0 ? merge_memcache_get(fanout, out)
                                     : memcache_merge_all(fanout, out);
    switch ((enum command_route)fanout->route) {
    case ROUTE_SPLIT_ORDER:
        if (merge_open_arrays(fanout))
            merge_order(fanout, out, &is_ok);
        break;
    case ROUTE_SPLIT_SUM:
    case ROUTE_ALL_SUM:
        is_ok = merge_sum(fanout, out);
        break;
    case ROUTE_ALL_CONCAT:
        is_ok = merge_concat(fanout, out);
        break;
    case ROUTE_ALL_AND:
        is_ok = merge_and(fanout, out);
        break;
    case ROUTE_ALL_ANY_OK:
        is_ok = merge_any_ok(fanout, out);
        break;
    case ROUTE_ALL_PAIRS:
        is_ok = merge_pairs(fanout, out);
        break;
    case ROUTE_SCAN:
        is_ok = merge_scan(fanout, out);
        break;
    case ROUTE_SPLIT_OK:
    case ROUTE_ALL_OK:
    case ROUTE_ALL_SAME:
        is_ok = merge_first(fanout, out);
        break;
    case ROUTE_LOCAL:
        is_ok = redis_merge_info(fanout, out);
        break;
    case ROUTE_ONE:
    case ROUTE_ANY:
    case ROUTE_CHANNEL:
    case ROUTE_PRIVATE:
        UNREACHABLE("not a split route");
    }
    return is_ok;
}
