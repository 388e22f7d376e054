/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of cold reads: the least that a server which reads from the disk for each GET can do.
 *
 * Whatever the key, a GET is answered with the first bytes of a random block of one file, read past
 * the page cache. No index, no checksum, no cache. Other commands are none of its business: it hangs up.
 *
 *     GET a, GET b, GET c --> [a: done] [b: under way] [c: done]    reads of one client, in order
 *                             `-------'
 *                             replied to
 *
 * A turn of the loop receives from every client that is ready, submits all their reads at once, then
 * sends once to each client whose first read is done.
 *
 *   I1  A read belongs to one client from its request to its reply, and is on the free list otherwise.
 *   I2  A client that leaves has no read under way: a load waits for all replies, or has failed.
 */
#include "common/base/mem.h"
#include "tests/bench/net.h"
#include "tests/bench/words.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_SIZE    4096u
#define EVENTS_MAX   1024
#define READS_MAX    4096u /* under way at once, of all clients: more are a bench that is wrong */
#define RECEIVE_SIZE (64u << 10)

struct read {
    struct read *next;     /* of its client's, or of the free ones */
    struct client *client; /* borrows; NULL: free */
    char *block;           /* borrows from read_floor.blocks */
    bool is_done;
};

struct client {
    int fd;
    bool wants_write, is_ready;
    struct read *head, **tail; /* owns; in the order of the requests */
    struct client *next_ready;
    struct queue in, out;
};

struct read_floor {
    int listener, epoll, file;
    uint64_t block_count, random;
    struct io_uring ring;
    struct read *reads;   /* owns */
    char *blocks;         /* owns */
    struct read *free;    /* borrows from reads */
    struct client *ready; /* borrows; have something to send at the end of this turn */
    char head[32];        /* of every reply: "$1024\r\n" */
    uint32_t head_len, value_size;
    struct words words; /* borrow from a client's input while one request is looked at */
};

static void client_ready(struct read_floor *f, struct client *client)
{
    if (client->is_ready)
        return;
    client->is_ready = true;
    client->next_ready = f->ready;
    f->ready = client;
}

/* ---- reads ---- */

static void read_start(struct read_floor *f, struct client *client)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    struct read *read = f->free;

    if (read == NULL || sqe == NULL)
        die(0, "more than %u reads at once", READS_MAX);
    f->free = read->next;
    *read = (struct read){.client = client, .block = read->block};
    *client->tail = read;
    client->tail = &read->next;
    io_uring_prep_read(sqe, f->file, read->block, READ_SIZE,
                       next_random(&f->random) % f->block_count * READ_SIZE);
    io_uring_sqe_set_data(sqe, read);
}

static void reads_submit(struct read_floor *f)
{
    int sent;

    if (io_uring_sq_ready(&f->ring) == 0)
        return;
    sent = io_uring_submit(&f->ring);
    if (sent < 0 && sent != -EAGAIN && sent != -EBUSY && sent != -EINTR)
        die(-sent, "io_uring_submit");
}

static void reads_complete(struct read_floor *f)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&f->ring, &cqe) == 0) {
        struct read *read = io_uring_cqe_get_data(cqe);

        if (cqe->res != (int)READ_SIZE)
            die(cqe->res < 0 ? -cqe->res : 0, "a read of %u bytes gave %d", READ_SIZE, cqe->res);
        read->is_done = true;
        if (read->client->head == read)
            client_ready(f, read->client);
        io_uring_cqe_seen(&f->ring, cqe);
    }
}

/* ---- clients ---- */

static void client_accept(struct read_floor *f)
{
    int fd;

    while ((fd = net_accept(f->listener)) >= 0) {
        struct client *client = must_zalloc(sizeof(*client));

        client->fd = fd;
        client->tail = &client->head;
        net_watch(f->epoll, fd, EPOLLIN, client);
    }
}

static void client_close(struct client *client)
{
    if (client->head != NULL)
        die(0, "a client left before its replies");
    close(client->fd);
    queue_deinit(&client->in);
    queue_deinit(&client->out);
    mem_free(client);
}

static enum words_result client_get(struct read_floor *f, struct client *client,
                                    struct bytes *input)
{
    enum words_result result = words_take_redis(input, &f->words);

    if (result != WORDS_OK)
        return result;
    if (f->words.count != 2 || !bytes_equal_nocase(f->words.word[0], BYTES("get")))
        return WORDS_BAD;
    read_start(f, client);
    return WORDS_OK;
}

/* False: it has left. */
static bool client_read(struct read_floor *f, struct client *client)
{
    enum words_result result = WORDS_OK;
    struct bytes input;
    ssize_t got;

    queue_reserve(&client->in, RECEIVE_SIZE);
    got = recv(client->fd, client->in.data + client->in.end, RECEIVE_SIZE, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    client->in.end += (size_t)MAX(got, (ssize_t)0);
    input = bytes_of(client->in.data + client->in.start, queue_len(&client->in));
    while (input.len > 0 && result == WORDS_OK)
        result = client_get(f, client, &input);
    client->in.start = client->in.end - input.len;
    if (got > 0 && result != WORDS_BAD)
        return true;
    client_close(client);
    return false;
}

/* The replies whose turn it is; then whatever waits, in one send. */
static void client_reply(struct read_floor *f, struct client *client)
{
    struct read *read;

    while ((read = client->head) != NULL && read->is_done) {
        queue_append(&client->out, f->head, f->head_len);
        queue_append(&client->out, read->block, f->value_size);
        queue_append(&client->out, "\r\n", 2);
        client->head = read->next;
        *read = (struct read){.next = f->free, .block = read->block};
        f->free = read;
    }
    if (client->head == NULL)
        client->tail = &client->head;
    if (!net_flush(f->epoll, client->fd, &client->out, &client->wants_write, client))
        client_close(client);
}

static void clients_reply(struct read_floor *f)
{
    while (f->ready != NULL) {
        struct client *client = f->ready;

        f->ready = client->next_ready;
        client->is_ready = false;
        client_reply(f, client);
    }
}

static void client_event(struct read_floor *f, struct client *client, uint32_t events)
{
    if ((events & ~(uint32_t)EPOLLOUT) != 0 && !client_read(f, client))
        return;
    if ((events & EPOLLOUT) != 0)
        client_ready(f, client);
}

/* ---- the loop ---- */

NORETURN static void run(struct read_floor *f)
{
    struct epoll_event *events = must_alloc(sizeof(*events) * EVENTS_MAX);

    for (;;) {
        int count = net_wait(f->epoll, events, EVENTS_MAX);

        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;

            if (what == &f->listener)
                client_accept(f);
            else if (what != &f->ring)
                client_event(f, what, events[i].events);
        }
        reads_submit(f);
        reads_complete(f);
        clients_reply(f);
    }
}

static void file_open(struct read_floor *f, const char *path)
{
    struct stat stat;

    f->file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (f->file < 0 || fstat(f->file, &stat) != 0)
        die(errno, "%s", path);
    f->block_count = (uint64_t)stat.st_size / READ_SIZE;
    if (f->block_count == 0)
        die(0, "%s has less than a block", path);
}

static void reads_setup(struct read_floor *f)
{
    int err = io_uring_queue_init(READS_MAX, &f->ring, 0);

    if (err < 0)
        die(-err, "io_uring_queue_init");
    f->reads = must_zalloc(sizeof(struct read) * READS_MAX);
    f->blocks = mem_alloc_aligned(READ_SIZE * READS_MAX, READ_SIZE);
    if (f->blocks == NULL)
        die(0, "out of memory");
    memset(f->blocks, 0, READ_SIZE * READS_MAX); /* no page is missing when the first reads come */
    for (uint32_t i = 0; i < READS_MAX; i++) {
        f->reads[i] = (struct read){.next = f->free, .block = f->blocks + (size_t)i * READ_SIZE};
        f->free = &f->reads[i];
    }
}

static const char usage[] =
    "usage: read_floor --port N --read-file FILE [--host ADDRESS] [--value-size BYTES]";

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},       {"port", required_argument, NULL, 'p'},
        {"value-size", required_argument, NULL, 'v'}, {"read-file", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    struct read_floor f = {.value_size = 1024, .random = 88172645463325252u};
    const char *host = "127.0.0.1", *path = NULL;
    uint16_t port = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            host = optarg;
        else if (option == 'p')
            port = (uint16_t)option_number("port", optarg, 1, 65535);
        else if (option == 'v')
            f.value_size = (uint32_t)option_number("value-size", optarg, 1, READ_SIZE);
        else if (option == 'r')
            path = optarg;
        else
            die(0, "%s", usage);
    }
    if (port == 0 || path == NULL || optind != argc)
        die(0, "%s", usage);
    f.head_len = (uint32_t)snprintf(f.head, sizeof(f.head), "$%u\r\n", f.value_size);
    file_open(&f, path);
    reads_setup(&f);
    f.epoll = epoll_create1(EPOLL_CLOEXEC);
    f.listener = net_listen(host, port);
    net_watch(f.epoll, f.listener, EPOLLIN, &f.listener);
    net_watch(f.epoll, f.ring.ring_fd, EPOLLIN, &f.ring);
    run(&f);
}
