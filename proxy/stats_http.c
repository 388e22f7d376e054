/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats port's requests: HTTP/1 with one request a connection, or nothing at all.
 */
#include "config.h"

#include "proxy/stats_process.h"

#include <stdio.h>

#define LIST_MAX         128u
#define HEARTBEAT_OLD_MS 4000u

static void view_of(struct stats_conn *conn, struct view *view)
{
    struct stats_process *process = conn->process;

    view_init(view, process->worker, process->conf, io_wall_us(process->io) / 1000000);
}

static void answer_twemproxy(struct stats_conn *conn)
{
    struct view view;

    view_of(conn, &view);
    stats_text_twemproxy(&view, conn->process->host_name, &conn->out);
    view_deinit(&view);
}

/* ---- HTTP -------------------------------------------------------------------------------------- */

static void http_answer(struct stats_conn *conn, const char *status, const char *type, struct bytes body,
                        bool is_head)
{
    buffer_append_format(&conn->out,
                         "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                         "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
                         status, type, body.len, strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    if (!is_head)
        buffer_append(&conn->out, body.data, body.len);
}

static void http_text(struct stats_conn *conn, const char *status, const char *text, bool is_head)
{
    http_answer(conn, status, "text/plain; charset=utf-8", bytes_of_string(text), is_head);
}

static void page_index(struct stats_conn *conn, struct buffer *body)
{
    struct view view;

    view_of(conn, &view);
    buffer_append_format(body,
                         "weir-proxy " PACKAGE_VERSION " on %s\n\n/stats    everything, as JSON\n/metrics  for Prometheus\n"
                         "/healthz  200 while workers serve\n\n%llu clients, %u pools, up %llu s, configuration %u\n",
                         conn->process->host_name, (unsigned long long)view.clients, view.pools_count,
                         (unsigned long long)view.uptime_s, view.master.generation);
    view_deinit(&view);
}

static void page_json(struct stats_conn *conn, struct buffer *body)
{
    struct stats_lists lists = {.worker = conn->process->worker,
                                .now_ms = io_now_ms(conn->process->io),
                                .count_max = LIST_MAX};
    struct view view;

    view_of(conn, &view);
    stats_text_json(&view, conn->process->host_name, &lists, body);
    view_deinit(&view);
}

static void page_metrics(struct stats_conn *conn, struct buffer *body)
{
    struct view view;

    view_of(conn, &view);
    stats_text_prometheus(&view, body);
    view_deinit(&view);
}

/* Whether some worker accepts, and its loop turns. */
static bool is_healthy(struct worker *worker)
{
    struct worker_info info;

    for (uint32_t i = 0; i < worker_slots_count(worker); i++)
        if (worker_slot_info(worker, i, &info) && info.state == WORKER_STATE_SERVING &&
            info.heartbeat_age_ms < HEARTBEAT_OLD_MS)
            return true;
    return false;
}

static const struct { const char *path, *type; void (*compose)(struct stats_conn *, struct buffer *); } pages[] = {
    {"/", "text/plain; charset=utf-8", page_index},
    {"/stats", "application/json", page_json},
    {"/stats.json", "application/json", page_json},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
};

static void http_page(struct stats_conn *conn, struct bytes path, bool is_head)
{
    struct buffer body = {0};
    const char *query = memchr(path.data, '?', path.len);

    if (query != NULL)
        path.len = (size_t)(query - path.data);
    if (bytes_equal(path, BYTES("/healthz"))) {
        bool is_well = is_healthy(conn->process->worker);

        http_text(conn, is_well ? "200 OK" : "503 Service Unavailable", is_well ? "ok\n" : "no worker serves\n",
                  is_head);
        return;
    }
    for (size_t i = 0; i < ARRAY_COUNT(pages); i++) {
        if (!bytes_equal(path, bytes_of_string(pages[i].path)))
            continue;
        pages[i].compose(conn, &body);
        if (body.failed)
            http_text(conn, "500 Internal Server Error", "out of memory\n", is_head);
        else
            http_answer(conn, "200 OK", pages[i].type, buffer_bytes(&body), is_head);
        buffer_deinit(&body);
        return;
    }
    http_text(conn, "404 Not Found", "there are /stats, /metrics and /healthz\n", is_head);
}

/* "GET /stats HTTP/1.1" */
static void http_request(struct stats_conn *conn, struct bytes line)
{
    const char *blank = memchr(line.data, ' ', line.len);
    struct bytes method = bytes_first(line, blank == NULL ? 0 : (size_t)(blank - line.data));
    struct bytes path = bytes_skip(line, method.len + 1);
    const char *end = memchr(path.data, ' ', path.len);
    bool is_head = bytes_equal(method, BYTES("HEAD"));

    if (end != NULL)
        path.len = (size_t)(end - path.data);
    if (!is_head && !bytes_equal(method, BYTES("GET")))
        http_text(conn, "405 Method Not Allowed", "only GET and HEAD\n", false);
    else if (path.len == 0 || path.data[0] != '/')
        http_text(conn, "400 Bad Request", "the path starts with /\n", is_head);
    else
        http_page(conn, path, is_head);
}

/* Upper-case letters, then a blank: somebody speaks HTTP. -1: too early to say. */
static int is_http(struct bytes data)
{
    for (size_t i = 0; i < data.len; i++) {
        if (data.data[i] == ' ' && i >= 3)
            return 1;
        if (data.data[i] < 'A' || data.data[i] > 'Z' || i >= 10)
            return 0;
    }
    return -1;
}

/* With the empty line that ends it; 0: it is not whole. */
static size_t http_head_len(struct bytes data)
{
    const char *end = memmem(data.data, data.len, "\r\n\r\n", 4);

    if (end != NULL)
        return (size_t)(end - data.data) + 4;
    end = memmem(data.data, data.len, "\n\n", 2);
    return end == NULL ? 0 : (size_t)(end - data.data) + 2;
}

bool stats_http_read(struct stats_conn *conn, struct bytes data, bool is_end)
{
    int http = is_http(data);
    const char *line_end;
    size_t head_len;

    if (data.len == 0 || http == 0) {
        if (data.len == 0 && !is_end)
            return false;
        answer_twemproxy(conn);
        return true;
    }
    line_end = memchr(data.data, '\n', data.len);
    head_len = http == 1 ? http_head_len(data) : 0;
    if (head_len > 0 && head_len <= STATS_HEAD_MAX) {
        size_t len = (size_t)(line_end - data.data);

        if (len > 0 && data.data[len - 1] == '\r')
            len--;
        http_request(conn, bytes_first(data, len));
        return true;
    }
    if (data.len > STATS_HEAD_MAX)
        http_text(conn, "431 Request Header Fields Too Large", "too long\n", false);
    else if (is_end)
        http_text(conn, "400 Bad Request", "the request is not complete\n", false);
    else
        return false;
    return true;
}
