/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as bytes, then the server over the simulated network: who is silent, slow, cut off, or one too many.
 */
#include "tests/unit/common/io/io_sim_test.h"

#include "common/http/http.h"

#include <stdio.h>

#define PORT      7000
#define LINE_PORT 7001
#define BIG       (1u << 20)

/* ---- pages ------------------------------------------------------------------------------------ */

static bool page_index(void *arg, struct buffer *body)
{
    MAYBE(arg != NULL);
    buffer_append_string(body, "index\n");
    return true;
}

static bool page_ill(void *arg, struct buffer *body)
{
    MAYBE(arg != NULL);
    buffer_append_string(body, "ill\n");
    return false;
}

static bool page_failed(void *arg, struct buffer *body)
{
    MAYBE(arg != NULL);
    buffer_append_string(body, "half a page");
    body->failed = true;
    return true;
}

static bool page_big(void *arg, struct buffer *body)
{
    char *text = text_create(BIG);

    MAYBE(arg != NULL);
    buffer_append(body, text, BIG);
    mem_free(text);
    return true;
}

static void page_plain(void *arg, struct buffer *out)
{
    MAYBE(arg != NULL);
    buffer_append_string(out, "{plain}\n");
}

static const struct http_page pages_rows[] = {
    {"/", NULL, page_index},
    {"/ill", NULL, page_ill},
    {"/failed", "application/json", page_failed},
    {"/big", "application/json", page_big},
};

static const struct http_pages pages = {
    .pages = pages_rows, .count = ARRAY_COUNT(pages_rows), .plain = page_plain, .not_found = "no such page\n",
};

/* ---- bytes ------------------------------------------------------------------------------------ */

/* What is answered to `data`, "" if more is wanted. */
static char *answer_to(struct bytes data, bool is_end)
{
    struct buffer out = {0};
    bool is_done = http_read(&pages, NULL, data, is_end, &out);
    char *text;

    assert_true(is_done == (out.len > 0));
    buffer_append(&out, "", 1);
    text = must_strdup(out.data);
    buffer_deinit(&out);
    return text;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static void answers(const char *question, bool is_end, const char *start)
{
    char *text = answer_to(bytes_of_string(question), is_end);

    if (!starts_with(text, start))
        fail_msg("to \"%s\": \"%s\"", question, text);
    mem_free(text);
}

static void test_pages_and_refusals(void **state)
{
    char *text = answer_to(BYTES("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false);

    (void)state;
    assert_string_equal(text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n"
                        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nindex\n");
    mem_free(text);
    text = answer_to(BYTES("HEAD / HTTP/1.1\r\n\r\n"), false);
    assert_non_null(strstr(text, "Content-Length: 6\r\n"));
    assert_string_equal(text + strlen(text) - 4, "\r\n\r\n");
    mem_free(text);
    text = answer_to(BYTES("POST / HTTP/1.1\r\n\r\n"), false);
    assert_true(starts_with(text, "HTTP/1.1 405 "));
    assert_non_null(strstr(text, "\r\nAllow: GET, HEAD\r\n"));
    mem_free(text);
    answers("GET /?a=b HTTP/1.1\r\n\r\n", false, "HTTP/1.1 200 ");
    answers("GET /\n\n", false, "HTTP/1.1 200 ");
    answers("GET /\n\r\n", false, "HTTP/1.1 200 ");
    answers("GET /ill HTTP/1.0\r\n\r\n", false, "HTTP/1.1 503 ");
    answers("GET /failed HTTP/1.0\r\n\r\n", false, "HTTP/1.1 500 ");
    answers("GET /il HTTP/1.0\r\n\r\n", false, "HTTP/1.1 404 ");
    answers("GET /ill/ HTTP/1.0\r\n\r\n", false, "HTTP/1.1 404 ");
    answers("GET ill HTTP/1.0\r\n\r\n", false, "HTTP/1.1 400 ");
    answers("GET  / HTTP/1.0\r\n\r\n", false, "HTTP/1.1 400 ");
    answers("GET \r\n\r\n", false, "HTTP/1.1 400 ");
}

/* Cut at every byte: it asks for more, or, if no more comes, says that it is not complete. */
static void test_a_request_survives_any_cut(void **state)
{
    const char wire[] = "GET /ill HTTP/1.1\r\nHost: x\r\n\r\n";

    (void)state;
    for (size_t len = 1; len < sizeof(wire) - 1; len++) {
        struct bytes first = bytes_of(wire, len);
        char *text = answer_to(first, false);

        assert_string_equal(text, "");
        mem_free(text);
        text = answer_to(first, true);
        assert_true(starts_with(text, "HTTP/1.1 400 "));
        mem_free(text);
    }
}

static void test_who_speaks_no_http_gets_the_plain_page(void **state)
{
    static const char *const openings[] = {"\n", "stats\r\n", "get / HTTP/1.1\r\n\r\n", "GO /", "ABCDEFGHIJK", "GET\r\n"};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(openings); i++) {
        char *text = answer_to(bytes_of_string(openings[i]), false);

        assert_string_equal(text, "{plain}\n");
        mem_free(text);
    }
    answers("", false, "");
    answers("", true, "{plain}\n");
}

/* A head of HTTP_HEAD_MAX bytes is taken, one more is not, whether it comes at once or in pieces. */
static void test_a_head_has_a_bound(void **state)
{
    char *wire = must_alloc(2 * HTTP_HEAD_MAX);

    (void)state;
    memset(wire, 'x', 2 * HTTP_HEAD_MAX);
    memcpy(wire, "GET / ", 6);
    for (size_t more = 0; more < 2; more++) {
        size_t len = HTTP_HEAD_MAX + more;
        char *text;

        memset(wire + 6, 'x', len - 6);
        memcpy(wire + len - 4, "\r\n\r\n", 4);
        text = answer_to(bytes_of(wire, len), false);
        assert_true(starts_with(text, more == 0 ? "HTTP/1.1 200 " : "HTTP/1.1 431 "));
        mem_free(text);
    }
    memset(wire + 6, 'x', HTTP_HEAD_MAX);
    answers("GET / ", false, "");
    for (size_t more = 0; more < 2; more++) {
        char *text = answer_to(bytes_of(wire, HTTP_HEAD_MAX + more), false);

        assert_true(starts_with(text, more == 0 ? "" : "HTTP/1.1 431 "));
        assert_int_equal(text[0] == '\0', more == 0);
        mem_free(text);
    }
    mem_free(wire);
}

/* ---- connections ------------------------------------------------------------------------------ */

struct world {
    struct sim *sim;
    struct sim_node *host, *other;
    struct http_server server;
    struct http_listener http, lines;
    struct http_conn *waiting;
    uint32_t waited, freed;
};

static void line_came(struct http_conn *conn, struct bytes line)
{
    struct world *w = conn->server->arg;

    if (bytes_equal(line, BYTES("wait"))) {
        w->waiting = conn;
        http_conn_wait(conn, 1300);
        return;
    }
    buffer_append_string(&conn->out, "ok ");
    buffer_append(&conn->out, line.data, line.len);
    http_conn_answer(conn);
}

static void line_waited(struct http_conn *conn)
{
    ((struct world *)conn->server->arg)->waited++;
    buffer_append_string(&conn->out, "late");
    http_conn_answer(conn);
}

static void conns_freed(void *arg)
{
    ((struct world *)arg)->freed++;
}

static const struct http_handler handler = {
    .pages = {.pages = pages_rows, .count = ARRAY_COUNT(pages_rows), .plain = page_plain, .not_found = "no such page\n"},
    .line = line_came,
    .waited = line_waited,
    .freed = conns_freed,
};

static void listen_at(struct world *w, struct http_listener *listener, uint16_t port, bool is_line)
{
    struct io_addr addr = address(port);
    int fd;

    http_listener_init(listener, &w->server, is_line);
    assert_int_equal(sim_listen(w->host, &addr, &fd), 0);
    io_listener_start(sim_node_io(w->host), &listener->listener, fd);
}

static void world_start(struct world *w)
{
    struct sim_options options;

    sim_options_calm(&options);
    options.net.send_buffer_min = options.net.send_buffer_max = 64 << 10;
    options.net.recv_buffer_min = options.net.recv_buffer_max = 64 << 10;
    *w = (struct world){.sim = sim_create(3, &options)};
    w->host = sim_node_create(w->sim, "host");
    w->other = sim_node_create(w->sim, "other");
    http_server_init(&w->server, sim_node_io(w->host), &handler, w);
    listen_at(w, &w->http, PORT, false);
    listen_at(w, &w->lines, LINE_PORT, true);
}

static void world_end(struct world *w)
{
    io_listener_stop(&w->http.listener);
    io_listener_stop(&w->lines.listener);
    http_server_deinit(&w->server);
    assert_int_equal(w->server.conns_count, 0);
    sim_destroy(&w->sim);
}

static void join(struct world *w, struct client *client, uint16_t port, const char *text)
{
    struct io_addr addr = address(port);

    *client = (struct client){.out = text, .out_len = strlen(text)};
    client_connect(client, w->other, &addr, NULL);
    sim_run_for(w->sim, 5000);
    assert_int_equal(client->connected, 1);
    assert_int_equal(client->connect_err, 0);
}

static void hears(struct client *client, const char *start)
{
    assert_true(client->in_len >= strlen(start));
    assert_memory_equal(client->in, start, strlen(start));
}

static void test_one_answer_then_the_end(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, PORT, "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    sim_run_for(w.sim, SECOND / 100);
    hears(&client, "HTTP/1.1 200 OK\r\n");
    assert_memory_equal(client.in + client.in_len - 6, "index\n", 6);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.closed_err, ERR_EOF);
    client_free(&client);
    sim_run_for(w.sim, SECOND / 100);
    assert_int_equal(w.server.conns_count, 0);
    assert_true(w.freed > 0);
    world_end(&w);
}

static void test_silence_asks_for_the_plain_page(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, PORT, "");
    sim_run_for(w.sim, (HTTP_SILENCE_MS - 20) * 1000);
    assert_int_equal(client.in_len, 0);
    sim_run_for(w.sim, 40 * 1000);
    hears(&client, "{plain}\n");
    client_free(&client);
    world_end(&w);
}

/* Bytes that keep coming do not keep the connection. */
static void test_a_slow_question_is_dropped(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, PORT, "GET / HTTP/1.1\r\n");
    for (uint32_t ms = 0; ms + 1000 < HTTP_READING_MS; ms += 500) {
        sim_run_for(w.sim, 500 * 1000);
        assert_int_equal(client.closed, 0);
        client.out = "X: y\r\n";
        client.out_len = 6;
        client.sent = 0;
        client_send(&client);
    }
    sim_run_for(w.sim, 1500 * 1000);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.in_len, 0);
    assert_int_equal(w.server.conns_count, 0);
    client_free(&client);
    world_end(&w);
}

/* Half-open: it has closed its side, and is told what is wrong. */
static void test_a_cut_question_is_refused(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, PORT, "GET / HTT");
    io_stream_shutdown(&client.stream);
    sim_run_for(w.sim, SECOND / 100);
    hears(&client, "HTTP/1.1 400 ");
    client_free(&client);
    world_end(&w);
}

static void test_who_does_not_read_is_dropped(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, PORT, "");
    io_stream_pause(&client.stream);
    client.out = "GET /big HTTP/1.1\r\n\r\n";
    client.out_len = strlen(client.out);
    client_send(&client);
    sim_run_for(w.sim, (HTTP_SENDING_MS - 500) * 1000);
    assert_int_equal(w.server.conns_count, 1);
    sim_run_for(w.sim, 1000 * 1000);
    assert_int_equal(w.server.conns_count, 0);
    client_free(&client);

    join(&w, &client, PORT, "GET /big HTTP/1.1\r\n\r\n"); /* who reads has it whole */
    sim_run_for(w.sim, 5 * SECOND);
    assert_true(client.in_len > BIG);
    client_free(&client);
    world_end(&w);
}

static void test_one_too_many_takes_the_place_of_the_oldest(void **state)
{
    struct client clients[HTTP_CONNS_MAX + 1];
    struct world w;

    (void)state;
    world_start(&w);
    for (uint32_t i = 0; i <= HTTP_CONNS_MAX; i++)
        join(&w, &clients[i], i % 2 == 0 ? PORT : LINE_PORT, "GET / ");
    sim_run_for(w.sim, SECOND / 100);
    assert_int_equal(w.server.conns_count, HTTP_CONNS_MAX);
    for (uint32_t i = 0; i <= HTTP_CONNS_MAX; i++)
        assert_int_equal(clients[i].closed, i == 0);
    for (uint32_t i = 0; i <= HTTP_CONNS_MAX; i++)
        client_free(&clients[i]);
    world_end(&w);
}

static void test_lines_are_answered_now_or_later(void **state)
{
    struct world w;
    struct client client;

    (void)state;
    world_start(&w);
    join(&w, &client, LINE_PORT, "hello\nmore\n");
    sim_run_for(w.sim, SECOND / 100);
    hears(&client, "ok hello");
    assert_int_equal(client.in_len, 8);
    client_free(&client);

    for (uint32_t i = 0; i < 2; i++) { /* in time, or not */
        join(&w, &client, LINE_PORT, "wait\n");
        sim_run_for(w.sim, SECOND);
        assert_int_equal(client.in_len, 0);
        if (i == 0) {
            buffer_append_string(&w.waiting->out, "done");
            http_conn_answer(w.waiting);
        }
        sim_run_for(w.sim, SECOND / 2);
        hears(&client, i == 0 ? "done" : "late");
        assert_int_equal(w.waited, i);
        client_free(&client);
    }

    join(&w, &client, LINE_PORT, ""); /* silence is no question here */
    sim_run_for(w.sim, (HTTP_READING_MS + 500) * 1000);
    assert_int_equal(client.in_len, 0);
    assert_int_equal(client.closed, 1);
    client_free(&client);
    world_end(&w);
}

static void test_an_end_takes_all_with_it(void **state)
{
    struct world w;
    struct client clients[3];

    (void)state;
    world_start(&w);
    join(&w, &clients[0], PORT, "GET /big HTTP/1.1\r\n\r\n");
    join(&w, &clients[1], PORT, "GET");
    join(&w, &clients[2], LINE_PORT, "wait\n");
    for (size_t i = 0; i < ARRAY_COUNT(clients); i++)
        client_free(&clients[i]);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_and_refusals),
        cmocka_unit_test(test_a_request_survives_any_cut),
        cmocka_unit_test(test_who_speaks_no_http_gets_the_plain_page),
        cmocka_unit_test(test_a_head_has_a_bound),
        cmocka_unit_test(test_one_answer_then_the_end),
        cmocka_unit_test(test_silence_asks_for_the_plain_page),
        cmocka_unit_test(test_a_slow_question_is_dropped),
        cmocka_unit_test(test_a_cut_question_is_refused),
        cmocka_unit_test(test_who_does_not_read_is_dropped),
        cmocka_unit_test(test_one_too_many_takes_the_place_of_the_oldest),
        cmocka_unit_test(test_lines_are_answered_now_or_later),
        cmocka_unit_test(test_an_end_takes_all_with_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
