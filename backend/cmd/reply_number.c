/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis's ways to write and to read numbers that are not integers.
 *
 * It prints doubles with 17 digits, so that 0.1 reads 0.10000000000000001, and INCRBYFLOAT's results as
 * long doubles with 17 places and no zeroes behind. Clients compare such texts.
 */
#include "backend/cmd/reply.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Whole numbers up to here look the same as integers. */
#define WHOLE_MAX 1e15

size_t format_double(double value, char out[FORMAT_DOUBLE_MAX])
{
    int len;

    if (value > -WHOLE_MAX && value < WHOLE_MAX && value == (double)(int64_t)value &&
        !(value == 0 && signbit(value)))
        return i64_to_digits((int64_t)value, out);
    if (isinf(value)) {
        memcpy(out, value > 0 ? "inf" : "-inf", value > 0 ? 3 : 4);
        return value > 0 ? 3 : 4;
    }
    len = snprintf(out, FORMAT_DOUBLE_MAX, "%.17g", value);
    ASSERT(len > 0 && len < (int)FORMAT_DOUBLE_MAX);
    return (size_t)len;
}

size_t format_human_double(long double value, char out[FORMAT_HUMAN_DOUBLE_MAX])
{
    int written;
    size_t len;

    if (isinf(value)) {
        memcpy(out, value > 0 ? "inf" : "-inf", value > 0 ? 3 : 4);
        return value > 0 ? 3 : 4;
    }
    written = snprintf(out, FORMAT_HUMAN_DOUBLE_MAX, "%.17Lf", value);
    ASSERT(written > 0 && written < (int)FORMAT_HUMAN_DOUBLE_MAX);
    len = (size_t)written;
    if (memchr(out, '.', len) != NULL) {
        while (out[len - 1] == '0')
            len--;
        if (out[len - 1] == '.')
            len--;
    }
    if (len == 2 && memcmp(out, "-0", 2) == 0) {
        out[0] = '0';
        len = 1;
    }
    return len;
}

/* A copy with an end, for strtod(). */
static bool number_copy(struct bytes text, char out[FORMAT_HUMAN_DOUBLE_MAX])
{
    if (text.len == 0 || text.len >= FORMAT_HUMAN_DOUBLE_MAX || (unsigned char)text.data[0] <= ' ')
        return false;
    memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return true;
}

bool parse_double(struct bytes text, double *out)
{
    char copy[FORMAT_HUMAN_DOUBLE_MAX], *end;
    int64_t whole;
    double value;

    if (text.len < 16 && bytes_to_i64(text, &whole)) {
        *out = (double)whole;
        return true;
    }
    if (!number_copy(text, copy))
        return false;
    errno = 0;
    value = strtod(copy, &end);
    if ((size_t)(end - copy) != text.len || isnan(value) ||
        (errno == ERANGE && (isinf(value) || fpclassify(value) == FP_ZERO)))
        return false;
    *out = value;
    return true;
}

bool parse_long_double(struct bytes text, long double *out)
{
    char copy[FORMAT_HUMAN_DOUBLE_MAX], *end;
    long double value;

    if (!number_copy(text, copy))
        return false;
    errno = 0;
    value = strtold(copy, &end);
    if ((size_t)(end - copy) != text.len || isnan(value) ||
        (errno == ERANGE && (isinf(value) || fpclassify(value) == FP_ZERO)))
        return false;
    *out = value;
    return true;
}
