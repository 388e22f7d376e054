/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decimals: what bytes_to_*() takes is canonical, so composing the value gives the same bytes back.
 */
#include "common/base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes input = bytes_of(data, size);
    char digits[21];
    uint64_t value;
    int64_t number;

    if (bytes_to_u64(input, UINT64_MAX, &value))
        ASSERT(bytes_equal(bytes_of(digits, u64_to_digits(value, digits)), input));
    if (bytes_to_i64(input, &number))
        ASSERT(bytes_equal(bytes_of(digits, i64_to_digits(number, digits)), input));
    ASSERT(bytes_equal_nocase(input, input));
    return 0;
}
