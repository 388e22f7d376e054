/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hashes of twemproxy, as its x86-64 build computes them.
 *
 * Where twemproxy leaves something to the compiler (the sign of char, the alignment of the key) the
 * outcome on x86-64 is written out here, so that an ARM build places keys alike. Where it computes
 * in 64 bits and then cuts, 32 bits are enough: the low half of a product depends on low halves
 * only.
 */
#include "config.h"

#include "common/ring/hash.h"

#include "common/ring/hash_tables.h"

/* What (uint32_t)*(const char *)p gives on x86-64: bytes from 0x80 on become 0xffffff80.. */
static inline uint32_t signed_byte(const char *p)
{
    return (uint32_t)(int32_t)(int8_t)*p;
}

static inline uint32_t load_le16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t rotate_left(uint32_t x, unsigned bits)
{
    return x << bits | x >> (32 - bits);
}

static uint32_t hash_one_at_a_time(struct bytes key)
{
    uint32_t value = 0;

    for (size_t i = 0; i < key.len; i++) {
        value += signed_byte(key.data + i);
        value += value << 10;
        value ^= value >> 6;
    }
    value += value << 3;
    value ^= value >> 11;
    value += value << 15;
    return value;
}

static uint32_t hash_md5(struct bytes key)
{
    uint8_t digest[HASH_MD5_SIZE];

    hash_md5_digest(key, digest);
    return load_le32(digest);
}

/* The register has 32 bits and is not cut to 16: the upper half is what was shifted out. */
static uint32_t hash_crc16(struct bytes key)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < key.len; i++)
        crc = crc << 8 ^ crc16_table[0][(crc >> 8 ^ (uint8_t)key.data[i]) & 0xff];
    return crc;
}

static uint32_t crc32_register(struct bytes key)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < key.len; i++)
        crc = crc >> 8 ^ crc32_table[(crc ^ (uint8_t)key.data[i]) & 0xff];
    return ~crc;
}

/* libmemcached's: 15 bits are left. On a ketama circle that is nearly always the first point. */
static uint32_t hash_crc32(struct bytes key)
{
    return crc32_register(key) >> 16 & 0x7fff;
}

static uint32_t hash_crc32a(struct bytes key)
{
    return crc32_register(key);
}

#define FNV_64_INIT_LOW  0x84222325u
#define FNV_64_PRIME_LOW 0x000001b3u
#define FNV_32_INIT      2166136261u
#define FNV_32_PRIME     16777619u

static inline uint32_t fnv1(struct bytes key, uint32_t init, uint32_t prime)
{
    uint32_t hash = init;

    for (size_t i = 0; i < key.len; i++)
        hash = hash * prime ^ signed_byte(key.data + i);
    return hash;
}

static inline uint32_t fnv1a(struct bytes key, uint32_t init, uint32_t prime)
{
    uint32_t hash = init;

    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ signed_byte(key.data + i)) * prime;
    return hash;
}

static uint32_t hash_fnv1_64(struct bytes key)
{
    return fnv1(key, FNV_64_INIT_LOW, FNV_64_PRIME_LOW);
}

static uint32_t hash_fnv1a_64(struct bytes key)
{
    return fnv1a(key, FNV_64_INIT_LOW, FNV_64_PRIME_LOW);
}

static uint32_t hash_fnv1_32(struct bytes key)
{
    return fnv1(key, FNV_32_INIT, FNV_32_PRIME);
}

static uint32_t hash_fnv1a_32(struct bytes key)
{
    return fnv1a(key, FNV_32_INIT, FNV_32_PRIME);
}

/* Paul Hsieh's SuperFastHash; the third byte of a tail of three is taken signed. */
static uint32_t hash_hsieh(struct bytes key)
{
    const uint8_t *p = (const uint8_t *)key.data;
    uint32_t hash = 0;

    if (key.len == 0)
        return 0;
    for (size_t blocks = key.len / 4; blocks > 0; blocks--, p += 4) {
        hash += load_le16(p);
        hash = hash << 16 ^ (load_le16(p + 2) << 11 ^ hash);
        hash += hash >> 11;
    }
    switch (key.len & 3) {
    case 3:
        hash += load_le16(p);
        hash ^= hash << 16;
        hash ^= signed_byte((const char *)p + 2) << 18;
        hash += hash >> 11;
        break;
    case 2:
        hash += load_le16(p);
        hash ^= hash << 11;
        hash += hash >> 17;
        break;
    case 1:
        hash += p[0];
        hash ^= hash << 10;
        hash += hash >> 1;
        break;
    default: /* nothing is left over */
        break;
    }
    hash ^= hash << 3;
    hash += hash >> 5;
    hash ^= hash << 4;
    hash += hash >> 17;
    hash ^= hash << 25;
    hash += hash >> 6;
    return hash;
}

/* MurmurHash2 with libmemcached's seed. */
static uint32_t hash_murmur(struct bytes key)
{
    const uint32_t m = 0x5bd1e995u;
    const uint8_t *p = (const uint8_t *)key.data;
    size_t len = key.len;
    uint32_t hash = (0xdeadbeefu * (uint32_t)len) ^ (uint32_t)len;

    for (; len >= 4; len -= 4, p += 4) {
        uint32_t k = load_le32(p) * m;

        k ^= k >> 24;
        hash = hash * m ^ k * m;
    }
    switch (len) {
    case 3:
        hash ^= (uint32_t)p[2] << 16;
        FALLTHROUGH;
    case 2:
        hash ^= (uint32_t)p[1] << 8;
        FALLTHROUGH;
    case 1:
        hash = (hash ^ p[0]) * m;
        break;
    default: /* nothing is left over */
        break;
    }
    hash ^= hash >> 13;
    hash *= m;
    hash ^= hash >> 15;
    return hash;
}

/* Little-endian words from the last one to twelve bytes, as if zeros followed. */
static void jenkins_load(const uint8_t *p, size_t len, uint32_t word[static 3])
{
    uint8_t block[12] = {0};

    memcpy(block, p, len);
    for (unsigned i = 0; i < 3; i++)
        word[i] = load_le32(block + i * 4);
}

/* Bob Jenkins' lookup3 (hashlittle) with initval 13. */
static uint32_t hash_jenkins(struct bytes key)
{
    const uint8_t *p = (const uint8_t *)key.data;
    size_t len = key.len;
    uint32_t a, b, c, word[3];

    a = b = c = 0xdeadbeefu + (uint32_t)len + 13u;
    for (; len > 12; len -= 12, p += 12) {
        a += load_le32(p);
        b += load_le32(p + 4);
        c += load_le32(p + 8);
        a -= c, a ^= rotate_left(c, 4), c += b;
        b -= a, b ^= rotate_left(a, 6), a += c;
        c -= b, c ^= rotate_left(b, 8), b += a;
        a -= c, a ^= rotate_left(c, 16), c += b;
        b -= a, b ^= rotate_left(a, 19), a += c;
        c -= b, c ^= rotate_left(b, 4), b += a;
    }
    if (len == 0)
        return c;
    jenkins_load(p, len, word);
    a += word[0], b += word[1], c += word[2];
    c ^= b, c -= rotate_left(b, 14);
    a ^= c, a -= rotate_left(c, 11);
    b ^= a, b -= rotate_left(a, 25);
    c ^= b, c -= rotate_left(b, 16);
    a ^= c, a -= rotate_left(c, 4);
    b ^= a, b -= rotate_left(a, 14);
    c ^= b, c -= rotate_left(b, 24);
    return c;
}

typedef uint32_t (*hash_fn)(struct bytes key);

static const struct {
    const char *name;
    hash_fn hash;
} hashes[HASH_KIND_COUNT] = {
#define X(name) [HASH_##name] = {#name, hash_##name},
    HASH_TABLE(X)
#undef X
};

uint32_t hash_key(enum hash_kind kind, struct bytes key)
{
    return hashes[kind].hash(key);
}

/* Keys of one length. A key alone waits a multiplication for every byte; four keep the multiplier busy. */
static void fnv1a_64_four(const struct bytes *keys, uint32_t step, uint32_t out[static 4])
{
    const char *a = keys[0].data, *b = keys[step].data;
    const char *c = keys[2 * (size_t)step].data, *d = keys[3 * (size_t)step].data;
    uint32_t hash_a = FNV_64_INIT_LOW, hash_b = hash_a, hash_c = hash_a, hash_d = hash_a;

    for (size_t i = 0; i < keys[0].len; i++) {
        hash_a = (hash_a ^ signed_byte(a + i)) * FNV_64_PRIME_LOW;
        hash_b = (hash_b ^ signed_byte(b + i)) * FNV_64_PRIME_LOW;
        hash_c = (hash_c ^ signed_byte(c + i)) * FNV_64_PRIME_LOW;
        hash_d = (hash_d ^ signed_byte(d + i)) * FNV_64_PRIME_LOW;
    }
    out[0] = hash_a, out[1] = hash_b, out[2] = hash_c, out[3] = hash_d;
}

void hash_key_each(enum hash_kind kind, const struct bytes *keys, uint32_t step, uint32_t count,
                   uint32_t *out)
{
    hash_fn hash = hashes[kind].hash;
    uint32_t i = 0;

    while (i < count) {
        const struct bytes *four = keys + (size_t)i * step;

        if (kind == HASH_fnv1a_64 && count - i >= 4 && four[0].len == four[step].len &&
            four[0].len == four[2 * (size_t)step].len && four[0].len == four[3 * (size_t)step].len) {
            fnv1a_64_four(four, step, out + i);
            i += 4;
        } else {
            out[i++] = hash(four[0]);
        }
    }
}

const char *hash_name(enum hash_kind kind)
{
    ASSERT(kind < HASH_KIND_COUNT);
    return hashes[kind].name;
}

bool hash_by_name(struct bytes name, enum hash_kind *out)
{
    for (unsigned kind = 0; kind < HASH_KIND_COUNT; kind++) {
        if (bytes_equal(name, bytes_of_string(hashes[kind].name))) {
            *out = (enum hash_kind)kind;
            return true;
        }
    }
    return false;
}

uint16_t hash_crc16_xmodem(struct bytes data)
{
    const uint8_t *at = (const uint8_t *)data.data;
    size_t left = data.len;
    uint16_t crc = 0;

    /* Four bytes a step: every change of a node's key comes by here. */
    for (; left >= 4; left -= 4, at += 4)
        crc = crc16_table[3][crc >> 8 ^ at[0]] ^ crc16_table[2][(crc & 0xff) ^ at[1]] ^ crc16_table[1][at[2]] ^
              crc16_table[0][at[3]];
    for (; left > 0; left--, at++)
        crc = (uint16_t)(crc << 8 ^ crc16_table[0][(crc >> 8 ^ *at) & 0xff]);
    return crc;
}

struct bytes hash_tag_part(struct bytes key, char open, char close)
{
    const char *end = key.data + key.len, *first, *last;

    if (key.len == 0)
        return key;
    first = memchr(key.data, open, key.len);
    if (first == NULL)
        return key;
    first++;
    last = first == end ? NULL : memchr(first, close, (size_t)(end - first));
    if (last == NULL || last == first)
        return key;
    return bytes_of(first, (size_t)(last - first));
}

uint32_t hash_slot(struct bytes key)
{
    return hash_crc16_xmodem(hash_tag_part(key, '{', '}')) & (HASH_SLOT_COUNT - 1);
}

uint64_t hash_fingerprint(uint64_t seed, struct bytes data)
{
    uint64_t hash = seed ^ 0xcbf29ce484222325u;

    for (size_t i = 0; i < data.len; i++)
        hash = (hash ^ (uint8_t)data.data[i]) * 0x100000001b3u;
    /* The length, so that "ab"+"c" and "a"+"bc" differ; then every bit reaches every other. */
    hash ^= (uint64_t)data.len * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 30;
    hash *= 0xbf58476d1ce4e5b9u;
    hash ^= hash >> 27;
    hash *= 0x94d049bb133111ebu;
    return hash ^ hash >> 31;
}
