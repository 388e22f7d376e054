/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams of io_ev: how they begin and end, and what goes out, over socket pairs and loopback TCP. */
#include "tests/unit/common/io/io_ev_stream_test.h"

#include <arpa/inet.h>
#include <stdio.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests_name("io_ev_connection", tests, NULL, NULL);
}
