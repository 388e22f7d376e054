/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that go from one node to another, as in an upgrade: here both are in one process, one after the other. */
#include "tests/unit/backend/node_test.h"

#include "backend/cmd/settings.h"

#define CLIENTS 10

static void world_parked(void *arg, int err)
{
    struct world *w = arg;

    w->is_closed = true;
    w->err = err;
}

/* The node is gone; what it had is in `moves`. */
static void world_park(struct world *w, struct list *moves)
{
    list_init(moves);
    w->is_closed = false;
    node_park(w->node, moves, world_parked, w);
    assert_true(sim_run_while_not(w->sim, &w->is_closed, 60 * SECOND));
    assert_int_equal(w->err, 0);
    node_destroy(&w->node);
    w->is_closed = false;
}

static struct node_move *move_pop(struct list *moves)
{
    struct list_node *at = list_pop_front(moves);

    return at != NULL ? CONTAINER_OF(at, struct node_move, node) : NULL;
}

static void move_free(struct node_move *move)
{
    assert_int_equal(move->fd, -1);
    buffer_deinit(&move->state);
    mem_free(move);
}

static void world_take(struct world *w, struct list *moves)
{
    struct node_move *move;

    while ((move = move_pop(moves)) != NULL) {
        node_take(w->node, move);
        move_free(move);
    }
    sim_run_for(w->sim, 5000);
}

static void world_move(struct world *w)
{
    struct list moves;

    world_park(w, &moves);
    world_open(w);
    world_take(w, &moves);
}

static void asks(struct world *w, struct client *client, const char *text, const char *reply)
{
    say(client, text);
    sim_run_for(w->sim, 5000);
    hears(client, reply);
}

static void test_what_clients_are_in_the_middle_of(void **state)
{
    enum { IDLE, MULTI, DIRTY, SPOILED, POP, SUBSCRIBED, HALF, TEXT, SILENT, OTHER };
    struct client clients[CLIENTS];
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    for (int i = 0; i < CLIENTS; i++)
        join(&w, &clients[i]);
    asks(&w, &clients[IDLE], "CLIENT SETNAME anna\r\nSELECT 3\r\nSET k 1\r\n", "+OK\r\n+OK\r\n+OK\r\n");
    asks(&w, &clients[MULTI], "SELECT 2\r\nMULTI\r\nSET a 1\r\nINCR a\r\n", "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    asks(&w, &clients[DIRTY], "WATCH w\r\n", "+OK\r\n");
    asks(&w, &clients[OTHER], "SET w 1\r\n", "+OK\r\n");
    asks(&w, &clients[SPOILED], "MULTI\r\nGET\r\n", "+OK\r\n-ERR wrong number of arguments for 'get' command\r\n");
    asks(&w, &clients[POP], "BLPOP q 0\r\nPING\r\n", "");
    asks(&w, &clients[SUBSCRIBED], "SUBSCRIBE c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    asks(&w, &clients[HALF], "*2\r\n$4\r\nECHO\r\n$5\r\nhe", "");
    asks(&w, &clients[TEXT], "set t 1 0 5\r\nab", "");
    asks(&w, &clients[SILENT], "CLIENT REPLY OFF\r\n", "");
    for (int i = 0; i < 3; i++)
        world_move(&w);
    assert_int_equal(node_client_count(w.node), CLIENTS);
    asks(&w, &clients[IDLE], "CLIENT GETNAME\r\nGET k\r\nCLIENT ID\r\n", "$4\r\nanna\r\n$1\r\n1\r\n:1\r\n");
    asks(&w, &clients[MULTI], "EXEC\r\nGET a\r\n", "*2\r\n+OK\r\n:2\r\n$1\r\n2\r\n");
    asks(&w, &clients[DIRTY], "MULTI\r\nEXEC\r\n", "+OK\r\n*-1\r\n");
    asks(&w, &clients[SPOILED], "EXEC\r\n", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    asks(&w, &clients[OTHER], "RPUSH q x\r\nPUBLISH c hi\r\n", ":1\r\n:1\r\n");
    hears(&clients[POP], "*2\r\n$1\r\nq\r\n$1\r\nx\r\n+PONG\r\n");
    hears(&clients[SUBSCRIBED], "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n");
    asks(&w, &clients[HALF], "llo\r\n", "$5\r\nhello\r\n");
    asks(&w, &clients[TEXT], "cde\r\nget t\r\n", "STORED\r\nVALUE t 1 5\r\nabcde\r\nEND\r\n");
    asks(&w, &clients[SILENT], "PING\r\nCLIENT REPLY ON\r\n", "+OK\r\n");
    for (int i = 0; i < CLIENTS; i++)
        client_free(&clients[i]);
    world_end(&w);
}

/* A reply that waits for the disk leaves before its client does; nothing is executed after that. */
static void test_replies_that_wait_for_the_flush(void **state)
{
    struct client writer;
    struct list moves;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    say(&writer, "INCR n\r\n");
    sim_run_for(w.sim, 5000);
    hears(&writer, "");
    world_park(&w, &moves);
    sim_run_for(w.sim, 5000);
    hears(&writer, ":1\r\n");
    say(&writer, "INCR n\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&writer, "");
    world_open(&w);
    world_take(&w, &moves);
    sim_run_for(w.sim, SECOND);
    hears(&writer, ":2\r\n");
    client_free(&writer);
    world_end(&w);
}

/* The node is told to stop while clients are on their way to it: they are closed like those that it had, and run nothing. */
static void test_a_node_that_stops_takes_nobody(void **state)
{
    struct client writer, reader;
    struct list moves;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &writer);
    join(&w, &reader);
    asks(&w, &reader, "SUBSCRIBE c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    world_park(&w, &moves);
    say(&writer, "INCR n\r\nINCR n\r\n");
    world_open(&w);
    node_close(w.node, world_closed, &w);
    world_take(&w, &moves);
    assert_true(sim_run_while_not(w.sim, &w.is_closed, 60 * SECOND));
    assert_int_equal(w.err, 0);
    node_destroy(&w.node);
    sim_run_for(w.sim, SECOND);
    hears(&writer, "");
    assert_int_equal(writer.closed, 1);
    assert_int_equal(reader.closed, 1);
    world_open(&w);
    client_free(&writer);
    join(&w, &writer);
    asks(&w, &writer, "INCR n\r\n", ":1\r\n");
    client_free(&writer);
    client_free(&reader);
    world_end(&w);
}

static void test_monitor_is_closed(void **state)
{
    struct client monitor;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &monitor);
    asks(&w, &monitor, "MONITOR\r\n", "+OK\r\n");
    world_move(&w);
    assert_int_equal(monitor.closed, 1);
    assert_int_equal(node_client_count(w.node), 0);
    client_free(&monitor);
    world_end(&w);
}

/* A state as another version may send it, or as it may arrive: cut at each byte, and with each byte changed. The
 * client is taken or closed; nothing stays behind. */
static void test_states_that_do_not_add_up(void **state)
{
    struct client client;
    struct node_move *whole;
    struct list moves;
    struct world w;
    size_t len;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &client);
    asks(&w, &client, "CLIENT SETNAME anna\r\nWATCH w\r\nSUBSCRIBE c\r\nHELLO 3\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhe",
         "+OK\r\n+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
         "-ERR Can't execute 'hello': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
         "context\r\n");
    world_park(&w, &moves);
    world_open(&w);
    whole = move_pop(&moves);
    assert_non_null(whole);
    assert_null(move_pop(&moves));
    len = whole->state.len;
    for (size_t i = 0; i < 2 * len; i++) {
        struct node_move move = {0};
        int ends[2];

        assert_int_equal(sim_socketpair(w.host, w.other, ends), 0);
        move.fd = ends[0];
        buffer_append(&move.state, whole->state.data, i < len ? i : len);
        if (i >= len)
            move.state.data[i - len] ^= (char)(1 << i % 8);
        node_take(w.node, &move);
        assert_int_equal(move.fd, -1);
        sim_run_for(w.sim, 1000);
        if (i < len)
            assert_int_equal(node_client_count(w.node), 0);
        sim_fd_close(w.sim, ends[1]);
        sim_run_for(w.sim, 1000);
        assert_int_equal(node_client_count(w.node), 0);
        buffer_deinit(&move.state);
    }
    node_take(w.node, whole);
    assert_int_equal(node_client_count(w.node), 1);
    move_free(whole);
    client_free(&client);
    sim_run_for(w.sim, 5000);
    world_end(&w);
}

/* When it goes on itself, nothing has changed. */
static void test_settings_go_along(void **state)
{
    struct settings *settings;
    struct client client;
    struct list moves;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &client);
    asks(&w, &client, "CONFIG SET slowlog-max-len 77 requirepass s appendfsync always notify-keyspace-events KEA\r\n",
         "+OK\r\n");
    settings = node_settings_copy(w.node);
    world_park(&w, &moves);
    world_open(&w);
    node_settings_set(w.node, &settings);
    assert_null(settings);
    world_take(&w, &moves);
    asks(&w, &client, "CONFIG GET slowlog-max-len\r\n", "*2\r\n$15\r\nslowlog-max-len\r\n$2\r\n77\r\n");
    asks(&w, &client, "CONFIG GET requirepass\r\n", "*2\r\n$11\r\nrequirepass\r\n$1\r\ns\r\n");
    asks(&w, &client, "CONFIG GET appendfsync\r\n", "*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n");
    asks(&w, &client, "SET a 1\r\n", "");
    sim_run_for(w.sim, SECOND);
    hears(&client, "+OK\r\n");
    client_free(&client);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_clients_are_in_the_middle_of),
        cmocka_unit_test(test_replies_that_wait_for_the_flush),
        cmocka_unit_test(test_a_node_that_stops_takes_nobody),
        cmocka_unit_test(test_monitor_is_closed),
        cmocka_unit_test(test_states_that_do_not_add_up),
        cmocka_unit_test(test_settings_go_along),
    };

    return cmocka_run_group_tests_name("client_move", tests, NULL, NULL);
}
