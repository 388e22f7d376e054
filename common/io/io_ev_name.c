/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, looked up by getaddrinfo() on two threads of their own: a name server that does not answer
 * holds a thread for half a minute, and files must not wait behind it.
 *
 * A look-up has a job of its own on the heap, which outlives a canceled io_resolve. Numeric hosts need
 * no thread.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/io_ev_private.h"

#include <netdb.h>
#include <stdio.h>

#define NAME_THREAD_COUNT 2
#define NAME_QUEUE_MAX    1024
#define NAME_ADDRS_MAX    64

struct name_job {
    struct io_job job;          /* first */
    struct io_resolve *resolve; /* borrows; NULL once canceled; not touched by the thread */
    char host[sizeof(((struct io_resolve *)0)->host)];
    uint16_t port;
    int result; /* count, or an error */
    struct io_addr addrs[NAME_ADDRS_MAX];
};

struct resolve_part {
    struct name_job *job; /* NULL: the op is on op_todo */
};

static struct resolve_part *resolve_part(struct io_resolve *resolve)
{
    return (struct resolve_part *)(void *)resolve->op.private_;
}

static int name_error(int gai)
{
    switch (gai) {
    case EAI_NONAME:
    case EAI_NODATA:
        return ERR_NOT_FOUND;
    case EAI_AGAIN:
        return ERR_AGAIN;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_SYSTEM:
        return errno != 0 ? -errno : -EIO;
    default:
        return -EIO;
    }
}

static void name_collect(struct name_job *job, const struct addrinfo *info)
{
    for (; info != NULL && job->result < NAME_ADDRS_MAX; info = info->ai_next) {
        struct io_addr *addr = &job->addrs[job->result];
        bool is_known = false;

        if ((info->ai_family != AF_INET && info->ai_family != AF_INET6) ||
            info->ai_addrlen > sizeof(addr->in6))
            continue;
        memset(addr, 0, sizeof(*addr));
        memcpy(&addr->any, info->ai_addr, info->ai_addrlen);
        addr->len = info->ai_addrlen;
        for (int i = 0; i < job->result && !is_known; i++)
            is_known = io_addr_equal(addr, &job->addrs[i]);
        job->result += is_known ? 0 : 1;
    }
}

/* In a thread. */
static void name_work(struct io_job *base)
{
    struct name_job *job = CONTAINER_OF(base, struct name_job, job);
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV,
    };
    struct addrinfo *info = NULL;
    char service[8];
    int gai;

    snprintf(service, sizeof(service), "%u", job->port);
    errno = 0;
    gai = getaddrinfo(job->host, service, &hints, &info);
    if (gai != 0) {
        job->result = name_error(gai);
        return;
    }
    name_collect(job, info);
    freeaddrinfo(info);
    if (job->result == 0)
        job->result = ERR_NOT_FOUND;
}

static void name_drop(struct io_job *base)
{
    mem_free(CONTAINER_OF(base, struct name_job, job));
}

static void name_finish(struct io_job *base)
{
    struct name_job *job = CONTAINER_OF(base, struct name_job, job);
    struct io_resolve *resolve = job->resolve;

    if (resolve != NULL) {
        resolve->op.result = job->result;
        if (job->result > 0) {
            uint32_t count = MIN((uint32_t)job->result, resolve->addr_max);

            memcpy(resolve->addrs, job->addrs, count * sizeof(job->addrs[0]));
            resolve->op.result = count;
        }
        resolve->io = NULL;
    }
    mem_free(job);
    if (resolve != NULL)
        resolve->op.done(&resolve->op);
}

static void name_done_event(struct ev_loop *loop, ev_async *watcher, int events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, name_done);

    (void)loop, (void)events;
    io_turn_mark(&ev->io);
    threads_reap(ev->name_threads);
}

static void name_notify(void *arg)
{
    struct io_ev *ev = arg;

    ev_async_send(ev->loop, &ev->name_done);
}

int io_ev_name_start_threads(struct io_ev *ev)
{
    if (ev->name_threads != NULL)
        return 0;
    return threads_create(NAME_THREAD_COUNT, NAME_QUEUE_MAX, name_notify, ev, &ev->name_threads);
}

/* A completion that needs no thread still comes from the loop. */
static void name_todo_done(struct io_op *op)
{
    struct io_resolve *resolve = CONTAINER_OF(op, struct io_resolve, op);

    memcpy(&op->done, &op->private_[1], sizeof(op->done));
    resolve->io = NULL;
    op->done(op);
}

static void name_complete_later(struct io_ev *ev, struct io_resolve *resolve, ssize_t result)
{
    struct io_op *op = &resolve->op;

    memcpy(&op->private_[1], &op->done, sizeof(op->done));
    op->done = name_todo_done;
    io_ev_complete_later(ev, op, result);
}

void io_ev_resolve_submit(struct io *io, struct io_resolve *resolve)
{
    struct io_ev *ev = io_ev_of(io);
    struct name_job *job;
    struct io_addr numeric;
    int err;

    resolve->io = io;
    resolve_part(resolve)->job = NULL;
    if (io_addr_parse(resolve->host, resolve->port, &numeric) == 0) {
        if (resolve->addr_max > 0)
            resolve->addrs[0] = numeric;
        name_complete_later(ev, resolve, MIN(resolve->addr_max, 1u));
        return;
    }
    err = io_ev_name_start_threads(ev);
    if (err != 0) {
        name_complete_later(ev, resolve, err);
        return;
    }
    job = must_zalloc(sizeof(*job));
    job->job.work = name_work;
    job->job.finish = name_finish;
    job->resolve = resolve;
    job->port = resolve->port;
    memcpy(job->host, resolve->host, sizeof(job->host));
    err = threads_submit(ev->name_threads, &job->job);
    if (err != 0) {
        mem_free(job);
        name_complete_later(ev, resolve, err);
        return;
    }
    resolve_part(resolve)->job = job;
}

void io_ev_resolve_cancel(struct io *io, struct io_resolve *resolve)
{
    struct io_ev *ev = io_ev_of(io);
    struct name_job *job = resolve_part(resolve)->job;

    resolve->io = NULL;
    if (job == NULL) {
        memcpy(&resolve->op.done, &resolve->op.private_[1], sizeof(resolve->op.done));
        list_remove(&resolve->op.node_);
        return;
    }
    job->resolve = NULL;
    if (threads_try_cancel(ev->name_threads, &job->job))
        mem_free(job);
}

void io_ev_name_init(struct io_ev *ev)
{
    ev_async_init(&ev->name_done, name_done_event);
    ev_async_start(ev->loop, &ev->name_done);
}

void io_ev_name_deinit(struct io_ev *ev)
{
    threads_destroy(&ev->name_threads, false, name_drop);
    ev_async_stop(ev->loop, &ev->name_done);
}
