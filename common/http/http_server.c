/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections.
 *
 *   SILENT ──byte──> READING ──answer──> SENDING ──all sent──> LINGERING ──EOF──> DEAD
 *      └──100 ms: the plain page──────────^ ^
 *                      └──a line──> WAITING ─┘          any deadline, error: DEAD
 *
 * READING's deadline is that of the first byte: further ones do not move it.
 */
#include "common/http/http.h"

#include "common/base/mem.h"

void http_conn_close(struct http_conn *conn)
{
    struct http_server *server = conn->server;

    if (conn->state == HTTP_DEAD)
        return;
    conn->state = HTTP_DEAD;
    io_stream_close(&conn->stream);
    io_timer_stop(&conn->timer);
    list_remove(&conn->node);
    server->conns_count--;
    list_push_back(&server->dead, &conn->node);
}

static void conn_send(struct http_conn *conn)
{
    while (conn->sent < conn->out.len) {
        struct iovec slice = {.iov_base = conn->out.data + conn->sent, .iov_len = conn->out.len - conn->sent};
        ssize_t sent = io_stream_send(&conn->stream, &slice, 1);

        if (sent < 0) {
            http_conn_close(conn);
            return;
        }
        conn->sent += (size_t)sent;
        if ((size_t)sent < slice.iov_len)
            return; /* writable() goes on */
    }
    /* A close with unread bytes would reset the connection and take the answer away. */
    conn->state = HTTP_LINGERING;
    io_stream_shutdown(&conn->stream);
    io_timer_start(conn->server->io, &conn->timer, HTTP_LINGER_MS);
}

void http_conn_answer(struct http_conn *conn)
{
    if (conn->state == HTTP_DEAD)
        return;
    ASSERT(conn->state <= HTTP_WAITING);
    if (conn->out.failed) {
        http_conn_close(conn);
        return;
    }
    conn->state = HTTP_SENDING;
    io_timer_start(conn->server->io, &conn->timer, HTTP_SENDING_MS);
    conn_send(conn);
}

void http_conn_wait(struct http_conn *conn, uint32_t timeout_ms)
{
    ASSERT(conn->is_line && conn->state == HTTP_READING);
    conn->state = HTTP_WAITING;
    io_timer_start(conn->server->io, &conn->timer, timeout_ms);
}

static void conn_read(struct http_conn *conn, struct bytes data, bool is_end)
{
    const struct http_server *server = conn->server;
    const char *end;

    if (!conn->is_line) {
        if (http_read(&server->handler->pages, server->arg, data, is_end, &conn->out))
            http_conn_answer(conn);
        return;
    }
    end = data.len == 0 ? NULL : memchr(data.data, '\n', MIN(data.len, (size_t)HTTP_HEAD_MAX));
    if (end != NULL)
        server->handler->line(conn, bytes_first(data, (size_t)(end - data.data)));
    else if (is_end || data.len > HTTP_HEAD_MAX)
        http_conn_close(conn);
}

static size_t conn_recv(struct io_stream *stream, struct bytes data)
{
    struct http_conn *conn = CONTAINER_OF(stream, struct http_conn, stream);

    if (conn->state == HTTP_SILENT) {
        conn->state = HTTP_READING;
        io_timer_start(conn->server->io, &conn->timer, HTTP_READING_MS);
    }
    if (conn->state == HTTP_READING)
        conn_read(conn, data, false);
    return conn->state == HTTP_READING ? 0 : data.len;
}

static void conn_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct http_conn *conn = CONTAINER_OF(stream, struct http_conn, stream);

    if (err != ERR_EOF || conn->state == HTTP_LINGERING)
        http_conn_close(conn);
    else if (conn->state <= HTTP_READING)
        conn_read(conn, rest, true);
}

static void conn_writable(struct io_stream *stream)
{
    struct http_conn *conn = CONTAINER_OF(stream, struct http_conn, stream);

    if (conn->state == HTTP_SENDING)
        conn_send(conn);
}

static const struct io_stream_handler conn_handler = {
    .recv = conn_recv,
    .closed = conn_closed,
    .writable = conn_writable,
};

static void conn_expired(struct io_timer *timer)
{
    struct http_conn *conn = timer->arg;

    if (conn->state == HTTP_WAITING)
        conn->server->handler->waited(conn);
    else if (conn->state == HTTP_SILENT)
        conn_read(conn, BYTES_EMPTY, true);
    else
        http_conn_close(conn);
}

static void conn_accepted(struct io_listener *from, int fd, const struct io_addr *peer)
{
    struct http_listener *listener = CONTAINER_OF(from, struct http_listener, listener);
    struct http_server *server = listener->server;
    struct http_conn *conn = must_zalloc(sizeof(*conn));

    MAYBE(peer);
    if (server->conns_count == HTTP_CONNS_MAX)
        http_conn_close(CONTAINER_OF(list_first(&server->conns), struct http_conn, node));
    conn->server = server;
    conn->is_line = listener->is_line;
    conn->state = conn->is_line ? HTTP_READING : HTTP_SILENT;
    conn->timer.fire = conn_expired;
    conn->timer.arg = conn;
    if (io_stream_open(server->io, &conn->stream, &conn_handler, fd, &(struct io_stream_options){.nodelay = true},
                       BYTES_EMPTY) != 0) {
        mem_free(conn);
        return;
    }
    list_push_back(&server->conns, &conn->node);
    server->conns_count++;
    io_timer_start(server->io, &conn->timer, conn->is_line ? HTTP_READING_MS : HTTP_SILENCE_MS);
    io_stream_resume(&conn->stream);
}

/* ---- the server -------------------------------------------------------------------------------- */

static void free_dead(struct http_server *server)
{
    struct list_node *node;

    while ((node = list_pop_front(&server->dead)) != NULL) {
        struct http_conn *conn = CONTAINER_OF(node, struct http_conn, node);

        buffer_deinit(&conn->out);
        mem_free(conn);
    }
}

static void turn_ends(struct io_hook *hook)
{
    struct http_server *server = CONTAINER_OF(hook, struct http_server, hook);

    free_dead(server);
    if (server->handler->freed != NULL)
        server->handler->freed(server->arg);
}

void http_server_init(struct http_server *server, struct io *io, const struct http_handler *handler, void *arg)
{
    *server = (struct http_server){.io = io, .arg = arg, .handler = handler, .hook.run = turn_ends};
    list_init(&server->conns);
    list_init(&server->dead);
    io_hook_add(io, &server->hook);
}

void http_server_deinit(struct http_server *server)
{
    struct list_node *node;

    while ((node = list_first(&server->conns)) != NULL)
        http_conn_close(CONTAINER_OF(node, struct http_conn, node));
    free_dead(server);
    io_hook_remove(server->io, &server->hook);
}

void http_listener_init(struct http_listener *listener, struct http_server *server, bool is_line)
{
    *listener = (struct http_listener){.listener.accepted = conn_accepted, .server = server, .is_line = is_line};
}
