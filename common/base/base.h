/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h - what every file may use: attributes, assertions, small arithmetic.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define NORETURN          __attribute__((noreturn))
#define NOINLINE          __attribute__((noinline))
#define ALWAYS_INLINE     inline __attribute__((always_inline))
#define LIKELY(x)         __builtin_expect(!!(x), 1)
#define UNLIKELY(x)       __builtin_expect(!!(x), 0)
#define ARRAY_COUNT(a)    (sizeof(a) / sizeof((a)[0]))
#define FALLTHROUGH       __attribute__((fallthrough))

/* The struct that embeds `member` at `pointer`. */
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

/* Each use names its own copies, so that one may stand inside another. */
#define NAME_JOIN_(a, b)  a##b
#define NAME_UNIQUE_(a, b) NAME_JOIN_(a, b)
#define COMPARE_(a, b, is, left, right)                                                            \
    ({                                                                                             \
        __typeof__(a) left = (a);                                                                  \
        __typeof__(b) right = (b);                                                                 \
        left is right ? left : right;                                                              \
    })
#define MIN(a, b)                                                                                  \
    COMPARE_(a, b, <, NAME_UNIQUE_(min_a_, __COUNTER__), NAME_UNIQUE_(min_b_, __COUNTER__))
#define MAX(a, b)                                                                                  \
    COMPARE_(a, b, >, NAME_UNIQUE_(max_a_, __COUNTER__), NAME_UNIQUE_(max_b_, __COUNTER__))

/* Assertions stay on in production: a worker that has lost its invariants must not go on answering.
 * The master starts another one. */
NORETURN NOINLINE void assert_failed(const char *what, const char *file, int line,
                                     const char *function);

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (UNLIKELY(!(condition)))                                                                \
            assert_failed(#condition, __FILE__, __LINE__, __func__);                               \
    } while (0)

#define UNREACHABLE(why) assert_failed("unreachable: " why, __FILE__, __LINE__, __func__)
/* A branch where both outcomes are fine; it tells the reader so. */
#define MAYBE(x) ((void)(x))

/* Costly walks over whole structures: sanitizer and fuzz builds only. */
#if defined(__SANITIZE_ADDRESS__)
#define DCHECK_ON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DCHECK_ON 1
#endif
#endif
#ifdef DCHECK_ON
#define DCHECK(condition) ASSERT(condition)
#else
#define DCHECK(condition) ((void)sizeof(condition))
#endif
