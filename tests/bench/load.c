/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator: closed-loop clients, one thread, every reply checked.
 *
 * A client sends `depth` requests in one call, waits for all of their replies, sends the next ones.
 * It runs in slices on command, over connections that stay open between them, so that several
 * proxies can be measured by turns:
 *
 *     stdin       does                                                      stdout
 *     go MS       all clients work for MS milliseconds; then waits          done REQUESTS MICROSECONDS
 *                 until every reply is in: nothing is under way between slices
 *     once COUNT  each client sends one batch, at most COUNT at a time      done REQUESTS MICROSECONDS
 *     send        each client sends one batch                               sent REQUESTS
 *     drain       waits for what `send` asked                               done REQUESTS MICROSECONDS
 *     ports       nothing                                                   ports PORT REQUESTS PORT ...
 *
 * Short connections (--short): connect, one batch, close, again. Client addresses go round
 * 127.0.0.2 ... 127.0.1.254, as one address runs out of ports that are not in TIME_WAIT.
 *
 * Anything unexpected (a wrong byte, a close, ten seconds without a reply) ends the program with 1:
 * figures from a run with errors are worth nothing.
 */
#include "common/base/mem.h"
#include "tests/bench/net.h"
#include "tests/bench/workload.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX      1024
#define RECEIVE_SIZE    (256u << 10)
#define STALL_US        10000000u
#define SHORT_ADDRESSES 509 /* 127.0.0.2 to 127.0.1.254 */

struct client {
    int fd; /* -1: not connected */
    bool wants_write;
    uint32_t first;      /* the frame that the current batch starts with */
    size_t sent, wanted; /* bytes of the batch that are sent; bytes of its replies still to come */
    uint64_t done_count; /* requests answered */
};

struct load {
    struct workload workload;
    const char *host;
    uint16_t port;
    uint32_t client_count, depth;
    bool is_short;
    int epoll;
    struct client *clients; /* owns */
    uint32_t busy_count;    /* clients that wait for replies */
    uint64_t done_count, connect_count;
    char *received; /* owns; RECEIVE_SIZE bytes */

    /* What the current command wants: */
    uint64_t until_us;   /* start new batches before this time */
    uint64_t batch_left; /* and while this is not 0 */
    uint32_t next;       /* once: the next client to start; client_count: all have been */
};

/* The batch's requests are one run of frames: see workload.h. */
static void client_send(struct load *l, struct client *client)
{
    size_t size = l->depth * l->workload.frame_size;
    const char *batch = l->workload.frames + client->first * l->workload.frame_size;
    ssize_t sent = send(client->fd, batch + client->sent, size - client->sent, MSG_NOSIGNAL);
    bool is_cut;

    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        die(errno, "send");
    client->sent += (size_t)MAX(sent, (ssize_t)0);
    is_cut = client->sent < size;
    if (is_cut != client->wants_write) {
        client->wants_write = is_cut;
        net_rewatch(l->epoll, client->fd, is_cut ? EPOLLIN | EPOLLOUT : EPOLLIN, client);
    }
}

/* Does not wait: on loopback the handshake is over when connect() returns, or soon after. */
static void client_connect_short(struct load *l, struct client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    uint32_t host = 0x7f000002u + (uint32_t)(l->connect_count++ % SHORT_ADDRESSES);
    int on = 1;

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        die(errno, "socket");
    address.sin_addr.s_addr = htonl(host);
    if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) != 0 ||
        bind(client->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die(errno, "bind");
    address.sin_port = htons(l->port);
    if (inet_pton(AF_INET, l->host, &address.sin_addr) != 1)
        die(0, "'%s' is not an IPv4 address", l->host);
    if (connect(client->fd, (struct sockaddr *)&address, sizeof(address)) != 0 &&
        errno != EINPROGRESS)
        die(errno, "connect");
    client->wants_write = false;
    net_watch(l->epoll, client->fd, EPOLLIN, client);
}

static void client_start(struct load *l, struct client *client)
{
    if (client->fd < 0)
        client_connect_short(l, client);
    client->first = (client->first + l->depth) % l->workload.frame_count;
    client->sent = 0;
    client->wanted = l->depth * l->workload.reply_size;
    l->busy_count++;
    client_send(l, client);
}

/* Starts what the command still wants, after one client has finished. */
static void start_next(struct load *l, struct client *client, uint64_t now_us)
{
    if (l->next < l->client_count) {
        client_start(l, &l->clients[l->next++]);
    } else if (l->batch_left > 0 && now_us < l->until_us) {
        l->batch_left--;
        client_start(l, client);
    }
}

NORETURN static void die_of_reply(const struct load *l, const struct client *client,
                                  struct bytes chunk, size_t off)
{
    char text[161];
    size_t len = 0;

    for (size_t i = 0; i < chunk.len && len < sizeof(text) - 1; i++)
        text[len++] = isprint((unsigned char)chunk.data[i]) ? chunk.data[i] : '.';
    text[len] = '\0';
    die(0, "client %zu: wrong reply, %zu bytes into it: '%s'", (size_t)(client - l->clients), off,
        text);
}

static void check_replies(const struct load *l, const struct client *client, struct bytes got)
{
    const struct workload *workload = &l->workload;
    size_t off = l->depth * workload->reply_size - client->wanted;

    if (got.len > client->wanted)
        die_of_reply(l, client, bytes_skip(got, client->wanted), off + client->wanted);
    while (got.len > 0) {
        uint32_t index = (uint32_t)(off / workload->reply_size);
        size_t inner = off % workload->reply_size;
        struct bytes chunk = bytes_first(got, workload->reply_size - inner);

        if (!workload_check(workload, client->first + index, inner, chunk))
            die_of_reply(l, client, chunk, inner);
        off += chunk.len;
        got = bytes_skip(got, chunk.len);
    }
}

static void client_read(struct load *l, struct client *client, uint64_t now_us)
{
    ssize_t got = recv(client->fd, l->received, RECEIVE_SIZE, 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        die(got < 0 ? errno : 0, "the connection was closed, %zu bytes of replies are missing",
            client->wanted);
    check_replies(l, client, bytes_of(l->received, (size_t)got));
    client->wanted -= (size_t)got;
    if (client->wanted > 0)
        return;
    l->busy_count--;
    l->done_count += l->depth;
    client->done_count += l->depth;
    if (l->is_short) {
        close(client->fd);
        client->fd = -1;
    }
    start_next(l, client, now_us);
}

/* Until nothing is under way. */
static void work(struct load *l)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);
    uint64_t progress_us = clock_us();

    while (l->busy_count > 0) {
        int count = epoll_wait(l->epoll, events, EVENTS_MAX, 1000);
        uint64_t now_us = clock_us();

        if (count < 0 && errno != EINTR)
            die(errno, "epoll_wait");
        if (count > 0)
            progress_us = now_us;
        else if (now_us - progress_us > STALL_US)
            die(0, "stalled: %u clients wait for replies", l->busy_count);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;

            if ((events[i].events & EPOLLOUT) != 0)
                client_send(l, client);
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
                client_read(l, client, now_us);
        }
    }
    mem_free(events);
}

static void connect_all(struct load *l)
{
    l->clients = must_zalloc(sizeof(struct client) * l->client_count);
    for (uint32_t i = 0; i < l->client_count; i++) {
        struct client *client = &l->clients[i];

        client->fd = -1;
        client->first = (uint32_t)((uint64_t)i * l->workload.frame_count / l->client_count);
        if (l->is_short)
            continue;
        client->fd = net_connect(l->host, l->port);
        net_watch(l->epoll, client->fd, EPOLLIN, client);
        if (i % 64 == 63)
            usleep(1000); /* a full accept queue would cost a second */
    }
}

static void run_for(struct load *l, uint64_t ms, uint64_t request_count)
{
    l->until_us = clock_us() + ms * 1000;
    l->batch_left = (request_count + l->depth - 1) / l->depth;
    l->next = l->client_count;
    for (uint32_t i = 0; i < l->client_count && l->batch_left > 0; i++) {
        l->batch_left--;
        client_start(l, &l->clients[i]);
    }
    work(l);
}

static void run_once(struct load *l, uint32_t window)
{
    l->until_us = 0;
    l->batch_left = 0;
    l->next = MIN(window, l->client_count);
    for (uint32_t i = 0, first = l->next; i < first; i++)
        client_start(l, &l->clients[i]);
}

static void print_ports(const struct load *l)
{
    printf("ports");
    for (uint32_t i = 0; i < l->client_count; i++) {
        struct sockaddr_in address = {0};
        socklen_t len = sizeof(address);

        if (getsockname(l->clients[i].fd, (struct sockaddr *)&address, &len) == 0)
            printf(" %u %llu", ntohs(address.sin_port),
                   (unsigned long long)l->clients[i].done_count);
    }
    printf("\n");
}

static void obey(struct load *l)
{
    char line[64];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint64_t begun_us = clock_us(), before = l->done_count;
        char *argument = strchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        if (argument != NULL)
            *argument++ = '\0';
        if (strcmp(line, "ports") == 0) {
            print_ports(l);
        } else if (strcmp(line, "send") == 0) {
            run_once(l, l->client_count);
            printf("sent %llu\n", (unsigned long long)l->busy_count * l->depth);
        } else {
            if (strcmp(line, "go") == 0 && argument != NULL)
                run_for(l, option_number("go", argument, 1, 3600000), UINT32_MAX);
            else if (strcmp(line, "once") == 0 && argument != NULL)
                run_once(l, (uint32_t)option_number("once", argument, 1, UINT32_MAX));
            else if (strcmp(line, "drain") != 0)
                die(0, "unknown command '%s'", line);
            work(l);
            printf("done %llu %llu\n", (unsigned long long)(l->done_count - before),
                   (unsigned long long)(clock_us() - begun_us));
        }
        fflush(stdout);
    }
}

enum { OPT_HOST = 1, OPT_PORT, OPT_CLIENTS, OPT_DEPTH, OPT_COMMAND, OPT_KEYS, OPT_VALUE_SIZE,
       OPT_MGET_KEYS, OPT_SECONDS, OPT_REQUESTS, OPT_SHORT, OPT_SIZES };

static const char usage[] =
    "usage: load --port N [--host ADDRESS] [--clients N] [--depth N] [--keys N] [--value-size N]\n"
    "            [--command get|set|mget|mc-get|mc-set|mc-mget] [--mget-keys N] [--short]\n"
    "            [--seconds N | --requests N | --sizes]\n"
    "Without the last three it takes commands from standard input (see tests/bench/README.md).\n"
    "--sizes prints the size of a request and of a reply, and does nothing else.";

struct options {
    uint32_t mget_keys;
    uint64_t seconds, requests;
    bool sizes;
};

static void parse_options(struct load *l, struct options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, OPT_HOST},
        {"port", required_argument, NULL, OPT_PORT},
        {"clients", required_argument, NULL, OPT_CLIENTS},
        {"depth", required_argument, NULL, OPT_DEPTH},
        {"command", required_argument, NULL, OPT_COMMAND},
        {"keys", required_argument, NULL, OPT_KEYS},
        {"value-size", required_argument, NULL, OPT_VALUE_SIZE},
        {"mget-keys", required_argument, NULL, OPT_MGET_KEYS},
        {"seconds", required_argument, NULL, OPT_SECONDS},
        {"requests", required_argument, NULL, OPT_REQUESTS},
        {"short", no_argument, NULL, OPT_SHORT},
        {"sizes", no_argument, NULL, OPT_SIZES},
        {NULL, 0, NULL, 0},
    };
    struct workload *w = &l->workload;
    int option, which = 0;

    while ((option = getopt_long(argc, argv, "", options, &which)) != -1) {
        const char *name = options[which].name;

        if (option == OPT_HOST)
            l->host = optarg;
        else if (option == OPT_PORT)
            l->port = (uint16_t)option_number(name, optarg, 1, 65535);
        else if (option == OPT_CLIENTS)
            l->client_count = (uint32_t)option_number(name, optarg, 1, 1000000);
        else if (option == OPT_DEPTH)
            l->depth = (uint32_t)option_number(name, optarg, 1, 65536);
        else if (option == OPT_KEYS)
            w->key_count = (uint32_t)option_number(name, optarg, 1, 10000000);
        else if (option == OPT_VALUE_SIZE)
            w->value_size = (uint32_t)option_number(name, optarg, KEY_SIZE, 1u << 20);
        else if (option == OPT_MGET_KEYS)
            o->mget_keys = (uint32_t)option_number(name, optarg, 1, 10000);
        else if (option == OPT_SECONDS)
            o->seconds = option_number(name, optarg, 1, 3600);
        else if (option == OPT_REQUESTS)
            o->requests = option_number(name, optarg, 1, UINT32_MAX);
        else if (option == OPT_SHORT)
            l->is_short = true;
        else if (option == OPT_SIZES)
            o->sizes = true;
        else if (option != OPT_COMMAND || !workload_command_of(optarg, &w->command))
            die(0, "%s", usage);
    }
    if (optind != argc || (l->port == 0 && !o->sizes))
        die(0, "%s", usage);
}

int main(int argc, char **argv)
{
    struct load l = {.host = "127.0.0.1",
                     .client_count = 50,
                     .depth = 1,
                     .workload = {.key_count = 10000, .value_size = 100, .keys_per_request = 1}};
    struct options o = {.mget_keys = 100};
    uint64_t begun_us;

    parse_options(&l, &o, argc, argv);
    if (l.workload.command == WORKLOAD_MGET || l.workload.command == WORKLOAD_MC_MGET)
        l.workload.keys_per_request = o.mget_keys;
    workload_init(&l.workload, l.depth);
    l.received = must_alloc(RECEIVE_SIZE);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (o.sizes) {
        printf("%zu %zu\n", l.workload.frame_size, l.workload.reply_size);
    } else {
        connect_all(&l);
        if (o.seconds == 0 && o.requests == 0) {
            printf("ready %u\n", l.client_count);
            fflush(stdout);
            obey(&l);
        } else {
            begun_us = clock_us();
            run_for(&l, (o.seconds == 0 ? 3600 : o.seconds) * 1000,
                    o.requests == 0 ? UINT64_MAX / 2 : o.requests);
            printf("done %llu %llu\n", (unsigned long long)l.done_count,
                   (unsigned long long)(clock_us() - begun_us));
        }
    }
    close(l.epoll);
    mem_free(l.clients);
    mem_free(l.received);
    workload_deinit(&l.workload);
    return 0;
}
