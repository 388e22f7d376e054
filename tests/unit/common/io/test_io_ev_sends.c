/* SPDX-License-Identifier: Apache-2.0 */
/* Sends of several streams together: each as if it were made alone, with a ring, without one, with one that fails. */
#include "tests/unit/common/io/io_ev_stream_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ENDS 70 /* more than go in one system call */

static void peer_expect(const struct end *end, const char *text, size_t len)
{
    char got[256];

    assert_in_range(len, 1, sizeof(got));
    assert_int_equal(recv(end->peer, got, sizeof(got), MSG_DONTWAIT), len);
    assert_memory_equal(got, text, len);
}

static void send_to_all(struct loop *loop, struct end *ends, unsigned count)
{
    struct io_send sends[ENDS];
    struct iovec slices[ENDS][3];
    char texts[ENDS][16], whole[32];

    for (unsigned i = 0; i < count; i++) {
        int len = snprintf(texts[i], sizeof(texts[i]), "end %u", i);

        slices[i][0] = (struct iovec){texts[i], (size_t)len};
        slices[i][1] = (struct iovec){texts[i], 0};
        slices[i][2] = (struct iovec){(void *)(uintptr_t)"; ", 2};
        sends[i] = (struct io_send){.stream = &ends[i].stream, .slices = slices[i], .count = 1 + (int)i % 3, .sent = -1};
    }
    io_streams_send(loop->io, sends, count);
    for (unsigned i = 0; i < count; i++) {
        int len = snprintf(whole, sizeof(whole), "%s%s", texts[i], i % 3 == 2 ? "; " : "");

        assert_int_equal(sends[i].sent, len);
        peer_expect(&ends[i], whole, (size_t)len);
    }
}

static void test_each_gets_its_own(void **state)
{
    struct loop *loop = *state;
    struct end ends[ENDS];

    for (unsigned i = 0; i < ENDS; i++)
        end_open(&ends[i], loop);
    for (unsigned count = 0; count <= ENDS; count++)
        send_to_all(loop, ends, count);
    for (unsigned i = 0; i < ENDS; i++)
        end_close(&ends[i]);
}

/* One that has no room, one whose peer has gone, one with nothing to say, one that is not connected yet: none of it is the
 * others' business. */
static void test_each_has_its_own_fate(void **state)
{
    enum { FULL, BROKEN, EMPTY, FINE, COUNT };
    struct loop *loop = *state;
    struct end ends[COUNT];
    struct io_send sends[COUNT];
    size_t len = 4u << 20, got = 0;
    char *block = must_zalloc(len);
    struct iovec long_slice = {block, len}, short_slice = {(void *)(uintptr_t)"hi", 2};

    for (unsigned i = 0; i < COUNT; i++) {
        end_open(&ends[i], loop);
        sends[i] = (struct io_send){.stream = &ends[i].stream, .slices = &short_slice, .count = 1};
    }
    sends[FULL].slices = &long_slice;
    sends[EMPTY].count = 0;
    io_stream_pause(&ends[BROKEN].stream);
    close(ends[BROKEN].peer);
    ends[BROKEN].peer = -1;
    io_streams_send(loop->io, sends, COUNT);
    assert_in_range(sends[FULL].sent, 1, len - 1);
    assert_int_equal(sends[BROKEN].sent, -EPIPE);
    assert_int_equal(sends[EMPTY].sent, 0);
    assert_int_equal(sends[FINE].sent, 2);
    peer_expect(&ends[FINE], "hi", 2);
    /* A second time: the full one has no room at all, the broken one stays broken. */
    got = (size_t)sends[FULL].sent;
    io_streams_send(loop->io, sends, COUNT);
    assert_int_equal(sends[FULL].sent, 0);
    assert_int_equal(sends[BROKEN].sent, -EPIPE);
    assert_int_equal(sends[FINE].sent, 2);
    assert_int_equal(ends[FULL].writable_count, 0);
    while (got > 0) {
        ssize_t some = read(ends[FULL].peer, block, MIN(got, len));

        assert_true(some > 0);
        got -= (size_t)some;
    }
    loop_run(loop);
    assert_int_equal(ends[FULL].writable_count, 1);
    assert_int_equal(ends[BROKEN].closed_count, 0);
    for (unsigned i = 0; i < COUNT; i++)
        end_close(&ends[i]);
    mem_free(block);
}

/* Input of many in one turn, some of it the end, some of it longer than what is received at once. */
static void test_received_together(void **state)
{
    struct loop *loop = *state;
    struct end ends[ENDS];
    char block[40000];

    memset(block, 'x', sizeof(block));
    for (unsigned i = 0; i < ENDS; i++) {
        end_open(&ends[i], loop);
        ends[i].keeps_open = true;
        peer_write(&ends[i], block, i % 5 == 0 ? sizeof(block) : 1 + i);
        if (i % 7 == 0)
            shutdown(ends[i].peer, SHUT_WR);
    }
    loop_run_turns(loop, 20);
    for (unsigned i = 0; i < ENDS; i++) {
        assert_int_equal(ends[i].got_len, i % 5 == 0 ? sizeof(block) : 1 + i);
        assert_int_equal(ends[i].closed_count, i % 7 == 0);
        end_close(&ends[i]);
    }
}

/* Closes what is a ring among this process's descriptors. */
static unsigned rings_close(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    unsigned count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char what[64] = "";
        int fd;

        if (readlinkat(dirfd(dir), entry->d_name, what, sizeof(what) - 1) > 0 && strstr(what, "[io_uring]") != NULL) {
            assert_int_equal(sscanf(entry->d_name, "%d", &fd), 1);
            close(fd);
            count++;
        }
    }
    closedir(dir);
    return count;
}

/* R1: whatever the kernel says of the ring, all is sent and received once. */
static void test_a_ring_that_fails_is_done_without(void **state)
{
    struct loop loop;
    struct end ends[ENDS];

    (void)state;
    loop_open(&loop, (struct io_ev_options){.files = IO_FILES_NONE, .sockets = IO_SOCKETS_TOGETHER});
    for (unsigned i = 0; i < ENDS; i++)
        end_open(&ends[i], &loop);
    send_to_all(&loop, ends, ENDS);
    MAYBE(rings_close() > 0); /* none where they are forbidden */
    send_to_all(&loop, ends, ENDS);
    for (unsigned i = 0; i < ENDS; i++)
        peer_write(&ends[i], "data", 4);
    loop_run_turns(&loop, 20);
    for (unsigned i = 0; i < ENDS; i++)
        assert_got(&ends[i], "data");
    send_to_all(&loop, ends, ENDS);
    for (unsigned i = 0; i < ENDS; i++)
        end_close(&ends[i]);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_each_gets_its_own),
        LOOP_TEST(test_each_has_its_own_fate),
        LOOP_TEST(test_received_together),
        cmocka_unit_test(test_a_ring_that_fails_is_done_without),
    };

    return cmocka_run_group_tests_name("io_ev_sends", tests, NULL, NULL);
}
