/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients need of the memory: replies that they have not taken, requests that are not executed, watched keys
 * and subscriptions.
 *
 *   A1  It counts for maxmemory, as the data does: values go to the disk for it, and where that is not enough writes that
 *       grow are refused. Replies count at the end of each turn, but for values that are sent from where they lie, as
 *       they count already. Requests count once a second, until they are executed; what a client keeps, at once.
 *   A2  Above maxmemory-clients (where a value that is sent counts for each who has asked for it, as Redis copies it) those are
 *       closed that need the most; CLIENT NO-EVICT spares one.
 */
#include "backend/node_private.h"

#define EVICT_MAX      8u    /* at a time: each takes a walk over all clients */
#define EVICT_PAUSE_US 5000u /* and then others are served */

void clients_look(struct node *node)
{
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        client_inputs_count(client_of_session(CONTAINER_OF(at, struct session, node)));
    }
}

static uint64_t clients_max_bytes(const struct settings *settings)
{
    if (!settings->clients_memory_is_percent)
        return settings->clients_memory;
    return settings->memory_max / 100 * settings->clients_memory;
}

/* NULL: none may go. */
static struct session *session_largest(struct node *node, uint64_t *bytes)
{
    struct session *largest = NULL;

    *bytes = 0;
    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        struct session *session = CONTAINER_OF(at, struct session, node);
        uint64_t own = client_bytes(client_of_session(session));

        if (own > *bytes && !session->no_evict) {
            largest = session;
            *bytes = own;
        }
    }
    return largest;
}

static bool clients_evict(struct node *node, uint64_t max)
{
    uint64_t total, bytes;
    bool is_any = false;

    node->evict_again_us = io_now_us(node->io) + EVICT_PAUSE_US;
    clients_look(node);
    total = engine_clients_bytes(node->engine);
    for (unsigned i = 0; i < EVICT_MAX && total > max; i++) {
        struct session *session = session_largest(node, &bytes);

        if (session == NULL)
            break;
        if (log_limit_allows(&node->bad_input, io_now_ms(node->io), 10, 1000, NULL))
            log_warn(node->log, "client: closed, all clients together are over maxmemory-clients client=%s bytes=%llu",
                     session->peer, (unsigned long long)bytes);
        node->engine->counters.connections_evicted++;
        total -= MIN(bytes, total);
        client_close(client_of_session(session));
        is_any = true;
    }
    return is_any;
}

bool clients_account(struct node *node)
{
    struct engine *engine = node->engine;
    uint64_t max = clients_max_bytes(engine->settings);
    bool is_any = false;

    if (UNLIKELY(max != 0 && engine_clients_bytes(engine) > max) && io_now_us(node->io) >= node->evict_again_us)
        is_any = clients_evict(node, max);
    store_others_set(node->store, chunk_pools_own_bytes(&engine->chunks) + engine->inputs_bytes);
    return is_any;
}
