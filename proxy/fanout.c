/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request over several servers: split by server (not by key), merged in the order asked.
 *
 *     MGET a b c a          X: MGET a c a   -> [va vc va]
 *       a,c on X, b on Y    Y: MGET b       -> [vb]           => [va vb vc va]
 *
 *   F1  A fanout is owned by its parent request, the slot in the client's queue. The parts are owned by
 *       their upstreams' queues and borrow the fanout until they are done or abandoned.
 *   F2  Nothing goes to the client before every part is there: a failed part makes the whole one error
 *       line, never an error in the middle of values. The connection stays.
 *   F3  Merged bytes are bounded by client_output_close.
 */
#include "proxy/proxy_private.h"
#include "proxy/observe.h"

/* ---- making ------------------------------------------------------------------------------------ */

struct fanout *fanout_create(struct client *client, enum command_route route, uint32_t part_max,
                             uint32_t key_count, uint32_t item_count, size_t text_size)
{
    struct proxy *proxy = client->pool->proxy;
    size_t parts_size = sizeof(struct fanout_part) * part_max;
    size_t items_size = sizeof(struct fanout_item) * item_count;
    size_t keys_size = sizeof(uint32_t) * key_count; /* once for the owners, once for the lengths */
    struct fanout *fanout = mem_alloc(sizeof(*fanout) + parts_size + items_size + 2 * keys_size + text_size);

    if (fanout == NULL)
        return NULL;
    memset(fanout, 0, sizeof(*fanout) + parts_size);
    fanout->parts = (struct fanout_part *)(fanout + 1);
    fanout->items = (struct fanout_item *)(fanout->parts + part_max);
    fanout->owners = (uint32_t *)(fanout->items + item_count);
    fanout->lens = fanout->owners + key_count;
    fanout->key_text = (char *)(fanout->lens + key_count);
    fanout->pool = client->pool;
    fanout->key_count = key_count;
    fanout->route = (uint8_t)route;
    fanout->dialect = client->dialect;
    fanout->parent = request_create(proxy, client, REQUEST_CLIENT);
    if (fanout->parent == NULL) {
        mem_free(fanout);
        return NULL;
    }
    fanout->parent->is_split = true;
    fanout->parent->fanout = fanout;
    return fanout;
}

/* What parts have answered waits here for the others: it counts as what waits for the client does. */
static void fanout_hold(struct fanout *fanout, size_t size)
{
    fanout->held_bytes += (uint32_t)size;
    if (fanout->parent->client != NULL)
        fanout->parent->client->held_bytes += (uint32_t)size;
}

static void fanout_let_go(struct fanout *fanout)
{
    if (fanout->parent->client != NULL)
        fanout->parent->client->held_bytes -= fanout->held_bytes;
    fanout->held_bytes = 0;
}

/* F3: keeps a piece of the part's reply. Too much of it, with all else that the client has waiting: the
 * request fails, and what comes of it yet is dropped. */
static void fanout_keep(struct fanout *fanout, struct fanout_part *part, const char *data, size_t size)
{
    const struct client *client = fanout->parent->client;
    size_t before = part->reply.len;

    buffer_append(&part->reply, data, size);
    fanout_hold(fanout, part->reply.len - before);
    if (LIKELY(client == NULL || client->out.len + client->held_bytes <=
                                     fanout->pool->proxy->conf->process.limits.client_output_close))
        return;
    if (fanout->error == ERROR_NONE)
        fanout->error = ERROR_reply_too_large;
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        buffer_deinit(&fanout->parts[i].reply);
        fanout->parts[i].reply.failed = true;
    }
    fanout_let_go(fanout);
}

static void fanout_free(struct fanout *fanout)
{
    fanout_let_go(fanout);
    for (uint32_t i = 0; i < fanout->part_count; i++)
        buffer_deinit(&fanout->parts[i].reply);
    buffer_deinit(&fanout->error_text);
    mem_free(fanout);
}

/* The parent is going: parts in flight become tombstones. */
void fanout_abandon(struct fanout *fanout)
{
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        struct request *part = fanout->parts[i].request;

        if (part != NULL) {
            fanout->parts[i].request = NULL;
            request_abandon(part);
        }
    }
    fanout_free(fanout);
}

struct request *fanout_part_create(struct fanout *fanout, uint32_t index, struct client *client,
                                   struct upstream **out)
{
    struct fanout_part *part = &fanout->parts[index];
    enum error_id error = ERROR_out_of_memory;
    struct upstream *upstream =
        upstream_get(part->server, client, client->dialect, client->db, &error);
    struct request *request =
        upstream == NULL ? NULL : request_create(fanout->pool->proxy, NULL, REQUEST_PART);

    if (request == NULL) {
        if (fanout->error == ERROR_NONE)
            fanout->error = error;
        return NULL;
    }
    request->dialect = fanout->dialect;
    request->fanout = fanout;
    request->part_index = index;
    part->request = request;
    part->reply.max = fanout->pool->proxy->conf->process.limits.client_output_close;
    fanout->pending_count++;
    POOL_ADD(fanout->pool, fragments, 1);
    *out = upstream;
    return request;
}

/* The part's upstream, ready to be written to; NULL: the part has failed. */
static struct upstream *fanout_part_begin(struct fanout *fanout, uint32_t index, struct client *client)
{
    struct upstream *upstream;
    struct request *request = fanout_part_create(fanout, index, client, &upstream);

    if (request == NULL)
        return NULL;
    upstream_begin(upstream, request);
    return upstream;
}

/* ---- the end ------------------------------------------------------------------------------------- */

/* Every part is done: the parent gets its reply, and is gone or waits for its turn. */
static void fanout_finish(struct fanout *fanout)
{
    struct request *parent = fanout->parent;
    struct client *client = parent->client;
    struct chunk_pools *chunks = &fanout->pool->proxy->chunks;
    struct outbuf merged = {0};

    ASSERT(client != NULL);
    if (fanout->ignores_errors) {
        fanout->error = ERROR_NONE;
        buffer_clear(&fanout->error_text);
    }
    if (fanout->error == ERROR_NONE && fanout->error_text.len == 0 && !fanout_merge(fanout, &merged) &&
        fanout->error == ERROR_NONE)
        fanout->error = ERROR_backend_protocol;
    if (fanout->error != ERROR_NONE || fanout->error_text.len > 0) {
        outbuf_clear(chunks, &merged);
        if (fanout->error_text.len > 0) {
            struct bytes text = buffer_bytes(&fanout->error_text);

            if (!outbuf_append(chunks, &merged, text.data, text.len))
                fanout->error = ERROR_out_of_memory;
        } else {
            struct error_room room;
            struct bytes text = request_error_bytes(parent, fanout->error, &room);

            POOL_ADD(fanout->pool, forward_error, 1);
            if (!outbuf_append(chunks, &merged, text.data, text.len))
                fanout->error = ERROR_out_of_memory;
        }
    }
    parent->fanout = NULL;
    parent->is_split = false;
    fanout_free(fanout);
    request_finish_merged(parent, &merged);
}

void fanout_part_deliver(struct request *part, struct bytes bytes)
{
    struct fanout *fanout = part->fanout;

    if (fanout != NULL)
        fanout_keep(fanout, &fanout->parts[part->part_index], bytes.data, bytes.len);
}

void fanout_part_done(struct request *request, enum error_id error)
{
    struct fanout *fanout = request->fanout;
    struct fanout_part *part;

    if (fanout == NULL)
        return;
    part = &fanout->parts[request->part_index];
    ASSERT(part->request == request);
    part->request = NULL;
    request->fanout = NULL;
    if (error != ERROR_NONE) {
        if (fanout->error == ERROR_NONE)
            fanout->error = error;
    } else if (part->reply.len > 0 && fanout->error_text.len == 0 &&
               fanout->route != ROUTE_ALL_ANY_OK &&
               (dialect_is_resp(fanout->dialect)
                    ? part->reply.data[0] == '-'
                    : memcache_is_error_line(buffer_bytes(&part->reply)))) {
        buffer_append(&fanout->error_text, part->reply.data, part->reply.len);
    }
    ASSERT(fanout->pending_count > 0);
    if (--fanout->pending_count == 0)
        fanout_finish(fanout);
}

void fanout_submitted(struct fanout *fanout)
{
    if (--fanout->pending_count == 0)
        fanout_finish(fanout);
}

/* ---- Redis: by key -------------------------------------------------------------------------------- */

/* The part of a server; makes it if there is none so far. */
static inline uint32_t fanout_part_of(struct fanout *fanout, struct server *server)
{
    uint32_t index = server->split_part; /* of this request, or of one before */

    if (LIKELY(index < fanout->part_count && fanout->parts[index].server == server))
        return index;
    server->split_part = fanout->part_count;
    fanout->parts[fanout->part_count].server = server;
    return fanout->part_count++;
}

/* Says whose each key is. false: the fanout has failed. */
static bool fanout_assign(struct fanout *fanout, const struct bytes *keys, uint32_t step)
{
    struct pool *pool = fanout->pool;
    uint32_t *owners = fanout->owners;
    bool is_ok = true;

    if (LIKELY(pool->discovery == NULL && !pool->is_random)) {
        is_ok = route_each(pool, keys, step, fanout->key_count, owners);
        for (uint32_t i = 0; is_ok && i < fanout->key_count; i++)
            owners[i] = fanout_part_of(fanout, &pool->servers[owners[i]]);
    } else {
        for (uint32_t i = 0; is_ok && i < fanout->key_count; i++) {
            struct server *server = route_key(pool, keys[(size_t)i * step]);

            is_ok = server != NULL;
            if (is_ok)
                owners[i] = fanout_part_of(fanout, server);
        }
    }
    for (uint32_t i = 0; is_ok && i < fanout->key_count; i++)
        fanout->parts[owners[i]].key_count++;
    if (!is_ok)
        fanout->error = discovery_route_error(pool);
    return is_ok;
}

/* Whether the part can be written to: it was begun, and has not failed since. */
static bool fanout_part_is_open(const struct fanout_part *part)
{
    return part->upstream != NULL && part->request != NULL;
}

/* The parts' wire_len is known: makes room for the keys of each in its upstream. */
static void fanout_reserve(struct fanout *fanout)
{
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct fanout_part *part = &fanout->parts[p];

        if (fanout_part_is_open(part))
            part->room = upstream_reserve(part->upstream, part->wire_len);
    }
}

static inline void fanout_part_write(struct fanout_part *part, const char *data, size_t len)
{
    if (LIKELY(part->room != NULL)) {
        bytes_copy_short(part->room, data, len);
        part->room += len;
    } else if (fanout_part_is_open(part)) {
        upstream_write(part->upstream, data, len);
    }
}

static void fanout_written(struct fanout *fanout, struct bytes tail)
{
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct fanout_part *part = &fanout->parts[p];

        if (!fanout_part_is_open(part))
            continue;
        if (part->room != NULL)
            upstream_commit(part->upstream, part->wire_len);
        upstream_write(part->upstream, tail.data, tail.len);
        upstream_end(part->upstream, part->request);
    }
}

/* Where the argument's wire bytes end: behind its CRLF. The next one's begin there, as frames are
 * canonical. */
static inline const char *argument_end(const struct bytes *argument)
{
    return argument->data + argument->len + 2;
}

/* Each part notes the lengths of as many elements as it asks for. */
static void fanout_lens_divide(struct fanout *fanout)
{
    uint32_t *lens = fanout->lens;

    for (uint32_t p = 0; p < fanout->part_count; p++) {
        fanout->parts[p].lens = lens;
        lens += fanout->parts[p].key_count;
    }
}

size_t fanout_part_bulks(struct request *request, struct bytes data)
{
    struct fanout *fanout = request->fanout;
    struct fanout_part *part = &fanout->parts[request->part_index];
    size_t len;

    if (part->lens == NULL)
        return 0;
    len = resp_bulks_scan(data, &fanout->pool->proxy->limits, part->key_count, part->lens);
    part->knows_lens = len > 0;
    return len;
}

static void fanout_redis_write(struct fanout *fanout, struct client *client,
                               const struct resp_request *request, uint32_t step)
{
    const struct bytes *argv = request->argv;
    char header[RESP_HEADER_MAX];
    struct bytes name;
    const char *from = argument_end(&argv[0]);

    name.len = resp_compose_header(header, '$', (int64_t)argv[0].len);
    name.data = argv[0].data - name.len;
    name.len = (size_t)(from - name.data);
    if (fanout->route == ROUTE_SPLIT_ORDER)
        fanout_lens_divide(fanout);
    for (uint32_t i = 0; i < fanout->key_count; i++) {
        const char *to = argument_end(&argv[(size_t)(i + 1) * step]);

        fanout->parts[fanout->owners[i]].wire_len += (uint32_t)(to - from);
        from = to;
    }
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        fanout->parts[p].upstream = upstream;
        if (upstream == NULL)
            continue;
        upstream_write(upstream, header,
                       resp_compose_header(header, '*', 1 + (int64_t)fanout->parts[p].key_count * step));
        upstream_write(upstream, name.data, name.len);
    }
    fanout_reserve(fanout);
    from = argument_end(&argv[0]);
    for (uint32_t i = 0; i < fanout->key_count; i++) {
        const char *to = argument_end(&argv[(size_t)(i + 1) * step]);

        fanout_part_write(&fanout->parts[fanout->owners[i]], from, (size_t)(to - from));
        from = to;
    }
    fanout_written(fanout, BYTES_EMPTY);
}

void fanout_redis_split(struct client *client, const struct command *command,
                        const struct resp_request *request, struct bytes frame)
{
    struct pool *pool = client->pool;
    uint32_t step = (uint32_t)MAX(command->keys.step, (int8_t)1);
    uint32_t key_count = (request->argc - 1) / step;
    struct fanout *fanout;

    if ((request->argc - 1) % step != 0) {
        client_reply_text_error(client, "ERR wrong number of arguments for '%s' command", command->name);
        return;
    }
    if (key_count == 1 || (pool->server_count == 1 && pool->discovery == NULL)) {
        struct server *server = route_key(pool, request->argv[1]);

        if (server == NULL)
            client_reply_error(client, discovery_route_error(pool));
        else
            redis_forward(client, server, command, key_count == 1 ? request->argv[1] : BYTES_EMPTY, frame);
        return;
    }
    if (pool->conf->members == CONF_MEMBERS_redis_cluster) {
        fanout_redis_split_slots(client, command, request, frame);
        return;
    }
    fanout = fanout_create(client, (enum command_route)command->route,
                           MIN(key_count, pool->server_count), key_count, 0, 0);
    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->parent->command = command->id;
    observe_keep_key(fanout->parent, request->argv[1]);
    fanout->pending_count = 1;
    if (fanout_assign(fanout, request->argv + 1, step))
        fanout_redis_write(fanout, client, request, step);
    fanout_submitted(fanout);
}

/* ---- Redis: to every server ----------------------------------------------------------------------- */

static bool server_takes_part(const struct server *server)
{
    return !server->is_gone && (server->conf == NULL || !server->conf->is_spare || server->stands_in) &&
           !(server->pool->conf->eject == CONF_EJECT_rehash && server_is_ejected(server));
}

static struct fanout *fanout_create_all(struct client *client, enum command_route route)
{
    struct pool *pool = client->pool;
    struct fanout *fanout = fanout_create(client, route, MAX(pool->server_count, 1u), 0, 0, 0);

    if (fanout == NULL)
        return NULL;
    fanout->pending_count = 1;
    for (uint32_t i = 0; i < pool->server_count; i++)
        if (server_takes_part(&pool->servers[i]))
            fanout->parts[fanout->part_count++].server = &pool->servers[i];
    if (fanout->part_count == 0)
        fanout->error = ERROR_no_server;
    return fanout;
}

void fanout_redis_all(struct client *client, const struct command *command,
                      const struct resp_request *request, struct bytes frame)
{
    struct fanout *fanout = fanout_create_all(client, (enum command_route)command->route);

    MAYBE(request);
    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->parent->command = command->id;
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        if (upstream == NULL)
            continue;
        upstream_write(upstream, frame.data, frame.len);
        upstream_end(upstream, fanout->parts[p].request);
    }
    fanout_submitted(fanout);
}

/* INFO: `frame` to every server, or to none. A server that does not answer is left out of the sums. */
void fanout_redis_info(struct client *client, unsigned sections, struct bytes frame)
{
    struct fanout *fanout = fanout_create_all(client, ROUTE_LOCAL);

    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->scan_cursor_node = sections;
    fanout->ignores_errors = true;
    for (uint32_t p = 0; frame.len > 0 && p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        if (upstream == NULL)
            continue;
        upstream_write(upstream, frame.data, frame.len);
        upstream_end(upstream, fanout->parts[p].request);
    }
    fanout_submitted(fanout);
}

/* cursor = node cursor * nodes + node. */
void fanout_redis_scan(struct client *client, const struct command *command,
                       const struct resp_request *request)
{
    struct pool *pool = client->pool;
    struct fanout *fanout;
    struct upstream *upstream;
    uint64_t cursor;
    char header[RESP_HEADER_MAX], digits[20];
    size_t len;
    uint32_t node;

    if (!bytes_to_u64(request->argv[1], UINT64_MAX, &cursor)) {
        client_reply_error(client, ERROR_cursor);
        return;
    }
    fanout = fanout_create(client, ROUTE_SCAN, 1, 0, 0, 0);
    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->pending_count = 1;
    node = (uint32_t)(cursor % MAX(scan_node_count(pool), 1u));
    if (pool->discovery != NULL && (node >= pool->server_count || pool->servers[node].is_gone)) {
        /* A new scan, or its node has left: on with the next one from its start. */
        node = scan_node_from(pool, node);
        cursor = node;
    }
    fanout->scan_cursor_node = node;
    fanout->parent->command = command->id;
    if (pool->server_count == 0 || pool->servers[node].is_gone) {
        fanout->error = ERROR_no_server;
        fanout_submitted(fanout);
        return;
    }
    fanout->part_count = 1;
    fanout->parts[0].server = &pool->servers[node];
    upstream = fanout_part_begin(fanout, 0, client);
    if (upstream != NULL) {
        len = u64_to_digits(cursor / scan_node_count(pool), digits);
        upstream_write(upstream, header, resp_compose_header(header, '*', request->argc));
        for (uint32_t i = 0; i < request->argc; i++) {
            struct bytes argument = i == 1 ? bytes_of(digits, len) : request->argv[i];

            upstream_write(upstream, header,
                           resp_compose_header(header, '$', (int64_t)argument.len));
            upstream_write(upstream, argument.data, argument.len);
            upstream_write(upstream, "\r\n", 2);
        }
        upstream_end(upstream, fanout->parts[0].request);
    }
    fanout_submitted(fanout);
}

/* ---- memcache ------------------------------------------------------------------------------------- */

/* Servers answer in the order asked and leave misses out: the item is one of the keys to come. NULL: it
 * is none of them. */
static struct fanout_item *fanout_part_find(struct fanout *fanout, struct fanout_part *part,
                                            struct bytes key)
{
    while (part->item_cursor != UINT32_MAX) {
        struct fanout_item *item = &fanout->items[part->item_cursor];

        part->item_cursor = item->next;
        if (item->key_len == key.len && memcmp(item->key, key.data, key.len) == 0)
            return item;
    }
    return NULL;
}

bool fanout_part_item(struct request *request, struct bytes key, size_t line_end, size_t line_len,
                      uint64_t data_len)
{
    struct fanout *fanout = request->fanout;
    struct fanout_part *part;
    struct fanout_item *item;

    if (fanout == NULL)
        return true;
    part = &fanout->parts[request->part_index];
    item = fanout_part_find(fanout, part, key);
    if (item == NULL)
        return false;
    item->off = (uint32_t)(part->reply.len + line_end - line_len);
    item->len = (uint32_t)(line_len + data_len + 2);
    return true;
}

size_t fanout_part_items(struct request *request, struct mc_reply_parser *parser, struct bytes data)
{
    struct fanout *fanout = request->fanout;
    struct fanout_part *part = &fanout->parts[request->part_index];
    size_t done = 0;

    for (;;) {
        struct bytes key;
        uint32_t cursor = part->item_cursor;
        size_t len = mc_reply_item(parser, &fanout->pool->proxy->mc_limits, bytes_skip(data, done), &key);
        struct fanout_item *item;

        if (len == 0)
            break;
        if (key.len > 0) {
            item = fanout_part_find(fanout, part, key);
            if (UNLIKELY(item == NULL)) { /* mc_reply_scan() will come to the same line, and end it there */
                part->item_cursor = cursor;
                break;
            }
            item->off = (uint32_t)(part->reply.len + done);
            item->len = (uint32_t)len;
        }
        done += len;
    }
    fanout_keep(fanout, part, data.data, done);
    return done;
}

/* Fills in the items, and chains those of each part. The copy of the keys is one of their line. */
static void fanout_items_init(struct fanout *fanout, const struct bytes *keys, size_t text_size)
{
    memcpy(fanout->key_text, keys[0].data, text_size);
    for (uint32_t i = 0; i < fanout->key_count; i++) {
        struct fanout_part *part = &fanout->parts[fanout->owners[i]];

        fanout->items[i] = (struct fanout_item){
            .key = fanout->key_text + (keys[i].data - keys[0].data),
            .key_len = (uint32_t)keys[i].len,
            .next = UINT32_MAX,
        };
        if (part->wire_len == 0)
            part->item_cursor = i;
        else
            fanout->items[part->last_item].next = i;
        part->last_item = i;
        part->wire_len += (uint32_t)keys[i].len + 1;
    }
}

static void fanout_memcache_write(struct fanout *fanout, struct client *client,
                                  const struct mc_request *request)
{
    struct mc_verb_text head;

    memcache_get_head(request, &head);
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        fanout->parts[p].upstream = upstream;
        if (upstream != NULL) {
            fanout->parts[p].request->mc_kind = MC_KIND_GET;
            fanout->parts[p].request->command = (uint16_t)request->verb;
            upstream_write(upstream, head.text, head.len);
        }
    }
    fanout_reserve(fanout);
    /* With the blank that is in front of every key. */
    for (uint32_t i = 0; i < request->key_count; i++)
        fanout_part_write(&fanout->parts[fanout->owners[i]], request->keys[i].data - 1,
                          request->keys[i].len + 1);
    fanout_written(fanout, BYTES("\r\n"));
}

/* get gets gat gats of several keys. */
void fanout_memcache_get(struct client *client, const struct mc_request *request)
{
    struct pool *pool = client->pool;
    const struct bytes *last = &request->keys[request->key_count - 1];
    size_t text_size = (size_t)(last->data + last->len - request->keys[0].data);
    struct fanout *fanout =
        fanout_create(client, ROUTE_SPLIT_ORDER, MIN(request->key_count, pool->server_count),
                      request->key_count, request->key_count, text_size);

    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->parent->command = (uint16_t)request->verb;
    observe_keep_key(fanout->parent, request->keys[0]);
    fanout->pending_count = 1;
    if (fanout_assign(fanout, request->keys, 1)) {
        fanout_items_init(fanout, request->keys, text_size);
        fanout_memcache_write(fanout, client, request);
    }
    fanout_submitted(fanout);
}

/* stats and flush_all: every server gets the line. */
void fanout_memcache_all(struct client *client, const struct mc_request *request, struct bytes line)
{
    struct fanout *fanout = fanout_create_all(client, ROUTE_ALL_OK);

    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->parent->command = (uint16_t)request->verb;
    fanout->parent->is_silent = request->is_noreply;
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        if (upstream == NULL)
            continue;
        fanout->parts[p].request->mc_kind = MC_KIND_LOCAL;
        fanout->parts[p].request->command = (uint16_t)request->verb;
        upstream_write(upstream, line.data, line.len);
        upstream_end(upstream, fanout->parts[p].request);
    }
    fanout_submitted(fanout);
}

/* The binary flush: every server gets it; the client hears of it once. */
void fanout_binary_all(struct client *client, const struct mc_bin_request *bin, struct bytes frame)
{
    struct fanout *fanout = fanout_create_all(client, ROUTE_ALL_OK);
    struct mc_bin_header loud = bin->header;
    char header[MC_BIN_HEADER];

    if (fanout == NULL) {
        client_close(client);
        return;
    }
    loud.opcode = bin->verb->opcode;
    mc_bin_encode(&loud, header);
    fanout->parent->command = bin->verb->id;
    fanout->parent->is_silent = bin->is_quiet;
    fanout->parent->bin_opaque = bin->header.opaque;
    fanout->parent->bin_opcode = bin->header.opcode;
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        struct upstream *upstream = fanout_part_begin(fanout, p, client);

        if (upstream == NULL)
            continue;
        fanout->parts[p].request->command = bin->verb->id;
        fanout->parts[p].request->bin_opaque = bin->header.opaque;
        fanout->parts[p].request->bin_opcode = bin->header.opcode;
        upstream_write(upstream, header, sizeof(header));
        upstream_write(upstream, frame.data + sizeof(header), frame.len - sizeof(header));
        upstream_end(upstream, fanout->parts[p].request);
    }
    fanout_submitted(fanout);
}
