/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load generator for any Redis command: one thread, replies counted and looked at for errors (`load` checks
 * every byte, but knows only gets and sets).
 *
 * A command is a template, one argument a word: %k a key ("key:000000001234"), %m a member
 * ("member:00000042"), %v a value, %n a number below --members. "+" between words begins another command; they
 * take turns. Requests are prepared before the start, in an order that every run repeats; with --fresh they are
 * made when they are sent, so that they reach every key. --zipf 99: keys by Zipf's law with exponent 0.99.
 *
 *     stdin         does                                                      stdout
 *     go MS         closed loop: a client sends --depth requests, waits for   done REQUESTS MICROSECONDS
 *                   the replies, sends the next ones
 *     pace RATE MS  open loop: RATE requests a second, --depth at a time on   paced REQUESTS P50 P99 P99.9 MAX
 *                   whichever client has none under way; microseconds from
 *                   when a request was due, so what waits for a client counts
 */
#include "common/base/mem.h"
#include "common/proto/resp.h"
#include "tests/bench/net.h"
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX       1024
#define RECEIVE_SIZE     (256u << 10)
#define STALL_US         10000000u
#define FRAMES_BYTES_MAX (2u << 20)
#define WORDS_MAX        32
#define SECOND_NS        1000000000u
#define PACED_MAX        (64u << 20)

struct client {
    int fd;
    bool wants_write;
    uint32_t first;
    const char *batch;  /* borrows: of the prepared frames, or of `fresh` */
    size_t sent, size;  /* of the batch */
    struct queue fresh;
    uint64_t due_ns;    /* pace: when its request should have left */
    uint32_t replies;   /* still to come */
    struct resp_reply_parser parser;
    struct queue rest;  /* bytes of a reply's header that came in pieces */
};

struct command_load {
    const char *host;
    uint16_t port;
    uint32_t client_count, depth, key_count, member_count, value_size;
    char *words[WORDS_MAX];
    int word_count, word_next; /* word_next: the template whose turn it is */
    bool is_fresh;
    struct {
        double theta, alpha, eta, zeta; /* theta 0: all keys alike */
    } zipf;
    char *frames;      /* owns; frame_count requests, then the first `depth` ones again */
    size_t *offs;      /* owns; where each begins, and the end */
    uint32_t frame_count;
    uint64_t random, done_count, until_us;
    uint64_t progress_us;
    uint32_t busy_count;
    bool is_paced;
    uint32_t *idle;         /* owns; pace: clients with nothing under way */
    uint32_t idle_count;
    uint32_t *latencies_ns; /* owns; pace: of every request */
    size_t latency_count, latency_cap;
    int epoll;
    struct client *clients; /* owns */
    char *received;         /* owns */
    struct proto_limits limits;
};

/* ---- requests ---- */

/* Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994. */
static void zipf_init(struct command_load *l, double theta)
{
    double n = l->key_count, two = 1 + pow(0.5, theta);

    l->zipf.theta = theta;
    for (uint32_t i = 1; i <= l->key_count; i++)
        l->zipf.zeta += pow(i, -theta);
    l->zipf.alpha = 1 / (1 - theta);
    l->zipf.eta = (1 - pow(2 / n, 1 - theta)) / (1 - two / l->zipf.zeta);
}

static uint32_t key_draw(struct command_load *l, uint64_t random)
{
    double u = (double)(random >> 11) / (double)(1ull << 53), uz = u * l->zipf.zeta;
    uint64_t rank;

    if (l->zipf.theta == 0)
        return (uint32_t)(random % l->key_count);
    if (uz < 1)
        rank = 0;
    else if (uz < 1 + pow(0.5, l->zipf.theta))
        rank = 1;
    else
        rank = (uint64_t)(l->key_count * pow(l->zipf.eta * u - l->zipf.eta + 1, l->zipf.alpha));
    /* A prime above any key count: each rank is a key of its own, and the popular ones are not neighbours. */
    return (uint32_t)(MIN(rank, (uint64_t)l->key_count - 1) * 2654435761u % l->key_count);
}

static void word_compose(struct command_load *l, const char *word, struct queue *out)
{
    char text[64];
    int len = -1;
    uint64_t number = next_random(&l->random);

    if (strcmp(word, "%k") == 0)
        len = snprintf(text, sizeof(text), "key:%012u", key_draw(l, number));
    else if (strcmp(word, "%m") == 0)
        len = snprintf(text, sizeof(text), "member:%08u", (unsigned)(number % l->member_count));
    else if (strcmp(word, "%n") == 0)
        len = snprintf(text, sizeof(text), "%u", (unsigned)(number % l->member_count));
    if (len >= 0) {
        char head[32];

        queue_append(out, head, (size_t)snprintf(head, sizeof(head), "$%d\r\n", len));
        queue_append(out, text, (size_t)len);
    } else {
        bool is_value = strcmp(word, "%v") == 0;
        size_t size = is_value ? l->value_size : strlen(word);
        char head[32], *value = must_alloc(size + 1);

        memset(value, 'x', size);
        if (!is_value)
            memcpy(value, word, size);
        queue_append(out, head, (size_t)snprintf(head, sizeof(head), "$%zu\r\n", size));
        queue_append(out, value, size);
        mem_free(value);
    }
    queue_append(out, "\r\n", 2);
}

static void frame_compose(struct command_load *l, struct queue *out)
{
    char head[32];
    int first = l->word_next, end = first;

    while (end < l->word_count && strcmp(l->words[end], "+") != 0)
        end++;
    queue_append(out, head, (size_t)snprintf(head, sizeof(head), "*%d\r\n", end - first));
    for (int i = first; i < end; i++)
        word_compose(l, l->words[i], out);
    l->word_next = end + 1 < l->word_count ? end + 1 : 0;
}

static void frames_compose(struct command_load *l)
{
    struct queue out = {0};
    uint32_t cap = 1u << 16;

    l->offs = must_alloc(sizeof(size_t) * (cap + l->depth + 1));
    while (l->frame_count < cap && queue_len(&out) < FRAMES_BYTES_MAX) {
        l->offs[l->frame_count++] = queue_len(&out);
        frame_compose(l, &out);
    }
    /* So that a batch that begins with the last one is a run of bytes, too. */
    for (uint32_t i = 0; i <= l->depth; i++) {
        size_t from = l->offs[i % l->frame_count], to;

        l->offs[l->frame_count + i] = queue_len(&out);
        to = l->offs[i % l->frame_count + 1];
        queue_reserve(&out, to - from);
        queue_append(&out, out.data + from, to - from);
    }
    l->frames = out.data;
}

/* ---- clients ---- */

static void client_send(struct command_load *l, struct client *client)
{
    ssize_t sent = send(client->fd, client->batch + client->sent, client->size - client->sent, MSG_NOSIGNAL);
    bool is_cut;

    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        die(errno, "send");
    client->sent += (size_t)MAX(sent, (ssize_t)0);
    is_cut = client->sent < client->size;
    if (is_cut != client->wants_write) {
        client->wants_write = is_cut;
        net_rewatch(l->epoll, client->fd, is_cut ? EPOLLIN | EPOLLOUT : EPOLLIN, client);
    }
}

static void client_start(struct command_load *l, struct client *client)
{
    if (l->is_fresh) {
        client->fresh.start = client->fresh.end = 0;
        for (uint32_t i = 0; i < l->depth; i++)
            frame_compose(l, &client->fresh);
        client->batch = client->fresh.data;
        client->size = queue_len(&client->fresh);
    } else {
        client->first = (client->first + l->depth) % l->frame_count;
        client->batch = l->frames + l->offs[client->first];
        client->size = l->offs[client->first + l->depth] - l->offs[client->first];
    }
    client->sent = 0;
    client->replies = l->depth;
    l->busy_count++;
    client_send(l, client);
}

/* How many bytes were understood; complete replies are counted. */
static size_t replies_scan(struct command_load *l, struct client *client, struct bytes data)
{
    size_t used = 0;

    while (client->replies > 0 && used < data.len) {
        size_t scanned;
        struct bytes left = bytes_skip(data, used);
        enum parse_result result = resp_reply_scan(&client->parser, &l->limits, left, &scanned);

        if (result == PARSE_BAD || client->parser.type == '-')
            die(0, "an error, or no reply: '%.*s'", (int)MIN(left.len, (size_t)120), left.data);
        used += scanned;
        if (result == PARSE_MORE)
            break;
        client->replies--;
    }
    return used;
}

static void paced_done(struct command_load *l, const struct client *client)
{
    uint64_t took_ns = clock_ns() - client->due_ns;

    if (l->latency_count < l->latency_cap)
        l->latencies_ns[l->latency_count++] = (uint32_t)MIN(took_ns, (uint64_t)UINT32_MAX);
    l->idle[l->idle_count++] = (uint32_t)(client - l->clients);
}

static void client_read(struct command_load *l, struct client *client, uint64_t now_us)
{
    ssize_t got = recv(client->fd, l->received, RECEIVE_SIZE, 0);
    struct bytes data;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        die(got < 0 ? errno : 0, "the connection was closed, %u replies are missing", client->replies);
    data = bytes_of(l->received, (size_t)got);
    if (queue_len(&client->rest) > 0) {
        size_t used;

        queue_append(&client->rest, data.data, data.len);
        used = replies_scan(l, client, bytes_of(client->rest.data + client->rest.start, queue_len(&client->rest)));
        client->rest.start += used;
    } else {
        size_t used = replies_scan(l, client, data);

        if (used < data.len)
            queue_append(&client->rest, data.data + used, data.len - used);
    }
    if (queue_len(&client->rest) == 0)
        client->rest.start = client->rest.end = 0;
    if (client->replies > 0)
        return;
    if (queue_len(&client->rest) > 0)
        die(0, "more replies than requests");
    l->busy_count--;
    l->done_count += l->depth;
    if (l->is_paced)
        paced_done(l, client);
    else if (now_us < l->until_us)
        client_start(l, client);
}

/* Waits, at most so long, and serves who is ready. */
static void work_turn(struct command_load *l, struct epoll_event *events, uint64_t wait_ns)
{
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u)};
    int count = epoll_pwait2(l->epoll, events, EVENTS_MAX, &wait, NULL);
    uint64_t now_us = clock_us();

    if (count > 0 || l->busy_count == 0)
        l->progress_us = now_us;
    else if (now_us - l->progress_us > STALL_US)
        die(0, "stalled: %u clients wait for replies", l->busy_count);
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;

        if ((events[i].events & EPOLLOUT) != 0)
            client_send(l, client);
        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
            client_read(l, client, now_us);
    }
}

static void work(struct command_load *l)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);

    l->progress_us = clock_us();
    while (l->busy_count > 0)
        work_turn(l, events, SECOND_NS);
    mem_free(events);
}

static void work_paced(struct command_load *l, uint64_t rate, uint64_t ms)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);
    uint64_t now_ns = clock_ns(), begun_ns = now_ns, issued = 0;
    uint64_t count = MAX(rate * ms / 1000 / l->depth, (uint64_t)1);

    l->progress_us = clock_us();
    while (issued < count || l->busy_count > 0) {
        uint64_t due_ns = begun_ns + issued * l->depth * SECOND_NS / rate;
        bool can_issue = issued < count && l->idle_count > 0;

        if (can_issue && due_ns <= now_ns) {
            struct client *client = &l->clients[l->idle[--l->idle_count]];

            client->due_ns = due_ns;
            issued++;
            client_start(l, client);
        } else {
            work_turn(l, events, can_issue ? due_ns - now_ns : SECOND_NS);
        }
        now_ns = clock_ns();
    }
    mem_free(events);
}

static int compare_latency(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static void obey_pace(struct command_load *l, uint64_t rate, uint64_t ms)
{
    size_t n;

    l->latency_cap = MIN(rate * ms / 1000 + 1, (uint64_t)PACED_MAX);
    l->latencies_ns = must_alloc(sizeof(uint32_t) * l->latency_cap);
    l->idle = must_alloc(sizeof(uint32_t) * l->client_count);
    for (l->idle_count = 0; l->idle_count < l->client_count; l->idle_count++)
        l->idle[l->idle_count] = l->idle_count;
    l->latency_count = 0;
    l->is_paced = true;
    work_paced(l, rate, ms);
    l->is_paced = false;
    n = l->latency_count;
    qsort(l->latencies_ns, n, sizeof(uint32_t), compare_latency);
    printf("paced %zu %u %u %u %u\n", n, l->latencies_ns[n / 2] / 1000, l->latencies_ns[n * 99 / 100] / 1000,
           l->latencies_ns[n * 999 / 1000] / 1000, l->latencies_ns[n - 1] / 1000);
    mem_free(l->latencies_ns);
    mem_free(l->idle);
}

static void connect_all(struct command_load *l)
{
    l->clients = must_zalloc(sizeof(struct client) * l->client_count);
    for (uint32_t i = 0; i < l->client_count; i++) {
        l->clients[i].first = (uint32_t)((uint64_t)i * l->frame_count / l->client_count);
        l->clients[i].fd = net_connect(l->host, l->port);
        net_watch(l->epoll, l->clients[i].fd, EPOLLIN, &l->clients[i]);
    }
}

static void obey(struct command_load *l)
{
    char line[64];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint64_t begun_us = clock_us(), before = l->done_count;
        char *argument = strchr(line, ' '), *second;

        line[strcspn(line, "\n")] = '\0';
        if (argument == NULL)
            die(0, "unknown command '%s'", line);
        *argument++ = '\0';
        second = strchr(argument, ' ');
        if (second != NULL)
            *second++ = '\0';
        if (strcmp(line, "pace") == 0 && second != NULL) {
            obey_pace(l, option_number("pace", argument, 1, 10000000), option_number("pace", second, 1, 3600000));
        } else if (strcmp(line, "go") == 0) {
            l->until_us = begun_us + option_number("go", argument, 1, 3600000) * 1000;
            for (uint32_t i = 0; i < l->client_count; i++)
                client_start(l, &l->clients[i]);
            work(l);
            printf("done %llu %llu\n", (unsigned long long)(l->done_count - before),
                   (unsigned long long)(clock_us() - begun_us));
        } else {
            die(0, "unknown command '%s'", line);
        }
        fflush(stdout);
    }
}

static const char usage[] =
    "usage: command_load --port N [--host ADDRESS] [--clients N] [--depth N] [--keys N] [--members N]\n"
    "                    [--value-size N] [--fresh] [--zipf PERCENT] -- WORD... [+ WORD...]\n"
    "%k: a key, %m: a member, %v: a value, %n: a number. Takes commands from standard input.";

enum { OPT_HOST = 1, OPT_PORT, OPT_CLIENTS, OPT_DEPTH, OPT_KEYS, OPT_MEMBERS, OPT_VALUE_SIZE,
       OPT_FRESH, OPT_ZIPF };

static void parse_options(struct command_load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, OPT_HOST},       {"port", required_argument, NULL, OPT_PORT},
        {"clients", required_argument, NULL, OPT_CLIENTS}, {"depth", required_argument, NULL, OPT_DEPTH},
        {"keys", required_argument, NULL, OPT_KEYS},       {"members", required_argument, NULL, OPT_MEMBERS},
        {"value-size", required_argument, NULL, OPT_VALUE_SIZE},
        {"fresh", no_argument, NULL, OPT_FRESH},           {"zipf", required_argument, NULL, OPT_ZIPF},
        {NULL, 0, NULL, 0},
    };
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
            l->key_count = (uint32_t)option_number(name, optarg, 1, 100000000);
        else if (option == OPT_MEMBERS)
            l->member_count = (uint32_t)option_number(name, optarg, 1, 100000000);
        else if (option == OPT_VALUE_SIZE)
            l->value_size = (uint32_t)option_number(name, optarg, 0, 1u << 20);
        else if (option == OPT_FRESH)
            l->is_fresh = true;
        else if (option == OPT_ZIPF)
            l->zipf.theta = (double)option_number(name, optarg, 1, 99) / 100;
        else
            die(0, "%s", usage);
    }
    l->word_count = argc - optind;
    if (l->word_count < 1 || l->word_count > WORDS_MAX || l->port == 0)
        die(0, "%s", usage);
    memcpy(l->words, argv + optind, sizeof(char *) * (size_t)l->word_count);
}

int main(int argc, char **argv)
{
    struct command_load l = {
        .host = "127.0.0.1", .client_count = 50, .depth = 1, .key_count = 10000, .member_count = 1000,
        .value_size = 100, .random = 88172645463325252u,
    };

    parse_options(&l, argc, argv);
    l.limits = (struct proto_limits)PROTO_LIMITS_DEFAULT;
    if (l.zipf.theta != 0)
        zipf_init(&l, l.zipf.theta);
    if (!l.is_fresh)
        frames_compose(&l);
    /* pace: a timer that is 50 microseconds late would be the server's latency. */
    prctl(PR_SET_TIMERSLACK, 1UL);
    l.received = must_alloc(RECEIVE_SIZE);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    connect_all(&l);
    printf("ready %u\n", l.client_count);
    fflush(stdout);
    obey(&l);
    close(l.epoll);
    return 0;
}
