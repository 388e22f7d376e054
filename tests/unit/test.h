/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test.h - what a unit test includes: cmocka with the headers that it wants before it, and death tests.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/* gcc and clang tell of the address sanitizer in two ways. */
#if defined(__SANITIZE_ADDRESS__)
#define TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN 1
#endif
#endif

#ifdef TEST_ASAN
#include <sanitizer/lsan_interface.h>
#endif

/* What is allocated in between may be left: a process of the simulator that is killed in the middle of an operation
 * frees nothing. */
static inline void test_leaks_begin(void)
{
#ifdef TEST_ASAN
    __lsan_disable();
#endif
}

static inline void test_leaks_end(void)
{
#ifdef TEST_ASAN
    __lsan_enable();
#endif
}

/* Whether `body(arg)` ends in an assertion. It runs in a child, which keeps its last words to itself. */
static inline bool test_aborts(void (*body)(void *arg), void *arg)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        if (null >= 0 && dup2(null, STDERR_FILENO) >= 0) {
            signal(SIGABRT, SIG_DFL);
            body(arg);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
