/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all backends share: addresses, turn hooks, argument checks, dispatch.
 */
#include "common/io/io.h"
#include "common/io/io_private.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>

#define STEP_LEAST_US 40u /* of a step, whatever the others of its turn took */

/* ---- addresses ---------------------------------------------------------------------------- */

static void addr_text_unix(const struct io_addr *addr, char out[IO_ADDR_TEXT_MAX])
{
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t room = addr->len > head ? addr->len - head : 0;
    const char *path = addr->un.sun_path;

    if (room == 0)
        snprintf(out, IO_ADDR_TEXT_MAX, "unix:");
    else if (path[0] == '\0') /* abstract: shown as ss(8) does */
        snprintf(out, IO_ADDR_TEXT_MAX, "@%.*s", (int)strnlen(path + 1, room - 1), path + 1);
    else
        snprintf(out, IO_ADDR_TEXT_MAX, "%.*s", (int)strnlen(path, room), path);
}

char *io_addr_text(const struct io_addr *addr, char out[IO_ADDR_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN] = "";

    if (addr->len == 0) {
        snprintf(out, IO_ADDR_TEXT_MAX, "?");
    } else if (addr->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &addr->in.sin_addr, host, sizeof(host));
        snprintf(out, IO_ADDR_TEXT_MAX, "%s:%u", host, ntohs(addr->in.sin_port));
    } else if (addr->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &addr->in6.sin6_addr, host, sizeof(host));
        snprintf(out, IO_ADDR_TEXT_MAX, "[%s]:%u", host, ntohs(addr->in6.sin6_port));
    } else if (addr->any.sa_family == AF_UNIX) {
        addr_text_unix(addr, out);
    } else {
        snprintf(out, IO_ADDR_TEXT_MAX, "?");
    }
    return out;
}

/* "fe80::1%eth0" names its interface by name or number. */
static int addr_parse_scoped(const char *host, const char *percent, struct io_addr *out)
{
    char bare[INET6_ADDRSTRLEN];
    size_t len = (size_t)(percent - host);

    if (len >= sizeof(bare))
        return ERR_INVALID;
    memcpy(bare, host, len);
    bare[len] = '\0';
    if (inet_pton(AF_INET6, bare, &out->in6.sin6_addr) != 1)
        return ERR_INVALID;
    out->in6.sin6_scope_id = if_nametoindex(percent + 1);
    if (out->in6.sin6_scope_id == 0) {
        uint64_t number;

        if (!bytes_to_u64(bytes_of_string(percent + 1), UINT32_MAX, &number) || number == 0)
            return ERR_INVALID;
        out->in6.sin6_scope_id = (uint32_t)number;
    }
    return 0;
}

int io_addr_parse(const char *host, uint16_t port, struct io_addr *out)
{
    const char *percent = strchr(host, '%');

    memset(out, 0, sizeof(*out));
    if (percent == NULL && inet_pton(AF_INET, host, &out->in.sin_addr) == 1) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(port);
        out->len = sizeof(out->in);
        return 0;
    }
    memset(out, 0, sizeof(*out));
    if (percent != NULL ? addr_parse_scoped(host, percent, out) == 0
                        : inet_pton(AF_INET6, host, &out->in6.sin6_addr) == 1) {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(port);
        out->len = sizeof(out->in6);
        return 0;
    }
    memset(out, 0, sizeof(*out));
    return ERR_INVALID;
}

int io_addr_unix(const char *path, struct io_addr *out)
{
    size_t len = strlen(path);

    memset(out, 0, sizeof(*out));
    if (len == 0 || len >= sizeof(out->un.sun_path))
        return ERR_INVALID;
    out->un.sun_family = AF_UNIX;
    memcpy(out->un.sun_path, path, len + 1);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return 0;
}

bool io_addr_equal(const struct io_addr *a, const struct io_addr *b)
{
    if (a->len == 0 || b->len == 0)
        return a->len == b->len;
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->in.sin_port == b->in.sin_port &&
               a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    if (a->any.sa_family == AF_INET6)
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
    return a->len == b->len && memcmp(&a->any, &b->any, a->len) == 0;
}

bool io_addr_is_loopback(const struct io_addr *addr)
{
    if (addr->len == 0)
        return false;
    if (addr->any.sa_family == AF_INET)
        return ntohl(addr->in.sin_addr.s_addr) >> 24 == 127;
    if (addr->any.sa_family == AF_INET6) {
        const struct in6_addr *in6 = &addr->in6.sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
    }
    return addr->any.sa_family == AF_UNIX;
}

/* ---- the loop ----------------------------------------------------------------------------- */

void io_init(struct io *io, const struct io_vtable *vtable, struct log *log)
{
    memset(io, 0, sizeof(*io));
    io->vtable = vtable;
    io->log = log;
    list_init(&io->hooks);
}

uint64_t io_now_us(const struct io *io)
{
    return io->now_us;
}

uint64_t io_now_ms(const struct io *io)
{
    return io->now_ms;
}

uint64_t io_clock_us(struct io *io)
{
    return io->vtable->clock_us(io);
}

uint64_t io_cpu_us(struct io *io)
{
    return io->vtable->cpu_us(io);
}

uint64_t io_wall_us(struct io *io)
{
    return io->vtable->wall_us(io);
}

uint64_t io_random64(struct io *io)
{
    return io->vtable->random64(io);
}

struct log *io_log(const struct io *io)
{
    return io->log;
}

void io_hook_add(struct io *io, struct io_hook *hook)
{
    list_push_back(&io->hooks, &hook->node);
}

void io_hook_remove(struct io *io, struct io_hook *hook)
{
    if (!list_node_is_linked(&hook->node))
        return;
    if (io->hook_next == &hook->node)
        io->hook_next = hook->node.next;
    list_remove(&hook->node);
}

void io_turn_end(struct io *io)
{
    if (!io->has_happened)
        return;
    io->has_happened = false;
    for (struct list_node *node = io->hooks.head.next; node != &io->hooks.head;
         node = io->hook_next) {
        struct io_hook *hook = CONTAINER_OF(node, struct io_hook, node);

        io->hook_next = node->next;
        hook->run(hook);
    }
    io->hook_next = NULL;
}

void io_wake(struct io *io)
{
    io->vtable->wake(io);
}

uint64_t io_step_begin(struct io *io, uint32_t step_us)
{
    uint64_t left_us = step_us;

    ASSERT(!io->is_stepping);
    io->is_stepping = true;
    io->step_begun_us = io_clock_us(io);
    if (io->steps_us != 0) {
        if (io->steps_turn_us != io->now_us) {
            io->steps_turn_us = io->now_us;
            io->steps_used_us = 0;
        }
        left_us = io->steps_us - MIN(io->steps_used_us, (uint64_t)io->steps_us);
    }
    return io->step_begun_us + MIN(MAX(left_us, (uint64_t)STEP_LEAST_US), (uint64_t)step_us);
}

void io_step_end(struct io *io)
{
    ASSERT(io->is_stepping);
    io->is_stepping = false;
    io->steps_used_us += io_clock_us(io) - io->step_begun_us;
}

void io_run(struct io *io)
{
    io->vtable->run(io);
}

void io_stop(struct io *io)
{
    io->vtable->stop(io);
}

/* ---- timers ------------------------------------------------------------------------------- */

void io_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ms)
{
    ASSERT(timer->fire != NULL);
    ASSERT(timer->io == NULL || timer->io == io);
    io->vtable->timer_start(io, timer, delay_ms);
}

void io_timer_stop(struct io_timer *timer)
{
    if (timer->io != NULL)
        timer->io->vtable->timer_stop(timer->io, timer);
}

/* ---- byte streams ------------------------------------------------------------------------- */

static void stream_reset(struct io_stream *stream, const struct io_stream_handler *handler)
{
    memset(stream, 0, sizeof(*stream));
    stream->handler = handler;
    stream->fd = -1;
    stream->recv_paused_ = true;
}

int io_stream_open(struct io *io, struct io_stream *stream, const struct io_stream_handler *handler,
                   int fd, const struct io_stream_options *options, struct bytes rest)
{
    stream_reset(stream, handler);
    return io->vtable->stream_open(io, stream, fd, options, rest);
}

int io_stream_connect(struct io *io, struct io_stream *stream,
                      const struct io_stream_handler *handler, const struct io_addr *addr,
                      const struct io_stream_options *options)
{
    ASSERT(handler->connected != NULL);
    stream_reset(stream, handler);
    return io->vtable->stream_connect(io, stream, addr, options);
}

void io_stream_resume(struct io_stream *stream)
{
    if (stream->io != NULL && stream->recv_paused_)
        stream->io->vtable->stream_resume(stream->io, stream);
}

void io_stream_pause(struct io_stream *stream)
{
    if (stream->io != NULL && !stream->recv_paused_)
        stream->io->vtable->stream_pause(stream->io, stream);
}

bool io_stream_is_paused(const struct io_stream *stream)
{
    return stream->recv_paused_;
}

ssize_t io_stream_send(struct io_stream *stream, const struct iovec *slices, int count)
{
    ASSERT(stream->io != NULL);
    return stream->io->vtable->stream_send(stream->io, stream, slices, count);
}

void io_streams_send(struct io *io, struct io_send *sends, unsigned count)
{
    if (io->vtable->streams_send != NULL) {
        io->vtable->streams_send(io, sends, count);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        sends[i].sent = io_stream_send(sends[i].stream, sends[i].slices, sends[i].count);
}

void io_stream_shutdown(struct io_stream *stream)
{
    if (stream->io != NULL)
        stream->io->vtable->stream_shutdown(stream->io, stream);
}

void io_stream_close(struct io_stream *stream)
{
    if (stream->io != NULL)
        stream->io->vtable->stream_close(stream->io, stream, false);
}

void io_stream_abort(struct io_stream *stream)
{
    if (stream->io != NULL)
        stream->io->vtable->stream_close(stream->io, stream, true);
}

int io_stream_detach(struct io_stream *stream, char **rest_data, size_t *rest_len)
{
    ASSERT(stream->io != NULL);
    return stream->io->vtable->stream_detach(stream->io, stream, rest_data, rest_len);
}

void io_stream_peer(const struct io_stream *stream, struct io_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (stream->io != NULL)
        stream->io->vtable->stream_peer(stream->io, stream, out);
}

void io_stream_local(const struct io_stream *stream, struct io_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (stream->io != NULL)
        stream->io->vtable->stream_local(stream->io, stream, out);
}

/* ---- listeners, watches ------------------------------------------------------------------- */

void io_listener_start(struct io *io, struct io_listener *listener, int fd)
{
    ASSERT(listener->io == NULL);
    ASSERT(listener->accepted != NULL);
    io->vtable->listener_start(io, listener, fd);
}

void io_listener_stop(struct io_listener *listener)
{
    if (listener->io != NULL)
        listener->io->vtable->listener_stop(listener->io, listener);
}

void io_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write)
{
    ASSERT(watch->ready != NULL);
    io_watch_stop(watch);
    io->vtable->watch_start(io, watch, fd, read, write);
}

void io_watch_stop(struct io_watch *watch)
{
    if (watch->io != NULL)
        watch->io->vtable->watch_stop(watch->io, watch);
}

bool io_linger(struct io *io, uint32_t us, bool is_turn)
{
    ASSERT(us < 1000000);
    return io->vtable->linger(io, us, is_turn);
}

void io_submit(struct io *io)
{
    if (io->vtable->submit != NULL)
        io->vtable->submit(io);
}

void io_yield(struct io *io)
{
    if (io->vtable->yield != NULL)
        io->vtable->yield(io);
}

/* ---- operations --------------------------------------------------------------------------- */

void io_resolve_submit(struct io *io, struct io_resolve *resolve)
{
    ASSERT(resolve->op.done != NULL);
    ASSERT(resolve->io == NULL);
    ASSERT(memchr(resolve->host, '\0', sizeof(resolve->host)) != NULL);
    io->vtable->resolve_submit(io, resolve);
}

void io_resolve_cancel(struct io_resolve *resolve)
{
    if (resolve->io != NULL)
        resolve->io->vtable->resolve_cancel(resolve->io, resolve);
}

void io_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                  struct io_file **out)
{
    *out = NULL;
    io->vtable->file_open(io, op, path, flags, out);
}

void io_file_close(struct io_file *file)
{
    if (file != NULL)
        file->io->vtable->file_close(file->io, file);
}

static void file_submit(struct io_file *file, struct io_op *op, enum io_file_op kind, void *data,
                        size_t size, uint64_t off)
{
    ASSERT(op->done != NULL);
    file->io->vtable->file_submit(file->io, file, op, kind, data, size, off);
}

void io_file_read(struct io_file *file, struct io_op *op, void *data, size_t size, uint64_t off)
{
    file_submit(file, op, IO_OP_READ, data, size, off);
}

void io_file_write(struct io_file *file, struct io_op *op, const void *data, size_t size,
                   uint64_t off)
{
    file_submit(file, op, IO_OP_WRITE, (void *)(uintptr_t)data, size, off);
}

void io_file_write_durable(struct io_file *file, struct io_op *op, const void *data, size_t size,
                           uint64_t off)
{
    file_submit(file, op, IO_OP_WRITE_DURABLE, (void *)(uintptr_t)data, size, off);
}

void io_file_datasync(struct io_file *file, struct io_op *op)
{
    file_submit(file, op, IO_OP_DATASYNC, NULL, 0, 0);
}

void io_file_allocate(struct io_file *file, struct io_op *op, uint64_t off, uint64_t size)
{
    file_submit(file, op, IO_OP_ALLOCATE, NULL, size, off);
}

void io_file_truncate(struct io_file *file, struct io_op *op, uint64_t size)
{
    file_submit(file, op, IO_OP_TRUNCATE, NULL, size, 0);
}

void io_file_size(struct io_file *file, struct io_op *op)
{
    file_submit(file, op, IO_OP_SIZE, NULL, 0, 0);
}

void io_file_links(struct io_file *file, struct io_op *op)
{
    file_submit(file, op, IO_OP_LINKS, NULL, 0, 0);
}

void io_file_space(struct io_file *file, struct io_op *op)
{
    file_submit(file, op, IO_OP_SPACE, NULL, 0, 0);
}

void io_file_lock(struct io_file *file, struct io_op *op)
{
    file_submit(file, op, IO_OP_LOCK, NULL, 0, 0);
}

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    io->vtable->path_submit(io, op, IO_OP_RENAME, from, to);
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    io->vtable->path_submit(io, op, IO_OP_UNLINK, path, NULL);
}

void io_link(struct io *io, struct io_op *op, const char *from, const char *to)
{
    io->vtable->path_submit(io, op, IO_OP_LINK, from, to);
}

void io_mkdir(struct io *io, struct io_op *op, const char *path)
{
    io->vtable->path_submit(io, op, IO_OP_MKDIR, path, NULL);
}

void io_dirsync(struct io *io, struct io_op *op, const char *path)
{
    io->vtable->path_submit(io, op, IO_OP_DIRSYNC, path, NULL);
}

void io_touch(struct io *io, struct io_op *op, void *memory, size_t size)
{
    ASSERT(op->done != NULL);
    io->vtable->touch(io, op, memory, size);
}

void io_list(struct io *io, struct io_op *op, const char *path,
             void (*each)(void *arg, const char *name), void *each_arg)
{
    io->vtable->list_submit(io, op, path, each, each_arg);
}

/* ---- memory that outlives the process ------------------------------------------------------ */

int io_shared_map(struct io *io, const char *path, size_t size, void **addr, bool *existed)
{
    ASSERT(size > 0 && size % 4096 == 0);
    return io->vtable->shared_map(io, path, size, addr, existed);
}

int io_shared_size(struct io *io, const char *path, size_t *size)
{
    return io->vtable->shared_size(io, path, size);
}

void io_shared_why(struct io *io, const char *path, char *out, size_t size)
{
    io->vtable->shared_why(io, path, out, size);
}

void io_shared_unmap(struct io *io, void *addr, size_t size)
{
    if (addr != NULL)
        io->vtable->shared_unmap(io, addr, size);
}

int io_shared_remove(struct io *io, const char *path)
{
    return io->vtable->shared_remove(io, path);
}

int io_boot_id(struct io *io, unsigned char out[16])
{
    return io->vtable->boot_id(io, out);
}
