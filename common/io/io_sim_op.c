/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that complete once: names and files.
 *
 * A job is the kernel's side of an operation. It outlives its process (W4 in io_sim.h): then it
 * has no `op` any more, but what it does to the disk it still does, as a write does that io_uring
 * has taken.
 */
#include "common/io/io_sim_disk_private.h"

#include <stdio.h>

#define TOUCH_US 1000 /* of a hypervisor that has to find memory first */

enum job_kind { JOB_RESOLVE, JOB_OPEN, JOB_FILE, JOB_PATH, JOB_LIST, JOB_TOUCH };

struct sim_file {
    struct io_file base; /* first */
    struct list_node node;
    struct sim_inode *inode; /* a live reference; NULL once its process is dead */
    int flags;
};

struct sim_job {
    struct sim_event event;
    struct sim *sim;
    struct sim_node *node;
    struct sim_process *process; /* NULL: dead, or the op was canceled */
    struct io_op *op;            /* borrows; NULL with the process */
    struct list_node all_, process_;
    bool is_done;
    uint8_t kind;
    uint32_t life; /* of the node's process */
    ssize_t result;
    struct io_resolve *resolve;
    /* Of files. */
    struct sim_inode *inode; /* a live reference */
    int flags;               /* of the open */
    bool is_durable;         /* a write, once it is done */
    uint8_t op_kind;         /* io_file_op or io_path_op */
    struct io_file **out;    /* borrows */
    void *data;              /* borrows: the caller's */
    char *copy;              /* owns: of what is written; the names of a list */
    size_t size;
    uint64_t off, seq; /* seq: what a flush covers */
    char *from, *to;   /* owns */
    void (*each)(void *arg, const char *name);
    void *each_arg;
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
    if (job->inode != NULL)
        sim_inode_unlive(job->inode);
    mem_free(job->copy);
    mem_free(job->from);
    mem_free(job->to);
    mem_free(job);
}

static ssize_t resolve_run(struct sim_job *job);
static ssize_t open_run(struct sim_job *job);
static ssize_t file_run(struct sim_job *job);
static ssize_t path_run(struct sim_job *job);
static ssize_t list_run(struct sim_job *job);

static ssize_t job_run(struct sim_job *job)
{
    switch ((enum job_kind)job->kind) {
    case JOB_RESOLVE:
        return job->process == NULL ? 0 : resolve_run(job);
    case JOB_OPEN:
        return open_run(job);
    case JOB_FILE:
        return file_run(job);
    case JOB_PATH:
        return path_run(job);
    case JOB_LIST:
        return list_run(job);
    case JOB_TOUCH:
        if (job->process != NULL) /* or the memory is gone */
            memset(job->data, 0, job->size);
        return TOUCH_US;
    }
    UNREACHABLE("kind of job");
}

/* The result is there: done() runs in the next turn. */
static void job_ready(struct sim_job *job)
{
    job->is_done = true;
    list_remove(&job->process_);
    list_push_back(&job->process->done, &job->process_);
    job->process->done_count++;
    sim_process_wake(job->process);
}

static void job_fire(struct sim_event *event)
{
    struct sim_job *job = CONTAINER_OF(event, struct sim_job, event);

    job->result = job_run(job);
    if (job->process == NULL)
        job_free(job);
    else
        job_ready(job);
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
    job->life = job->node->life_count;
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

static void open_deliver(struct sim_job *job)
{
    struct sim_file *file = must_zalloc(sizeof(*file));

    file->base.io = &job->process->io;
    file->inode = job->inode; /* the reference goes over */
    file->flags = job->flags;
    job->inode = NULL;
    list_push_back(&job->process->files, &file->node);
    *job->out = &file->base;
}

void sim_op_done_turn(struct sim_process *process)
{
    struct list_node *node = list_first(&process->done);
    struct sim_job *job = CONTAINER_OF(node, struct sim_job, process_);
    struct io_op *op = job->op;
    char *names = job->kind == JOB_LIST && job->result == 0 ? job->copy : NULL;

    op->result = job->result;
    sim_process_called(process, "on done", job->event.id, (uint64_t)job->result);
    if (job->kind == JOB_RESOLVE)
        job->resolve->io = NULL;
    if (job->kind == JOB_OPEN && job->result == 0)
        open_deliver(job);
    if (names != NULL) {
        job->copy = NULL;
        for (size_t at = 0; at < job->size && !process->is_dead; at += strlen(names + at) + 1)
            job->each(job->each_arg, names + at);
        mem_free(names);
        if (process->is_dead) /* killed by the callback: the job is gone */
            return;
    }
    job_free(job);
    op->done(op);
}

static void lock_drop(struct sim_file *file)
{
    if (file->inode->lock_holder == file)
        file->inode->lock_holder = NULL;
}

void sim_op_forget(struct sim_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->done)) != NULL) {
        struct sim_job *job = CONTAINER_OF(node, struct sim_job, process_);

        if (job->kind == JOB_RESOLVE)
            job->resolve->io = NULL;
        job_free(job);
    }
    while ((node = list_first(&process->jobs)) != NULL) {
        struct sim_job *job = CONTAINER_OF(node, struct sim_job, process_);

        if (job->kind == JOB_RESOLVE)
            job->resolve->io = NULL;
        job_detach(job);
    }
    LIST_FOR_EACH(&process->files, at) {
        struct sim_file *file = CONTAINER_OF(at, struct sim_file, node);

        if (file->inode->lock_holder == file)
            file->inode->lock_life = process->node->life_count;
        lock_drop(file);
        sim_inode_unlive(file->inode); /* the handle itself is freed by io_file_close() */
        file->inode = NULL;
    }
}

/* The power fails while writes and changes of names are on their way: each has reached the disk (in
 * part), or not. What it left there is pending and meets the fate of all that is. */
void sim_op_host_ended(struct sim_node *node)
{
    LIST_FOR_EACH(&node->sim->jobs, at) {
        struct sim_job *job = CONTAINER_OF(at, struct sim_job, all_);
        bool is_write = job->kind == JOB_FILE && job->op_kind == IO_OP_WRITE;

        if (job->node != node)
            continue;
        if (sim_event_is_armed(&job->event) && sim_random(node->sim, SIM_RANDOM_CRASH) % 2 == 0) {
            if (is_write)
                MAYBE(sim_inode_write(job->inode, job->copy, job->size, job->off, SIZE_MAX) < 0);
            else if (job->kind == JOB_PATH || job->kind == JOB_OPEN)
                MAYBE(job_run(job) < 0);
        }
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

static enum sim_disk_op file_disk_op(enum io_file_op kind)
{
    static const uint8_t ops[] = {
        [IO_OP_READ] = SIM_DISK_READ,         [IO_OP_WRITE] = SIM_DISK_WRITE,
        [IO_OP_DATASYNC] = SIM_DISK_DATASYNC, [IO_OP_ALLOCATE] = SIM_DISK_ALLOCATE,
        [IO_OP_TRUNCATE] = SIM_DISK_TRUNCATE, [IO_OP_SIZE] = SIM_DISK_SIZE,
        [IO_OP_LINKS] = SIM_DISK_SIZE,        [IO_OP_LOCK] = SIM_DISK_OPEN,
        [IO_OP_SPACE] = SIM_DISK_SIZE,
    };

    return (enum sim_disk_op)ops[kind];
}

static enum sim_disk_op path_disk_op(enum io_path_op kind)
{
    static const uint8_t ops[] = {
        [IO_OP_RENAME] = SIM_DISK_RENAME, [IO_OP_UNLINK] = SIM_DISK_UNLINK,
        [IO_OP_LINK] = SIM_DISK_LINK,     [IO_OP_MKDIR] = SIM_DISK_MKDIR,
        [IO_OP_DIRSYNC] = SIM_DISK_DIRSYNC,
    };

    return (enum sim_disk_op)ops[kind];
}

/* What the disk does takes effect at the end of the job, all at once. */
static ssize_t job_count(struct sim_job *job, ssize_t result)
{
    job->sim->stats.file_ops++;
    if (result < 0 && result != ERR_EOF)
        job->sim->stats.file_errors++;
    return result;
}

static ssize_t open_run(struct sim_job *job)
{
    struct sim_disk *disk = job->node->disk;
    char path[SIM_PATH_MAX];
    int err = sim_path_normalize(job->from, path);

    if (err == 0)
        err = sim_disk_fault(disk, SIM_DISK_OPEN, NULL, path);
    if (err == 0)
        err = sim_disk_open_inode(disk, path, job->flags, &job->inode);
    return job_count(job, err);
}

static ssize_t write_run(struct sim_job *job, int fault)
{
    size_t limit = job->size;

    if (fault != 0)
        limit = sim_random_below(job->sim, SIM_RANDOM_DISK, job->size) & ~(size_t)(SECTOR_SIZE - 1);
    /* I5: from submit to done the buffer is io's. */
    if (job->process != NULL)
        ASSERT(memcmp(job->copy, job->data, job->size) == 0);
    if ((job->flags & IO_FILE_APPEND) != 0)
        job->off = job->inode->cache.size;
    if (limit == job->size) {
        ssize_t result = sim_inode_write(job->inode, job->copy, job->size, job->off, SIZE_MAX);

        if (result <= 0 || !job->is_durable)
            return result;
        fault = sim_disk_fault(job->node->disk, SIM_DISK_DATASYNC, job->inode, NULL);
        sim_inode_flush_last(job->inode, fault != 0); /* D4 */
        if (fault != 0)
            return fault;
        return result;
    }
    MAYBE(sim_inode_write(job->inode, job->copy, limit, job->off, SIZE_MAX) < 0);
    return fault;
}

static ssize_t file_run(struct sim_job *job)
{
    enum io_file_op kind = (enum io_file_op)job->op_kind;
    int fault = sim_disk_fault(job->node->disk, file_disk_op(kind), job->inode, NULL);

    if (kind == IO_OP_WRITE && job->size > 0)
        return job_count(job, write_run(job, fault));
    if (kind == IO_OP_DATASYNC)
        sim_inode_flush(job->inode, job->seq, fault != 0);
    if (fault != 0)
        return job_count(job, fault);
    switch (kind) {
    case IO_OP_READ:
        if (job->process == NULL)
            return 0;
        return job_count(job, sim_inode_read(job->inode, job->data, job->size, job->off));
    case IO_OP_WRITE:
    case IO_OP_WRITE_DURABLE:
    case IO_OP_DATASYNC:
        return job_count(job, 0);
    case IO_OP_ALLOCATE:
        return job_count(job, sim_inode_allocate(job->inode, job->off, job->size));
    case IO_OP_TRUNCATE:
        return job_count(job, sim_inode_truncate(job->inode, job->size));
    case IO_OP_LOCK:
        return 0;
    case IO_OP_LINKS:
        return job_count(job, sim_inode_names(job->inode));
    case IO_OP_SIZE:
        return job_count(job, (ssize_t)job->inode->cache.size);
    case IO_OP_SPACE:
        return job_count(job, (ssize_t)sim_disk_left(job->inode->disk));
    }
    UNREACHABLE("kind of file operation");
}

static ssize_t path_run(struct sim_job *job)
{
    struct sim_disk *disk = job->node->disk;
    enum io_path_op kind = (enum io_path_op)job->op_kind;
    char from[SIM_PATH_MAX], to[SIM_PATH_MAX] = "";
    int err = sim_path_normalize(job->from, from);

    if (err == 0 && job->to != NULL)
        err = sim_path_normalize(job->to, to);
    if (err == 0)
        err = sim_disk_fault(disk, path_disk_op(kind), NULL, from);
    if (err == 0)
        err = sim_disk_path_op(disk, kind, from, to, job->seq);
    return job_count(job, err);
}

static ssize_t list_run(struct sim_job *job)
{
    char path[SIM_PATH_MAX];
    int err = sim_path_normalize(job->from, path);

    if (err == 0)
        err = sim_disk_fault(job->node->disk, SIM_DISK_LIST, NULL, path);
    if (err == 0)
        err = sim_disk_list(job->node->disk, path, &job->copy, &job->size);
    return job_count(job, err);
}

static void file_free(struct sim_file *file)
{
    list_remove(&file->node);
    if (file->inode != NULL) {
        lock_drop(file);
        sim_inode_unlive(file->inode);
    }
    mem_free(file);
}

void sim_op_process_free(struct sim_process *process)
{
    struct list_node *node;

    while ((node = list_first(&process->files)) != NULL)
        file_free(CONTAINER_OF(node, struct sim_file, node));
}

void sim_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                   struct io_file **out)
{
    struct sim_job *job = job_create(io, op, JOB_OPEN);

    if (job == NULL)
        return;
    job->from = must_strdup(path);
    job->flags = flags;
    job->out = out;
    job_start(job, sim_disk_delay(job->node->disk, SIM_DISK_OPEN));
}

void sim_file_close(struct io *io, struct io_file *file)
{
    (void)io;
    file_free(CONTAINER_OF(file, struct sim_file, base));
}

/* The system's answer before the disk is asked. */
static int file_check(const struct sim_file *file, enum io_file_op kind, const void *data,
                      size_t size, uint64_t off)
{
    bool is_transfer = kind == IO_OP_READ || kind == IO_OP_WRITE;

    if (kind == IO_OP_READ && (file->flags & IO_FILE_READ) == 0 &&
        (file->flags & IO_FILE_WRITE) != 0)
        return -EBADF;
    if ((kind == IO_OP_WRITE || kind == IO_OP_ALLOCATE) && (file->flags & IO_FILE_WRITE) == 0)
        return -EBADF;
    if (kind == IO_OP_TRUNCATE && (file->flags & IO_FILE_WRITE) == 0)
        return -EINVAL;
    if (is_transfer && (file->flags & IO_FILE_DIRECT) != 0 &&
        ((off | size | (uintptr_t)data) & (SECTOR_SIZE - 1)) != 0)
        return -EINVAL;
    return 0;
}

static void answer(struct sim_job *job, ssize_t result)
{
    sim_event_stop(job->sim, &job->event);
    job->result = result;
    job_ready(job);
}

/* The kernel closes the files of a dead process when its threads have ended their calls and its ring has ended its
 * requests; only then the lock goes. */
static bool lock_lingers(const struct sim_job *job)
{
    LIST_FOR_EACH(&job->sim->jobs, at) {
        const struct sim_job *other = CONTAINER_OF(at, struct sim_job, all_);

        if (other->node == job->node && other->life == job->inode->lock_life && other->life != job->life)
            return true;
    }
    return false;
}

void sim_file_submit(struct io *io, struct io_file *base, struct io_op *op, enum io_file_op kind,
                     void *data, size_t size, uint64_t off)
{
    struct sim_file *file = CONTAINER_OF(base, struct sim_file, base);
    struct sim_job *job = job_create(io, op, JOB_FILE);
    uint64_t delay_us;
    int err;

    if (job == NULL)
        return;
    job->inode = file->inode;
    sim_inode_live(job->inode);
    job->flags = file->flags;
    job->is_durable = kind == IO_OP_WRITE_DURABLE;
    if (job->is_durable)
        kind = IO_OP_WRITE;
    job->op_kind = (uint8_t)kind;
    job->data = data;
    job->size = size;
    job->off = off;
    job->seq = file->inode->seq;
    err = file_check(file, kind, data, size, off);
    if (kind == IO_OP_LOCK && file->inode->lock_holder == NULL && !lock_lingers(job))
        file->inode->lock_holder = file;
    if (kind == IO_OP_LOCK && file->inode->lock_holder != file)
        err = -EWOULDBLOCK;
    if (err != 0 || kind == IO_OP_LOCK) {
        answer(job, err);
        return;
    }
    if (kind == IO_OP_WRITE) {
        job->copy = must_alloc(size + 1);
        memcpy(job->copy, data, size);
    } else if (kind == IO_OP_READ) {
        memset(data, 0xa5, size); /* not to be looked at before done() */
    }
    delay_us = sim_disk_delay(job->node->disk, file_disk_op(kind));
    if (job->is_durable)
        delay_us += sim_disk_delay(job->node->disk, SIM_DISK_DATASYNC);
    job_start(job, delay_us);
}

void sim_path_submit(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                     const char *to)
{
    struct sim_job *job = job_create(io, op, JOB_PATH);

    if (job == NULL)
        return;
    job->op_kind = (uint8_t)kind;
    job->from = must_strdup(from);
    job->to = to == NULL ? NULL : must_strdup(to);
    job->seq = job->node->disk->name_seq;
    job_start(job, sim_disk_delay(job->node->disk, path_disk_op(kind)));
}

void sim_touch(struct io *io, struct io_op *op, void *memory, size_t size)
{
    struct sim_job *job = job_create(io, op, JOB_TOUCH);

    if (job == NULL)
        return;
    job->data = memory;
    job->size = size;
    job_start(job, TOUCH_US);
}

void sim_list_submit(struct io *io, struct io_op *op, const char *path,
                     void (*each)(void *arg, const char *name), void *each_arg)
{
    struct sim_job *job = job_create(io, op, JOB_LIST);

    if (job == NULL)
        return;
    job->from = must_strdup(path);
    job->each = each;
    job->each_arg = each_arg;
    job_start(job, sim_disk_delay(job->node->disk, SIM_DISK_LIST));
}
