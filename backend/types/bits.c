/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/bits.h"

/* Bits first..7 of a byte, and 0..last. */
static unsigned char mask_from(unsigned first)
{
    return (unsigned char)(0xffu >> first);
}

static unsigned char mask_to(unsigned last)
{
    return (unsigned char)(0xffu << (7 - last));
}

static uint64_t word_at(const char *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return word;
}

uint64_t bits_count(struct bytes data)
{
    uint64_t count = 0;
    size_t i = 0;

    for (; i + 32 <= data.len; i += 32)
        count += (uint64_t)__builtin_popcountll(word_at(data.data + i)) +
                 (uint64_t)__builtin_popcountll(word_at(data.data + i + 8)) +
                 (uint64_t)__builtin_popcountll(word_at(data.data + i + 16)) +
                 (uint64_t)__builtin_popcountll(word_at(data.data + i + 24));
    for (; i < data.len; i++)
        count += (uint64_t)__builtin_popcount((unsigned char)data.data[i]);
    return count;
}

uint64_t bits_count_range(struct bytes data, uint64_t first, uint64_t last)
{
    size_t first_byte = (size_t)(first >> 3), last_byte = (size_t)(last >> 3);
    unsigned char head, tail;

    ASSERT(first <= last && last_byte < data.len);
    head = (unsigned char)data.data[first_byte] & mask_from(first & 7);
    if (first_byte == last_byte)
        return (uint64_t)__builtin_popcount(head & mask_to(last & 7));
    tail = (unsigned char)data.data[last_byte] & mask_to(last & 7);
    return (uint64_t)__builtin_popcount(head) + (uint64_t)__builtin_popcount(tail) +
           bits_count(bytes_of(data.data + first_byte + 1, last_byte - first_byte - 1));
}

int64_t bits_find(struct bytes data, uint64_t first, uint64_t last, bool bit)
{
    size_t at = (size_t)(first >> 3), last_byte = (size_t)(last >> 3);
    uint64_t skip = bit ? 0 : UINT64_MAX; /* a word without such a bit */
    unsigned char flip = bit ? 0 : 0xff;
    unsigned char mask = mask_from(first & 7);

    ASSERT(first <= last && last_byte < data.len);
    while (at <= last_byte) {
        unsigned char byte = ((unsigned char)data.data[at] ^ flip) & mask;

        if (at == last_byte)
            byte &= mask_to(last & 7);
        if (byte != 0)
            return (int64_t)at * 8 + __builtin_clz(byte) - 24;
        mask = 0xff;
        at++;
        while (at + 8 <= last_byte && word_at(data.data + at) == skip)
            at += 8;
    }
    return -1;
}

static unsigned char byte_of(struct bytes string, size_t at)
{
    return at < string.len ? (unsigned char)string.data[at] : 0;
}

static uint64_t combine(enum bits_operation operation, uint64_t a, uint64_t b)
{
    switch (operation) {
    case BITS_AND:
        return a & b;
    case BITS_OR:
        return a | b;
    case BITS_XOR:
    case BITS_NOT:
        break;
    }
    return a ^ b;
}

void bits_combine(enum bits_operation operation, const struct bytes *strings, size_t count,
                  unsigned char *out, size_t len)
{
    size_t common = len, at = 0;

    ASSERT(count > 0);
    ASSERT(operation != BITS_NOT || count == 1);
    for (size_t i = 0; i < count; i++)
        common = MIN(common, strings[i].len);
    for (; at + 8 <= common; at += 8) {
        uint64_t word = word_at(strings[0].data + at);

        if (operation == BITS_NOT)
            word = ~word;
        for (size_t i = 1; i < count; i++)
            word = combine(operation, word, word_at(strings[i].data + at));
        memcpy(out + at, &word, 8);
    }
    for (; at < len; at++) {
        uint64_t byte = byte_of(strings[0], at);

        if (operation == BITS_NOT)
            byte = ~byte;
        for (size_t i = 1; i < count; i++)
            byte = combine(operation, byte, byte_of(strings[i], at));
        out[at] = (unsigned char)byte;
    }
}

uint64_t bits_field_get(struct bytes data, uint64_t at, unsigned width)
{
    uint64_t field = 0;
    size_t byte = (size_t)(at >> 3);
    unsigned taken = 0, skip = at & 7;

    ASSERT(width >= 1 && width <= 64);
    while (taken < width) {
        unsigned here = MIN(8 - skip, width - taken);
        unsigned bits = byte_of(data, byte) >> (8 - skip - here) & ((1u << here) - 1);

        field = field << here | bits;
        taken += here;
        skip = 0;
        byte++;
    }
    return field;
}

int64_t bits_field_signed(uint64_t field, unsigned width)
{
    if (width < 64 && (field >> (width - 1) & 1) != 0)
        field |= UINT64_MAX << width;
    return (int64_t)field;
}

void bits_field_set(unsigned char *data, uint64_t at, unsigned width, uint64_t field)
{
    size_t byte = (size_t)(at >> 3);
    unsigned left = width, skip = at & 7;

    ASSERT(width >= 1 && width <= 64);
    while (left > 0) {
        unsigned here = MIN(8 - skip, left);
        unsigned shift = 8 - skip - here;
        unsigned mask = ((1u << here) - 1) << shift;
        unsigned bits = (unsigned)(field >> (left - here)) << shift & mask;

        data[byte] = (unsigned char)((data[byte] & ~mask) | bits);
        left -= here;
        skip = 0;
        byte++;
    }
}

/* Redis 7.0 finds overflows by room that it computes modulo 2^64: where a value far outside is SET to few bits, a
 * very negative one saturates to the greatest number. Clients may know. */
bool bits_add_signed(int64_t value, int64_t increment, unsigned width, enum bits_overflow overflow,
                     int64_t *out)
{
    int64_t max = width == 64 ? INT64_MAX : ((int64_t)1 << (width - 1)) - 1;
    int64_t min = -max - 1;
    int64_t room_up = (int64_t)((uint64_t)max - (uint64_t)value);
    int64_t room_down = (int64_t)((uint64_t)min - (uint64_t)value);
    bool is_over = value > max || ((width != 64 || (value >= 0 && increment > 0)) && increment > room_up);
    bool is_under = value < min || ((width != 64 || (value < 0 && increment < 0)) && increment < room_down);
    uint64_t sum = (uint64_t)value + (uint64_t)increment;

    if (!is_over && !is_under) {
        *out = (int64_t)sum;
        return true;
    }
    if (overflow == BITS_SATURATE) {
        *out = is_over ? max : min;
    } else {
        if (width < 64)
            sum &= ((uint64_t)1 << width) - 1;
        *out = bits_field_signed(sum, width);
    }
    return false;
}

bool bits_add_unsigned(uint64_t value, int64_t increment, unsigned width,
                       enum bits_overflow overflow, uint64_t *out)
{
    uint64_t max = ((uint64_t)1 << width) - 1;
    uint64_t sum = value + (uint64_t)increment; /* modulo 2^64, of which wrapping is a part */
    bool is_over = value > max || (increment > 0 && (uint64_t)increment > max - value);
    bool is_under = !is_over && increment < 0 && value < 0 - (uint64_t)increment;

    ASSERT(width >= 1 && width <= 63);
    if (!is_over && !is_under) {
        *out = sum;
        return true;
    }
    if (overflow == BITS_SATURATE)
        *out = is_over ? max : 0;
    else
        *out = sum & max;
    return false;
}
