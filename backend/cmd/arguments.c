/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/cmd.h"
#include "backend/cmd/reply.h"

#include <math.h>

bool arg_i64(struct cmd *c, uint32_t i, int64_t *out)
{
    ASSERT(i < c->argc);
    if (LIKELY(bytes_to_i64(c->argv[i], out)))
        return true;
    reply_error(c, ERROR_INTEGER);
    return false;
}

bool arg_i64_range(struct cmd *c, uint32_t i, int64_t min, int64_t max, int64_t *out, const char *error)
{
    int64_t value;

    ASSERT(i < c->argc);
    if (!bytes_to_i64(c->argv[i], &value)) {
        reply_error(c, error != NULL ? error : ERROR_INTEGER);
        return false;
    }
    if (value < min || value > max) {
        if (error != NULL)
            reply_error(c, error);
        else
            reply_error_format(c, "ERR value is out of range, value must between %lld and %lld",
                               (long long)min, (long long)max);
        return false;
    }
    *out = value;
    return true;
}

bool arg_double(struct cmd *c, uint32_t i, double *out)
{
    ASSERT(i < c->argc);
    if (LIKELY(parse_double(c->argv[i], out)))
        return true;
    reply_error(c, ERROR_FLOAT);
    return false;
}

bool arg_timeout_ms(struct cmd *c, uint32_t i, uint64_t *out)
{
    long double seconds, ms;

    ASSERT(i < c->argc);
    if (!parse_long_double(c->argv[i], &seconds)) {
        reply_error(c, "ERR timeout is not a float or out of range");
        return false;
    }
    ms = ceill(seconds * 1000);
    if (ms < 0 || ms > (long double)INT64_MAX) { /* the latter is negative in Redis's 64 bits */
        reply_error(c, "ERR timeout is negative");
        return false;
    }
    /* The end, as a time of the epoch, must fit as well. */
    if (ms > (long double)(INT64_MAX - (int64_t)c->now_ms)) {
        reply_error(c, "ERR timeout is out of range");
        return false;
    }
    *out = (uint64_t)ms;
    return true;
}

bool arg_is(const struct cmd *c, uint32_t i, const char *word)
{
    ASSERT(i < c->argc);
    return bytes_equal_nocase(c->argv[i], bytes_of_string(word));
}
