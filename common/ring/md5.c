/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MD5 (RFC 1321), for ketama's points and `hash: md5`. It places keys; it protects nothing.
 *
 * Ours, because a key is one block: setting up a digest of OpenSSL 3 costs more than computing it.
 */
#include "config.h"

#include "common/ring/hash.h"

#define MD5_BLOCK_SIZE 64

/* clang-format off */
static const uint32_t md5_sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const uint8_t md5_shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
/* clang-format on */

static void store_le32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* One of the four rounds; the compiler unrolls it, as `round` is a constant where it is called. */
static ALWAYS_INLINE void md5_round(uint32_t s[static 4], const uint32_t word[static 16],
                                    unsigned round)
{
    static const uint8_t step[4] = {1, 5, 3, 7}, start[4] = {0, 1, 5, 0};

    for (unsigned i = 0; i < 16; i++) {
        uint32_t b = s[1], c = s[2], d = s[3], f, sum;
        unsigned shift = md5_shifts[round][i & 3];

        f = round == 0   ? (d ^ (b & (c ^ d)))
            : round == 1 ? (c ^ (d & (b ^ c)))
            : round == 2 ? (b ^ c ^ d)
                         : (c ^ (b | ~d));
        sum = s[0] + f + md5_sines[round * 16 + i] + word[(start[round] + step[round] * i) & 15];
        s[0] = d;
        s[3] = c;
        s[2] = b;
        s[1] = b + (sum << shift | sum >> (32 - shift));
    }
}

static void md5_block(uint32_t state[static 4], const uint8_t *block)
{
    uint32_t word[16], s[4];

    for (unsigned i = 0; i < 16; i++)
        word[i] = load_le32(block + i * 4);
    memcpy(s, state, sizeof(s));
    md5_round(s, word, 0);
    md5_round(s, word, 1);
    md5_round(s, word, 2);
    md5_round(s, word, 3);
    for (unsigned i = 0; i < 4; i++)
        state[i] += s[i];
}

void hash_md5_digest(struct bytes data, uint8_t digest[static HASH_MD5_SIZE])
{
    uint32_t state[4] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
    const uint8_t *p = (const uint8_t *)data.data;
    uint8_t tail[2 * MD5_BLOCK_SIZE] = {0};
    size_t left = data.len, tail_len;

    for (; left >= MD5_BLOCK_SIZE; left -= MD5_BLOCK_SIZE, p += MD5_BLOCK_SIZE)
        md5_block(state, p);
    if (left > 0)
        memcpy(tail, p, left);
    tail[left] = 0x80;
    tail_len = left < MD5_BLOCK_SIZE - 8 ? MD5_BLOCK_SIZE : 2 * MD5_BLOCK_SIZE;
    store_le32(tail + tail_len - 8, (uint32_t)(data.len << 3));
    store_le32(tail + tail_len - 4, (uint32_t)((uint64_t)data.len >> 29));
    for (size_t off = 0; off < tail_len; off += MD5_BLOCK_SIZE)
        md5_block(state, tail + off);
    for (unsigned i = 0; i < 4; i++)
        store_le32(digest + i * 4, state[i]);
}
