/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C: three cycles for eight bytes where the processor has the instruction, else a table.
 *
 * One stream only: records are short, and a long one is copied at about the same pace.
 */
#include "backend/store/record.h"
#include "backend/store/crc32c_table.h"

static uint32_t crc32c_by_table(uint32_t crc, const unsigned char *at, size_t size)
{
    for (; size > 0; size--)
        crc = crc >> 8 ^ crc32c_table[(crc ^ *at++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

static inline uint64_t load_u64(const unsigned char *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_by_instruction(uint32_t crc,
                                                                        const unsigned char *at,
                                                                        size_t size)
{
    uint64_t wide = crc;

    for (; size >= 8; size -= 8, at += 8)
        wide = _mm_crc32_u64(wide, load_u64(at));
    crc = (uint32_t)wide;
    for (; size > 0; size--)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    if (LIKELY(__builtin_cpu_supports("sse4.2")))
        return ~crc32c_by_instruction(~crc, data, size);
    return ~crc32c_by_table(~crc, data, size);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return ~crc32c_by_table(~crc, data, size);
}
#endif

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    return ~crc32c_by_table(~crc, data, size);
}
