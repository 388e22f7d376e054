/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/err.h"
#include "common/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* A sink that keeps the last line. */
struct kept {
    char line[4096];
    size_t len;
    int level, count;
};

static void keep(void *arg, int level, const char *line, size_t len)
{
    struct kept *kept = arg;

    assert_true(len < sizeof(kept->line));
    memcpy(kept->line, line, len);
    kept->line[len] = '\0';
    kept->len = len;
    kept->level = level;
    kept->count++;
}

static uint64_t fixed_clock(void *arg)
{
    return *(const uint64_t *)arg;
}

static void test_line_has_stamp_name_pid_level_and_text(void **state)
{
    uint64_t now_us = 1700000000123456;
    struct kept kept = {.count = 0};
    struct log *log = log_create_sink(keep, &kept, LOG_NOTICE, "weir-proxy");
    char expected[256];

    (void)state;
    log_set_clock(log, fixed_clock, &now_us);
    log_warn(log, "upstream: down server=%s error=%d", "alpha", 7);
    snprintf(expected, sizeof(expected),
             "2023-11-14T22:13:20.123Z weir-proxy[%d] warn: upstream: down server=alpha error=7\n",
             (int)getpid());
    assert_string_equal(kept.line, expected);
    assert_int_equal(kept.level, LOG_WARN);

    log_set_name(log, "worker 3");
    log_error(log, "x");
    assert_non_null(strstr(kept.line, " worker 3["));
    assert_non_null(strstr(kept.line, "] error: x\n"));
    log_destroy(&log);
    assert_null(log);
    log_destroy(&log); /* once more is nothing */
}

static void test_level_decides_what_is_written(void **state)
{
    struct kept kept = {.count = 0};
    struct log *log = log_create_sink(keep, &kept, LOG_NOTICE, "t");

    (void)state;
    log_info(log, "no");
    log_debug(log, "no");
    assert_int_equal(kept.count, 0);
    log_notice(log, "yes");
    log_error(log, "yes");
    assert_int_equal(kept.count, 2);
    log_set_level(log, LOG_DEBUG);
    log_debug(log, "yes");
    assert_int_equal(kept.count, 3);
    log_set_level(log, 99); /* -v 99 means everything, not an error */
    assert_int_equal(log_level(log), LOG_LEVEL_MAX);
    log_line(log, LOG_LEVEL_MAX, "yes");
    assert_int_equal(kept.count, 4);
    log_set_level(log, -5);
    assert_int_equal(log_level(log), LOG_EMERG);
    log_error(log, "no");
    assert_int_equal(kept.count, 4);
    log_destroy(&log);
}

static void test_no_log_is_a_quiet_log(void **state)
{
    (void)state;
    log_error(NULL, "nobody hears %s", "this");
}

/* What a peer sent can neither begin a line of its own nor talk to the terminal. */
static void test_control_characters_do_not_get_through(void **state)
{
    struct kept kept = {.count = 0};
    struct log *log = log_create_sink(keep, &kept, LOG_NOTICE, "t");

    (void)state;
    log_warn(log, "key=%s", "a\r\n2023 weir[1] error: forged\x1b[2J\x7f\tend");
    assert_int_equal(kept.count, 1);
    for (size_t i = 0; i + 1 < kept.len; i++)
        assert_true((unsigned char)kept.line[i] >= 0x20 && kept.line[i] != 0x7f);
    assert_int_equal(kept.line[kept.len - 1], '\n');
    assert_non_null(strstr(kept.line, "a??2023 weir[1] error: forged?[2J??end"));

    log_warn(log, "key=%s", "gr\xc3\xbc\xc3\x9f \xc2\x9b" "2J"); /* text stays, C1 controls go */
    assert_non_null(strstr(kept.line, "key=gr\xc3\xbc\xc3\x9f ??2J\n"));
    log_destroy(&log);
}

static void test_long_line_is_cut_and_still_a_line(void **state)
{
    struct kept kept = {.count = 0};
    struct log *log = log_create_sink(keep, &kept, LOG_NOTICE, "t");
    char text[8192];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t len = 1900; len < 2100; len++) {
        log_warn(log, "%.*s", (int)len, text);
        assert_true(kept.len <= 2048);
        assert_int_equal(kept.line[kept.len - 1], '\n');
        assert_null(memchr(kept.line, '\n', kept.len - 1));
        assert_int_equal(strlen(kept.line), kept.len);
    }
    log_destroy(&log);
}

static size_t read_all(const char *path, char *text, size_t cap)
{
    FILE *file = fopen(path, "r");
    size_t len;

    assert_non_null(file);
    len = fread(text, 1, cap - 1, file);
    text[len] = '\0';
    fclose(file);
    return len;
}

static void test_reopen_follows_rotation_under_the_same_descriptor(void **state)
{
    char dir[] = "/tmp/weir-log-XXXXXX", path[64], rotated[64], text[1024];
    struct log *log;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(rotated, sizeof(rotated), "%s/log.1", dir);
    assert_int_equal(log_create(path, LOG_NOTICE, "t", &log), 0);
    fd = log_fd(log);
    log_notice(log, "first");
    assert_int_equal(rename(path, rotated), 0);
    log_notice(log, "second"); /* not yet told: goes on in the old file */
    assert_int_equal(log_reopen(log), 0);
    assert_int_equal(log_fd(log), fd); /* crash handlers hold the number */
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    log_notice(log, "third");
    read_all(rotated, text, sizeof(text));
    assert_non_null(strstr(text, "first\n"));
    assert_non_null(strstr(text, "second\n"));
    assert_null(strstr(text, "third"));
    read_all(path, text, sizeof(text));
    assert_non_null(strstr(text, "third\n"));

    /* The folder is gone: the error is told and the old file goes on. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(rotated), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(log_reopen(log), -ENOENT);
    log_notice(log, "fourth");
    assert_int_equal(log_lines_dropped(log), 0);
    log_destroy(&log);
}

static void test_unwritable_path_is_an_error(void **state)
{
    struct log *log = NULL;

    (void)state;
    assert_int_equal(log_create("/nonexistent/weir.log", LOG_NOTICE, "t", &log), -ENOENT);
    assert_null(log);
}

static void test_two_logs_do_not_meet(void **state)
{
    struct kept one = {.count = 0}, two = {.count = 0};
    struct log *a = log_create_sink(keep, &one, LOG_NOTICE, "a");
    struct log *b = log_create_sink(keep, &two, LOG_DEBUG, "b");

    (void)state;
    log_debug(a, "x");
    log_debug(b, "x");
    assert_int_equal(one.count, 0);
    assert_int_equal(two.count, 1);
    log_destroy(&a);
    log_destroy(&b);
}

/* All that waits in `reader`, as a string. */
static char *drain(int reader)
{
    static char text[2 << 20];
    size_t len = 0;
    ssize_t n;

    assert_int_equal(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
    while ((n = read(reader, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    return text;
}

static uint64_t sum_of_losses(const char *text)
{
    static const char told[] = "log: lines were lost lost=";
    uint64_t sum = 0;

    for (; (text = strstr(text, told)) != NULL; text += sizeof(told) - 1)
        sum += strtoul(text + sizeof(told) - 1, NULL, 10);
    return sum;
}

/* Fills the descriptor until no line fits; every write must return at once or the alarm ends the test.
 * Then empties it from the other end: how many were lost has been said, once, before the next line. */
static void check_full_log_drops_and_tells(struct log *log, int reader)
{
    uint64_t told;
    char *text;

    alarm(20);
    for (int i = 0; i < 100000 && log_lines_dropped(log) < 10; i++)
        log_notice(log, "padding %0900d", i);
    assert_int_equal(log_lines_dropped(log), 10);
    alarm(0);
    told = sum_of_losses(drain(reader)); /* where the note still fitted and the line did not */
    assert_true(told < 10);
    log_notice(log, "after the jam");
    text = drain(reader);
    assert_int_equal(told + sum_of_losses(text), 10);
    assert_ptr_equal(strstr(text, "log: lines were lost"), text);
    assert_non_null(strstr(text, "after the jam\n"));
    log_notice(log, "said once");
    assert_null(strstr(drain(reader), "lost"));
    assert_int_equal(log_lines_dropped(log), 10);
}

static void test_full_pipe_loses_lines_instead_of_time(void **state)
{
    char dir[] = "/tmp/weir-log-XXXXXX", path[64];
    struct log *log;
    int reader;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    assert_int_equal(log_create(path, LOG_NOTICE, "t", &log), 0);
    check_full_log_drops_and_tells(log, reader);
    log_destroy(&log);
    close(reader);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* stderr is somebody else's descriptor and stays a blocking one; a full one must not hold us up either:
 * a pipe (a shell), a socket (a service manager). */
static void check_full_stderr(int reader, int writer)
{
    int saved = dup(STDERR_FILENO);
    struct log *log;

    assert_true(saved >= 0);
    assert_int_equal(log_create(NULL, LOG_NOTICE, "t", &log), 0);
    assert_true(dup2(writer, STDERR_FILENO) >= 0);
    check_full_log_drops_and_tells(log, reader);
    assert_false(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    log_destroy(&log);
    close(saved);
    close(reader);
    close(writer);
}

static void test_full_stderr_pipe(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    check_full_stderr(ends[0], ends[1]);
}

static void test_full_stderr_socket(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    check_full_stderr(ends[0], ends[1]);
}

static void test_limit_gives_a_burst_then_one_an_interval(void **state)
{
    struct log_limit limit = {.tokens = 0};
    uint32_t suppressed = 0, allowed = 0;

    (void)state;
    for (int i = 0; i < 10; i++)
        allowed += log_limit_allows(&limit, 1000, 3, 500, &suppressed);
    assert_int_equal(allowed, 3);
    assert_int_equal(suppressed, 0);
    assert_false(log_limit_allows(&limit, 1499, 3, 500, NULL));
    assert_true(log_limit_allows(&limit, 1500, 3, 500, &suppressed));
    assert_int_equal(suppressed, 8); /* what the reader did not see is said */
    assert_false(log_limit_allows(&limit, 1500, 3, 500, NULL));

    /* A quiet hour earns a full burst and no more. */
    allowed = 0;
    for (int i = 0; i < 10; i++)
        allowed += log_limit_allows(&limit, 3600000, 3, 500, NULL);
    assert_int_equal(allowed, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_has_stamp_name_pid_level_and_text),
        cmocka_unit_test(test_level_decides_what_is_written),
        cmocka_unit_test(test_no_log_is_a_quiet_log),
        cmocka_unit_test(test_control_characters_do_not_get_through),
        cmocka_unit_test(test_long_line_is_cut_and_still_a_line),
        cmocka_unit_test(test_reopen_follows_rotation_under_the_same_descriptor),
        cmocka_unit_test(test_unwritable_path_is_an_error),
        cmocka_unit_test(test_two_logs_do_not_meet),
        cmocka_unit_test(test_full_pipe_loses_lines_instead_of_time),
        cmocka_unit_test(test_full_stderr_pipe),
        cmocka_unit_test(test_full_stderr_socket),
        cmocka_unit_test(test_limit_gives_a_burst_then_one_an_interval),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
