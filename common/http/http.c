/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and answers: HTTP/1 with one request a connection, or nothing at all. Of a request only its first line
 * counts; a body is not read.
 */
#include "common/http/http.h"

#define TYPE_TEXT "text/plain; charset=utf-8"

static void answer(struct buffer *out, const char *status, const char *type, struct bytes body, bool is_head)
{
    buffer_append_format(out,
                         "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                         "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
                         status, type, body.len, memcmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    if (!is_head)
        buffer_append(out, body.data, body.len);
}

static void answer_text(struct buffer *out, const char *status, const char *text, bool is_head)
{
    answer(out, status, TYPE_TEXT, bytes_of_string(text), is_head);
}

static void page(const struct http_pages *pages, void *arg, struct bytes path, bool is_head, struct buffer *out)
{
    const char *query = memchr(path.data, '?', path.len);
    struct buffer body = {0};

    if (query != NULL)
        path.len = (size_t)(query - path.data);
    for (size_t i = 0; i < pages->count; i++) {
        const struct http_page *at = &pages->pages[i];
        bool is_well;

        if (!bytes_equal(path, bytes_of_string(at->path)))
            continue;
        is_well = at->compose(arg, &body);
        if (body.failed)
            answer_text(out, "500 Internal Server Error", "out of memory\n", is_head);
        else
            answer(out, is_well ? "200 OK" : "503 Service Unavailable", at->type != NULL ? at->type : TYPE_TEXT,
                   buffer_bytes(&body), is_head);
        buffer_deinit(&body);
        return;
    }
    answer_text(out, "404 Not Found", pages->not_found, is_head);
}

/* "GET /stats HTTP/1.1" */
static void request(const struct http_pages *pages, void *arg, struct bytes line, struct buffer *out)
{
    const char *blank = memchr(line.data, ' ', line.len);
    struct bytes method = bytes_first(line, blank == NULL ? 0 : (size_t)(blank - line.data));
    struct bytes path = bytes_skip(line, method.len + 1);
    const char *end = memchr(path.data, ' ', path.len);
    bool is_head = bytes_equal(method, BYTES("HEAD"));

    if (end != NULL)
        path.len = (size_t)(end - path.data);
    if (!is_head && !bytes_equal(method, BYTES("GET")))
        answer_text(out, "405 Method Not Allowed", "only GET and HEAD\n", false);
    else if (path.len == 0 || path.data[0] != '/')
        answer_text(out, "400 Bad Request", "the path starts with /\n", is_head);
    else
        page(pages, arg, path, is_head, out);
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

/* With the empty line that ends it; 0: it is not whole. Lines may end without CR. */
static size_t head_len(struct bytes data)
{
    for (size_t i = 0; i + 1 < data.len; i++) {
        if (data.data[i] != '\n')
            continue;
        if (data.data[i + 1] == '\n')
            return i + 2;
        if (data.data[i + 1] == '\r' && i + 2 < data.len && data.data[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

bool http_read(const struct http_pages *pages, void *arg, struct bytes data, bool is_end, struct buffer *out)
{
    int http = is_http(data);
    size_t len = http == 1 ? head_len(bytes_first(data, MIN(data.len, (size_t)HTTP_HEAD_MAX))) : 0;

    if (data.len == 0 || http == 0) {
        if (data.len == 0 && !is_end)
            return false;
        pages->plain(arg, out);
        return true;
    }
    if (len > 0) {
        const char *end = memchr(data.data, '\n', len);
        size_t line_len = (size_t)(end - data.data);

        if (line_len > 0 && data.data[line_len - 1] == '\r')
            line_len--;
        request(pages, arg, bytes_first(data, line_len), out);
        return true;
    }
    if (data.len > HTTP_HEAD_MAX)
        answer_text(out, "431 Request Header Fields Too Large", "too long\n", false);
    else if (is_end)
        answer_text(out, "400 Bad Request", "the request is not complete\n", false);
    else
        return false;
    return true;
}
