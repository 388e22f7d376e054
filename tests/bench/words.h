/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words.h - requests as words, for stand-ins of servers: as much of both protocols as load generators speak.
 */
#pragma once
#include "common/base/bytes.h"

#define WORDS_MAX      1024
#define WORDS_SIZE_MAX (1u << 20) /* of one word, and of memcache's values */

enum words_result { WORDS_OK, WORDS_MORE, WORDS_BAD };

/* Views into the input of a request: end when the input moves. */
struct words {
    uint32_t count; /* at least 1 */
    struct bytes word[WORDS_MAX];
};

/* "*2\r\n$3\r\nGET\r\n...". WORDS_OK: the request is taken off the input, which is left alone otherwise. */
MUST_USE enum words_result words_take_redis(struct bytes *input, struct words *out);

/* A line of words; the value of a set, which follows it, is left to the caller. */
MUST_USE enum words_result words_take_line(struct bytes *input, struct words *out);
