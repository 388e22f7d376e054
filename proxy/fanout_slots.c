/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that are split in Redis Cluster pools: by slot, as a node refuses keys of two slots, even of its
 * own. Each part is composed by itself (several may go to one server) and kept: the server may send it
 * elsewhere.
 */
#include "proxy/discovery.h"
#include "proxy/observe.h"

/* "$3\r\nkey\r\n" of an argument, as it stands in the frame; frames are canonical. */
static struct bytes argument_wire(struct bytes argument)
{
    char header[RESP_HEADER_MAX];
    size_t len = resp_compose_header(header, '$', (int64_t)argument.len);

    return bytes_of(argument.data - len, len + argument.len + 2);
}

static void part_failed(struct fanout *fanout, struct request *request)
{
    if (fanout->error == ERROR_NONE)
        fanout->error = ERROR_out_of_memory;
    fanout->pending_count--;
    fanout->parts[request->part_index].request = NULL;
    request->fanout = NULL;
    request_free(fanout->pool->proxy, request);
}

static void part_submit(struct fanout *fanout, uint32_t index, struct client *client,
                        const struct resp_request *request, uint32_t step)
{
    struct fanout_part *part = &fanout->parts[index];
    struct buffer *out = &fanout->pool->proxy->scratch2;
    struct bytes wire = argument_wire(request->argv[0]);
    struct bytes key = request->argv[1 + part->item_cursor * step];
    char header[RESP_HEADER_MAX];
    struct upstream *upstream;
    struct request *own = fanout_part_create(fanout, index, client, &upstream);
    size_t key_off;

    if (own == NULL)
        return;
    buffer_clear(out);
    buffer_append(out, header, resp_compose_header(header, '*', 1 + (int64_t)part->key_count * step));
    buffer_append(out, wire.data, wire.len);
    key_off = out->len + (size_t)(key.data - argument_wire(key).data);
    for (uint32_t i = part->item_cursor; i != UINT32_MAX; i = fanout->items[i].next) {
        for (uint32_t s = 0; s < step; s++) {
            wire = argument_wire(request->argv[1 + i * step + s]);
            buffer_append(out, wire.data, wire.len);
        }
    }
    if (out->failed || !request_keep_wire(own, buffer_bytes(out))) {
        part_failed(fanout, own);
        return;
    }
    if (key.len <= UINT16_MAX) {
        own->key_off = (uint16_t)key_off;
        own->key_len = (uint16_t)key.len;
    }
    upstream_submit(upstream, own, buffer_bytes(out));
}

/* Says whose slot each key has. */
static void slots_assign(struct fanout *fanout, const struct resp_request *request, uint32_t step)
{
    struct pool *pool = fanout->pool;

    cluster_parts_begin(pool->discovery);
    for (uint32_t i = 0; i < fanout->key_count; i++) {
        struct bytes key = request->argv[1 + i * step];
        struct fanout_part *part;
        bool is_new;

        fanout->owners[i] = cluster_part(pool->discovery, hash_slot(key), fanout->part_count, &is_new);
        fanout->items[i].next = UINT32_MAX;
        part = &fanout->parts[fanout->owners[i]];
        if (is_new) {
            fanout->part_count++;
            part->server = route_key(pool, key);
            part->item_cursor = i;
        } else {
            fanout->items[part->last_item].next = i;
        }
        part->last_item = i;
        part->key_count++;
    }
}

static bool is_of_one_slot(const struct resp_request *request, uint32_t step, uint32_t key_count)
{
    uint32_t slot = hash_slot(request->argv[1]);

    for (uint32_t i = 1; i < key_count; i++)
        if (hash_slot(request->argv[1 + i * step]) != slot)
            return false;
    return true;
}

void fanout_redis_split_slots(struct client *client, const struct command *command,
                              const struct resp_request *request, struct bytes frame)
{
    struct pool *pool = client->pool;
    uint32_t step = (uint32_t)MAX(command->keys.step, (int8_t)1);
    uint32_t key_count = (request->argc - 1) / step;
    struct fanout *fanout;

    if (is_of_one_slot(request, step, key_count)) {
        struct server *server = route_key(pool, request->argv[1]);

        if (server == NULL)
            client_reply_error(client, discovery_route_error(pool));
        else
            redis_forward(client, server, command, request->argv[1], frame);
        return;
    }
    fanout = fanout_create(client, (enum command_route)command->route, MIN(key_count, 16384u), key_count,
                           key_count, 0);
    if (fanout == NULL) {
        client_close(client);
        return;
    }
    fanout->parent->command = command->id;
    observe_keep_key(fanout->parent, request->argv[1]);
    fanout->pending_count = 1;
    slots_assign(fanout, request, step);
    for (uint32_t p = 0; p < fanout->part_count; p++) {
        if (fanout->parts[p].server != NULL)
            part_submit(fanout, p, client, request, step);
        else if (fanout->error == ERROR_NONE)
            fanout->error = discovery_route_error(pool);
    }
    fanout_submitted(fanout);
}
