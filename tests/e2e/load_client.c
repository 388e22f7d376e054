/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that must not notice anything, for tests of reloads, upgrades and kills.
 *
 *     load_client -p PORT|-u PATH [-m] [-P pipelining] [-d depth] [-S short a second] [-I idle] [-n] [-r seconds]
 *
 * Pipelining ones keep `depth` pairs of SET and GET in flight and never let them all be answered before they
 * send more; short ones connect, set and get, and close; idle ones ask once in two seconds. Every value names
 * its client, so a reply that belongs to somebody else is seen. -m: memcache text instead of Redis. -n: a miss
 * is fine (keys may move). Ends after TERM, when everything sent has been answered, and writes one line of JSON:
 *
 *     {"requests": n, "connections": n, "refused": n, "reset": n, "closed": n, "wrong": n, "silent": n,
 *      "error": n, "slowest_us": n, "first": "what went wrong first"}
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SHORT_MAX   512 /* at once */
#define IN_MAX      65536
#define SILENT_US   20000000
#define DEPTH_MAX   256
#define IDLE_US     2000000

enum kind { PIPELINING, SHORT, IDLE };

struct conn {
    enum kind kind;
    int fd; /* -1: not open */
    uint32_t id;
    uint64_t set_next, get_next;   /* numbers of the pairs: sent, and awaited */
    bool is_set_answered;          /* of the pair get_next */
    uint64_t sent_us[DEPTH_MAX];
    uint64_t at_us;                /* IDLE: when to ask next */
    char *out;
    size_t out_len, out_off, out_cap;
    char in[IN_MAX];
    size_t in_len;
    bool wants_write, is_connecting;
};

struct load {
    int port;
    const char *path;
    bool is_memcache, misses_are_fine, is_ending;
    int pipelining, depth, short_rate, idle;
    struct conn **conns;
    int conns_count, open_count;
    int epoll_fd;
    uint64_t now_us, shorts_begun, start_us;
    uint64_t requests, connections, refused, reset, closed, wrong, silent, error, slowest_us;
    char first[512];
    uint32_t next_id;
};

static volatile sig_atomic_t is_told;

static void on_term(int number)
{
    (void)number;
    is_told = 1;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void note(struct load *load, const struct conn *conn, const char *format, ...)
{
    static const char *const kinds[] = {"pipelining", "short", "idle"};
    char text[256];
    va_list args;
    size_t len;

    if (load->first[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(load->first, sizeof(load->first), "%.3f s: %s %u after %llu: %s",
             (double)(load->now_us - load->start_us) / 1e6, kinds[conn->kind], conn->id,
             (unsigned long long)conn->get_next, text);
    len = strlen(load->first);
    for (size_t i = 0; i < len; i++)
        if (load->first[i] < ' ' || load->first[i] == '"' || load->first[i] == '\\')
            load->first[i] = '.';
}

static void conn_close(struct load *load, struct conn *conn)
{
    if (conn->fd < 0)
        return;
    close(conn->fd);
    conn->fd = -1;
    load->open_count--;
}

static void conn_broken(struct load *load, struct conn *conn, int err)
{
    if (err == 0) {
        load->closed++;
        note(load, conn, "closed");
    } else if (err == ECONNREFUSED || err == ENOENT) {
        load->refused++;
        note(load, conn, "refused");
    } else if (err == ECONNRESET || err == EPIPE) {
        load->reset++;
        note(load, conn, "reset");
    } else {
        load->error++;
        note(load, conn, "%s", strerror(err));
    }
    conn_close(load, conn);
}

static void conn_wrong(struct load *load, struct conn *conn, const char *wanted)
{
    load->wrong++;
    note(load, conn, "wanted %s got %.*s", wanted, (int)(conn->in_len < 80 ? conn->in_len : 80), conn->in);
    conn_close(load, conn);
}

static void conn_watch(struct load *load, struct conn *conn, int op)
{
    struct epoll_event event = {.events = EPOLLIN | (conn->wants_write ? EPOLLOUT : 0), .data.ptr = conn};

    if (epoll_ctl(load->epoll_fd, op, conn->fd, &event) != 0)
        abort();
}

static void conn_flush(struct load *load, struct conn *conn)
{
    bool wants_write;

    while (conn->fd >= 0 && conn->out_off < conn->out_len && !conn->is_connecting) {
        ssize_t sent = send(conn->fd, conn->out + conn->out_off, conn->out_len - conn->out_off, MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN) {
            conn_broken(load, conn, errno);
            return;
        }
        if (sent < 0)
            break;
        conn->out_off += (size_t)sent;
    }
    if (conn->fd < 0)
        return;
    if (conn->out_off == conn->out_len)
        conn->out_off = conn->out_len = 0;
    wants_write = conn->is_connecting || conn->out_off < conn->out_len;
    if (wants_write != conn->wants_write) {
        conn->wants_write = wants_write;
        conn_watch(load, conn, EPOLL_CTL_MOD);
    }
}

/* "k:<pid>:<id>" holds "v:<id>:<number>". */
static void conn_ask(struct load *load, struct conn *conn)
{
    char key[32], value[48], text[256];
    int key_len = snprintf(key, sizeof(key), "k:%d:%u", (int)getpid(), conn->id), len;
    int value_len = snprintf(value, sizeof(value), "v:%u:%llu", conn->id, (unsigned long long)conn->set_next);

    if (load->is_memcache)
        len = snprintf(text, sizeof(text), "set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, value_len, value, key);
    else
        len = snprintf(text, sizeof(text),
                       "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_len,
                       key, value_len, value, key_len, key);
    if (conn->out_len + (size_t)len > conn->out_cap) {
        conn->out_cap = conn->out_cap * 2 + 1024;
        conn->out = realloc(conn->out, conn->out_cap);
        if (conn->out == NULL)
            abort();
    }
    memcpy(conn->out + conn->out_len, text, (size_t)len);
    conn->out_len += (size_t)len;
    conn->sent_us[conn->set_next % DEPTH_MAX] = load->now_us;
    conn->set_next++;
}

/* Length of the next reply if it is what is due; 0: it is not all there; -1: it is wrong. */
static int match(const struct conn *conn, size_t at, const char *wanted, size_t len)
{
    size_t have = conn->in_len - at;

    if (memcmp(conn->in + at, wanted, have < len ? have : len) != 0)
        return -1;
    return have < len ? 0 : (int)len;
}

static int reply_next(const struct load *load, const struct conn *conn, size_t at, char *wanted, size_t cap)
{
    char value[48];
    int value_len = snprintf(value, sizeof(value), "v:%u:%llu", conn->id, (unsigned long long)conn->get_next);
    const char *miss = load->is_memcache ? "END\r\n" : "$-1\r\n";
    int len, found;

    if (!conn->is_set_answered)
        len = snprintf(wanted, cap, "%s", load->is_memcache ? "STORED\r\n" : "+OK\r\n");
    else if (load->is_memcache)
        len = snprintf(wanted, cap, "VALUE k:%d:%u 0 %d\r\n%s\r\nEND\r\n", (int)getpid(), conn->id,
                       value_len, value);
    else
        len = snprintf(wanted, cap, "$%d\r\n%s\r\n", value_len, value);
    found = match(conn, at, wanted, (size_t)len);
    if (found < 0 && conn->is_set_answered && load->misses_are_fine)
        found = match(conn, at, miss, 5);
    return found;
}

static void conn_replies(struct load *load, struct conn *conn)
{
    size_t at = 0;

    while (conn->get_next < conn->set_next) {
        char wanted[160];
        int len = at == conn->in_len ? 0 : reply_next(load, conn, at, wanted, sizeof(wanted));
        uint64_t took_us;

        if (len < 0) {
            memmove(conn->in, conn->in + at, conn->in_len - at);
            conn->in_len -= at;
            conn_wrong(load, conn, wanted);
            return;
        }
        if (len == 0)
            break;
        at += (size_t)len;
        load->requests++;
        conn->is_set_answered = !conn->is_set_answered;
        if (conn->is_set_answered)
            continue;
        took_us = load->now_us - conn->sent_us[conn->get_next % DEPTH_MAX];
        if (took_us > load->slowest_us)
            load->slowest_us = took_us;
        conn->get_next++;
    }
    memmove(conn->in, conn->in + at, conn->in_len - at);
    conn->in_len -= at;
    if (conn->get_next == conn->set_next && conn->in_len > 0)
        conn_wrong(load, conn, "nothing");
}

static void conn_go_on(struct load *load, struct conn *conn)
{
    bool is_all_answered = conn->get_next == conn->set_next;

    if (conn->fd < 0)
        return;
    if (conn->kind == SHORT && is_all_answered) {
        load->connections++;
        conn_close(load, conn);
        return;
    }
    if (load->is_ending) {
        if (is_all_answered)
            conn_close(load, conn);
        return;
    }
    if (conn->kind == PIPELINING)
        while (conn->set_next - conn->get_next < (uint64_t)load->depth)
            conn_ask(load, conn);
    if (conn->kind == IDLE && is_all_answered && load->now_us >= conn->at_us) {
        conn_ask(load, conn);
        conn->at_us = load->now_us + IDLE_US;
    }
    conn_flush(load, conn);
}

static void conn_event(struct load *load, struct conn *conn, uint32_t events)
{
    if (conn->is_connecting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int err = 0;
        socklen_t len = sizeof(err);

        getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err != 0) {
            conn_broken(load, conn, err);
            return;
        }
        conn->is_connecting = false;
        conn_flush(load, conn);
    } else if (events & EPOLLOUT) {
        conn_flush(load, conn);
    }
    if (conn->fd < 0 || !(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        return;
    for (;;) {
        ssize_t got = recv(conn->fd, conn->in + conn->in_len, IN_MAX - conn->in_len, 0);

        if (got < 0 && errno == EAGAIN)
            break;
        if (got <= 0) {
            conn_broken(load, conn, got == 0 ? 0 : errno);
            return;
        }
        conn->in_len += (size_t)got;
        conn_replies(load, conn);
        if (conn->fd < 0)
            return;
    }
    conn_go_on(load, conn);
}

static int socket_open(const struct load *load)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load->port)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1, fd;

    if (load->path != NULL) {
        snprintf(un.sun_path, sizeof(un.sun_path), "%s", load->path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* A unix socket's connect() waits for room in the queue. */
        if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) != 0 ||
            fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
            return -errno;
        return fd;
    }
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    /* Several addresses, so that ports in TIME_WAIT do not run out. */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)load->shorts_begun % 16);
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        (connect(fd, (struct sockaddr *)&in, sizeof(in)) != 0 && errno != EINPROGRESS)) {
        int err = -errno;

        close(fd);
        return err;
    }
    return fd;
}

static void conn_open(struct load *load, struct conn *conn, enum kind kind)
{
    int fd;

    conn->kind = kind;
    conn->id = ++load->next_id;
    conn->set_next = conn->get_next = 0;
    conn->is_set_answered = false;
    conn->out_len = conn->out_off = conn->in_len = 0;
    conn->at_us = 0;
    fd = socket_open(load);
    if (fd < 0) {
        conn->fd = -1;
        load->open_count++;
        conn_broken(load, conn, -fd);
        return;
    }
    conn->fd = fd;
    load->open_count++;
    conn->is_connecting = conn->wants_write = load->path == NULL;
    conn_watch(load, conn, EPOLL_CTL_ADD);
    if (kind == SHORT)
        conn_ask(load, conn);
    if (load->path != NULL)
        conn_go_on(load, conn);
    else if (kind != SHORT)
        conn_go_on(load, conn);
    conn_flush(load, conn);
}

static struct conn *conn_new(struct load *load)
{
    struct conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL)
        abort();
    conn->fd = -1;
    load->conns[load->conns_count++] = conn;
    return conn;
}

static void shorts_begin(struct load *load)
{
    uint64_t due = (load->now_us - load->start_us) * (uint64_t)load->short_rate / 1000000;
    int first = load->pipelining + load->idle, at = first;

    while (load->shorts_begun < due && !load->is_ending) {
        while (at < load->conns_count && load->conns[at]->fd >= 0)
            at++;
        if (at == first + SHORT_MAX) {
            load->shorts_begun = due; /* the machine is too slow for the rate asked for */
            return;
        }
        load->shorts_begun++;
        conn_open(load, at < load->conns_count ? load->conns[at] : conn_new(load), SHORT);
    }
}

static void look_after(struct load *load)
{
    for (int i = 0; i < load->conns_count; i++) {
        struct conn *conn = load->conns[i];

        if (conn->fd < 0)
            continue;
        if (conn->get_next < conn->set_next &&
            load->now_us > conn->sent_us[conn->get_next % DEPTH_MAX] + SILENT_US) {
            load->silent++;
            note(load, conn, "no answer");
            conn_close(load, conn);
        } else if (conn->kind == IDLE || load->is_ending) {
            conn_go_on(load, conn);
        }
    }
}

static void run(struct load *load, double seconds)
{
    struct epoll_event events[256];
    uint64_t look_us = 0;

    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->now_us = load->start_us = now_us();
    for (int i = 0; i < load->pipelining + load->idle; i++)
        conn_open(load, conn_new(load), i < load->pipelining ? PIPELINING : IDLE);
    puts("running");
    fflush(stdout);
    while (!load->is_ending || load->open_count > 0) {
        int count = epoll_wait(load->epoll_fd, events, 256, load->short_rate > 0 ? 1 : 50);

        load->now_us = now_us();
        for (int i = 0; i < count; i++)
            if (((struct conn *)events[i].data.ptr)->fd >= 0)
                conn_event(load, events[i].data.ptr, events[i].events);
        load->is_ending = is_told || (seconds > 0 && load->now_us > load->start_us + (uint64_t)(seconds * 1e6));
        shorts_begin(load);
        if (load->now_us > look_us) {
            look_us = load->now_us + 50000;
            look_after(load);
        }
    }
}

int main(int argc, char **argv)
{
    struct load load = {.depth = 8};
    double seconds = 0;
    int option;

    while ((option = getopt(argc, argv, "p:u:mnP:d:S:I:r:")) != -1)
        switch (option) {
        case 'p':
            load.port = (int)strtol(optarg, NULL, 10);
            break;
        case 'u':
            load.path = optarg;
            break;
        case 'm':
            load.is_memcache = true;
            break;
        case 'n':
            load.misses_are_fine = true;
            break;
        case 'P':
            load.pipelining = (int)strtol(optarg, NULL, 10);
            break;
        case 'd':
            load.depth = (int)strtol(optarg, NULL, 10);
            break;
        case 'S':
            load.short_rate = (int)strtol(optarg, NULL, 10);
            break;
        case 'I':
            load.idle = (int)strtol(optarg, NULL, 10);
            break;
        case 'r':
            seconds = strtod(optarg, NULL);
            break;
        default:
            return 2;
        }
    if (load.depth > DEPTH_MAX || (load.port == 0 && load.path == NULL))
        return 2;
    signal(SIGTERM, on_term);
    signal(SIGPIPE, SIG_IGN);
    load.conns = calloc((size_t)(load.pipelining + load.idle + SHORT_MAX + 1), sizeof(*load.conns));
    if (load.conns == NULL)
        return 1;
    run(&load, seconds);
    printf("{\"requests\": %llu, \"connections\": %llu, \"refused\": %llu, \"reset\": %llu, \"closed\": %llu, "
           "\"wrong\": %llu, \"silent\": %llu, \"error\": %llu, \"slowest_us\": %llu, \"seconds\": %.3f, "
           "\"first\": \"%s\"}\n",
           (unsigned long long)load.requests, (unsigned long long)load.connections,
           (unsigned long long)load.refused, (unsigned long long)load.reset, (unsigned long long)load.closed,
           (unsigned long long)load.wrong, (unsigned long long)load.silent, (unsigned long long)load.error,
           (unsigned long long)load.slowest_us, (double)(now_us() - load.start_us) / 1e6, load.first);
    for (int i = 0; i < load.conns_count; i++) {
        free(load.conns[i]->out);
        free(load.conns[i]);
    }
    free(load.conns);
    return 0;
}
