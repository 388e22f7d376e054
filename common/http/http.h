/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.h - a small server for numbers: one question a connection, one answer, then it is closed.
 *
 *   HTTP    100 ms without a byte, or no HTTP: the plain page (as twemproxy's stats port does); GET, HEAD: a page
 *   lines   one line, which whoever made the server answers, now or later: a control socket
 *
 *   S1  At most HTTP_CONNS_MAX connections; one more takes the place of the oldest.
 *   S2  Nobody keeps a connection: what takes longer than its deadline to ask or to read is dropped.
 *   S3  A callback may close any connection; its memory is given back at the end of the turn.
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/list.h"
#include "common/io/io.h"

#define HTTP_CONNS_MAX   16u
#define HTTP_HEAD_MAX    (8u << 10)
#define HTTP_SILENCE_MS  100u
#define HTTP_READING_MS  5000u
#define HTTP_SENDING_MS  10000u
#define HTTP_LINGER_MS   1000u

struct http_conn;

struct http_page {
    const char *path, *type; /* type NULL: plain text */
    /* False: 503, and the body says why. */
    bool (*compose)(void *arg, struct buffer *body);
};

struct http_pages {
    const struct http_page *pages;
    size_t count;
    void (*plain)(void *arg, struct buffer *out); /* for who speaks no HTTP: without a head */
    const char *not_found;                        /* a line: what there is */
};

struct http_handler {
    struct http_pages pages;
    /* Of a listener with `is_line`; may be NULL without one. Answers into conn->out and calls http_conn_answer(), or
     * http_conn_wait() to do so later. */
    void (*line)(struct http_conn *conn, struct bytes line);
    void (*waited)(struct http_conn *conn); /* the time of http_conn_wait() is over */
    void (*freed)(void *arg);               /* at the end of a turn; may be NULL */
};

enum http_state {
    HTTP_SILENT,    /* not one byte yet */
    HTTP_READING,
    HTTP_WAITING,   /* for whoever answers a line */
    HTTP_SENDING,
    HTTP_LINGERING, /* all is sent: until the peer has read it */
    HTTP_DEAD,
};

struct http_server {
    struct io *io;
    void *arg;                          /* of the callbacks */
    const struct http_handler *handler; /* borrows */
    struct list conns, dead;            /* of http_conn; conns: the oldest first */
    uint32_t conns_count;
    struct io_hook hook;
};

struct http_listener {
    struct io_listener listener;
    struct http_server *server; /* borrows */
    bool is_line;
};

struct http_conn {
    struct io_stream stream;
    struct list_node node;
    struct http_server *server;
    struct io_timer timer;
    struct buffer out;
    size_t sent;
    uint64_t request_id; /* the handler's */
    uint8_t state;       /* enum http_state */
    bool is_line;
};

void http_server_init(struct http_server *server, struct io *io, const struct http_handler *handler, void *arg);
void http_server_deinit(struct http_server *server); /* closes what there is; listeners are stopped before */
/* Ready for io_listener_start(). */
void http_listener_init(struct http_listener *listener, struct http_server *server, bool is_line);

/* Sends conn->out and closes; closes at once if that could not be had. */
void http_conn_answer(struct http_conn *conn);
void http_conn_wait(struct http_conn *conn, uint32_t timeout_ms);
void http_conn_close(struct http_conn *conn);

/* What came so far, `is_end`: and no more will. True: the answer is in `out`. */
bool http_read(const struct http_pages *pages, void *arg, struct bytes data, bool is_end, struct buffer *out);
