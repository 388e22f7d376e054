/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The responder: a stand-in for redis-server and memcached that answers from nothing.
 *
 * GET, MGET and get give each key a value of one size that starts with the key (what the load
 * generator stores in a real server); SET and set are acknowledged and forgotten. It leaves more of
 * the core to the proxy under test, so a slice may be shorter. Both protocols, told apart by a
 * connection's first byte.
 *
 * With --turns it looks at its thread's CPU clock at the beginning and the end of each turn of its loop, and says at
 * SIGTERM: turns COUNT OVER-A-MILLISECOND LONGEST-MICROSECONDS. What such a loop shows is the machine's.
 *
 * With --work-ns and --memory each request takes that much longer, in which it looks at WORK_TOUCHES places of that
 * memory: for a machine that stops who uses much of its processors, or is slow to find memory again. A turn is of
 * WORK_EVENTS clients then, so that the work by itself is far from a millisecond where memory is near.
 */
#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "tests/bench/net.h"
#include "tests/bench/words.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX   1024
#define RECEIVE_SIZE (256u << 10)
#define LONG_TURN_US 1000u
#define WORK_TOUCHES 4u  /* as a SET: an index's bucket, an old entry, a new one, a log */
#define WORK_EVENTS  16

struct client {
    int fd;
    bool wants_write;
    struct queue in, out;
};

struct turns {
    bool are_counted;
    uint64_t count, long_count, us_max; /* of the thread's CPU time */
};

struct work {
    uint64_t ns;     /* for each request; 0: none */
    char *memory;    /* owns */
    size_t size;
    uint64_t random;
};

struct responder {
    int listener, epoll;
    struct turns turns;
    struct work work;
    char *value; /* owns; x's: what follows the key */
    uint32_t value_size;
    struct words words; /* borrow from the client's input while one request is answered */
};

static void work_open(struct work *work)
{
    work->memory = must_alloc(work->size);
    memset(work->memory, 1, work->size);
    work->random = 1;
}

static void work_do(struct work *work)
{
    uint64_t until_ns = clock_ns() + work->ns;

    for (unsigned i = 0; i < WORK_TOUCHES && work->size > 0; i++)
        ((volatile char *)work->memory)[next_random(&work->random) % work->size]++;
    while (clock_ns() < until_ns)
        continue;
}

static void add(struct client *client, struct bytes text)
{
    queue_append(&client->out, text.data, text.len);
}

static void add_value(const struct responder *r, struct client *client, struct bytes key)
{
    struct bytes start = bytes_first(key, r->value_size);

    add(client, start);
    add(client, bytes_of(r->value, r->value_size - start.len));
    add(client, BYTES("\r\n"));
}

static void add_bulk(const struct responder *r, struct client *client, struct bytes key)
{
    char head[32];

    add(client, bytes_of(head, (size_t)snprintf(head, sizeof(head), "$%u\r\n", r->value_size)));
    add_value(r, client, key);
}

static enum words_result answer_redis(struct responder *r, struct client *client, struct bytes *input)
{
    const struct bytes *words = r->words.word;
    enum words_result result = words_take_redis(input, &r->words);
    char head[32];

    if (result != WORDS_OK)
        return result;
    if (bytes_equal_nocase(words[0], BYTES("get")) && r->words.count == 2) {
        add_bulk(r, client, words[1]);
    } else if (bytes_equal_nocase(words[0], BYTES("mget"))) {
        add(client, bytes_of(head, (size_t)snprintf(head, sizeof(head), "*%u\r\n",
                                                    r->words.count - 1)));
        for (uint32_t i = 1; i < r->words.count; i++)
            add_bulk(r, client, words[i]);
    } else if (bytes_equal_nocase(words[0], BYTES("ping"))) {
        add(client, BYTES("+PONG\r\n"));
    } else if (bytes_equal_nocase(words[0], BYTES("set")) ||
               bytes_equal_nocase(words[0], BYTES("select")) ||
               bytes_equal_nocase(words[0], BYTES("client"))) {
        add(client, BYTES("+OK\r\n"));
    } else {
        add(client, BYTES("-ERR unknown command\r\n"));
    }
    return WORDS_OK;
}

static enum words_result answer_memcache(struct responder *r, struct client *client, struct bytes *input)
{
    const struct bytes *words = r->words.word;
    struct bytes at = *input;
    enum words_result result = words_take_line(&at, &r->words);
    uint64_t size;
    char head[32];

    if (result != WORDS_OK)
        return result;
    if (bytes_equal(words[0], BYTES("get"))) {
        for (uint32_t i = 1; i < r->words.count; i++) {
            add(client, BYTES("VALUE "));
            add(client, words[i]);
            add(client,
                bytes_of(head, (size_t)snprintf(head, sizeof(head), " 0 %u\r\n", r->value_size)));
            add_value(r, client, words[i]);
        }
        add(client, BYTES("END\r\n"));
    } else if (bytes_equal(words[0], BYTES("set"))) {
        if (r->words.count < 5 || !bytes_to_u64(words[4], WORDS_SIZE_MAX, &size))
            return WORDS_BAD;
        if (at.len < size + 2)
            return WORDS_MORE;
        at = bytes_skip(at, size + 2);
        if (r->words.count == 5)
            add(client, BYTES("STORED\r\n"));
    } else if (bytes_equal(words[0], BYTES("version"))) {
        add(client, BYTES("VERSION 1.6.18\r\n"));
    } else if (bytes_equal(words[0], BYTES("mn"))) {
        add(client, BYTES("MN\r\n"));
    } else {
        add(client, BYTES("ERROR\r\n"));
    }
    *input = at;
    return WORDS_OK;
}

static void client_close(struct client *client)
{
    close(client->fd);
    queue_deinit(&client->in);
    queue_deinit(&client->out);
    mem_free(client);
}

static void client_flush(struct responder *r, struct client *client)
{
    if (!net_flush(r->epoll, client->fd, &client->out, &client->wants_write, client))
        client_close(client);
}

static void client_read(struct responder *r, struct client *client)
{
    enum words_result result = WORDS_OK;
    struct bytes input;
    ssize_t got;

    queue_reserve(&client->in, RECEIVE_SIZE);
    got = recv(client->fd, client->in.data + client->in.end, RECEIVE_SIZE, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client_close(client);
        return;
    }
    client->in.end += (size_t)got;
    input = bytes_of(client->in.data + client->in.start, queue_len(&client->in));
    while (input.len > 0 && result == WORDS_OK) {
        result = input.data[0] == '*' ? answer_redis(r, client, &input)
                                      : answer_memcache(r, client, &input);
        if (r->work.ns != 0 && result == WORDS_OK)
            work_do(&r->work);
    }
    client->in.start = client->in.end - input.len;
    if (input.len == 0)
        client->in.start = client->in.end = 0;
    if (result == WORDS_BAD)
        client_close(client);
    else
        client_flush(r, client);
}

static void accept_all(struct responder *r)
{
    int fd;

    while ((fd = net_accept(r->listener)) >= 0) {
        struct client *client = must_zalloc(sizeof(*client));

        client->fd = fd;
        net_watch(r->epoll, fd, EPOLLIN, client);
    }
}

static void serve(struct responder *r, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;

        if (client == NULL)
            accept_all(r);
        else if (events[i].events == EPOLLOUT)
            client_flush(r, client);
        else
            client_read(r, client);
    }
}

static uint64_t cpu_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void serve_counted(struct responder *r, const struct epoll_event *events, int count)
{
    struct turns *turns = &r->turns;
    uint64_t begun_us = cpu_us(), took_us;

    serve(r, events, count);
    took_us = cpu_us() - begun_us;
    turns->count++;
    turns->long_count += took_us > LONG_TURN_US;
    turns->us_max = MAX(turns->us_max, took_us);
}

static volatile sig_atomic_t is_ended;

static void end(int signal_number)
{
    (void)signal_number;
    is_ended = 1;
}

static void run(struct responder *r)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);

    while (!is_ended) {
        int count = net_wait(r->epoll, events, r->work.ns != 0 ? WORK_EVENTS : EVENTS_MAX);

        if (r->turns.are_counted)
            serve_counted(r, events, count);
        else
            serve(r, events, count);
    }
    mem_free(events);
}

NORETURN static void die_of_usage(void)
{
    die(0, "usage: responder --port N [--host ADDRESS] [--value-size BYTES] [--turns] [--work-ns N] [--memory BYTES]");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},
        {"port", required_argument, NULL, 'p'},
        {"value-size", required_argument, NULL, 'v'},
        {"turns", no_argument, NULL, 't'},
        {"work-ns", required_argument, NULL, 'w'},
        {"memory", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    const char *host = "127.0.0.1";
    uint16_t port = 0;
    struct responder r = {.value_size = 100};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            host = optarg;
        else if (option == 'p')
            port = (uint16_t)option_number("port", optarg, 1, 65535);
        else if (option == 'v')
            r.value_size = (uint32_t)option_number("value-size", optarg, 1, WORDS_SIZE_MAX);
        else if (option == 't')
            r.turns.are_counted = true;
        else if (option == 'w')
            r.work.ns = option_number("work-ns", optarg, 0, 1000000);
        else if (option == 'm')
            r.work.size = (size_t)option_number("memory", optarg, 0, 1ull << 40);
        else
            die_of_usage();
    }
    if (port == 0 || optind != argc)
        die_of_usage();
    if (r.turns.are_counted)
        sigaction(SIGTERM, &(struct sigaction){.sa_handler = end}, NULL);
    r.value = must_alloc(r.value_size);
    memset(r.value, 'x', r.value_size);
    work_open(&r.work);
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    r.listener = net_listen(host, port);
    net_watch(r.epoll, r.listener, EPOLLIN, NULL);
    run(&r);
    printf("turns %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", r.turns.count, r.turns.long_count, r.turns.us_max);
    mem_free(r.work.memory);
    mem_free(r.value);
    return 0;
}
