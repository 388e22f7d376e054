/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world: one seed decides it; processes die and pause, clocks drift, names answer. */
#include "tests/unit/common/io/io_sim_test.h"

#include <stdio.h>

/* ---- determinism -------------------------------------------------------------------------- */

/* A run of several clients with all faults that the seed draws; returns the hash of its trace. */
struct swarm_count {
    int finished, reset, refused, timed_out, partial;
};

static void swarm_look(const struct client *client, struct swarm_count *count)
{
    count->finished += client->in_len == client->out_len;
    count->partial += client->in_len > 0 && client->in_len < client->out_len;
    count->reset += client->closed_err == -ECONNRESET;
    count->refused += client->connect_err == -ECONNREFUSED;
    count->timed_out += client->connect_err == -ETIMEDOUT || client->closed_err == -ETIMEDOUT;
}

static uint64_t swarm_run(uint64_t seed, uint64_t option_seed, struct swarm_count *count)
{
    struct sim_options options;
    struct sim *sim;
    struct echo echo;
    struct sim_node *nodes[4];
    struct client clients[4] = {0};
    struct io_addr addr = address(7000);
    char *text = text_create(30000);
    uint64_t hash;

    sim_options_draw(&options, option_seed);
    sim = sim_create(seed, &options);
    echo_start(&echo, sim, &addr);
    for (size_t i = 0; i < ARRAY_COUNT(nodes); i++) {
        nodes[i] = sim_node_create(sim, "client");
        clients[i].out = text;
        clients[i].out_len = 1 + sim_random_below(sim, SIM_RANDOM_WORKLOAD, 30000);
        client_connect(&clients[i], nodes[i], &addr, NULL);
    }
    sim_run_for(sim, SECOND / 20);
    sim_net_cut(nodes[0], echo.node);
    sim_node_pause(nodes[1]);
    sim_run_for(sim, SECOND);
    sim_net_heal_all(sim);
    sim_node_resume(nodes[1]);
    sim_node_power_cut(nodes[2]);
    sim_run_for(sim, 20 * SECOND);
    for (size_t i = 0; i < ARRAY_COUNT(nodes); i++) {
        /* Whatever happens, the bytes are the right ones, in order. */
        assert_true(clients[i].in_len <= clients[i].out_len);
        if (clients[i].in_len > 0)
            assert_memory_equal(clients[i].in, text, clients[i].in_len);
        swarm_look(&clients[i], count);
        client_free(&clients[i]);
    }
    sim_run_for(sim, 200 * SECOND);
    echo_free(&echo);
    hash = sim_trace_hash(sim);
    sim_destroy(&sim);
    mem_free(text);
    return hash;
}

/* Two runs of one seed are equal; two seeds are not. */
static void test_seed_decides_everything(void **state)
{
    struct swarm_count count = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t hash = swarm_run(seed, seed, &count);

        assert_true(hash == swarm_run(seed, seed, &count));
        assert_true(hash != swarm_run(seed + 1000, seed, &count));
    }
}

static void test_random_streams_do_not_disturb_each_other(void **state)
{
    struct sim *a = sim_create(5, NULL), *b = sim_create(5, NULL);

    (void)state;
    for (int i = 0; i < 10; i++)
        MAYBE(sim_random(a, SIM_RANDOM_NET));
    assert_true(sim_random(a, SIM_RANDOM_WORKLOAD) == sim_random(b, SIM_RANDOM_WORKLOAD));
    assert_true(sim_random(a, SIM_RANDOM_DISK) != sim_random(a, SIM_RANDOM_CLOCK));
    sim_destroy(&a);
    sim_destroy(&b);
}

static void test_random_of_an_io_is_its_own(void **state)
{
    struct sim *sim = sim_create(5, NULL);
    struct sim_node *a = sim_node_create(sim, "a"), *b = sim_node_create(sim, "b");
    uint64_t first = io_random64(sim_node_io(a));

    (void)state;
    assert_true(first != io_random64(sim_node_io(b)));
    sim_node_kill(a);
    assert_true(first != io_random64(sim_node_start(a)));
    sim_destroy(&sim);
}

/* ---- life and death of processes ---------------------------------------------------------- */

static void timer_never(struct io_timer *timer)
{
    (void)timer;
    fail();
}

static void test_kill_resets_and_forgets(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5};
    struct io_addr addr = address(7000);
    struct io_timer timer = {.fire = timer_never};
    struct io *dead;

    (void)state;
    echo_start(&echo, sim, &addr);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.in_len, 5);
    dead = sim_node_io(echo.node);
    io_timer_start(dead, &timer, 5);
    sim_node_kill(echo.node);
    assert_false(sim_node_is_running(echo.node));
    assert_false(io_timer_is_running(&timer));
    assert_null(echo.listener.io);
    assert_int_equal(sim_fd_count(sim, echo.node), 0);
    echo_free(&echo);
    io_timer_start(dead, &timer, 5); /* a dead io takes nothing */
    assert_false(io_timer_is_running(&timer));
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.closed_err, -ECONNRESET);
    client_free(&client);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.connect_err, -ECONNREFUSED);
    assert_int_equal(sim_listen(echo.node, &addr, &(int){0}), -ENETDOWN);
    assert_ptr_not_equal(sim_node_start(echo.node), dead);
    sim_destroy(&sim);
}

/* A socket that the master holds keeps the connections that come while no worker lives. */
static void test_kept_listener_survives_the_worker(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5};
    struct io_addr addr = address(7000);
    int fd = echo_start(&echo, sim, &addr);

    (void)state;
    sim_listen_keep(sim, fd);
    sim_node_kill(echo.node);
    client_connect(&client, node, &addr, NULL);
    sim_run_for(sim, SECOND);
    assert_int_equal(client.connected, 1);
    assert_int_equal(client.in_len, 0);
    sim_node_start(echo.node);
    echo_listen(&echo, fd);
    assert_true(sim_run_while_not(sim, &client.is_over, SECOND));
    assert_int_equal(client.in_len, 5);
    client_free(&client);
    assert_true(sim_run_idle(sim, SECOND));
    echo_free(&echo);
    sim_destroy(&sim);
}

/* The host is gone without a word; when it is back, it knows nothing of the connection. */
static void test_power_cut_is_silent(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5}, second = {0};
    struct io_addr addr;

    (void)state;
    assert_int_equal(io_addr_parse("127.0.1.2", 7000, &addr), 0);
    echo_start(&echo, sim, &addr);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    sim_node_power_cut(echo.node);
    echo_free(&echo);
    client.out_len = 6;
    client.out = "hello!";
    client_send(&client);
    client_connect(&second, node, &addr, NULL);
    sim_run_for(sim, 60 * SECOND);
    assert_int_equal(client.closed, 0);
    assert_int_equal(second.connected, 0);
    sim_node_start(echo.node);
    sim_run_for(sim, 60 * SECOND);
    assert_int_equal(client.closed_err, -ECONNRESET);
    assert_int_equal(second.connect_err, -ECONNREFUSED);
    client_free(&client);
    sim_destroy(&sim);
}

/* Killed inside of its own callback: no callback after it. */
static struct sim_node *suicide_node;

static size_t suicide_recv(struct io_stream *stream, struct bytes data)
{
    (void)stream;
    sim_node_kill(suicide_node);
    return data.len;
}

static void suicide_closed(struct io_stream *stream, int err, struct bytes rest)
{
    (void)stream, (void)err, (void)rest;
    fail();
}

static void test_kill_from_inside_a_callback(void **state)
{
    static const struct io_stream_handler handler = {.recv = suicide_recv,
                                                     .closed = suicide_closed};
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    suicide_node = pair.b;
    pair.far.stream.handler = &handler;
    pair_send(&pair, "x");
    assert_false(io_stream_is_open(&pair.far.stream));
    assert_int_equal(pair.near.closed, 1);
    pair_end(&pair);
}

/* ---- timers, turns, clocks ---------------------------------------------------------------- */

static int timer_order[8];
static int timer_count;
static uint64_t timer_stamps[8];

static void timer_note(struct io_timer *timer)
{
    assert_false(io_timer_is_running(timer));
    timer_stamps[timer_count] = io_now_us(timer->arg);
    timer_order[timer_count++] = (int)timer->private_[7];
}

static void timer_set(struct io *io, struct io_timer *timer, int number, uint64_t delay_ms)
{
    timer->fire = timer_note;
    timer->arg = io;
    timer->private_[7] = (uint64_t)number;
    io_timer_start(io, timer, delay_ms);
}

static void test_timers_fire_in_order(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct io *io = sim_node_io(sim_node_create(sim, "a"));
    struct io_timer timers[5] = {0};
    uint64_t start_us = io_now_us(io);

    (void)state;
    timer_count = 0;
    timer_set(io, &timers[0], 0, 30);
    timer_set(io, &timers[1], 1, 10);
    timer_set(io, &timers[2], 2, 20);
    timer_set(io, &timers[3], 3, 5);
    timer_set(io, &timers[4], 4, 1);
    timer_set(io, &timers[4], 4, 40); /* moves */
    io_timer_stop(&timers[3]);
    io_timer_stop(&timers[3]);
    sim_run_for(sim, SECOND);
    assert_int_equal(timer_count, 4);
    assert_int_equal(timer_order[0], 1);
    assert_int_equal(timer_order[1], 2);
    assert_int_equal(timer_order[2], 0);
    assert_int_equal(timer_order[3], 4);
    for (int i = 0; i < 4; i++) {
        assert_true(timer_stamps[i] >= start_us + 10000 * (uint64_t)(i + 1));
        assert_true(timer_stamps[i] < start_us + 10000 * (uint64_t)(i + 1) + 1000);
    }
    sim_destroy(&sim);
}

/* A stopped process finds all its timers late, in order. */
static void test_pause_bursts_late_timers(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io *io = sim_node_io(node);
    struct io_timer timers[3] = {0};

    (void)state;
    timer_count = 0;
    for (int i = 0; i < 3; i++)
        timer_set(io, &timers[i], i, 10 + (uint64_t)i);
    sim_node_pause(node);
    sim_run_for(sim, SECOND);
    assert_int_equal(timer_count, 0);
    sim_node_resume(node);
    sim_run_for(sim, SECOND / 100);
    assert_int_equal(timer_count, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(timer_order[i], i);
    assert_true(timer_stamps[0] == timer_stamps[2]); /* one turn */
    sim_destroy(&sim);
}

/* The kernel of a stopped process takes what fits; the process sees it when it goes on. */
static void test_pause_lets_the_kernel_receive(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    sim_node_pause(pair.b);
    pair_send(&pair, "abc");
    sim_run_for(pair.sim, SECOND);
    assert_int_equal(pair.far.in_len, 0);
    sim_node_resume(pair.b);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 3);
    pair_end(&pair);
}

struct hook_note {
    struct io_hook hook;
    struct io *io;
    struct io_hook *removes;
    int runs, wakes;
};

static void hook_run(struct io_hook *hook)
{
    struct hook_note *note = CONTAINER_OF(hook, struct hook_note, hook);

    note->runs++;
    if (note->removes != NULL)
        io_hook_remove(note->io, note->removes);
    if (note->wakes > 0) {
        note->wakes--;
        io_wake(note->io);
    }
}

static void test_hooks_end_each_turn(void **state)
{
    struct pair pair;
    struct io *io;
    struct hook_note first = {.hook.run = hook_run}, second = {.hook.run = hook_run};

    (void)state;
    pair_start(&pair, NULL);
    assert_true(sim_run_idle(pair.sim, SECOND));
    io = sim_node_io(pair.b);
    first.io = second.io = io;
    io_hook_add(io, &first.hook);
    io_hook_add(io, &second.hook);
    pair_send(&pair, "abc");
    assert_int_equal(first.runs, 1);
    assert_int_equal(second.runs, 1);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 1); /* nothing happened, no turn */
    first.wakes = 2;
    io_wake(io);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 4);
    first.removes = &second.hook;
    io_wake(io);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 5);
    assert_int_equal(second.runs, 4);
    io_hook_remove(io, &first.hook);
    pair_end(&pair);
}

static void test_clocks_drift_and_jump(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *fast = sim_node_create(sim, "fast"), *slow = sim_node_create(sim, "slow");
    struct io_timer timer = {0};
    uint64_t fast_us = io_now_us(sim_node_io(fast)), slow_us = io_now_us(sim_node_io(slow));
    uint64_t wall_us = io_wall_us(sim_node_io(slow)), before_us;

    (void)state;
    sim_node_clock_rate(fast, 50000);
    sim_node_clock_rate(slow, -50000);
    sim_run_for(sim, 100 * SECOND);
    assert_int_equal(io_now_us(sim_node_io(fast)) - fast_us, 105 * SECOND);
    assert_int_equal(io_now_us(sim_node_io(slow)) - slow_us, 95 * SECOND);
    sim_node_wall_jump(slow, -3600 * (int64_t)SECOND);
    assert_int_equal(io_wall_us(sim_node_io(slow)) - wall_us,
                     (95 - 3600) * (int64_t)SECOND);
    timer_count = 0;
    timer_set(sim_node_io(slow), &timer, 0, 9500);
    before_us = sim_now_us(sim);
    sim_run_until(sim, before_us + 10 * SECOND - 1);
    assert_int_equal(timer_count, 0); /* by the node's clock */
    sim_run_for(sim, SECOND / 100);
    assert_int_equal(timer_count, 1);
    sim_destroy(&sim);
}

static void timer_stop_io(struct io_timer *timer)
{
    io_stop(timer->arg);
}

/* io_run() of one node runs the whole world until that node stops; it takes no turn after that. */
static void test_run_until_stop(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct io *io = sim_node_io(sim_node_create(sim, "a"));
    struct io *other = sim_node_io(sim_node_create(sim, "b"));
    struct io_timer stop = {.fire = timer_stop_io, .arg = io}, timers[2] = {0};

    (void)state;
    timer_count = 0;
    io_timer_start(io, &stop, 50);
    timer_set(other, &timers[0], 1, 20);
    timer_set(io, &timers[1], 2, 80);
    io_run(io);
    assert_int_equal(timer_count, 1);
    assert_int_equal(sim_now_us(sim) / 10000, 5);
    sim_run_for(sim, SECOND);
    assert_int_equal(timer_count, 2);
    sim_destroy(&sim);
}

static void test_stamps_stand_still_in_a_turn(void **state)
{
    struct sim_options options;
    struct sim *sim;
    struct io *io;
    struct io_timer timers[3] = {0};
    uint64_t clock_us;

    (void)state;
    sim_options_calm(&options);
    options.loop.callback_us_max = 1000;
    sim = sim_create(1, &options);
    io = sim_node_io(sim_node_create(sim, "a"));
    timer_count = 0;
    for (int i = 0; i < 3; i++)
        timer_set(io, &timers[i], i, 10);
    sim_run_for(sim, SECOND);
    assert_true(timer_stamps[0] == timer_stamps[2]);
    clock_us = io_clock_us(io);
    assert_true(clock_us == io_now_us(io)); /* outside of a turn: fresh */
    sim_destroy(&sim);
}

/* ---- names -------------------------------------------------------------------------------- */

static ssize_t resolve_result;
static int resolve_count;

static void resolve_done(struct io_op *op)
{
    resolve_result = op->result;
    resolve_count++;
}

static ssize_t resolve_run(struct sim *sim, struct io *io, const char *host, struct io_addr *addrs)
{
    struct io_resolve resolve = {.op.done = resolve_done, .addrs = addrs, .addr_max = 2, .port = 9};

    snprintf(resolve.host, sizeof(resolve.host), "%s", host);
    resolve_count = 0;
    io_resolve_submit(io, &resolve);
    assert_int_equal(resolve_count, 0);
    assert_true(sim_run_idle(sim, 60 * SECOND));
    assert_int_equal(resolve_count, 1);
    assert_null(resolve.io);
    return resolve_result;
}

static void test_names_come_from_the_table(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct io *io = sim_node_io(sim_node_create(sim, "a"));
    struct io_addr addrs[3] = {address(1), address(2), address(3)}, got[2];
    struct io_addr expected = address(9);
    struct io_resolve canceled = {.op.done = resolve_done, .addrs = got, .addr_max = 2,
                                  .host = "one"};

    (void)state;
    sim_name_set(sim, "one", addrs, 1, 0, 0);
    sim_name_set(sim, "three", addrs, 3, 0, 5 * SECOND);
    sim_name_set(sim, "broken", NULL, 0, ERR_AGAIN, 0);
    assert_int_equal(resolve_run(sim, io, "one", got), 1);
    assert_true(io_addr_equal(&got[0], &expected));
    assert_int_equal(resolve_run(sim, io, "three", got), 2);
    assert_int_equal(resolve_run(sim, io, "broken", got), ERR_AGAIN);
    assert_int_equal(resolve_run(sim, io, "unknown", got), ERR_NOT_FOUND);
    assert_int_equal(resolve_run(sim, io, "127.0.0.1", got), 1);
    sim_name_set(sim, "one", NULL, 0, -ETIMEDOUT, 0);
    assert_int_equal(resolve_run(sim, io, "one", got), -ETIMEDOUT);
    resolve_count = 0;
    io_resolve_submit(io, &canceled);
    io_resolve_cancel(&canceled);
    memset(&canceled, 0xff, sizeof(canceled));
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(resolve_count, 0);
    sim_destroy(&sim);
}

/* ---- watches, calls ----------------------------------------------------------------------- */

static int watch_seen;

static void watch_ready(struct io_watch *watch, bool readable, bool writable)
{
    watch_seen += readable + 10 * writable;
    io_watch_stop(watch);
}

static void call_kill(void *arg)
{
    sim_node_kill(arg);
}

static void test_the_driver_calls_and_fires_watches(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io_watch watch = {.ready = watch_ready}, second = {.ready = watch_ready};

    (void)state;
    watch_seen = 0;
    io_watch_start(sim_node_io(node), &watch, 5, true, false);
    io_watch_start(sim_node_io(node), &second, 6, true, false);
    sim_watch_fire(&watch, true, false);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(watch_seen, 1);
    sim_call_at(sim, 10 * SECOND, call_kill, node);
    sim_call_at(sim, 1000 * SECOND, call_kill, node); /* never comes */
    sim_run_until(sim, 9 * SECOND);
    assert_true(sim_node_is_running(node));
    sim_run_until(sim, 10 * SECOND);
    assert_false(sim_node_is_running(node));
    assert_null(second.io);
    sim_destroy(&sim);
}

/* ---- swarm -------------------------------------------------------------------------------- */

/* Whatever is drawn: the bytes are right, the world ends, nothing is left (the sanitizer looks).
 * And everything that can happen does. */
static void test_swarm_of_seeds(void **state)
{
    struct swarm_count count = {0};

    (void)state;
    for (uint64_t seed = 100; seed < 400; seed++)
        MAYBE(swarm_run(seed, seed, &count));
    assert_true(count.finished > 300);
    assert_true(count.partial > 20);
    assert_true(count.reset > 20);
    assert_true(count.refused > 5);
    assert_true(count.timed_out > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_decides_everything),
        cmocka_unit_test(test_random_streams_do_not_disturb_each_other),
        cmocka_unit_test(test_random_of_an_io_is_its_own),
        cmocka_unit_test(test_kill_resets_and_forgets),
        cmocka_unit_test(test_kept_listener_survives_the_worker),
        cmocka_unit_test(test_power_cut_is_silent),
        cmocka_unit_test(test_kill_from_inside_a_callback),
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_pause_bursts_late_timers),
        cmocka_unit_test(test_pause_lets_the_kernel_receive),
        cmocka_unit_test(test_hooks_end_each_turn),
        cmocka_unit_test(test_clocks_drift_and_jump),
        cmocka_unit_test(test_run_until_stop),
        cmocka_unit_test(test_stamps_stand_still_in_a_turn),
        cmocka_unit_test(test_names_come_from_the_table),
        cmocka_unit_test(test_the_driver_calls_and_fires_watches),
        cmocka_unit_test(test_swarm_of_seeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
