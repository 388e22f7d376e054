/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: the ring does what is frequent (read, write, flush, allocate), threads do the rest, and all
 * of it where there is no ring.
 *
 * Also close() is for the threads: the last close of a deleted segment frees its blocks, which can
 * take long. A file that no slot of the ring is left for runs on the threads too.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/io_ev_private.h"
#include "common/io/io_uring.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_THREAD_COUNT  4
#define PATH_THREAD_COUNT  2 /* beside a ring */
#define FILE_RETRY_MAX     64
#define LIST_BYTES_MIN     4096
#define ASIDE_MIN          (64u << 10) /* a copy of so much takes longer than to wake a thread */
#define TOUCH_STEP         4096 /* the smallest page */

enum job_kind {
    JOB_READ, JOB_WRITE, JOB_WRITE_DURABLE, JOB_DATASYNC, JOB_ALLOCATE, JOB_TRUNCATE, JOB_SIZE, JOB_LINKS,
    JOB_SPACE, JOB_LOCK, JOB_OPEN, JOB_CLOSE, JOB_RENAME, JOB_UNLINK, JOB_LINK, JOB_MKDIR, JOB_DIRSYNC, JOB_LIST, JOB_TOUCH,
};

struct ev_file {
    struct io_file base; /* first */
    int fd;              /* owns */
    int slot;            /* in the ring; -1: none */
    unsigned in_flight;
    bool is_direct;      /* past the page cache */
    bool is_closing;
    struct list_node node; /* on ev->file_list */
    struct io_op close_op;
};

struct job_part {
    struct io_job job;
    char *data; /* the caller's memory; or owns (owns_data()): "from\0to\0", then the names of a list */
    uint64_t off;
    size_t size;
    uint8_t kind;
    int flags;
};

/* What io keeps in the private words of an op. */
struct op_part {
    union {
        struct uring_op ring;
        struct job_part job;
    };
    struct io_ev *ev;
    struct ev_file *file; /* NULL for path ops; owns what an open made, until it is handed out */
    union {
        struct io_file **out;
        void (*each)(void *arg, const char *name);
    };
    void *each_arg;
};
_Static_assert(sizeof(struct op_part) <= sizeof(((struct io_op *)0)->private_), "op");

static struct op_part *op_part(struct io_op *op)
{
    return (struct op_part *)(void *)op->private_;
}

static struct io_op *op_of_part(struct op_part *part)
{
    return CONTAINER_OF((void *)part, struct io_op, private_);
}

static struct op_part *part_of_job(struct io_job *job)
{
    return CONTAINER_OF(job, struct op_part, job.job);
}

/* ---- in a thread -------------------------------------------------------------------------- */

static ssize_t result_of(int returned)
{
    return returned < 0 ? -errno : 0;
}

static ssize_t work_step(const struct job_part *job, int fd, char *data, size_t size, off_t off)
{
    struct iovec slice = {.iov_base = data, .iov_len = size};

    if (job->kind == JOB_READ)
        return pread(fd, data, size, off);
    if (job->kind == JOB_WRITE)
        return pwrite(fd, data, size, off);
    return pwritev2(fd, &slice, 1, off, RWF_DSYNC);
}

static ssize_t work_transfer(const struct job_part *job, int fd)
{
    size_t moved = 0;
    unsigned retry_count = 0;

    while (moved < job->size) {
        char *data = job->data + moved;
        off_t off = (off_t)(job->off + moved);
        ssize_t step = work_step(job, fd, data, job->size - moved, off);

        if (step > 0) {
            moved += (size_t)step;
            retry_count = 0;
        } else if (step == 0) {
            return job->kind == JOB_READ ? ERR_EOF : -EIO;
        } else if ((errno != EINTR && errno != EAGAIN) || ++retry_count > FILE_RETRY_MAX) {
            return -errno;
        }
    }
    return (ssize_t)moved;
}

static ssize_t work_size(int fd)
{
    struct stat stat;

    return fstat(fd, &stat) < 0 ? -errno : stat.st_size;
}

static ssize_t work_links(int fd)
{
    struct stat stat;

    return fstat(fd, &stat) < 0 ? -errno : (ssize_t)stat.st_nlink;
}

static ssize_t work_space(int fd)
{
    struct statvfs stat;
    uint64_t unit;

    if (fstatvfs(fd, &stat) < 0)
        return -errno;
    unit = stat.f_frsize != 0 ? stat.f_frsize : stat.f_bsize;
    if (stat.f_blocks == 0 || unit == 0) /* as of a tmpfs without a bound */
        return ERR_UNSUPPORTED;
    return (ssize_t)(MIN((uint64_t)stat.f_bavail, (uint64_t)SSIZE_MAX / unit) * unit);
}

static int open_flags(int flags)
{
    int result = O_CLOEXEC;

    if ((flags & (IO_FILE_READ | IO_FILE_WRITE)) == (IO_FILE_READ | IO_FILE_WRITE))
        result |= O_RDWR;
    else
        result |= (flags & IO_FILE_WRITE) != 0 ? O_WRONLY : O_RDONLY;
    result |= (flags & IO_FILE_CREATE) != 0 ? O_CREAT : 0;
    result |= (flags & IO_FILE_EXCLUSIVE) != 0 ? O_EXCL : 0;
    result |= (flags & IO_FILE_TRUNCATE) != 0 ? O_TRUNC : 0;
    result |= (flags & IO_FILE_DIRECT) != 0 ? O_DIRECT : 0;
    result |= (flags & IO_FILE_APPEND) != 0 ? O_APPEND : 0;
    return result;
}

static ssize_t work_open(struct op_part *part, int dir_fd)
{
    int flags = open_flags(part->job.flags);
    int fd = openat(dir_fd, part->job.data, flags, 0600);

    if (fd < 0 && errno == EINVAL && (flags & O_DIRECT) != 0) { /* it may be there already by now */
        flags &= ~(O_DIRECT | O_EXCL);
        fd = openat(dir_fd, part->job.data, flags, 0600);
    }
    if (fd < 0)
        return -errno;
    part->file = must_zalloc(sizeof(*part->file));
    part->file->base.io = &part->ev->io;
    part->file->fd = fd;
    part->file->is_direct = (flags & O_DIRECT) != 0;
    part->file->slot = -1;
    return 0;
}

static ssize_t work_dirsync(const char *path, int dir_fd)
{
    int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t result;

    if (fd < 0)
        return -errno;
    result = result_of(fsync(fd));
    close(fd);
    return result;
}

struct name_list {
    char *data; /* owns: names, each with its NUL */
    size_t len, cap;
};

static int name_list_add(struct name_list *list, const char *name)
{
    size_t len = strlen(name) + 1;

    if (list->cap - list->len < len) {
        size_t cap = MAX((size_t)LIST_BYTES_MIN, 2 * list->cap + len);
        char *data = mem_realloc(list->data, cap);

        if (data == NULL)
            return -ENOMEM;
        list->data = data;
        list->cap = cap;
    }
    memcpy(list->data + list->len, name, len);
    list->len += len;
    return 0;
}

static int list_read(DIR *dir, struct name_list *list)
{
    int err = 0;

    while (err == 0) {
        const struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (entry == NULL)
            return -errno;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            err = name_list_add(list, entry->d_name);
    }
    return err;
}

/* The path is replaced by the names. */
static ssize_t work_list(struct job_part *job, int dir_fd)
{
    struct name_list list = {0};
    int fd = openat(dir_fd, job->data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int err;

    if (dir == NULL) {
        err = -errno;
        if (fd >= 0)
            close(fd);
        return err;
    }
    err = list_read(dir, &list);
    closedir(dir);
    if (err != 0) {
        mem_free(list.data);
        return err;
    }
    mem_free(job->data);
    job->data = list.data;
    job->size = list.len;
    return 0;
}

/* io_cpu_us() is the clock of whichever thread asks. */
static ssize_t work_touch(struct io *io, volatile char *memory, size_t size)
{
    uint64_t begun_us = io_cpu_us(io);

    for (size_t at = 0; at < size; at += TOUCH_STEP)
        memory[at] = 0;
    return (ssize_t)(io_cpu_us(io) - begun_us);
}

static void op_work(struct io_job *base)
{
    struct op_part *part = part_of_job(base);
    struct job_part *job = &part->job;
    struct io_op *op = op_of_part(part);
    const char *from = job->data, *to = NULL;
    int dir = part->ev->dir_fd;
    int fd = part->file != NULL ? part->file->fd : -1;

    if (job->kind == JOB_RENAME || job->kind == JOB_LINK)
        to = from + strlen(from) + 1;
    switch ((enum job_kind)job->kind) {
    case JOB_READ:
    case JOB_WRITE:
    case JOB_WRITE_DURABLE: op->result = work_transfer(job, fd); break;
    case JOB_DATASYNC: op->result = result_of(fdatasync(fd)); break;
    case JOB_ALLOCATE:
        op->result = result_of(fallocate(fd, 0, (off_t)job->off, (off_t)job->size));
        break;
    case JOB_TRUNCATE: op->result = result_of(ftruncate(fd, (off_t)job->size)); break;
    case JOB_SIZE:     op->result = work_size(fd); break;
    case JOB_LINKS:    op->result = work_links(fd); break;
    case JOB_SPACE:    op->result = work_space(fd); break;
    case JOB_LOCK:     op->result = result_of(flock(fd, LOCK_EX | LOCK_NB)); break;
    case JOB_OPEN:     op->result = work_open(part, dir); break;
    case JOB_CLOSE:
        op->result = result_of(close(fd));
        part->file->fd = -1;
        break;
    case JOB_RENAME:   op->result = result_of(renameat(dir, from, dir, to)); break;
    case JOB_UNLINK:   op->result = result_of(unlinkat(dir, from, 0)); break;
    case JOB_LINK:     op->result = result_of(linkat(dir, from, dir, to, 0)); break;
    case JOB_MKDIR:    op->result = result_of(mkdirat(dir, from, 0700)); break;
    case JOB_DIRSYNC:  op->result = work_dirsync(from, dir); break;
    case JOB_LIST:     op->result = work_list(job, dir); break;
    case JOB_TOUCH:    op->result = work_touch(&part->ev->io, job->data, job->size); break;
    }
}

/* ---- the end of an op --------------------------------------------------------------------- */

static void job_submit(struct io_ev *ev, struct io_op *op, enum job_kind kind);

static void file_close_now(struct io_ev *ev, struct ev_file *file)
{
    if (file->slot >= 0)
        uring_file_remove(ev->uring, file->slot);
    file->slot = -1;
    op_part(&file->close_op)->file = file;
    job_submit(ev, &file->close_op, JOB_CLOSE);
}

static void file_op_end(struct io_ev *ev, struct ev_file *file)
{
    ASSERT(file->in_flight > 0);
    file->in_flight--;
    if (file->is_closing && file->in_flight == 0)
        file_close_now(ev, file);
}

static void list_deliver(struct op_part *part)
{
    const char *names = part->job.data; /* NULL: an empty directory */

    for (size_t at = 0; at < part->job.size; at += strlen(names + at) + 1)
        part->each(part->each_arg, names + at);
}

static void open_deliver(struct op_part *part)
{
    struct ev_file *file = part->file;

    part->file = NULL;
    list_push_back(&part->ev->file_list, &file->node);
    if (part->ev->uring != NULL) {
        int slot = uring_file_add(part->ev->uring, file->fd);

        file->slot = slot >= 0 ? slot : -1;
    }
    *part->out = &file->base;
}

static bool owns_data(enum job_kind kind)
{
    return kind >= JOB_OPEN && kind != JOB_CLOSE && kind != JOB_TOUCH;
}

static void op_finish(struct io_job *base)
{
    struct op_part *part = part_of_job(base);
    struct io_op *op = op_of_part(part);
    struct io_ev *ev = part->ev;
    enum job_kind kind = (enum job_kind)part->job.kind;

    if (kind == JOB_CLOSE) {
        list_remove(&part->file->node);
        mem_free(part->file);
        return;
    }
    if (kind < JOB_OPEN) {
        file_op_end(ev, part->file);
    } else if (owns_data(kind)) {
        if (kind == JOB_LIST && op->result == 0)
            list_deliver(part);
        mem_free(part->job.data);
        if (kind == JOB_OPEN && op->result == 0)
            open_deliver(part);
    }
    op->done(op);
}

/* At the end of the io: the caller of the op is not told any more. */
static void op_drop(struct io_job *base)
{
    struct op_part *part = part_of_job(base);
    enum job_kind kind = (enum job_kind)part->job.kind;
    struct ev_file *file = part->file;

    if (owns_data(kind))
        mem_free(part->job.data);
    if (kind == JOB_OPEN && file != NULL) { /* opened, not handed out */
        close(file->fd);
        mem_free(file);
    }
}

static void ring_op_done(struct uring_op *ring, ssize_t result)
{
    struct op_part *part = CONTAINER_OF(ring, struct op_part, ring);
    struct io_op *op = op_of_part(part);

    op->result = result;
    file_op_end(part->ev, part->file);
    op->done(op);
}

/* ---- submit ------------------------------------------------------------------------------- */

static void file_notify(void *arg)
{
    struct io_ev *ev = arg;

    ev_async_send(ev->loop, &ev->file_done);
}

static int file_start_threads(struct io_ev *ev)
{
    if (ev->file_threads != NULL)
        return 0;
    return threads_create(ev->uring != NULL ? PATH_THREAD_COUNT : FILE_THREAD_COUNT, 0, file_notify,
                          ev, &ev->file_threads);
}

/* The queue has no bound of its own: an op is its caller's memory, and a write must not fail here. */
static void job_submit(struct io_ev *ev, struct io_op *op, enum job_kind kind)
{
    struct op_part *part = op_part(op);
    int err = file_start_threads(ev);

    part->ev = ev;
    part->job.kind = (uint8_t)kind;
    part->job.job = (struct io_job){.work = op_work, .finish = op_finish};
    if (err == 0)
        err = threads_submit(ev->file_threads, &part->job.job);
    if (err != 0) {
        log_error(ev->io.log, "files: no thread can be started: %s", err_text(err));
        ASSERT(err == 0);
    }
}

static bool is_transfer(enum io_file_op kind)
{
    return kind == IO_OP_READ || kind == IO_OP_WRITE || kind == IO_OP_WRITE_DURABLE;
}

void io_ev_file_submit(struct io *io, struct io_file *base, struct io_op *op, enum io_file_op kind,
                       void *data, size_t size, uint64_t off)
{
    static const uint8_t ring_kinds[] = {
        [IO_OP_READ] = URING_READ,
        [IO_OP_WRITE] = URING_WRITE,
        [IO_OP_WRITE_DURABLE] = URING_WRITE_DURABLE,
        [IO_OP_DATASYNC] = URING_DATASYNC,
        [IO_OP_ALLOCATE] = URING_ALLOCATE,
    };
    struct io_ev *ev = io_ev_of(io);
    struct ev_file *file = CONTAINER_OF(base, struct ev_file, base);
    struct op_part *part = op_part(op);

    ASSERT(!file->is_closing);
    *part = (struct op_part){.ev = ev, .file = file};
    file->in_flight++;
    if (file->slot >= 0 && kind < ARRAY_COUNT(ring_kinds)) {
        part->ring = (struct uring_op){
            .done = ring_op_done,
            .data = data,
            .off = off,
            .size = size,
            .slot = file->slot,
            .kind = ring_kinds[kind],
            .is_aside = !file->is_direct && is_transfer(kind) && size >= ASIDE_MIN,
        };
        uring_queue(ev->uring, &part->ring);
        return;
    }
    part->job.data = data;
    part->job.size = size;
    part->job.off = off;
    job_submit(ev, op, (enum job_kind)kind);
}
_Static_assert(JOB_READ == (int)IO_OP_READ && JOB_LOCK == (int)IO_OP_LOCK, "same order");

/* A job with paths. NULL: the op has been answered already. */
static struct op_part *path_part(struct io_ev *ev, struct io_op *op, const char *from,
                                 const char *to)
{
    struct op_part *part = op_part(op);
    size_t from_size = strlen(from) + 1;
    size_t to_size = to != NULL ? strlen(to) + 1 : 0;

    ASSERT(op->done != NULL);
    *part = (struct op_part){.ev = ev};
    if (ev->files == IO_FILES_NONE) {
        io_ev_complete_later(ev, op, ERR_UNSUPPORTED);
        return NULL;
    }
    part->job.data = must_alloc(from_size + to_size);
    memcpy(part->job.data, from, from_size);
    if (to != NULL)
        memcpy(part->job.data + from_size, to, to_size);
    return part;
}

void io_ev_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                     struct io_file **out)
{
    struct op_part *part = path_part(io_ev_of(io), op, path, NULL);

    if (part == NULL)
        return;
    part->job.flags = flags;
    part->out = out;
    job_submit(io_ev_of(io), op, JOB_OPEN);
}

void io_ev_file_close(struct io *io, struct io_file *base)
{
    struct ev_file *file = CONTAINER_OF(base, struct ev_file, base);

    ASSERT(!file->is_closing);
    file->is_closing = true;
    if (file->in_flight == 0)
        file_close_now(io_ev_of(io), file);
}

void io_ev_path_submit(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                       const char *to)
{
    static const uint8_t job_kinds[] = {
        [IO_OP_RENAME] = JOB_RENAME, [IO_OP_UNLINK] = JOB_UNLINK,   [IO_OP_LINK] = JOB_LINK,
        [IO_OP_MKDIR] = JOB_MKDIR,   [IO_OP_DIRSYNC] = JOB_DIRSYNC,
    };

    if (path_part(io_ev_of(io), op, from, to) != NULL)
        job_submit(io_ev_of(io), op, (enum job_kind)job_kinds[kind]);
}

void io_ev_list_submit(struct io *io, struct io_op *op, const char *path,
                       void (*each)(void *arg, const char *name), void *each_arg)
{
    struct op_part *part = path_part(io_ev_of(io), op, path, NULL);

    if (part == NULL)
        return;
    part->each = each;
    part->each_arg = each_arg;
    job_submit(io_ev_of(io), op, JOB_LIST);
}

void io_ev_touch(struct io *io, struct io_op *op, void *memory, size_t size)
{
    struct io_ev *ev = io_ev_of(io);
    struct op_part *part = op_part(op);

    *part = (struct op_part){.ev = ev};
    if (ev->files == IO_FILES_NONE) {
        io_ev_complete_later(ev, op, ERR_UNSUPPORTED);
        return;
    }
    part->job.data = memory;
    part->job.size = size;
    job_submit(ev, op, JOB_TOUCH);
}

/* ---- once --------------------------------------------------------------------------------- */

static void file_done_event(struct ev_loop *loop, ev_async *watcher, int events)
{
    struct io_ev *ev = CONTAINER_OF(watcher, struct io_ev, file_done);

    (void)loop, (void)events;
    io_turn_mark(&ev->io);
    threads_reap(ev->file_threads);
}

void io_ev_file_todo(struct io_ev *ev)
{
    if (ev->uring != NULL)
        uring_go_on(ev->uring);
}

void io_ev_file_before_wait(struct io_ev *ev)
{
    bool is_more = ev_is_active(&ev->no_wait); /* to do at once */
    uint32_t linger_us = ev->linger_us;

    if (ev->linger_is_turn)
        io_ev_wake(&ev->io);
    ev->linger_us = 0;
    ev->linger_is_turn = false;
    if (ev->uring != NULL)
        uring_submit(ev->uring, is_more ? 0 : linger_us);
}

void io_ev_file_submit_now(struct io *io)
{
    struct io_ev *ev = io_ev_of(io);

    if (ev->uring != NULL && ev->linger_us == 0)
        uring_submit(ev->uring, 0);
}

bool io_ev_file_can_linger(const struct io_ev *ev)
{
    return ev->uring != NULL && uring_can_linger(ev->uring);
}

int io_ev_file_init(struct io_ev *ev, const struct io_ev_options *options)
{
    int err;

    ev->files = options->files;
    ev->dir_fd = AT_FDCWD;
    list_init(&ev->file_list);
    ev_async_init(&ev->file_done, file_done_event);
    if (ev->files == IO_FILES_NONE)
        return 0;
    ev_async_start(ev->loop, &ev->file_done);
    if (options->directory != NULL) {
        ev->dir_fd = open(options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (ev->dir_fd < 0)
            return -errno;
    }
    if (ev->files == IO_FILES_URING || ev->files == IO_FILES_BEST) {
        err = uring_create(ev->loop, &ev->io, options->files_us, &ev->uring);
        if (err != 0)
            log_notice(ev->io.log, "files: io_uring is refused, threads do its work: %s",
                       err_text(err));
        ev->files = err == 0 ? IO_FILES_URING : IO_FILES_THREADS;
    }
    return options->start_threads ? file_start_threads(ev) : 0;
}

void io_ev_file_deinit(struct io_ev *ev)
{
    struct list_node *node;

    threads_destroy(&ev->file_threads, true, op_drop);
    uring_destroy(&ev->uring);
    while ((node = list_pop_front(&ev->file_list)) != NULL) {
        struct ev_file *file = CONTAINER_OF(node, struct ev_file, node);

        if (file->fd >= 0) /* else a thread has closed it */
            close(file->fd);
        mem_free(file);
    }
    ev_async_stop(ev->loop, &ev->file_done);
    if (ev->dir_fd >= 0)
        close(ev->dir_fd);
}

const char *io_ev_files_name(const struct io *io)
{
    const struct io_ev *ev = CONTAINER_OF((void *)(uintptr_t)io, struct io_ev, io);

    switch (ev->files) {
    case IO_FILES_NONE:    return "none";
    case IO_FILES_THREADS: return "threads";
    case IO_FILES_URING:
    case IO_FILES_BEST:    return "io_uring";
    }
    UNREACHABLE("no such backend");
}
