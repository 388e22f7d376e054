/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/bytes.h"

bool bytes_equal_nocase(struct bytes a, struct bytes b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (ascii_lower(a.data[i]) != ascii_lower(b.data[i]))
            return false;
    return true;
}

bool bytes_to_u64(struct bytes b, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;

    if (b.len == 0 || b.len > 20 || (b.data[0] == '0' && b.len > 1))
        return false;
    for (size_t i = 0; i < b.len; i++) {
        unsigned digit = (unsigned)(unsigned char)b.data[i] - '0';

        /* 19 digits always fit. */
        if (digit > 9 || (i == 19 && value > (UINT64_MAX - digit) / 10))
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    *out = value;
    return true;
}

bool bytes_to_i64(struct bytes b, int64_t *out)
{
    bool is_negative = b.len > 0 && b.data[0] == '-';
    uint64_t value;

    if (!bytes_to_u64(is_negative ? bytes_skip(b, 1) : b,
                      is_negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX, &value))
        return false;
    if (is_negative && value == 0)
        return false; /* "-0" is not canonical */
    *out = is_negative ? (int64_t)(~value + 1) : (int64_t)value;
    return true;
}

static size_t digits_of(uint64_t value)
{
    size_t count = 1;

    for (; value >= 10000; value /= 10000)
        count += 4;
    return count + (value >= 10) + (value >= 100) + (value >= 1000);
}

size_t u64_to_digits(uint64_t value, char *out)
{
    size_t count = digits_of(value);

    for (size_t i = count; i-- > 0; value /= 10)
        out[i] = (char)('0' + value % 10);
    return count;
}

size_t i64_to_digits(int64_t value, char *out)
{
    if (value >= 0)
        return u64_to_digits((uint64_t)value, out);
    out[0] = '-';
    return 1 + u64_to_digits(~(uint64_t)value + 1, out + 1);
}
