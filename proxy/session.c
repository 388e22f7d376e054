/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxy_private.h"

void session_destroy(struct client *client)
{
    ASSERT(client->session == NULL);
}

enum session_verdict session_handle(struct client *client, const struct command *command,
                                    const struct resp_request *request, struct bytes frame)
{
    MAYBE(request);
    MAYBE(frame.len);
    client_reply_text_error(client, "ERR command '%s' is not supported by the proxy", command->name);
    return SESSION_DONE;
}

bool session_must_wait(struct client *client, const struct resp_request *request)
{
    MAYBE(client);
    MAYBE(request);
    return false;
}

void session_refused(struct client *client)
{
    MAYBE(client);
}

size_t session_upstream_recv(struct upstream *upstream, struct bytes data)
{
    MAYBE(upstream);
    return data.len;
}

void session_upstream_writable(struct upstream *upstream)
{
    MAYBE(upstream);
}

void session_upstream_gone(struct upstream *upstream, enum error_id error)
{
    MAYBE(upstream);
    MAYBE(error);
}

bool session_may_leave(const struct client *client)
{
    return client->session == NULL;
}

size_t session_encode(const struct client *client, char *out, size_t cap, int *fds, uint32_t *fds_count)
{
    MAYBE(client);
    MAYBE(out);
    MAYBE(cap);
    MAYBE(fds);
    MAYBE(fds_count);
    return 0;
}

void session_left(struct client *client)
{
    MAYBE(client);
}

void session_decode(struct client *client, struct bytes session, const int *fds, uint32_t fds_count)
{
    MAYBE(session.len);
    for (uint32_t i = 0; i < fds_count; i++)
        proxy_refuse(client->pool->proxy, fds[i]);
}
