/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams of io_ev, over socket pairs and loopback TCP. */
#include "tests/unit/common/io/io_ev_test.h"

#include "common/base/mem.h"

#include <arpa/inet.h>
#include <stdio.h>

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
};

static const struct io_stream_handler end_handler;

static void end_take(struct end *end, const char *data, size_t len)
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
static size_t end_take_frames(struct end *end, struct bytes data)
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
static void end_act_on_other(struct end *end)
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

static size_t end_recv(struct io_stream *stream, struct bytes data)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    assert_true(data.len > 0);
    assert_int_equal(stream->need, 0);
    assert_false(io_stream_is_paused(stream));
    end->recv_count++;
    end->last_len = data.len;
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

static void end_closed(struct io_stream *stream, int err, struct bytes rest)
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

static void end_writable(struct io_stream *stream)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    end->writable_count++;
    io_stop(end->loop->io);
}

static void end_connected(struct io_stream *stream, int err)
{
    struct end *end = CONTAINER_OF(stream, struct end, stream);

    end->connected_count++;
    end->connected_err = err;
    assert_int_equal(io_stream_is_open(stream), err == 0);
    io_stop(end->loop->io);
}

static void end_ahead(struct io_stream *stream, struct bytes data)
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

static void end_open_rest(struct end *end, struct loop *loop, struct bytes rest)
{
    int pair[2];

    memset(end, 0, sizeof(*end));
    end->loop = loop;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    end->peer = pair[1];
    assert_int_equal(io_stream_open(loop->io, &end->stream, &end_handler, pair[0], NULL, rest), 0);
    assert_true(io_stream_is_paused(&end->stream));
}

static void end_open(struct end *end, struct loop *loop)
{
    end_open_rest(end, loop, BYTES_EMPTY);
    io_stream_resume(&end->stream);
}

static void end_close(struct end *end)
{
    io_stream_close(&end->stream);
    io_stream_close(&end->stream);
    assert_false(io_stream_is_open(&end->stream));
    if (end->peer >= 0)
        close(end->peer);
    mem_free(end->got);
}

static void peer_write(struct end *end, const void *data, size_t len)
{
    assert_int_equal(write(end->peer, data, len), len);
}

static void assert_got(struct end *end, const char *text)
{
    assert_int_equal(end->got_len, strlen(text));
    assert_memory_equal(end->got, text, end->got_len);
}

static int setup(void **state)
{
    static struct loop loop;

    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_NONE});
    *state = &loop;
    return 0;
}

static int teardown(void **state)
{
    loop_close(*state);
    return 0;
}

/* ---- receive ------------------------------------------------------------------------------ */

/* Three frames, cut at every byte into two writes: the same frames, and no buffer at rest. */
static void test_frames_survive_any_cut(void **state)
{
    static const char wire[] = "\5\0\0\0first\0\0\0\0\7\0\0\0seconds\3\0\0\0end";
    struct loop *loop = *state;
    size_t len = sizeof(wire) - 1;

    for (size_t cut = 1; cut < len; cut++) {
        struct end end;

        end_open(&end, loop);
        end.mode = TAKE_FRAMES;
        peer_write(&end, wire, cut);
        loop_run_ms(loop, 0);
        end.stop_at = 15;
        peer_write(&end, wire + cut, len - cut);
        loop_run(loop);
        assert_got(&end, "firstsecondsend");
        assert_null(end.stream.rest_);
        end_close(&end);
    }
}

/* A frame of 3 MB in pieces of 1 kB: `need` spares the handler all calls but a few. */
static void test_need_holds_back_until_the_frame_is_there(void **state)
{
    struct loop *loop = *state;
    struct end end;
    uint32_t size = 3000000;
    char *frame = must_alloc(size + 4);
    size_t sent = 0;

    end_open(&end, loop);
    end.mode = TAKE_FRAMES;
    memcpy(frame, &size, 4);
    for (uint32_t i = 0; i < size; i++)
        frame[4 + i] = (char)(i * 7 + i / 1000);
    while (sent < size + 4) {
        size_t step = MIN((size_t)1000, size + 4 - sent);

        peer_write(&end, frame + sent, step);
        sent += step;
        if (end.stream.rest_len_ + 1000 >= size)
            end.stop_at = size;
        loop_run_ms(loop, 0);
        assert_true(end.stream.rest_cap_ <= MAX(2 * end.stream.rest_len_ + 2000, 70000u));
    }
    if (end.got_len < size)
        loop_run(loop);
    assert_int_equal(end.got_len, size);
    assert_memory_equal(end.got, frame + 4, size);
    assert_int_equal(end.recv_count, 2);
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(frame);
}

/* Without `need` every arrival is lent, all that is kept in front. */
static void test_what_is_not_consumed_is_lent_again(void **state)
{
    struct loop *loop = *state;
    struct end end;
    char *block = must_zalloc(30000);

    end_open(&end, loop);
    end.mode = TAKE_NONE;
    for (size_t i = 1; i <= 10; i++) {
        end.stop_at = i * 30000;
        peer_write(&end, block, 30000);
        loop_run(loop);
        assert_int_equal(end.last_len, i * 30000);
        assert_int_equal(end.recv_count, i);
    }
    end.mode = TAKE_ALL;
    peer_write(&end, "!", 1);
    end.stop_at = 1;
    loop_run(loop);
    assert_int_equal(end.got_len, 300001);
    assert_int_equal(end.got[300000], '!');
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(block);
}

static void test_pause_keeps_and_resume_lends(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_PAUSE;
    peer_write(&end, "abc", 3);
    end.stop_at = 1;
    loop_run(loop);
    peer_write(&end, "d", 1);
    loop_run_ms(loop, 2);
    assert_got(&end, "a");
    assert_int_equal(end.stream.rest_len_, 2);
    for (size_t i = 2; i <= 4; i++) {
        int before = end.recv_count;

        end.stop_at = i;
        io_stream_resume(&end.stream);
        assert_int_equal(end.recv_count, before); /* I1 */
        loop_run(loop);
    }
    assert_got(&end, "abcd");
    assert_null(end.stream.rest_);
    end_close(&end);
}

/* A large rest taken in small bites: it is not moved each time, and shrinks as it goes. */
static void test_small_bites_of_a_large_rest(void **state)
{
    struct loop *loop = *state;
    struct end end;
    size_t len = 100000;
    char *block = must_alloc(len);

    for (size_t i = 0; i < len; i++)
        block[i] = (char)(i % 251);
    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_BOUNCE;
    end.stop_at = 3000;
    peer_write(&end, block, len);
    loop_run(loop);
    assert_memory_equal(end.got, block, 3000);
    end.mode = TAKE_ALL;
    end.stop_at = len;
    loop_run(loop);
    assert_int_equal(end.got_len, len);
    assert_memory_equal(end.got, block, len);
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(block);
}

static void test_pause_and_resume_inside_recv_lends_again(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_BOUNCE;
    end.stop_at = 5;
    peer_write(&end, "hello", 5);
    loop_run(loop);
    assert_got(&end, "hello");
    assert_int_equal(end.recv_count, 5);
    end_close(&end);
}

static void test_nothing_is_received_while_paused(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    io_stream_pause(&end.stream);
    peer_write(&end, "x", 1);
    loop_run_ms(loop, 3);
    assert_int_equal(end.recv_count, 0);
    io_stream_resume(&end.stream);
    io_stream_pause(&end.stream);
    loop_run_ms(loop, 3);
    assert_int_equal(end.recv_count, 0);
    io_stream_resume(&end.stream);
    end.stop_at = 1;
    loop_run(loop);
    assert_got(&end, "x");
    end_close(&end);
}

static void test_rest_given_at_open_comes_first(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open_rest(&end, loop, BYTES("early "));
    end.mode = TAKE_ALL;
    peer_write(&end, "late", 4);
    loop_run_ms(loop, 2);
    assert_int_equal(end.recv_count, 0);
    end.stop_at = 10;
    io_stream_resume(&end.stream);
    assert_int_equal(end.recv_count, 0);
    loop_run(loop);
    assert_got(&end, "early late");
    end_close(&end);
}

/* A flood must not keep others from being served: the small one gets through while it lasts. */
static void test_a_flood_does_not_starve_others(void **state)
{
    enum { RECV_SIZE = 32 << 10 };
    struct loop loop;
    struct end flood, small;
    size_t len = 1 << 20;
    ssize_t done;
    char *block = must_zalloc(len);

    (void)state;
    loop_open(&loop, (struct io_ev_options){.recv_size = RECV_SIZE});
    end_open(&flood, &loop);
    end_open(&small, &loop);
    assert_int_equal(fcntl(flood.peer, F_SETFL, O_NONBLOCK), 0);
    done = write(flood.peer, block, len); /* what the socket's buffer holds */
    assert_true(done > 3 * RECV_SIZE);
    peer_write(&small, "hi", 2);
    small.stop_at = 2;
    loop_run(&loop);
    assert_true(flood.got_len <= 2 * RECV_SIZE);
    flood.stop_at = (size_t)done;
    loop_run(&loop);
    assert_int_equal(flood.got_len, done);
    end_close(&flood);
    end_close(&small);
    loop_close(&loop);
    mem_free(block);
}

/* ---- ends --------------------------------------------------------------------------------- */

static void test_eof_is_told_once_with_the_rest(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_FRAMES;
    end.keeps_open = true;
    peer_write(&end, "\5\0\0\0abc", 7);
    shutdown(end.peer, SHUT_WR);
    loop_run(loop);
    assert_int_equal(end.closed_count, 1);
    assert_int_equal(end.closed_err, ERR_EOF);
    assert_int_equal(end.rest_len, 7);
    assert_memory_equal(end.rest, "\5\0\0\0abc", 7);
    loop_run_ms(loop, 3);
    assert_int_equal(end.closed_count, 1);
    end_close(&end);
}

static void test_sending_goes_on_after_eof(void **state)
{
    struct loop *loop = *state;
    struct end end;
    char reply[8];
    struct iovec slice = {.iov_base = (char[]){"bye"}, .iov_len = 3};

    end_open(&end, loop);
    end.keeps_open = true;
    shutdown(end.peer, SHUT_WR);
    loop_run(loop);
    assert_int_equal(end.closed_err, ERR_EOF);
    assert_true(io_stream_is_open(&end.stream));
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), 3);
    io_stream_shutdown(&end.stream);
    assert_int_equal(read(end.peer, reply, sizeof(reply)), 3);
    assert_int_equal(read(end.peer, reply, sizeof(reply)), 0);
    end_close(&end);
}

/* A paused stream learns of the end when it is resumed, and after what it kept. */
static void test_eof_waits_for_resume(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_PAUSE;
    end.stop_at = 1;
    peer_write(&end, "ab", 2);
    shutdown(end.peer, SHUT_WR);
    loop_run(loop);
    loop_run_ms(loop, 3);
    assert_int_equal(end.closed_count, 0);
    end.mode = TAKE_ALL;
    end.stop_at = 0;
    io_stream_resume(&end.stream);
    loop_run(loop);
    assert_got(&end, "ab");
    assert_int_equal(end.closed_count, 1);
    assert_int_equal(end.rest_len, 0);
    end_close(&end);
}

static void test_close_inside_recv(void **state)
{
    struct loop *loop = *state;

    for (int with_rest = 0; with_rest < 2; with_rest++) {
        struct end end;

        end_open_rest(&end, loop, with_rest ? BYTES("rest") : BYTES_EMPTY);
        end.mode = CLOSE_ON_RECV;
        end.stop_at = 1;
        if (!with_rest)
            peer_write(&end, "data", 4);
        io_stream_resume(&end.stream);
        loop_run(loop);
        assert_got(&end, with_rest ? "rest" : "data");
        loop_run_ms(loop, 2);
        assert_int_equal(end.recv_count, 1);
        assert_int_equal(end.closed_count, 0);
        end_close(&end);
    }
}

/* The number of the closed descriptor is likely the new one's: libev must notice. */
static void test_close_and_reopen_inside_recv(void **state)
{
    struct loop *loop = *state;
    struct end end;
    int pair[2];

    end_open(&end, loop);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    end.mode = REOPEN_ON_RECV;
    end.next_fd = pair[0];
    peer_write(&end, "one ", 4);
    assert_int_equal(write(pair[1], "two", 3), 3);
    end.stop_at = 13;
    loop_run(loop);
    assert_got(&end, "one again:two");
    close(pair[1]);
    end_close(&end);
}

static void test_descriptor_numbers_are_reused(void **state)
{
    struct loop *loop = *state;

    for (int i = 0; i < 5; i++) {
        struct end first, second;
        int fd;

        end_open(&first, loop);
        loop_run_ms(loop, 0); /* it is in the epoll set now */
        fd = first.stream.fd;
        io_stream_close(&first.stream);
        end_open(&second, loop);
        assert_int_equal(second.stream.fd, fd);
        peer_write(&second, "x", 1);
        second.stop_at = 1;
        loop_run(loop);
        assert_int_equal(first.recv_count, 0);
        end_close(&second);
        end_close(&first);
    }
}

static void test_detach_and_reopen_with_the_rest(void **state)
{
    struct loop *loop = *state;
    struct end end, next;
    char *rest;
    size_t rest_len;
    int fd;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_PAUSE;
    end.stop_at = 1;
    peer_write(&end, "abc", 3);
    loop_run(loop);
    fd = io_stream_detach(&end.stream, &rest, &rest_len);
    assert_true(fd >= 0);
    assert_false(io_stream_is_open(&end.stream));
    assert_int_equal(rest_len, 2);
    peer_write(&end, "de", 2);
    loop_run_ms(loop, 2);
    assert_int_equal(end.recv_count, 1);

    memset(&next, 0, sizeof(next));
    next.loop = loop;
    next.peer = -1;
    next.stop_at = 4;
    assert_int_equal(io_stream_open(loop->io, &next.stream, &end_handler, fd, NULL,
                                    bytes_of(rest, rest_len)),
                     0);
    mem_free(rest);
    io_stream_resume(&next.stream);
    loop_run(loop);
    assert_got(&next, "bcde");
    end_close(&next);
    end_close(&end);
}

static void test_detach_inside_recv_gives_all_that_was_lent(void **state)
{
    struct loop *loop = *state;

    for (int with_rest = 0; with_rest < 2; with_rest++) {
        struct end end;

        end_open_rest(&end, loop, with_rest ? BYTES("ab") : BYTES_EMPTY);
        end.mode = DETACH_ON_RECV;
        end.stop_at = 2;
        if (!with_rest)
            peer_write(&end, "ab", 2);
        io_stream_resume(&end.stream);
        loop_run(loop);
        assert_int_equal(end.detached_len, 2);
        assert_memory_equal(end.detached, "ab", 2);
        mem_free(end.detached);
        close(end.detached_fd);
        end_close(&end);
    }
}

/* A descriptor that lives on elsewhere must not make the loop spin. Method: a dup() is what another
 * process would hold; turns are counted. */
struct turn_count {
    struct io_hook hook;
    int count;
};

static void count_run(struct io_hook *hook)
{
    CONTAINER_OF(hook, struct turn_count, hook)->count++;
}

static void test_a_descriptor_given_away_is_forgotten(void **state)
{
    struct loop *loop = *state;
    struct turn_count turns = {.hook.run = count_run};
    struct end end, other;
    char *rest;
    size_t rest_len;
    int fd, elsewhere;

    end_open(&end, loop);
    loop_run_ms(loop, 1);
    fd = io_stream_detach(&end.stream, &rest, &rest_len);
    assert_null(rest);
    elsewhere = dup(fd);
    close(fd);
    end_open(&other, loop); /* takes the number over */
    peer_write(&end, "for the other process", 21);
    io_hook_add(loop->io, &turns.hook);
    loop_run_ms(loop, 10);
    assert_true(turns.count <= 4);
    assert_int_equal(other.recv_count + end.recv_count, 0);
    io_hook_remove(loop->io, &turns.hook);
    close(elsewhere);
    end_close(&other);
    end_close(&end);
}

/* ---- send --------------------------------------------------------------------------------- */

static void test_short_sends_and_writable(void **state)
{
    struct loop *loop = *state;
    struct end end;
    size_t len = 1 << 20, sent = 0, received = 0;
    char *block = must_alloc(len), *copy = must_alloc(len);
    int room = 8192;

    for (size_t i = 0; i < len; i++)
        block[i] = (char)(i % 253);
    end_open(&end, loop);
    assert_int_equal(setsockopt(end.stream.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
    while (received < len) {
        struct iovec slices[2] = {
            {.iov_base = block + sent, .iov_len = MIN((size_t)100, len - sent)},
            {.iov_base = block + sent + MIN((size_t)100, len - sent), .iov_len = 0},
        };
        ssize_t now;

        slices[1].iov_len = len - sent - slices[0].iov_len;
        now = io_stream_send(&end.stream, slices, 2);
        assert_true(now >= 0);
        sent += (size_t)now;
        if (sent < len) {
            int before = end.writable_count;

            loop_run_ms(loop, 1);
            assert_int_equal(end.writable_count, before); /* no room yet */
        }
        received += (size_t)read(end.peer, copy + received, len - received);
        if (sent < len)
            loop_run(loop);
    }
    assert_true(end.writable_count > 1);
    assert_memory_equal(block, copy, len);
    loop_run_ms(loop, 1);
    end_close(&end);
    mem_free(block);
    mem_free(copy);
}

static void test_many_slices_go_in_one_call(void **state)
{
    struct loop *loop = *state;
    struct end end;
    static struct iovec slices[2500];
    static char letters[2500], copy[3000];

    end_open(&end, loop);
    for (size_t i = 0; i < ARRAY_COUNT(slices); i++) {
        letters[i] = (char)('a' + i % 26);
        slices[i] = (struct iovec){.iov_base = &letters[i], .iov_len = 1};
    }
    assert_int_equal(io_stream_send(&end.stream, slices, 2500), 2500);
    assert_int_equal(recv(end.peer, copy, 2500, MSG_WAITALL), 2500);
    assert_memory_equal(letters, copy, 2500);
    assert_int_equal(io_stream_send(&end.stream, slices, 0), 0);
    end_close(&end);
}

static void test_send_to_nobody_is_an_error_and_no_callback(void **state)
{
    struct loop *loop = *state;
    struct end end;
    struct iovec slice = {.iov_base = (char[]){"x"}, .iov_len = 1};

    end_open(&end, loop);
    close(end.peer);
    end.peer = -1;
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), -EPIPE);
    loop_run_ms(loop, 3);
    assert_int_equal(end.closed_count, 0);
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), -EPIPE);
    end_close(&end);
}

/* ---- TCP ---------------------------------------------------------------------------------- */

static int listen_open(struct io_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(addr->in);

    assert_true(fd >= 0);
    assert_int_equal(io_addr_parse("127.0.0.1", 0, addr), 0);
    assert_int_equal(bind(fd, &addr->any, addr->len), 0);
    assert_int_equal(listen(fd, 10), 0);
    assert_int_equal(getsockname(fd, &addr->any, &len), 0);
    return fd;
}

static void tcp_open(struct end *end, struct loop *loop)
{
    const struct io_stream_options options = {
        .nodelay = true, .keepalive = true, .user_timeout_ms = 30000};
    struct io_addr addr, peer;
    int listen_fd = listen_open(&addr);

    memset(end, 0, sizeof(*end));
    end->loop = loop;
    assert_int_equal(io_stream_connect(loop->io, &end->stream, &end_handler, &addr, &options), 0);
    assert_int_equal(end->connected_count, 0);
    loop_run(loop);
    assert_int_equal(end->connected_count, 1);
    assert_int_equal(end->connected_err, 0);
    end->peer = accept(listen_fd, NULL, NULL);
    assert_true(end->peer >= 0);
    close(listen_fd);
    io_stream_peer(&end->stream, &peer);
    assert_true(io_addr_equal(&peer, &addr));
    io_stream_local(&end->stream, &peer);
    assert_true(io_addr_is_loopback(&peer));
}

static void test_connect_then_both_ways(void **state)
{
    struct loop *loop = *state;
    struct iovec slice = {.iov_base = (char[]){"ping"}, .iov_len = 4};
    struct end end;
    char text[8];

    tcp_open(&end, loop);
    assert_true(io_stream_is_paused(&end.stream));
    io_stream_resume(&end.stream);
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), 4);
    assert_int_equal(recv(end.peer, text, sizeof(text), 0), 4);
    peer_write(&end, "pong", 4);
    end.stop_at = 4;
    loop_run(loop);
    assert_got(&end, "pong");
    end_close(&end);
}

static void test_reset_is_told_as_such(void **state)
{
    struct loop *loop = *state;
    struct linger linger = {.l_onoff = 1};
    struct iovec slice = {.iov_base = (char[]){"x"}, .iov_len = 1};
    struct end end;

    tcp_open(&end, loop);
    end.keeps_open = true;
    io_stream_resume(&end.stream);
    setsockopt(end.peer, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(end.peer);
    end.peer = -1;
    loop_run(loop);
    assert_int_equal(end.closed_count, 1);
    assert_int_equal(end.closed_err, -ECONNRESET);
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), -EPIPE);
    loop_run_ms(loop, 3);
    assert_int_equal(end.closed_count, 1);
    end_close(&end);
}

static void test_abort_resets_and_close_does_not(void **state)
{
    struct loop *loop = *state;
    char text[8];

    for (int is_abort = 0; is_abort < 2; is_abort++) {
        struct iovec slice = {.iov_base = (char[]){"last"}, .iov_len = 4};
        struct end end;

        tcp_open(&end, loop);
        io_stream_resume(&end.stream);
        peer_write(&end, "unread", 6); /* would make a plain close() reset */
        assert_int_equal(io_stream_send(&end.stream, &slice, 1), 4);
        if (is_abort)
            io_stream_abort(&end.stream);
        else
            io_stream_close(&end.stream);
        if (is_abort) {
            while (recv(end.peer, text, sizeof(text), 0) > 0)
                ;
            assert_int_equal(errno, ECONNRESET);
        } else {
            assert_int_equal(recv(end.peer, text, sizeof(text), 0), 4);
            assert_int_equal(recv(end.peer, text, sizeof(text), 0), 0);
        }
        end_close(&end);
    }
}

static void test_connect_refused_is_told_from_the_loop(void **state)
{
    struct loop *loop = *state;
    struct end end = {.loop = loop, .peer = -1};
    struct io_addr addr;

    close(listen_open(&addr)); /* a port that nobody listens on */
    assert_int_equal(io_stream_connect(loop->io, &end.stream, &end_handler, &addr, NULL), 0);
    assert_int_equal(end.connected_count, 0);
    loop_run(loop);
    assert_int_equal(end.connected_count, 1);
    assert_int_equal(end.connected_err, -ECONNREFUSED);
    assert_int_equal(end.closed_count, 0);

    /* One that connect() answers at once. */
    assert_int_equal(io_addr_unix("/nonexistent/weir.sock", &addr), 0);
    assert_int_equal(io_stream_connect(loop->io, &end.stream, &end_handler, &addr, NULL), 0);
    assert_int_equal(end.connected_count, 1);
    loop_run(loop);
    assert_int_equal(end.connected_count, 2);
    assert_int_equal(end.connected_err, -ENOENT);
    end_close(&end);
}

static void test_connect_may_be_closed_before_it_ends(void **state)
{
    struct loop *loop = *state;
    struct io_addr tcp, absent;
    int listen_fd = listen_open(&tcp);

    assert_int_equal(io_addr_unix("/nonexistent/weir.sock", &absent), 0);
    for (int i = 0; i < 2; i++) {
        struct end end = {.loop = loop, .peer = -1};

        assert_int_equal(io_stream_connect(loop->io, &end.stream, &end_handler,
                                           i == 0 ? &tcp : &absent, NULL),
                         0);
        io_stream_resume(&end.stream);
        io_stream_close(&end.stream);
        loop_run_ms(loop, 3);
        assert_int_equal(end.connected_count, 0);
        end_close(&end);
    }
    close(listen_fd);
}

/* What is sent too early is not lost: the send takes nothing, and writable() follows connected(). */
static void test_send_before_connected(void **state)
{
    struct loop *loop = *state;
    struct end end = {.loop = loop};
    struct iovec slice = {.iov_base = (char[]){"x"}, .iov_len = 1};
    struct io_addr addr;
    int listen_fd = listen_open(&addr);

    assert_int_equal(io_stream_connect(loop->io, &end.stream, &end_handler, &addr, NULL), 0);
    io_stream_resume(&end.stream);
    assert_int_equal(io_stream_send(&end.stream, &slice, 1), 0);
    loop_run(loop);
    assert_int_equal(end.connected_count, 1);
    assert_int_equal(end.writable_count, 0);
    loop_run(loop);
    assert_int_equal(end.writable_count, 1);
    end.peer = accept(listen_fd, NULL, NULL);
    peer_write(&end, "y", 1);
    end.stop_at = 1;
    loop_run(loop);
    assert_got(&end, "y");
    close(listen_fd);
    end_close(&end);
}

static void test_bad_descriptor_is_refused(void **state)
{
    struct loop *loop = *state;
    struct end end = {.loop = loop, .peer = -1};

    assert_int_equal(io_stream_open(loop->io, &end.stream, &end_handler, -1, NULL, BYTES_EMPTY),
                     -EBADF);
    assert_false(io_stream_is_open(&end.stream));
    end_close(&end);
}

/* ---- receiving ahead ---------------------------------------------------------------------- */

/* Two streams have data in one turn, so both are received before the first is called, which does something to the
 * other one: nothing is lost, doubled or called that should not be. */
static void test_what_was_received_ahead_of_a_stream_is_kept(void **state)
{
    static const enum mode acts[] = {PAUSE_OTHER, CLOSE_OTHER, DETACH_OTHER};
    struct loop *loop = *state;

    for (unsigned i = 0; i < ARRAY_COUNT(acts); i++) {
        struct end ends[2], *first, *second;

        end_open(&ends[0], loop);
        end_open(&ends[1], loop);
        for (int k = 0; k < 2; k++) {
            ends[k].mode = acts[i];
            ends[k].other = &ends[1 - k];
            peer_write(&ends[k], "data", 4);
        }
        loop_run_ms(loop, 2);
        first = ends[0].other == NULL ? &ends[0] : &ends[1];
        second = first == &ends[0] ? &ends[1] : &ends[0];
        assert_int_equal(first->ahead_count + second->ahead_count, 2);
        assert_got(first, "data");
        assert_int_equal(second->recv_count, 0);
        if (acts[i] == PAUSE_OTHER) {
            io_stream_resume(&second->stream);
            peer_write(second, " more", 5);
            loop_run_ms(loop, 2);
            assert_got(second, "data more");
        } else if (acts[i] == DETACH_OTHER) {
            assert_true(second->detached_fd >= 0);
            assert_int_equal(second->detached_len, 4);
            assert_memory_equal(second->detached, "data", 4);
            mem_free(second->detached);
            close(second->detached_fd);
        }
        end_close(first);
        end_close(second);
    }
}

/* More than is received ahead, by many streams at once: all of it comes, in order. */
static void test_long_input_of_many_streams(void **state)
{
    enum { ENDS = 20, SIZE = 60000 };
    struct loop *loop = *state;
    struct end ends[ENDS];
    char data[SIZE];

    for (int i = 0; i < SIZE; i++)
        data[i] = (char)(i % 251);
    for (int k = 0; k < ENDS; k++) {
        end_open(&ends[k], loop);
        peer_write(&ends[k], data, SIZE);
    }
    loop_run_ms(loop, 20);
    for (int k = 0; k < ENDS; k++) {
        assert_int_equal(ends[k].got_len, SIZE);
        assert_memory_equal(ends[k].got, data, SIZE);
        end_close(&ends[k]);
    }
}

/* A turn that has had enough leaves events for the next: nobody is forgotten, and who went away meanwhile stays away. */
static void test_what_a_turn_has_no_time_for_is_served_by_the_next(void **state)
{
    enum { ENDS = 64 };
    struct loop loop;
    struct end ends[ENDS], *closed = &ends[ENDS - 1], *paused = &ends[ENDS - 2];
    unsigned served = 0;

    (void)state;
    loop_open(&loop, (struct io_ev_options){.streams_us = 1});
    for (int k = 0; k < ENDS; k++)
        end_open(&ends[k], &loop);
    for (int k = 0; k < ENDS; k++)
        peer_write(&ends[k], "hi", 2);
    ends[0].mode = CLOSE_OTHER;
    ends[0].other = closed;
    ends[1].mode = PAUSE_OTHER;
    ends[1].other = paused;
    ends[0].stop_at = 1;
    loop_run(&loop);
    for (int k = 0; k < ENDS; k++)
        served += ends[k].got_len > 0;
    assert_true(served >= 1 && served < ENDS - 2);
    loop_run_ms(&loop, 20);
    for (int k = 0; k < ENDS - 2; k++)
        assert_int_equal(ends[k].got_len, 2);
    assert_int_equal(closed->got_len + paused->got_len, 0);
    io_stream_resume(&paused->stream);
    loop_run_ms(&loop, 20);
    assert_int_equal(paused->got_len, 2);
    for (int k = 0; k < ENDS; k++)
        end_close(&ends[k]);
    loop_close(&loop);
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_frames_survive_any_cut),
        LOOP_TEST(test_need_holds_back_until_the_frame_is_there),
        LOOP_TEST(test_what_is_not_consumed_is_lent_again),
        LOOP_TEST(test_pause_keeps_and_resume_lends),
        LOOP_TEST(test_small_bites_of_a_large_rest),
        LOOP_TEST(test_pause_and_resume_inside_recv_lends_again),
        LOOP_TEST(test_nothing_is_received_while_paused),
        LOOP_TEST(test_rest_given_at_open_comes_first),
        cmocka_unit_test(test_a_flood_does_not_starve_others),
        LOOP_TEST(test_eof_is_told_once_with_the_rest),
        LOOP_TEST(test_sending_goes_on_after_eof),
        LOOP_TEST(test_eof_waits_for_resume),
        LOOP_TEST(test_close_inside_recv),
        LOOP_TEST(test_close_and_reopen_inside_recv),
        LOOP_TEST(test_descriptor_numbers_are_reused),
        LOOP_TEST(test_detach_and_reopen_with_the_rest),
        LOOP_TEST(test_detach_inside_recv_gives_all_that_was_lent),
        LOOP_TEST(test_a_descriptor_given_away_is_forgotten),
        LOOP_TEST(test_short_sends_and_writable),
        LOOP_TEST(test_many_slices_go_in_one_call),
        LOOP_TEST(test_send_to_nobody_is_an_error_and_no_callback),
        LOOP_TEST(test_connect_then_both_ways),
        LOOP_TEST(test_reset_is_told_as_such),
        LOOP_TEST(test_abort_resets_and_close_does_not),
        LOOP_TEST(test_connect_refused_is_told_from_the_loop),
        LOOP_TEST(test_connect_may_be_closed_before_it_ends),
        LOOP_TEST(test_send_before_connected),
        LOOP_TEST(test_bad_descriptor_is_refused),
        LOOP_TEST(test_what_was_received_ahead_of_a_stream_is_kept),
        LOOP_TEST(test_long_input_of_many_streams),
        cmocka_unit_test(test_what_a_turn_has_no_time_for_is_served_by_the_next),
    };

    return cmocka_run_group_tests_name("io_ev_stream", tests, NULL, NULL);
}
