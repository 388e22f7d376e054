/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that complete once: names and files.
 *
 * A job is the kernel's side of an operation. It outlives its process (W4 in io_sim.h): then it
 * has no `op` any more, but what it does to the disk it still does, as a write does that io_uring
 * has taken.
 */
#include "common/io/io_sim_private.h"

#include <stdio.h>

enum job_kind { JOB_RESOLVE, JOB_FAIL };

struct sim_job {
    struct sim_event event;
    struct sim *sim;
    struct sim_node *node;
    struct sim_process *process; /* NULL: dead, or the op was canceled */
    struct io_op *op;            /* borrows; NULL with the process */
    struct list_node all_, process_;
    bool is_done;
    uint8_t kind;
    ssize_t result;
    struct io_resolve *resolve;
};

struct sim_name {
    char host[256];
    int err;
    uint32_t delay_us, count;
    struct io_addr addrs[]; /* of count */
};

/* ---- jobs --------------------------------------------------------------------------------- */

static void job_detach(struct sim_job *job)
{
    if (job->process == NULL)
        return;
    if (job->is_done)
        job->process->done_count--;
    list_remove(&job->process_);
    job->process = NULL;
    job->op = NULL;
}

static void job_free(struct sim_job *job)
{
    job_detach(job);
    sim_event_stop(job->sim, &job->event);
    list_remove(&job->all_);
    mem_free(job);
}

static ssize_t resolve_run(struct sim_job *job);

static ssize_t job_run(struct sim_job *job)
{
    switch ((enum job_kind)job->kind) {
    case JOB_RESOLVE:
        return job->process == NULL ? 0 : resolve_run(job);
    case JOB_FAIL:
        return job->result;
    }
    UNREACHABLE("kind of job");
}

static void job_fire(struct sim_event *event)
{
    struct sim_job *job = CONTAINER_OF(event, struct sim_job, event);

    job->result = job_run(job);
    if (job->process == NULL) {
        job_free(job);
        return;
    }
    job->is_done = true;
    list_remove(&job->process_);
    list_push_back(&job->process->done, &job->process_);
    job->process->done_count++;
    sim_process_wake(job->process);
}

/* NULL: the process is dead, the op will never complete. */
static struct sim_job *job_create(struct io *io, struct io_op *op, enum job_kind kind)
{
    struct sim_process *process = sim_process_of(io);
    struct sim *sim = process->node->sim;
    struct sim_job *job;

    if (process->is_dead)
        return NULL;
    job = must_zalloc(sizeof(*job));
    job->sim = sim;
    job->node = process->node;
    job->process = process;
    job->op = op;
    job->kind = (uint8_t)kind;
    job->event = (struct sim_event){
        .fire = job_fire, .kind = SIM_EVENT_JOB, .id = ++sim->job_next, .node = process->node};
    list_push_back(&sim->jobs, &job->all_);
    list_push_back(&process->jobs, &job->process_);
    return job;
}

static void job_start(struct sim_job *job, uint64_t delay_us)
{
    sim_event_start(job->sim, &job->event, sim_process_true_us(job->process) + delay_us);
}

void sim_op_done_turn(struct sim_process *process)
{
    struct list_node *node = list_first(&process->done);
    struct sim_job *job = CONTAINER_OF(node, struct sim_job, process_);
    struct io_op *op = job->op;

    op->result = job->result;
    if (job->kind == JOB_RESOLVE)
        job->resolve->io = NULL;
    sim_process_called(process, "on done", job->event.id, (uint64_t)job->result);
    job_free(job);
    op->done(op);
}

void sim_op_forget(struct sim_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->done)) != NULL)
        job_free(CONTAINER_OF(node, struct sim_job, process_));
    while ((node = list_first(&process->jobs)) != NULL) {
        struct sim_job *job = CONTAINER_OF(node, struct sim_job, process_);

        if (job->kind == JOB_RESOLVE)
            job->resolve->io = NULL;
        job_detach(job);
    }
}

void sim_op_host_ended(struct sim_node *node)
{
    LIST_FOR_EACH(&node->sim->jobs, at) {
        struct sim_job *job = CONTAINER_OF(at, struct sim_job, all_);

        if (job->node == node)
            job_free(job);
    }
}

void sim_op_deinit(struct sim *sim)
{
    struct list_node *node;

    while ((node = list_first(&sim->jobs)) != NULL)
        job_free(CONTAINER_OF(node, struct sim_job, all_));
    for (uint32_t i = 0; i < sim->name_count; i++)
        mem_free(sim->names[i]);
    mem_free(sim->names);
}

/* ---- names -------------------------------------------------------------------------------- */

static struct sim_name **name_find(struct sim *sim, const char *host)
{
    for (uint32_t i = 0; i < sim->name_count; i++) {
        if (strcmp(sim->names[i]->host, host) == 0)
            return &sim->names[i];
    }
    return NULL;
}

void sim_name_set(struct sim *sim, const char *host, const struct io_addr *addrs, uint32_t count,
                  int err, uint32_t delay_us)
{
    struct sim_name **slot = name_find(sim, host);
    struct sim_name *name = must_zalloc(sizeof(*name) + count * sizeof(*addrs));

    (void)snprintf(name->host, sizeof(name->host), "%s", host);
    name->err = err;
    name->delay_us = delay_us;
    name->count = count;
    if (count > 0)
        memcpy(name->addrs, addrs, count * sizeof(*addrs));
    if (slot != NULL) {
        mem_free(*slot);
        *slot = name;
        return;
    }
    ASSERT(sim->name_count < SIM_NAMES_MAX);
    sim->names = must_realloc(sim->names, (sim->name_count + 1) * sizeof(struct sim_name *));
    sim->names[sim->name_count++] = name;
}

/* The table as it is when the answer is made. */
static ssize_t resolve_run(struct sim_job *job)
{
    struct io_resolve *resolve = job->resolve;
    struct sim_name **slot = name_find(job->sim, resolve->host);
    uint32_t count;

    if (slot == NULL) {
        if (resolve->addr_max == 0 ||
            io_addr_parse(resolve->host, resolve->port, &resolve->addrs[0]) != 0)
            return ERR_NOT_FOUND;
        return 1;
    }
    if ((*slot)->err != 0)
        return (*slot)->err;
    count = MIN((*slot)->count, resolve->addr_max);
    for (uint32_t i = 0; i < count; i++) {
        struct io_addr *addr = &resolve->addrs[i];

        *addr = (*slot)->addrs[i];
        if (addr->any.sa_family == AF_INET)
            addr->in.sin_port = htons(resolve->port);
        else if (addr->any.sa_family == AF_INET6)
            addr->in6.sin6_port = htons(resolve->port);
    }
    return count;
}

void sim_resolve_submit(struct io *io, struct io_resolve *resolve)
{
    struct sim_job *job = job_create(io, &resolve->op, JOB_RESOLVE);
    struct sim_name **slot;

    if (job == NULL)
        return;
    resolve->io = io;
    resolve->op.private_[0] = (uint64_t)(uintptr_t)job;
    job->resolve = resolve;
    slot = name_find(job->sim, resolve->host);
    job_start(job, (slot == NULL ? 0 : (*slot)->delay_us) +
                       sim_draw_delay(job->sim, SIM_RANDOM_NET, 10, 200));
}

void sim_resolve_cancel(struct io *io, struct io_resolve *resolve)
{
    (void)io;
    resolve->io = NULL;
    job_free((struct sim_job *)(uintptr_t)resolve->op.private_[0]);
}

/* ---- files -------------------------------------------------------------------------------- */

static void fail(struct io *io, struct io_op *op, ssize_t err)
{
    struct sim_job *job = job_create(io, op, JOB_FAIL);

    if (job == NULL)
        return;
    job->result = err;
    job_start(job, 0);
}

void sim_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                   struct io_file **out)
{
    (void)path, (void)flags, (void)out;
    fail(io, op, ERR_UNSUPPORTED);
}

void sim_file_close(struct io *io, struct io_file *file)
{
    (void)io, (void)file;
}

void sim_file_submit(struct io *io, struct io_file *file, struct io_op *op, enum io_file_op kind,
                     void *data, size_t size, uint64_t off)
{
    (void)file, (void)kind, (void)data, (void)size, (void)off;
    fail(io, op, ERR_UNSUPPORTED);
}

void sim_path_submit(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                     const char *to)
{
    (void)kind, (void)from, (void)to;
    fail(io, op, ERR_UNSUPPORTED);
}

void sim_list_submit(struct io *io, struct io_op *op, const char *path,
                     void (*each)(void *arg, const char *name), void *each_arg)
{
    (void)path, (void)each, (void)each_arg;
    fail(io, op, ERR_UNSUPPORTED);
}
