/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "nginx-style-master/channel.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_file(int a, int b)
{
    struct stat sa, sb;

    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

static void test_channel_carries_text_and_descriptor(void **state)
{
    struct channel_message sent = {.type = CHANNEL_REPLY, .value = 7, .id = 1ull << 40}, got;
    char *text = must_alloc(WORKER_TEXT_MAX + 1), *longest = must_zalloc(WORKER_TEXT_MAX + 2);
    int fds[2], pipes[2], fd;

    (void)state;
    assert_int_equal(channel_pair(fds), 0);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_AGAIN);
    assert_int_equal(channel_send(fds[0], &sent, "hello", pipes[0]), 0);
    assert_int_equal(channel_send(fds[0], &sent, NULL, -1), 0);
    memset(longest, 'x', WORKER_TEXT_MAX);
    assert_int_equal(channel_send(fds[0], &sent, longest, -1), 0);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), 0);
    assert_string_equal(text, "hello");
    assert_true(got.type == CHANNEL_REPLY && got.value == 7 && got.id == 1ull << 40);
    assert_true(fd != pipes[0] && same_file(fd, pipes[0]));
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), 0);
    assert_string_equal(text, "");
    assert_int_equal(fd, -1);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), 0);
    assert_int_equal(strlen(text), WORKER_TEXT_MAX);
    longest[WORKER_TEXT_MAX] = 'x';
    assert_int_equal(channel_send(fds[0], &sent, longest, -1), ERR_INVALID);
    close(fds[0]);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_EOF);
    assert_int_equal(channel_send(fds[1], &sent, NULL, -1), ERR_EOF);
    close(fds[1]);
    close(pipes[0]);
    close(pipes[1]);
    mem_free(text);
    mem_free(longest);
}

/* The end of a process whose own queue is not empty is an error to its peer, not a mere end. */
static void test_last_words_outlive_an_end_that_had_not_read_all(void **state)
{
    struct channel_message ready = {.type = CHANNEL_READY}, accept = {.type = CHANNEL_ACCEPT}, got;
    char *text = must_alloc(WORKER_TEXT_MAX + 1);
    int fds[2], fd;

    (void)state;
    assert_int_equal(channel_pair(fds), 0);
    assert_int_equal(channel_send(fds[0], &accept, NULL, -1), 0);
    assert_int_equal(channel_send(fds[1], &ready, NULL, -1), 0);
    close(fds[0]);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), 0);
    assert_int_equal(got.type, CHANNEL_ACCEPT);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_EOF);
    close(fds[1]);
    mem_free(text);
}

/* A reader that stands still: the sender is told, and nothing is half sent. */
static void test_full_channel_says_again(void **state)
{
    struct channel_message message = {.type = CHANNEL_SET}, got;
    char *text = must_alloc(WORKER_TEXT_MAX + 1);
    int fds[2], fd, sent = 0, err = 0, received = 0;

    (void)state;
    assert_int_equal(channel_pair(fds), 0);
    while (sent < 100000 && (err = channel_send(fds[0], &message, "0123456789", -1)) == 0)
        sent++;
    assert_int_equal(err, ERR_AGAIN);
    while (channel_recv(fds[1], &got, text, &fd) == 0) {
        assert_string_equal(text, "0123456789");
        received++;
    }
    assert_int_equal(received, sent);
    close(fds[0]);
    close(fds[1]);
    mem_free(text);
}

static void test_strange_channel_messages_are_dropped(void **state)
{
    struct channel_message message = {.type = CHANNEL_STOP}, got;
    char *text = must_alloc(WORKER_TEXT_MAX + 1);
    int fds[2], fd;

    (void)state;
    assert_int_equal(channel_pair(fds), 0);
    assert_int_equal(send(fds[0], "x", 1, 0), 1);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_INVALID);
    message.type = CHANNEL_TYPE_MAX_;
    assert_int_equal(send(fds[0], &message, sizeof(message), 0), sizeof(message));
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_INVALID);
    message.type = CHANNEL_STOP;
    message.text_len = 5; /* it is not there */
    assert_int_equal(send(fds[0], &message, sizeof(message), 0), sizeof(message));
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_INVALID);
    assert_int_equal(channel_recv(fds[1], &got, text, &fd), ERR_AGAIN);
    close(fds[0]);
    close(fds[1]);
    mem_free(text);
}

static void test_handover_carries_descriptors_name_and_blob(void **state)
{
    char *blob = must_zalloc(WORKER_PASS_BLOB_MAX + 1), *buffer = must_alloc(HANDOVER_SIZE_MAX);
    struct handover sent = {.kind = WORKER_PASS_CLIENT, .hops = 3, .from_generation = 9,
                            .name = BYTES("127.0.0.1:1")}, got;
    int fds[2], pipes[2], passed[WORKER_PASS_FDS_MAX];
    uint32_t count;

    (void)state;
    assert_int_equal(handover_pair(fds), 0);
    assert_int_equal(pipe(pipes), 0);
    memset(blob, 'b', WORKER_PASS_BLOB_MAX);
    sent.blob = bytes_of(blob, WORKER_PASS_BLOB_MAX);
    assert_int_equal(handover_send(fds[0], &sent, pipes, 2), 0);
    sent.blob.len++;
    assert_int_equal(handover_send(fds[0], &sent, pipes, 2), ERR_INVALID);
    assert_int_equal(handover_recv(fds[1], buffer, &got, passed, &count), 0);
    assert_int_equal(count, 2);
    assert_true(same_file(passed[0], pipes[0]) && same_file(passed[1], pipes[1]));
    assert_true(got.kind == WORKER_PASS_CLIENT && got.hops == 3 && got.from_generation == 9);
    assert_true(bytes_equal(got.name, BYTES("127.0.0.1:1")));
    assert_true(bytes_equal(got.blob, bytes_of(blob, WORKER_PASS_BLOB_MAX)));
    close(passed[0]);
    close(passed[1]);
    assert_int_equal(handover_recv(fds[1], buffer, &got, passed, &count), ERR_AGAIN);
    /* A client without a descriptor is none. */
    sent.blob = BYTES_EMPTY;
    assert_int_equal(handover_send(fds[0], &sent, NULL, 0), 0);
    assert_int_equal(handover_recv(fds[1], buffer, &got, passed, &count), ERR_INVALID);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(pipes[i]);
    }
    mem_free(blob);
    mem_free(buffer);
}

static void test_handover_that_does_not_add_up_is_refused(void **state)
{
    struct handover sent = {.kind = WORKER_PASS_CLIENT, .name = BYTES("n"), .blob = BYTES("bb")};
    char *buffer = must_zalloc(HANDOVER_SIZE_MAX), wire[64];
    struct handover got;
    int fds[2], pipes[2], passed[WORKER_PASS_FDS_MAX];
    ssize_t len;
    uint32_t count;

    (void)state;
    assert_int_equal(handover_pair(fds), 0);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(handover_send(fds[0], &sent, pipes, 1), 0);
    len = recv(fds[1], wire, sizeof(wire), 0); /* the descriptor is dropped with it */
    assert_int_equal(len, HANDOVER_HEAD_SIZE + 3);
    assert_int_equal(handover_decode(bytes_of(wire, (size_t)len), &got), 0);
    for (ssize_t cut = 0; cut < len; cut++)
        assert_int_equal(handover_decode(bytes_of(wire, (size_t)cut), &got), ERR_INVALID);
    for (size_t i = 0; i < 6; i++) { /* magic, version */
        wire[i] ^= 1;
        assert_int_equal(handover_decode(bytes_of(wire, (size_t)len), &got), ERR_INVALID);
        wire[i] ^= 1;
    }
    for (size_t i = 12; i < HANDOVER_HEAD_SIZE; i++) { /* both lengths */
        wire[i] ^= 1;
        assert_int_equal(handover_decode(bytes_of(wire, (size_t)len), &got), ERR_INVALID);
        wire[i] ^= 1;
    }
    wire[6] = 77; /* kind */
    assert_int_equal(handover_decode(bytes_of(wire, (size_t)len), &got), ERR_INVALID);
    assert_int_equal(handover_recv(fds[1], buffer, &got, passed, &count), ERR_AGAIN);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(pipes[i]);
    }
    mem_free(buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_channel_carries_text_and_descriptor),
        cmocka_unit_test(test_last_words_outlive_an_end_that_had_not_read_all),
        cmocka_unit_test(test_full_channel_says_again),
        cmocka_unit_test(test_strange_channel_messages_are_dropped),
        cmocka_unit_test(test_handover_carries_descriptors_name_and_blob),
        cmocka_unit_test(test_handover_that_does_not_add_up_is_refused),
    };

    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
