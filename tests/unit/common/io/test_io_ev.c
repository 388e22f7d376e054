/* SPDX-License-Identifier: Apache-2.0 */
/* The loop (turns, timers, hooks), listeners, watches and names of io_ev. */
#include "tests/unit/common/io/io_ev_test.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/resource.h>

static int setup(void **state)
{
    static struct loop loop;

    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_NONE});
    *state = &loop;
    return 0;
}

static int teardown(void **state)
{
    loop_close(*state);
    return 0;
}

/* ---- timers ------------------------------------------------------------------------------- */

struct tick {
    struct io_timer timer;
    struct loop *loop;
    char name;
    char *trace;
    bool is_last;
    uint64_t due_us;
};

static void tick_fire(struct io_timer *timer)
{
    struct tick *tick = CONTAINER_OF(timer, struct tick, timer);
    size_t len = strlen(tick->trace);

    assert_false(io_timer_is_running(timer));
    assert_true(io_now_us(tick->loop->io) >= tick->due_us);
    assert_int_equal(io_now_ms(tick->loop->io), io_now_us(tick->loop->io) / 1000);
    tick->trace[len] = tick->name;
    tick->trace[len + 1] = '\0';
    if (tick->is_last)
        io_stop(tick->loop->io);
}

static void tick_start(struct tick *tick, struct loop *loop, char name, char *trace, uint64_t ms)
{
    tick->loop = loop;
    tick->name = name;
    tick->trace = trace;
    tick->timer.fire = tick_fire;
    io_timer_start(loop->io, &tick->timer, ms);
    tick->due_us = io_now_us(loop->io) + ms * 1000;
}

static void test_timers_fire_in_order_and_never_early(void **state)
{
    struct loop *loop = *state;
    struct tick a = {0}, b = {0}, c = {0}, moved = {0}, stopped = {0};
    char trace[16] = "";

    c.is_last = true;
    tick_start(&c, loop, 'c', trace, 40);
    tick_start(&moved, loop, 'm', trace, 1);
    tick_start(&a, loop, 'a', trace, 0);
    tick_start(&b, loop, 'b', trace, 10);
    tick_start(&stopped, loop, 's', trace, 5);
    assert_true(io_timer_is_running(&stopped.timer));
    io_timer_stop(&stopped.timer);
    io_timer_stop(&stopped.timer);
    assert_false(io_timer_is_running(&stopped.timer));
    tick_start(&moved, loop, 'm', trace, 25);
    loop_run(loop);
    assert_string_equal(trace, "abmc");
}

static void test_clocks_and_random_numbers(void **state)
{
    struct loop *loop = *state;
    uint64_t seen[200];
    uint64_t before = io_clock_us(loop->io);

    assert_true(io_clock_us(loop->io) >= before);
    assert_true(io_wall_us(loop->io) > UINT64_C(1600000000) * 1000000);
    for (size_t i = 0; i < ARRAY_COUNT(seen); i++) {
        seen[i] = io_random64(loop->io);
        for (size_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
}

/* ---- hooks -------------------------------------------------------------------------------- */

struct count_hook {
    struct io_hook hook;
    struct loop *loop;
    struct count_hook *other;
    int run_count, wake_until, stop_at;
    bool yields;
    uint64_t works_us; /* so long each run takes */
    int *order;
    int ran_as;
};

static void count_hook_run(struct io_hook *hook)
{
    struct count_hook *count = CONTAINER_OF(hook, struct count_hook, hook);
    uint64_t begun_us = io_clock_us(count->loop->io);

    while (io_clock_us(count->loop->io) - begun_us < count->works_us)
        continue;
    count->run_count++;
    count->ran_as = ++*count->order;
    if (count->other != NULL)
        io_hook_remove(count->loop->io, &count->other->hook);
    if (count->yields)
        io_yield(count->loop->io);
    if (count->run_count < count->wake_until)
        io_wake(count->loop->io);
    if (count->run_count == count->stop_at)
        io_stop(count->loop->io);
}

static void test_hooks_run_in_order_and_wake_makes_turns(void **state)
{
    struct loop *loop = *state;
    int order = 0;
    struct count_hook a = {.hook.run = count_hook_run, .loop = loop, .order = &order};
    struct count_hook b = a;

    b.wake_until = 5;
    b.stop_at = 5;
    io_hook_add(loop->io, &a.hook);
    io_hook_add(loop->io, &b.hook);
    loop_run(loop); /* no descriptor, no timer but the guard: only wakes make turns */
    assert_int_equal(a.run_count, 5);
    assert_int_equal(b.run_count, 5);
    assert_int_equal(a.ran_as + 1, b.ran_as);
    io_hook_remove(loop->io, &a.hook);
    io_hook_remove(loop->io, &a.hook);
    io_hook_remove(loop->io, &b.hook);
}

static int yield_count;

/* In libc's place. */
int sched_yield(void)
{
    yield_count++;
    return 0;
}

/* How often the core was left to others in 50 turns that take so long each and ask for it. */
static int yields_of_turns(struct loop *loop, uint64_t works_us)
{
    int order = 0;
    struct count_hook a = {.hook.run = count_hook_run, .loop = loop, .order = &order};

    yield_count = 0;
    a.yields = true;
    a.works_us = works_us;
    a.wake_until = a.stop_at = 50;
    io_hook_add(loop->io, &a.hook);
    loop_run(loop);
    assert_int_equal(a.run_count, 50);
    io_hook_remove(loop->io, &a.hook);
    return yield_count;
}

/* Once in a quarter of a millisecond of work: not after each turn that takes a moment, but after each long one. The last turn has no
 * end, as it stops the loop. */
static void test_who_yields_goes_on(void **state)
{
    uint64_t begun_us = io_clock_us(((struct loop *)*state)->io);
    int count = yields_of_turns(*state, 0);

    assert_in_range(count, 1, 1 + (io_clock_us(((struct loop *)*state)->io) - begun_us) / 250);
    assert_in_range(yields_of_turns(*state, 251), 49, 50);
}

static void test_a_hook_may_remove_the_next_and_itself(void **state)
{
    struct loop *loop = *state;
    int order = 0;
    struct count_hook a = {.hook.run = count_hook_run, .loop = loop, .order = &order};
    struct count_hook b = a, c = a;

    a.other = &b;
    c.other = &c;
    c.stop_at = 1;
    io_hook_add(loop->io, &a.hook);
    io_hook_add(loop->io, &b.hook);
    io_hook_add(loop->io, &c.hook);
    loop_run(loop);
    assert_int_equal(a.run_count, 1);
    assert_int_equal(b.run_count, 0);
    assert_int_equal(c.run_count, 1);
    io_hook_remove(loop->io, &a.hook);
}

/* Ten milliseconds of nothing: the hooks ran for the start and for the timer. */
static void test_hooks_do_not_run_when_nothing_happens(void **state)
{
    struct loop *loop = *state;
    int order = 0;
    struct count_hook a = {.hook.run = count_hook_run, .loop = loop, .order = &order};

    io_hook_add(loop->io, &a.hook);
    loop_run_ms(loop, 10);
    assert_int_equal(a.run_count, 2);
    io_hook_remove(loop->io, &a.hook);
}

static void test_stop_before_run_does_not_wait(void **state)
{
    struct loop *loop = *state;

    io_stop(loop->io);
    loop_run(loop);
}

/* ---- listeners ---------------------------------------------------------------------------- */

struct door {
    struct io_listener listener;
    struct loop *loop;
    int fds[80];
    int count, stop_at, close_at;
    struct io_addr peer;
};

static void door_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct door *door = CONTAINER_OF(listener, struct door, listener);

    assert_true(door->count < (int)ARRAY_COUNT(door->fds));
    door->fds[door->count++] = fd;
    door->peer = *peer;
    if (door->count == door->close_at)
        io_listener_stop(listener);
    if (door->count == door->stop_at)
        io_stop(door->loop->io);
}

static int listen_open(struct io_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(addr->in);

    assert_true(fd >= 0);
    assert_int_equal(io_addr_parse("127.0.0.1", 0, addr), 0);
    assert_int_equal(bind(fd, &addr->any, addr->len), 0);
    assert_int_equal(listen(fd, 100), 0);
    assert_int_equal(getsockname(fd, &addr->any, &len), 0);
    return fd;
}

static int connect_open(const struct io_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &addr->any, addr->len), 0);
    return fd;
}

static void door_close(struct door *door, const int *clients, int client_count, int listen_fd)
{
    io_listener_stop(&door->listener);
    for (int i = 0; i < door->count; i++)
        close(door->fds[i]);
    for (int i = 0; i < client_count; i++)
        close(clients[i]);
    close(listen_fd);
}

static void accept_seventy(struct loop *loop, bool is_exclusive)
{
    struct door door = {.listener.accepted = door_accepted, .loop = loop, .stop_at = 70};
    struct io_addr addr, local = {.len = sizeof(local.in)};
    int clients[70];
    int fd = listen_open(&addr);

    door.listener.is_exclusive = is_exclusive;
    io_listener_start(loop->io, &door.listener, fd);
    for (int i = 0; i < 70; i++)
        clients[i] = connect_open(&addr);
    loop_run(loop); /* more than one turn's worth */
    assert_int_equal(door.count, 70);
    assert_int_equal(getsockname(clients[69], &local.any, &local.len), 0);
    assert_true(io_addr_equal(&door.peer, &local));
    assert_int_equal(fcntl(door.fds[69], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(door.fds[69], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    door_close(&door, clients, 70, fd);
}

static void test_listener_accepts_all(void **state)
{
    accept_seventy(*state, false);
}

static void test_exclusive_listener_accepts_all(void **state)
{
    accept_seventy(*state, true);
}

/* The connections that are left in the queue are for the next one who listens. */
static void test_listener_may_stop_inside_accepted(void **state)
{
    struct loop *loop = *state;
    struct door door = {.listener.accepted = door_accepted, .loop = loop, .close_at = 2, .stop_at = 2};
    struct io_addr addr;
    int clients[5];
    int fd = listen_open(&addr);

    for (int i = 0; i < 5; i++)
        clients[i] = connect_open(&addr);
    io_listener_start(loop->io, &door.listener, fd);
    loop_run(loop);
    loop_run_ms(loop, 5);
    assert_int_equal(door.count, 2);
    door.stop_at = 5;
    io_listener_start(loop->io, &door.listener, fd);
    loop_run(loop);
    assert_int_equal(door.count, 5);
    door_close(&door, clients, 5, fd);
}

static void count_line(void *arg, int level, const char *line, size_t len)
{
    int *count = arg;

    (void)level, (void)line, (void)len;
    ++*count;
}

struct relief {
    struct io_timer timer;
    rlim_t limit;
};

static void relief_fire(struct io_timer *timer)
{
    struct relief *relief = CONTAINER_OF(timer, struct relief, timer);
    struct rlimit now;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    now.rlim_cur = relief->limit;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
}

/* No descriptors: the loop must neither spin nor lose the connection. Method: count turns. */
static void test_listener_pauses_when_descriptors_run_out(void **state)
{
    struct loop loop;
    struct door door = {.listener.accepted = door_accepted, .loop = &loop, .stop_at = 1};
    struct relief relief = {.timer.fire = relief_fire};
    int order = 0, line_count = 0;
    struct count_hook turns = {.hook.run = count_hook_run, .loop = &loop, .order = &order};
    struct log *log = log_create_sink(count_line, &line_count, LOG_WARN, "test");
    struct io_addr addr;
    struct rlimit limit;
    int client, fd = listen_open(&addr);

    (void)state;
    loop_open(&loop, (struct io_ev_options){.log = log});
    io_listener_start(loop.io, &door.listener, fd);
    io_hook_add(loop.io, &turns.hook);
    client = connect_open(&addr);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    relief.limit = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)client + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    io_timer_start(loop.io, &relief.timer, 250);
    loop_run(&loop);
    assert_int_equal(door.count, 1);
    assert_true(turns.run_count < 20);
    assert_in_range(line_count, 1, 3); /* the limit holds back a fourth */
    io_hook_remove(loop.io, &turns.hook);
    door_close(&door, &client, 1, fd);
    loop_close(&loop);
    log_destroy(&log);
}

/* ---- watches ------------------------------------------------------------------------------ */

struct seen {
    struct io_watch watch;
    struct loop *loop;
    int read_count, write_count;
};

static void seen_ready(struct io_watch *watch, bool readable, bool writable)
{
    struct seen *seen = CONTAINER_OF(watch, struct seen, watch);

    seen->read_count += readable;
    seen->write_count += writable;
    io_stop(seen->loop->io);
}

static void test_watch_tells_readable_and_writable(void **state)
{
    struct loop *loop = *state;
    struct seen seen = {.watch.ready = seen_ready, .loop = loop};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    io_watch_start(loop->io, &seen.watch, pair[0], true, false);
    loop_run_ms(loop, 5);
    assert_int_equal(seen.read_count, 0);
    assert_int_equal(write(pair[1], "x", 1), 1);
    loop_run(loop);
    assert_int_equal(seen.read_count, 1);
    assert_int_equal(seen.write_count, 0);
    io_watch_start(loop->io, &seen.watch, pair[0], false, true);
    loop_run(loop);
    assert_int_equal(seen.read_count, 1);
    assert_int_equal(seen.write_count, 1);
    io_watch_stop(&seen.watch);
    io_watch_stop(&seen.watch);
    loop_run_ms(loop, 5);
    assert_int_equal(seen.write_count, 1);
    close(pair[0]);
    close(pair[1]);
}

/* ---- names -------------------------------------------------------------------------------- */

struct name {
    struct io_resolve resolve;
    struct loop *loop;
    struct io_addr addrs[4];
    int done_count;
};

static void name_done(struct io_op *op)
{
    struct name *name = CONTAINER_OF(op, struct name, resolve.op);

    name->done_count++;
    assert_null(name->resolve.io);
    io_stop(name->loop->io);
}

static void name_init(struct name *name, struct loop *loop, const char *host)
{
    memset(name, 0, sizeof(*name));
    name->loop = loop;
    name->resolve.op.done = name_done;
    name->resolve.addrs = name->addrs;
    name->resolve.addr_max = ARRAY_COUNT(name->addrs);
    name->resolve.port = 4711;
    assert_true(strlen(host) < sizeof(name->resolve.host));
    memcpy(name->resolve.host, host, strlen(host) + 1);
}

static void test_localhost_resolves(void **state)
{
    struct loop *loop = *state;
    struct name name;

    name_init(&name, loop, "localhost");
    io_resolve_submit(loop->io, &name.resolve);
    assert_int_equal(name.done_count, 0);
    loop_run(loop);
    assert_int_equal(name.done_count, 1);
    assert_in_range(name.resolve.op.result, 1, 4);
    for (ssize_t i = 0; i < name.resolve.op.result; i++) {
        assert_true(io_addr_is_loopback(&name.addrs[i]));
        assert_int_equal(ntohs(name.addrs[i].in.sin_port), 4711);
    }
    io_resolve_cancel(&name.resolve); /* nothing runs */
}

static void test_numeric_hosts_need_no_thread(void **state)
{
    struct loop *loop = *state;
    struct name name;

    name_init(&name, loop, "::1");
    io_resolve_submit(loop->io, &name.resolve);
    assert_int_equal(name.done_count, 0); /* from the loop, not from the call */
    loop_run(loop);
    assert_int_equal(name.resolve.op.result, 1);
    assert_int_equal(name.addrs[0].any.sa_family, AF_INET6);
    /* The op is the caller's again. */
    name_init(&name, loop, "127.0.0.1");
    io_resolve_submit(loop->io, &name.resolve);
    loop_run(loop);
    assert_int_equal(name.resolve.op.result, 1);
}

static void test_a_name_that_cannot_be_is_an_error(void **state)
{
    struct loop *loop = *state;
    struct name name;

    name_init(&name, loop, "no..such..name");
    io_resolve_submit(loop->io, &name.resolve);
    loop_run(loop);
    assert_true(name.resolve.op.result < 0);
}

static void test_a_canceled_look_up_is_never_told(void **state)
{
    struct loop *loop = *state;

    for (int i = 0; i < 20; i++) {
        struct name *name = must_alloc(sizeof(*name));

        name_init(name, loop, i % 2 == 0 ? "localhost" : "127.0.0.1");
        io_resolve_submit(loop->io, &name->resolve);
        if (i >= 10)
            loop_run_ms(loop, 0);
        if (name->done_count == 0)
            io_resolve_cancel(&name->resolve);
        mem_free(name); /* a later use is for the sanitizer */
    }
    loop_run_ms(loop, 20);
}

/* Destroying the io while threads are busy frees everything (leak checker). */
static void test_destroy_with_look_ups_under_way(void **state)
{
    struct loop loop;
    struct name names[8];

    (void)state;
    loop_open(&loop, (struct io_ev_options){.start_threads = true});
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        name_init(&names[i], &loop, "localhost");
        io_resolve_submit(loop.io, &names[i].resolve);
    }
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers_fire_in_order_and_never_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clocks_and_random_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hooks_run_in_order_and_wake_makes_turns, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_who_yields_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hook_may_remove_the_next_and_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hooks_do_not_run_when_nothing_happens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_before_run_does_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listener_accepts_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exclusive_listener_accepts_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listener_may_stop_inside_accepted, setup, teardown),
        cmocka_unit_test(test_listener_pauses_when_descriptors_run_out),
        cmocka_unit_test_setup_teardown(test_watch_tells_readable_and_writable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_localhost_resolves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numeric_hosts_need_no_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_name_that_cannot_be_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_canceled_look_up_is_never_told, setup, teardown),
        cmocka_unit_test(test_destroy_with_look_ups_under_way),
    };

    return cmocka_run_group_tests_name("io_ev", tests, NULL, NULL);
}
