/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients need of the memory: replies that they have not taken, requests that are not executed.
 *
 *   A1  It counts for maxmemory, as the data does: values go to the disk for it, and where that is not enough writes that
 *       grow are refused. Replies count at the end of each turn, requests once a second.
 *   A2  Above maxmemory-clients those are closed that need the most, a few a turn; CLIENT NO-EVICT spares one.
 */
#include "backend/node_private.h"

#define EVICT_TURN_MAX 8u

void clients_look(struct node *node)
{
    uint64_t bytes = 0;

    LIST_FOR_EACH(&node->engine->sessions, at)
    {
        bytes += client_inputs(client_of_session(CONTAINER_OF(at, struct session, node)));
    }
    node->engine->inputs_bytes = bytes;
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
        struct client *client = client_of_session(session);
        uint64_t own = session->out.len + client_inputs(client);

        if (own > *bytes && !session->no_evict && !client_is_dead(client)) {
            largest = session;
            *bytes = own;
        }
    }
    return largest;
}

static void clients_evict(struct node *node, uint64_t max)
{
    struct engine *engine = node->engine;
    uint64_t total, bytes;

    clients_look(node);
    total = engine_clients_bytes(engine);
    for (unsigned i = 0; i < EVICT_TURN_MAX && total > max; i++) {
        struct session *session = session_largest(node, &bytes);

        if (session == NULL)
            return;
        if (log_limit_allows(&node->bad_input, io_now_ms(node->io), 10, 1000, NULL))
            log_warn(node->log, "client: closed, all clients together are over maxmemory-clients client=%s bytes=%llu",
                     session->peer, (unsigned long long)bytes);
        engine->counters.connections_evicted++;
        engine->inputs_bytes -= client_inputs(client_of_session(session));
        total -= MIN(bytes, total);
        client_close(client_of_session(session));
    }
}

void clients_account(struct node *node)
{
    const struct settings *settings = node->engine->settings;
    uint64_t max = clients_max_bytes(settings);

    if (UNLIKELY(max != 0 && engine_clients_bytes(node->engine) > max))
        clients_evict(node, max);
    store_others_set(node->store, engine_clients_bytes(node->engine));
}
