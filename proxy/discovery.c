/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxy_private.h"

int discovery_create(struct pool *pool)
{
    MAYBE(pool);
    return ERR_UNSUPPORTED;
}

void discovery_destroy(struct pool *pool)
{
    ASSERT(pool->discovery == NULL);
}

struct server *discovery_route(struct pool *pool, struct bytes key)
{
    MAYBE(key.len);
    MAYBE(pool);
    return NULL;
}

bool discovery_redirect(struct upstream *upstream, struct request *head, struct bytes reply)
{
    MAYBE(upstream);
    MAYBE(head);
    MAYBE(reply.len);
    return false;
}
