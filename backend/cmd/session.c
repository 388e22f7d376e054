/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/session.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/settings.h"
#include "backend/cmd/pubsub.h"
#include "backend/store/backup.h"

#include "common/base/mem.h"

void session_init(struct session *session, struct engine *engine, const struct session_io *io)
{
    *session = (struct session){.engine = engine, .io = io, .resp = 2, .fd = -1};
    session->id = ++engine->session_id_next;
    session->created_ms = session->last_ms = engine->now_ms;
    session->is_authenticated = engine->settings->password == NULL;
    session_hold(session, store_swap_lsn(engine->store)); /* as engine_swapped() */
    list_push_back(&engine->sessions, &session->node);
    engine->session_count++;
    engine->counters.connections++;
}

void session_deinit(struct session *session)
{
    struct engine *engine = session->engine;

    session->is_killed = true;
    if (UNLIKELY(engine->exclusive == session))
        exec_leave(session);
    blocked_forget(session);
    transaction_forget(session);
    fetch_forget(session);
    if (session->subscriptions != NULL)
        pubsub_session_clear(session);
    if (list_node_is_linked(&session->park_node))
        list_remove(&session->park_node);
    if (session->backup_id != 0)
        MAYBE(backup_end(engine->store, session->backup_id));
    outbuf_clear(&engine->chunks, &session->out);
    mem_free(session->name);
    mem_free(session->lib_name);
    mem_free(session->lib_version);
    session->name = session->lib_name = session->lib_version = NULL;
    list_remove(&session->node);
    engine->session_count--;
}

static size_t describe_flags(const struct session *session, char out[16])
{
    size_t len = 0;

    if (pubsub_is_monitor(session))
        out[len++] = 'O';
    if (session->subscriptions != NULL && pubsub_is_subscribed(session))
        out[len++] = 'P';
    if (transaction_is_open(session))
        out[len++] = 'x';
    if (session->blocked != NULL || session->is_paused)
        out[len++] = 'b';
    if (transaction_is_dirty(session))
        out[len++] = 'd';
    if (session->close_after_reply)
        out[len++] = 'c';
    if (session->is_killed)
        out[len++] = 'A';
    if (session->local[0] == '/')
        out[len++] = 'U';
    if (session->no_evict)
        out[len++] = 'e';
    if (session->no_touch)
        out[len++] = 'T';
    if (len == 0)
        out[len++] = 'N';
    out[len] = '\0';
    return len;
}

static uint64_t seconds_since(const struct session *session, uint64_t then_ms)
{
    return session->engine->now_ms > then_ms ? (session->engine->now_ms - then_ms) / 1000 : 0;
}

const struct output_limit *session_output_limit(const struct session *session)
{
    return &session->engine->settings
                ->output_limits[pubsub_is_subscribed(session) ? OUTPUT_LIMIT_PUBSUB : OUTPUT_LIMIT_NORMAL];
}

uint64_t session_bytes(const struct session *session)
{
    return transaction_bytes(session) + transaction_watch_bytes(session) + pubsub_bytes_of(session);
}

void session_kept_count(struct session *session)
{
    uint64_t bytes;

    if (LIKELY(session->transaction == NULL && session->subscriptions == NULL && session->kept_bytes == 0))
        return;
    bytes = session->is_killed ? 0 : session_bytes(session);
    session->engine->inputs_bytes += bytes - session->kept_bytes;
    session->kept_bytes = bytes;
}

void session_describe(const struct session *session, struct buffer *out)
{
    struct pubsub_counts counts = {0};
    char flags[16];

    if (session->subscriptions != NULL)
        counts = pubsub_counts_of(session);
    describe_flags(session, flags);
    buffer_append_format(out, "id=%llu addr=%s laddr=%s fd=%d name=%s age=%llu idle=%llu flags=%s db=%u",
                         (unsigned long long)session->id, session->peer, session->local, session->fd,
                         session->name != NULL ? session->name : "",
                         (unsigned long long)seconds_since(session, session->created_ms),
                         (unsigned long long)seconds_since(session, session->last_ms), flags, session->db);
    buffer_append_format(out, " sub=%u psub=%u ssub=%u multi=%lld qbuf=%u qbuf-free=0 argv-mem=0",
                         counts.channels, counts.patterns, counts.shard_channels,
                         (long long)transaction_count(session),
                         session->query_bytes);
    buffer_append_format(out, " multi-mem=%zu rbs=0 rbp=0 obl=0 oll=%d omem=%zu tot-mem=%llu events=%s",
                         transaction_bytes(session), session->out.first != NULL, session->out.len,
                         (unsigned long long)(session->out.len + session_bytes(session) +
                                              session->query_bytes + sizeof(*session)),
                         outbuf_is_empty(&session->out) ? "r" : "rw");
    buffer_append_format(out, " cmd=%s user=default redir=-1 resp=%u lib-name=%s lib-ver=%s",
                         session->last_command != COMMAND_none ? command_by_id(session->last_command)->name
                                                               : "NULL",
                         session->resp, session->lib_name != NULL ? session->lib_name : "",
                         session->lib_version != NULL ? session->lib_version : "");
}
