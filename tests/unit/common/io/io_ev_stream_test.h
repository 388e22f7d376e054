/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_ev_stream_test.h - one end of a stream under test, the other a raw descriptor.
 */
#pragma once
#include "tests/unit/common/io/io_ev_test.h"

#include "common/base/mem.h"

/* One end under test; `peer` is the raw descriptor of the other. What it does with bytes is a mode. */
enum mode { TAKE_ALL, TAKE_NONE, TAKE_FRAMES, TAKE_ONE_AND_PAUSE, TAKE_ONE_AND_BOUNCE, CLOSE_ON_RECV,
            DETACH_ON_RECV, REOPEN_ON_RECV, PAUSE_OTHER, CLOSE_OTHER, DETACH_OTHER };

struct end {
    struct io_stream stream;
    struct loop *loop;
    enum mode mode;
    int peer;
    char *got; /* what was consumed */
    size_t got_len, got_cap;
    size_t last_len; /* what was lent last */
    int recv_count, closed_count, writable_count, connected_count;
    int closed_err, connected_err;
    char rest[64];
    size_t rest_len;
    size_t stop_at; /* consumed bytes */
    bool keeps_open;
    char *detached;
    size_t detached_len;
    int detached_fd;
    int next_fd; /* REOPEN_ON_RECV */
    struct end *other; /* ..._OTHER */
    int ahead_count;
    uint64_t burn_us; /* that a receive takes */
};

static const struct io_stream_handler end_handler;

static inline void end_take(struct end *end, const char *data, size_t len)
{
    if (end->got_len + len > end->got_cap) {
        end->got_cap = 2 * (end->got_len + len);
        end->got = must_realloc(end->got, end->got_cap);
        assert_non_null(end->got);
    }
    memcpy(end->got + end->got_len, data, len);
    end->got_len += len;
    if (end->stop_at != 0 && end->got_len >= end->stop_at)
        io_stop(end->loop->io);
}

/* A frame is 4 bytes of length (of what follows), then that. */
static inline size_t end_take_frames(struct end *end, struct bytes data)
{
    size_t consumed = 0;

    while (data.len - consumed >= 4) {
        uint32_t size;

        memcpy(&size, data.data + consumed, 4);
        if (data.len - consumed < 4 + (size_t)size) {
            end->stream.need = 4 + size;
            break;
        }
        end_take(end, data.data + consumed + 4, size);
        consumed += 4 + size;
    }
    return consumed;
}

/* Only the first of the two that is called does it. */
static inline void end_act_on_other(struct end *end)
{
    struct end *other = end->other;

    if (end->mode == PAUSE_OTHER)
        io_stream_pause(&other->stream);
    else if (end->mode == CLOSE_OTHER)
        io_stream_close(&other->stream);
    else
        other->detached_fd = io_stream_detach(&other->stream, &other->detached, &other->detached_len);
    end->mode = other->mode = TAKE_ALL;
    end->other = NULL;
}

static inline void end_burn(const struct end *end)
{
    uint64_t until_us = io_clock_us(end->loop->io) + end->burn_us;

    while (end->burn_us > 0 && io_clock_us(end->loop->io) < until_us)
        ;
}

static inline size_t end_recv(struct io_stream *stream, struct bytes data)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    assert_true(data.len > 0);
    assert_int_equal(stream->need, 0);
    assert_false(io_stream_is_paused(stream));
    end->recv_count++;
    end->last_len = data.len;
    end_burn(end);
    switch (end->mode) {
    case TAKE_ALL:
        end_take(end, data.data, data.len);
        return data.len;
    case TAKE_NONE:
        if (end->stop_at != 0 && data.len >= end->stop_at)
            io_stop(end->loop->io);
        return 0;
    case TAKE_FRAMES:
        return end_take_frames(end, data);
    case TAKE_ONE_AND_PAUSE:
        io_stream_pause(stream);
        end_take(end, data.data, 1);
        return 1;
    case TAKE_ONE_AND_BOUNCE: /* whoever pauses and resumes wants to be called again */
        io_stream_pause(stream);
        io_stream_resume(stream);
        end_take(end, data.data, 1);
        return 1;
    case CLOSE_ON_RECV:
        io_stream_close(stream);
        end_take(end, data.data, data.len); /* I3: it still lies there (sanitizer) */
        return 12345;                       /* does not matter */
    case DETACH_ON_RECV:
        end->detached_fd = io_stream_detach(stream, &end->detached, &end->detached_len);
        end_take(end, data.data, data.len);
        return 0;
    case REOPEN_ON_RECV:
        end_take(end, data.data, data.len);
        end->mode = TAKE_ALL;
        io_stream_close(stream);
        assert_int_equal(io_stream_open(end->loop->io, stream, &end_handler, end->next_fd, NULL,
                                        BYTES("again:")),
                         0);
        io_stream_resume(stream);
        return 0;
    case PAUSE_OTHER:
    case CLOSE_OTHER:
    case DETACH_OTHER:
        end_act_on_other(end);
        end_take(end, data.data, data.len);
        return data.len;
    }
    return 0;
}

static inline void end_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    end->closed_count++;
    end->closed_err = err;
    end->rest_len = MIN(rest.len, sizeof(end->rest));
    memcpy(end->rest, rest.data, end->rest_len);
    if (!end->keeps_open)
        io_stream_close(stream);
    io_stop(end->loop->io);
}

static inline void end_writable(struct io_stream *stream)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    end->writable_count++;
    io_stop(end->loop->io);
}

static inline void end_connected(struct io_stream *stream, int err)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    end->connected_count++;
    end->connected_err = err;
    assert_int_equal(io_stream_is_open(stream), err == 0);
    io_stop(end->loop->io);
}

static inline void end_ahead(struct io_stream *stream, struct bytes data)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    assert_true(data.len > 0);
    end->ahead_count++;
}

static const struct io_stream_handler end_handler = {
    .recv = end_recv,
    .closed = end_closed,
    .writable = end_writable,
    .connected = end_connected,
    .ahead = end_ahead,
};

static inline void end_open_rest(struct end *end, struct loop *loop, struct bytes rest)
{
    int pair[2];

    memset(end, 0, sizeof(*end));
    end->loop = loop;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    end->peer = pair[1];
    assert_int_equal(io_stream_open(loop->io, &end->stream, &end_handler, pair[0], NULL, rest), 0);
    assert_true(io_stream_is_paused(&end->stream));
}

static inline void end_open(struct end *end, struct loop *loop)
{
    end_open_rest(end, loop, BYTES_EMPTY);
    io_stream_resume(&end->stream);
}

static inline void end_close(struct end *end)
{
    io_stream_close(&end->stream);
    io_stream_close(&end->stream);
    assert_false(io_stream_is_open(&end->stream));
    if (end->peer >= 0)
        close(end->peer);
    mem_free(end->got);
}

static inline void peer_write(struct end *end, const void *data, size_t len)
{
    assert_int_equal(write(end->peer, data, len), len);
}

static inline void assert_got(struct end *end, const char *text)
{
    assert_int_equal(end->got_len, strlen(text));
    assert_memory_equal(end->got, text, end->got_len);
}

static inline int setup_alone(void **state)
{
    static struct loop loop;

    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_NONE});
    *state = &loop;
    return 0;
}

/* Where the kernel forbids rings this is the same again, as in a worker. */
static inline int setup_together(void **state)
{
    static struct loop loop;

    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_NONE, .sockets = IO_SOCKETS_TOGETHER});
    *state = &loop;
    return 0;
}

static inline int teardown(void **state)
{
    loop_close(*state);
    return 0;
}

/* Two tests. */
#define LOOP_TEST(f)                                                                                                   \
    {#f " (alone)", f, setup_alone, teardown, NULL}, {#f " (together)", f, setup_together, teardown, NULL}
