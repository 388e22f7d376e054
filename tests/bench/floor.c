/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: the least that a proxy which shares its backend connections can cost.
 *
 * It forwards without parsing. All requests have one size and all replies have one size, both told
 * on the command line, so counting bytes replaces both parsers:
 *
 *     clients                          owed (one for each backend)
 *     A --[a1 a2]--.                   .------------------------.
 *     B --[b1]-----+--> [a1 a2 b1] --> | A: 2 | B: 1 | ...      | --> replies go out in this order
 *                                      '------------------------'
 *
 * A turn of the loop handles every ready event first, then sends once for each backend and each
 * client that has something to send: the fewest system calls that a shared connection allows.
 * A client stays with one backend, chosen when it is accepted.
 *
 *   I1  The replies owed by a backend are in the order in which requests were appended to its queue.
 *   I2  Only whole requests enter a backend's queue; the rest of a cut one waits in its client.
 *   I3  A client that has left stays in memory until the last reply owed to it was dropped.
 */
#include "tests/bench/net.h"
#include "common/base/mem.h"
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKENDS_MAX     16
#define EVENTS_MAX       1024
#define RECEIVE_SIZE     (256u << 10)
#define REQUEST_SIZE_MAX (64u << 10)

enum kind { KIND_LISTENER, KIND_BACKEND, KIND_CLIENT };

struct client;

struct backend {
    enum kind kind;
    int fd;
    bool is_dirty, wants_write;
    struct queue out;
    struct owed *owed; /* owns; a ring, its capacity a power of two */
    uint32_t owed_head, owed_tail, owed_cap;
};

/* `bytes` of what the backend will send belong to `client`. */
struct owed {
    struct client *client; /* shared (client->owed_count) */
    uint64_t bytes;
};

struct client {
    enum kind kind;
    int fd; /* -1: has left */
    bool is_dirty, wants_write;
    uint32_t owed_count, cut_len;
    struct backend *backend; /* borrows */
    struct queue out;
    char *cut; /* owns; the first bytes of a request that is not complete */
};

struct floor {
    enum kind listener_kind;
    int listener, epoll;
    uint64_t accepted_count;
    size_t request_size, reply_size;
    struct backend backends[BACKENDS_MAX];
    uint32_t backend_count;
    struct client **dirty; /* owns; borrows what it points to, until the end of the turn */
    size_t dirty_count, dirty_cap;
    char *received; /* owns; RECEIVE_SIZE bytes */
};

static void client_mark(struct floor *f, struct client *client)
{
    if (client->is_dirty)
        return;
    if (f->dirty_count == f->dirty_cap) {
        f->dirty_cap = MAX(f->dirty_cap * 2, (size_t)256);
        f->dirty = must_realloc(f->dirty, f->dirty_cap * sizeof(struct client *));
    }
    client->is_dirty = true;
    f->dirty[f->dirty_count++] = client;
}

static void client_release(struct client *client)
{
    if (client->fd >= 0 || client->owed_count > 0 || client->is_dirty)
        return;
    queue_deinit(&client->out);
    mem_free(client->cut);
    mem_free(client);
}

/* The memory goes later, when nothing points to it. */
static void client_leave(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    client_release(client);
}

static void owe(struct backend *backend, struct client *client, uint64_t bytes)
{
    struct owed *last = &backend->owed[(backend->owed_tail - 1) & (backend->owed_cap - 1)];

    if (backend->owed_tail != backend->owed_head && last->client == client) {
        last->bytes += bytes;
        return;
    }
    if (backend->owed_tail - backend->owed_head == backend->owed_cap) {
        uint32_t cap = backend->owed_cap;
        struct owed *ring = must_alloc(sizeof(*ring) * cap * 2);

        for (uint32_t i = 0; i < cap; i++)
            ring[i] = backend->owed[(backend->owed_head + i) & (cap - 1)];
        mem_free(backend->owed);
        backend->owed = ring;
        backend->owed_cap = cap * 2;
        backend->owed_head = 0;
        backend->owed_tail = cap;
    }
    backend->owed[backend->owed_tail++ & (backend->owed_cap - 1)] =
        (struct owed){.client = client, .bytes = bytes};
    client->owed_count++;
}

static void accept_all(struct floor *f)
{
    int fd;

    while ((fd = net_accept(f->listener)) >= 0) {
        struct client *client = must_zalloc(sizeof(*client));

        client->kind = KIND_CLIENT;
        client->fd = fd;
        client->backend = &f->backends[f->accepted_count++ % f->backend_count];
        net_watch(f->epoll, fd, EPOLLIN, client);
    }
}

static void client_read(struct floor *f, struct client *client)
{
    struct backend *backend = client->backend;
    ssize_t got = recv(client->fd, f->received, RECEIVE_SIZE, 0);
    size_t len, whole;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client_leave(client);
        return;
    }
    len = client->cut_len + (size_t)got;
    whole = len - len % f->request_size;
    if (whole > 0) {
        if (client->cut_len > 0)
            queue_append(&backend->out, client->cut, client->cut_len);
        queue_append(&backend->out, f->received, whole - client->cut_len);
        owe(backend, client, whole / f->request_size * f->reply_size);
        backend->is_dirty = true;
    }
    if (len == whole) {
        client->cut_len = 0;
        return;
    }
    if (client->cut == NULL)
        client->cut = must_alloc(f->request_size);
    if (whole > 0) {
        memcpy(client->cut, f->received + (whole - client->cut_len), len - whole);
        client->cut_len = 0;
    } else {
        memcpy(client->cut + client->cut_len, f->received, (size_t)got);
    }
    client->cut_len = (uint32_t)(len - whole);
}

static void backend_read(struct floor *f, struct backend *backend)
{
    ssize_t got = recv(backend->fd, f->received, RECEIVE_SIZE, 0);
    const char *at = f->received;
    size_t left;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        die(got < 0 ? errno : 0, "a backend has closed its connection");
    for (left = (size_t)got; left > 0;) {
        struct owed *owed = &backend->owed[backend->owed_head & (backend->owed_cap - 1)];
        struct client *client = owed->client;
        size_t take = MIN(left, owed->bytes);

        if (backend->owed_head == backend->owed_tail)
            die(0, "bytes that nobody waits for: --reply-size %zu is wrong", f->reply_size);
        if (client->fd >= 0) {
            queue_append(&client->out, at, take);
            client_mark(f, client);
        }
        at += take;
        left -= take;
        owed->bytes -= take;
        if (owed->bytes == 0) {
            backend->owed_head++;
            client->owed_count--;
            client_release(client);
        }
    }
}

static void flush_all(struct floor *f)
{
    for (uint32_t i = 0; i < f->backend_count; i++) {
        struct backend *backend = &f->backends[i];

        if (!backend->is_dirty)
            continue;
        if (!net_flush(f->epoll, backend->fd, &backend->out, &backend->wants_write, backend))
            die(errno, "send to a backend");
        backend->is_dirty = false;
    }
    for (size_t i = 0; i < f->dirty_count; i++) {
        struct client *client = f->dirty[i];

        client->is_dirty = false;
        if (client->fd < 0)
            client_release(client);
        else if (!net_flush(f->epoll, client->fd, &client->out, &client->wants_write, client))
            client_leave(client);
    }
    f->dirty_count = 0;
}

NORETURN static void run(struct floor *f)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);

    for (;;) {
        int count = net_wait(f->epoll, events, EVENTS_MAX);

        for (int i = 0; i < count; i++) {
            enum kind *kind = events[i].data.ptr;
            bool has_room = (events[i].events & EPOLLOUT) != 0;
            bool has_bytes = (events[i].events & ~(uint32_t)EPOLLOUT) != 0;

            switch (*kind) {
            case KIND_LISTENER:
                accept_all(f);
                break;
            case KIND_BACKEND: {
                struct backend *backend = CONTAINER_OF(kind, struct backend, kind);

                backend->is_dirty |= has_room;
                if (has_bytes)
                    backend_read(f, backend);
                break;
            }
            case KIND_CLIENT: {
                struct client *client = CONTAINER_OF(kind, struct client, kind);

                if (has_room)
                    client_mark(f, client);
                if (has_bytes)
                    client_read(f, client);
                break;
            }
            }
        }
        flush_all(f);
    }
}

static void connect_backends(struct floor *f, const char *host, char *ports)
{
    char *rest = ports, *port;

    while ((port = strsep(&rest, ",")) != NULL) {
        struct backend *backend = &f->backends[f->backend_count];

        if (f->backend_count++ == BACKENDS_MAX)
            die(0, "at most %d backends", BACKENDS_MAX);
        backend->kind = KIND_BACKEND;
        backend->fd = net_connect(host, (uint16_t)option_number("backends", port, 1, 65535));
        backend->owed_cap = 1024;
        backend->owed = must_alloc(sizeof(struct owed) * backend->owed_cap);
        net_watch(f->epoll, backend->fd, EPOLLIN, backend);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},
        {"port", required_argument, NULL, 'p'},
        {"backends", required_argument, NULL, 'b'},
        {"request-size", required_argument, NULL, 'q'},
        {"reply-size", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    const char *host = "127.0.0.1";
    char *ports = NULL;
    uint16_t port = 0;
    struct floor f = {.listener_kind = KIND_LISTENER};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            host = optarg;
        else if (option == 'p')
            port = (uint16_t)option_number("port", optarg, 1, 65535);
        else if (option == 'b')
            ports = optarg;
        else if (option == 'q')
            f.request_size = option_number("request-size", optarg, 1, REQUEST_SIZE_MAX);
        else if (option == 'r')
            f.reply_size = option_number("reply-size", optarg, 1, 1u << 30);
        else
            ports = NULL, optind = argc + 1;
    }
    if (optind != argc || port == 0 || ports == NULL || f.request_size == 0 || f.reply_size == 0)
        die(0, "usage: floor --port N --backends PORT,... --request-size BYTES --reply-size BYTES "
               "[--host ADDRESS]");
    f.received = must_alloc(RECEIVE_SIZE);
    f.epoll = epoll_create1(EPOLL_CLOEXEC);
    connect_backends(&f, host, ports);
    f.listener = net_listen(host, port);
    net_watch(f.epoll, f.listener, EPOLLIN, &f.listener_kind);
    run(&f);
}
