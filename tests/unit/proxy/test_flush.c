/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a turn: several connections are sent to together, and one of them turns out to be broken.
 *
 * A proxy, a client and three servers in a simulated world. Every send of several streams goes by way of this file
 * (--wrap), which lets one fail of a batch that the test waits for: so what the others have sent is sent.
 *
 *   - each request is answered once, in its place; on the broken connection by an error, or after it was sent anew
 *   - a server sees each change at most once, each read at most twice
 *   - what was asked for, what was answered and what is under way agree
 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/io/io_sim.h"
#include "proxy/proxy_private.h"

#include <stdio.h>
#include <string.h>

enum { SERVERS = 3, CONNS_MAX = 16, PORT = 11000, RUN_US = 200000 };

static struct {
    unsigned together; /* the next batch of so many loses one; 0: none does */
    unsigned victim;   /* by its place */
    struct io_stream *lost;
} seams;

void __real_io_streams_send(struct io *io, struct io_send *sends, unsigned count);
void __wrap_io_streams_send(struct io *io, struct io_send *sends, unsigned count);

void __wrap_io_streams_send(struct io *io, struct io_send *sends, unsigned count)
{
    unsigned victim = seams.victim;

    if (count == 0 || count != seams.together) {
        __real_io_streams_send(io, sends, count);
        return;
    }
    seams.together = 0;
    seams.lost = sends[victim].stream;
    __real_io_streams_send(io, sends, victim);
    __real_io_streams_send(io, sends + victim + 1, count - victim - 1);
    sends[victim].sent = -ECONNRESET;
}

struct conn {
    struct io_stream stream;
    struct buffer held; /* replies that are not sent yet */
    struct place *place;
};

/* A server, and what it has seen. */
struct place {
    struct io_listener listener;
    struct conn conns[CONNS_MAX];
    unsigned conn_count;
    struct buffer seen; /* "verb key\n" */
    struct buffer seen_next; /* of its other connections than the first */
    bool is_silent;
};

struct flush_world {
    struct sim *sim;
    struct sim_node *proxy_node, *server_node, *client_node;
    struct conf *conf;
    struct proxy *proxy;
    struct io_listener listener;
    struct place places[SERVERS];
    struct resp_args args;
    struct io_stream client;
    struct buffer reply;
    bool is_client_closed;
    char keys[SERVERS][16]; /* one that goes to each */
};

/* ---- servers ---- */

static void conn_say(struct conn *conn, struct bytes bytes)
{
    struct iovec slice;

    buffer_append(&conn->held, bytes.data, bytes.len);
    if (conn->place->is_silent || conn->held.len == 0)
        return;
    slice = (struct iovec){.iov_base = conn->held.data, .iov_len = conn->held.len};
    assert_int_equal(io_stream_send(&conn->stream, &slice, 1), conn->held.len);
    buffer_clear(&conn->held);
}

static void conn_answer(struct conn *conn, const struct resp_request *request)
{
    struct place *place = conn->place;
    struct buffer *seen = conn == &place->conns[0] ? &place->seen : &place->seen_next;
    char text[128];
    int len = 0;

    buffer_append_format(seen, "%.*s %.*s\n", BYTES_ARG(request->argv[0]), BYTES_ARG(request->argv[1]));
    if (bytes_equal(request->argv[0], BYTES("get")))
        len = snprintf(text, sizeof(text), "$%zu\r\n%.*s\r\n", request->argv[1].len, BYTES_ARG(request->argv[1]));
    else if (bytes_equal(request->argv[0], BYTES("set")))
        len = snprintf(text, sizeof(text), "+OK\r\n");
    else
        len = snprintf(text, sizeof(text), "*3\r\n$%zu\r\n%.*s\r\n$%zu\r\n%.*s\r\n:1\r\n", request->argv[0].len,
                       BYTES_ARG(request->argv[0]), request->argv[1].len, BYTES_ARG(request->argv[1]));
    conn_say(conn, bytes_of(text, (size_t)len));
}

static size_t conn_recv(struct io_stream *stream, struct bytes data)
{
    struct conn *conn = CONTAINER_OF(stream, struct conn, stream);
    struct flush_world *w = conn->place->listener.arg;
    struct proto_limits limits = PROTO_LIMITS_DEFAULT;
    size_t consumed = 0;

    while (consumed < data.len) {
        struct resp_parser parser = {0};
        struct resp_request request;

        if (resp_parse(&parser, &w->args, &limits, bytes_skip(data, consumed), false, &request) != PARSE_OK)
            break;
        assert_true(request.argc >= 2);
        conn_answer(conn, &request);
        consumed += request.len;
    }
    return consumed;
}

static void conn_closed(struct io_stream *stream, int err, struct bytes rest)
{
    MAYBE(err);
    assert_int_equal(rest.len, 0); /* no half request */
    io_stream_close(stream);
}

static void stream_writable(struct io_stream *stream)
{
    MAYBE(stream != NULL);
}

static const struct io_stream_handler conn_handler = {.recv = conn_recv, .closed = conn_closed, .writable = stream_writable};

static void place_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct place *place = CONTAINER_OF(listener, struct place, listener);
    struct conn *conn = &place->conns[place->conn_count++];

    MAYBE(peer != NULL);
    assert_true(place->conn_count <= CONNS_MAX);
    conn->place = place;
    assert_int_equal(io_stream_open(listener->io, &conn->stream, &conn_handler, fd, NULL, BYTES_EMPTY), 0);
    io_stream_resume(&conn->stream);
}

static void place_speak(struct place *place)
{
    place->is_silent = false;
    for (unsigned i = 0; i < place->conn_count; i++)
        if (io_stream_is_open(&place->conns[i].stream))
            conn_say(&place->conns[i], BYTES_EMPTY);
}

/* ---- the client ---- */

static size_t client_received(struct io_stream *stream, struct bytes data)
{
    struct flush_world *w = CONTAINER_OF(stream, struct flush_world, client);

    buffer_append(&w->reply, data.data, data.len);
    return data.len;
}

static void client_ended(struct io_stream *stream, int err, struct bytes rest)
{
    MAYBE(err);
    MAYBE(rest.len);
    CONTAINER_OF(stream, struct flush_world, client)->is_client_closed = true;
    io_stream_close(stream);
}

static void client_connected(struct io_stream *stream, int err)
{
    assert_int_equal(err, 0);
    io_stream_resume(stream);
}

static const struct io_stream_handler client_side = {
    .recv = client_received, .closed = client_ended, .writable = stream_writable, .connected = client_connected};

/* "verb key" and so on, a line each; what is answered is in w->reply when the world is quiet. */
static void ask(struct flush_world *w, const char *lines)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)lines, .iov_len = strlen(lines)};

    buffer_clear(&w->reply);
    assert_int_equal(io_stream_send(&w->client, &slice, 1), slice.iov_len);
    sim_run_for(w->sim, RUN_US);
}

static void expect(struct flush_world *w, const char *reply)
{
    buffer_append(&w->reply, "", 1);
    assert_string_equal(w->reply.data, reply);
}

static void expect_seen(struct buffer *seen, const char *text)
{
    buffer_append(seen, "", 1);
    assert_string_equal(seen->data, text);
    buffer_clear(seen);
}

/* ---- the world ---- */

static void proxy_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct flush_world *w = listener->arg;

    proxy_accept(w->proxy, 0, fd, peer);
}

static void listen_at(struct flush_world *w, struct sim_node *node, struct io_listener *listener, uint16_t port,
                      void (*accepted)(struct io_listener *listener, int fd, const struct io_addr *peer))
{
    struct io_addr addr;
    int fd;

    assert_int_equal(io_addr_parse("127.0.0.1", port, &addr), 0);
    assert_int_equal(sim_listen(node, &addr, &fd), 0);
    *listener = (struct io_listener){.accepted = accepted, .arg = w};
    io_listener_start(sim_node_io(node), listener, fd);
}

static struct server *server_of(struct flush_world *w, unsigned i)
{
    return &w->proxy->pools[0].servers[i];
}

static uint64_t count_of(struct flush_world *w, unsigned i, enum server_counter counter)
{
    return server_of(w, i)->counters[counter];
}

static void begin(struct flush_world *w)
{
    static const char yaml[] = "weir:\n  version: 1\npool:\n  listen: 127.0.0.1:11000\n  redis: true\n"
                               "  distribution: modula\n  auto_eject_hosts: false\n  servers:\n"
                               "   - 127.0.0.1:11001:1\n   - 127.0.0.1:11002:1\n   - 127.0.0.1:11003:1\n";
    struct proxy_options options = {.worker_pid = 1};
    struct conf_error error;
    struct io_addr addr;
    char text[200];

    memset(w, 0, sizeof(*w));
    memset(&seams, 0, sizeof(seams));
    resp_args_init(&w->args);
    w->sim = sim_create(1, NULL);
    w->proxy_node = sim_node_create(w->sim, "proxy");
    w->server_node = sim_node_create(w->sim, "servers");
    w->client_node = sim_node_create(w->sim, "client");
    assert_int_equal(conf_parse("test.yml", bytes_of(yaml, sizeof(yaml) - 1), &w->conf, &error), 0);
    for (uint16_t i = 0; i < SERVERS; i++)
        listen_at(w, w->server_node, &w->places[i].listener, (uint16_t)(PORT + 1 + i), place_accepted);
    options.io = sim_node_io(w->proxy_node);
    options.conf = w->conf;
    assert_int_equal(proxy_create(&options, &w->proxy), 0);
    listen_at(w, w->proxy_node, &w->listener, PORT, proxy_accepted);
    assert_int_equal(io_addr_parse("127.0.0.1", PORT, &addr), 0);
    assert_int_equal(io_stream_connect(sim_node_io(w->client_node), &w->client, &client_side, &addr, NULL), 0);
    for (unsigned n = 0, found = 0; found < SERVERS; n++) {
        char key[16];
        struct server *server = route_key(&w->proxy->pools[0], bytes_of(key, (size_t)snprintf(key, sizeof(key), "k%u", n)));
        unsigned i = (unsigned)(server - w->proxy->pools[0].servers);

        if (w->keys[i][0] == '\0') {
            memcpy(w->keys[i], key, sizeof(key));
            found++;
        }
    }
    sim_run_for(w->sim, RUN_US);
    (void)snprintf(text, sizeof(text), "get %s\r\nget %s\r\nget %s\r\n", w->keys[0], w->keys[1], w->keys[2]);
    ask(w, text); /* all are connected now, and idle */
    for (unsigned i = 0; i < SERVERS; i++) {
        assert_int_equal(w->places[i].conn_count, 1);
        assert_int_equal(count_of(w, i, SERVER_COUNT_responses), 1);
        buffer_clear(&w->places[i].seen);
    }
}

/* Nothing is under way, and nobody has got too many answers or too few. */
static void end(struct flush_world *w)
{
    const uint64_t *counters = w->proxy->pools[0].counters;

    sim_run_for(w->sim, 3000000);
    if (!w->is_client_closed)
        assert_int_equal(counters[POOL_COUNT_client_requests], counters[POOL_COUNT_client_responses]);
    for (unsigned i = 0; i < SERVERS; i++) {
        assert_int_equal(count_of(w, i, SERVER_COUNT_in_queue), 0);
        assert_int_equal(count_of(w, i, SERVER_COUNT_in_queue_bytes), 0);
        assert_int_equal(count_of(w, i, SERVER_COUNT_out_queue), 0);
        assert_int_equal(count_of(w, i, SERVER_COUNT_out_queue_bytes), 0);
    }
    io_stream_close(&w->client);
    sim_run_for(w->sim, RUN_US);
    assert_int_equal(proxy_client_count(w->proxy), 0);
    proxy_destroy(&w->proxy);
    for (unsigned i = 0; i < SERVERS; i++) {
        for (unsigned k = 0; k < w->places[i].conn_count; k++) {
            io_stream_close(&w->places[i].conns[k].stream);
            buffer_deinit(&w->places[i].conns[k].held);
        }
        io_listener_stop(&w->places[i].listener);
        buffer_deinit(&w->places[i].seen);
        buffer_deinit(&w->places[i].seen_next);
    }
    io_listener_stop(&w->listener);
    conf_destroy(&w->conf);
    sim_destroy(&w->sim);
    buffer_deinit(&w->reply);
    resp_args_deinit(&w->args);
}


/* ---- the tests ---- */

/* Not a byte of it was sent: it goes over a new connection, a write too, once; nobody notices. */
static void test_what_was_not_sent_moves(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < SERVERS; victim++) {
        struct flush_world w;
        char text[200];
        unsigned lost;

        begin(&w);
        seams.together = SERVERS;
        seams.victim = victim;
        (void)snprintf(text, sizeof(text), "set %s 1\r\nset %s 1\r\nset %s 1\r\n", w.keys[0], w.keys[1], w.keys[2]);
        ask(&w, text);
        assert_non_null(seams.lost);
        expect(&w, "+OK\r\n+OK\r\n+OK\r\n");
        lost = SERVERS;
        for (unsigned i = 0; i < SERVERS; i++) {
            (void)snprintf(text, sizeof(text), "set %s\n", w.keys[i]);
            if (w.places[i].conn_count == 2)
                lost = i;
            expect_seen(&w.places[i].seen, i == lost ? "" : text);
            expect_seen(&w.places[i].seen_next, i == lost ? text : "");
            assert_int_equal(count_of(&w, i, SERVER_COUNT_server_err), i == lost);
            assert_int_equal(count_of(&w, i, SERVER_COUNT_requests), 2);
            assert_int_equal(count_of(&w, i, SERVER_COUNT_responses), 2);
        }
        assert_true(lost < SERVERS);
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_forward_error], 0);
        end(&w);
    }
}

/* Requests for all servers twice: the first are sent and not answered; of the second one server's connection is lost when
 * they are sent together. Then all servers answer. */
static void lose_under_way(struct flush_world *w, unsigned victim, const char *verb, const char *value)
{
    char text[200] = "";

    begin(w);
    for (unsigned i = 0; i < SERVERS; i++)
        w->places[i].is_silent = true;
    for (unsigned i = 0; i < SERVERS; i++)
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s %s%s\r\n", verb, w->keys[i], value);
    ask(w, text);
    expect(w, "");
    seams.together = SERVERS;
    seams.victim = victim;
    ask(w, text);
    assert_non_null(seams.lost);
    for (unsigned i = 0; i < SERVERS; i++)
        place_speak(&w->places[i]);
    sim_run_for(w->sim, RUN_US);
}

/* One was sent before and is not answered, one was to be sent now: each gets one error, and is not done again. Those
 * beside them are sent once and answered. */
static void test_changes_under_way_get_an_error_each(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < SERVERS; victim++) {
        struct flush_world w;
        char text[200], replies[400] = "";
        unsigned lost = SERVERS;

        lose_under_way(&w, victim, "set", " 1");
        for (unsigned i = 0; i < SERVERS; i++)
            if (count_of(&w, i, SERVER_COUNT_server_err) > 0)
                lost = i;
        for (unsigned i = 0; i < 2 * SERVERS; i++)
            (void)snprintf(replies + strlen(replies), sizeof(replies) - strlen(replies), "%s",
                           i % SERVERS == lost ? "-ERR Connection reset by peer\r\n" : "+OK\r\n");
        expect(&w, replies);
        for (unsigned i = 0; i < SERVERS; i++) {
            (void)snprintf(text, sizeof(text), i == lost ? "set %s\n" : "set %s\nset %s\n", w.keys[i], w.keys[i]);
            expect_seen(&w.places[i].seen, text);
            expect_seen(&w.places[i].seen_next, "");
            assert_int_equal(count_of(&w, i, SERVER_COUNT_requests), 3);
            assert_int_equal(count_of(&w, i, SERVER_COUNT_responses), i == lost ? 1 : 3);
        }
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_forward_error], 2);
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_retries], 0);
        end(&w);
    }
}

/* The same with reads: they are asked for again, once, and nobody gets an error as well. */
static void test_reads_under_way_are_sent_again(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < SERVERS; victim++) {
        struct flush_world w;
        char text[200], replies[400] = "";
        unsigned lost = SERVERS;

        lose_under_way(&w, victim, "get", "");
        for (unsigned i = 0; i < 2 * SERVERS; i++)
            (void)snprintf(replies + strlen(replies), sizeof(replies) - strlen(replies), "$%zu\r\n%s\r\n",
                           strlen(w.keys[i % SERVERS]), w.keys[i % SERVERS]);
        expect(&w, replies);
        for (unsigned i = 0; i < SERVERS; i++) {
            bool is_lost = w.places[i].conn_count == 2;

            lost = is_lost ? i : lost;
            (void)snprintf(text, sizeof(text), is_lost ? "get %s\n" : "get %s\nget %s\n", w.keys[i], w.keys[i]);
            expect_seen(&w.places[i].seen, text);
            (void)snprintf(text, sizeof(text), "get %s\nget %s\n", w.keys[i], w.keys[i]);
            expect_seen(&w.places[i].seen_next, is_lost ? text : "");
            assert_int_equal(count_of(&w, i, SERVER_COUNT_requests), is_lost ? 5 : 3);
            assert_int_equal(count_of(&w, i, SERVER_COUNT_responses), 3);
        }
        assert_true(lost < SERVERS);
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_forward_error], 0);
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_retries], 2);
        end(&w);
    }
}

/* A subscriber has a connection to each server, and is closed with the first that is lost. So its others are closed
 * while what became of their own sends is still to be looked at: that they were sent is known by then. */
static void test_one_loss_closes_others_of_the_batch(void **state)
{
    (void)state;
    for (unsigned victim = 0; victim < SERVERS; victim++) {
        struct flush_world w;
        unsigned lost;

        begin(&w);
        ask(&w, "psubscribe a*\r\n");
        expect(&w, "*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:1\r\n");
        seams.together = SERVERS;
        seams.victim = victim;
        ask(&w, "psubscribe b*\r\n");
        assert_non_null(seams.lost);
        assert_true(w.is_client_closed);
        lost = SERVERS;
        for (unsigned i = 0; i < SERVERS; i++) {
            if (count_of(&w, i, SERVER_COUNT_server_err) > 0)
                lost = i;
            expect_seen(&w.places[i].seen_next, i == lost ? "psubscribe a*\n" : "psubscribe a*\npsubscribe b*\n");
            assert_int_equal(count_of(&w, i, SERVER_COUNT_server_connections), 1);
        }
        assert_true(lost < SERVERS);
        assert_int_equal(w.proxy->pools[0].counters[POOL_COUNT_private_sessions], 0);
        end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_not_sent_moves),
        cmocka_unit_test(test_changes_under_way_get_an_error_each),
        cmocka_unit_test(test_reads_under_way_are_sent_again),
        cmocka_unit_test(test_one_loss_closes_others_of_the_batch),
    };

    return cmocka_run_group_tests_name("flush", tests, NULL, NULL);
}
