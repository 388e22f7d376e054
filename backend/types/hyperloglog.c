/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/types/hyperloglog.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <math.h>

#define HLL_ENCODING_OFF  4u
#define HLL_CACHE_OFF     8u
#define HLL_DENSE         0u
#define HLL_SPARSE        1u
#define HLL_INDEX_BITS    14u
#define HLL_RANK_BITS     (64u - HLL_INDEX_BITS)
#define HLL_REGISTER_MASK 63u
#define HLL_HASH_SEED     0xadc83b19u
#define HLL_ALPHA         0.721347520444481703680 /* 0.5 / ln 2 */

/* Of runs. */
#define RUN_VALUE_MAX 32u
#define RUN_LEN_MAX   4u
#define RUN_ZERO_MAX  64u /* in one byte */

/* ---- hash ---- */

static uint64_t load_u64(const unsigned char *at)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)at[i] << (8 * i);
    return v;
}

/* MurmurHash64A (Austin Appleby), little endian everywhere. */
static uint64_t murmur64a(struct bytes key)
{
    const uint64_t m = 0xc6a4a7935bd1e995u;
    const unsigned char *at = (const unsigned char *)key.data;
    /* Redis multiplies an int: lengths are below 2^29, so this is the same. */
    uint64_t h = HLL_HASH_SEED ^ key.len * m;
    size_t left = key.len;

    for (; left >= 8; left -= 8, at += 8) {
        uint64_t k = load_u64(at) * m;

        k ^= k >> 47;
        h = (h ^ k * m) * m;
    }
    if (left > 0) {
        for (size_t i = 0; i < left; i++)
            h ^= (uint64_t)at[i] << (8 * i);
        h *= m;
    }
    h ^= h >> 47;
    h *= m;
    h ^= h >> 47;
    return h;
}

/* Its register, and the value that it asks for: 1 to 51. */
static uint8_t element_rank(struct bytes element, uint32_t *index)
{
    uint64_t hash = murmur64a(element);

    *index = (uint32_t)(hash & (HLL_REGISTERS - 1));
    hash = hash >> HLL_INDEX_BITS | (uint64_t)1 << HLL_RANK_BITS;
    return (uint8_t)(__builtin_ctzll(hash) + 1);
}

/* ---- dense registers ---- */

/* A register spans two bytes unless it starts in the low three bits of one; the last one does. */
static uint8_t dense_get(const unsigned char *registers, uint32_t index)
{
    size_t byte = (size_t)index * 6 / 8;
    unsigned shift = index * 6 & 7;
    unsigned bits = registers[byte] >> shift;

    if (shift > 2)
        bits |= (unsigned)registers[byte + 1] << (8 - shift);
    return (uint8_t)(bits & HLL_REGISTER_MASK);
}

static void dense_set(unsigned char *registers, uint32_t index, uint8_t value)
{
    size_t byte = (size_t)index * 6 / 8;
    unsigned shift = index * 6 & 7;
    unsigned mask = HLL_REGISTER_MASK << shift, bits = (unsigned)value << shift;

    registers[byte] = (unsigned char)((registers[byte] & ~mask) | bits);
    if (shift > 2)
        registers[byte + 1] =
            (unsigned char)((registers[byte + 1] & ~(mask >> 8)) | bits >> 8);
}

/* True: it was lower. */
static bool dense_raise(unsigned char *registers, uint32_t index, uint8_t value)
{
    if (dense_get(registers, index) >= value)
        return false;
    dense_set(registers, index, value);
    return true;
}

/* ---- sparse runs ---- */

struct run {
    uint32_t len;   /* registers */
    uint32_t size;  /* bytes */
    uint8_t value;  /* 0: zeros */
    bool is_short;  /* zeros in one byte */
};

static struct run run_at(const unsigned char *at, const unsigned char *end)
{
    unsigned char second = end - at > 1 ? at[1] : 0;

    if ((at[0] & 0x80) != 0)
        return (struct run){.len = (at[0] & 3u) + 1, .size = 1,
                            .value = (uint8_t)((at[0] >> 2 & 0x1f) + 1)};
    if ((at[0] & 0x40) != 0)
        return (struct run){.len = ((at[0] & 0x3fu) << 8 | second) + 1, .size = 2};
    return (struct run){.len = (at[0] & 0x3fu) + 1, .size = 1, .is_short = true};
}

static unsigned char run_value(uint8_t value, uint32_t len)
{
    ASSERT(value >= 1 && value <= RUN_VALUE_MAX && len >= 1 && len <= RUN_LEN_MAX);
    return (unsigned char)(0x80u | (value - 1u) << 2 | (len - 1));
}

/* Writes a run of zeros; bytes written. */
static uint32_t run_put_zeros(unsigned char *at, uint32_t len)
{
    if (len <= RUN_ZERO_MAX) {
        at[0] = (unsigned char)(len - 1);
        return 1;
    }
    at[0] = (unsigned char)(0x40u | (len - 1) >> 8);
    at[1] = (unsigned char)(len - 1);
    return 2;
}

/* ---- the string ---- */

bool hll_is_valid(struct bytes string)
{
    unsigned char encoding;

    if (string.len < HLL_HEADER_SIZE || memcmp(string.data, "HYLL", 4) != 0)
        return false;
    encoding = (unsigned char)string.data[HLL_ENCODING_OFF];
    return encoding == HLL_SPARSE || (encoding == HLL_DENSE && string.len == HLL_DENSE_SIZE);
}

bool hll_is_dense(struct bytes string)
{
    return (unsigned char)string.data[HLL_ENCODING_OFF] == HLL_DENSE;
}

int hll_load(struct hll *hll, struct bytes value)
{
    static const char empty[HLL_HEADER_SIZE + 2] = {'H', 'Y', 'L', 'L', HLL_SPARSE, 0, 0, 0, 0,
                                                    0,   0,   0,   0,   0,          0, 0, 0x7f, (char)0xff};

    if (value.len == 0)
        value = bytes_of(empty, sizeof(empty));
    /* Growing stops at HLL_SPARSE_MAX, so there is room for all that can come. */
    hll->cap = MAX(value.len, (size_t)HLL_DENSE_SIZE);
    hll->data = mem_alloc(hll->cap);
    if (hll->data == NULL)
        return ERR_FULL;
    memcpy(hll->data, value.data, value.len);
    hll->len = value.len;
    return 0;
}

void hll_deinit(struct hll *hll)
{
    mem_free(hll->data);
    hll->data = NULL;
}

int hll_make_dense(struct hll *hll)
{
    unsigned char registers[HLL_DENSE_SIZE - HLL_HEADER_SIZE];
    const unsigned char *at = hll->data + HLL_HEADER_SIZE, *end = hll->data + hll->len;
    uint32_t index = 0;

    if (hll_is_dense(hll_bytes(hll)))
        return 0;
    memset(registers, 0, sizeof(registers));
    while (at < end) {
        struct run run = run_at(at, end);

        if (run.value != 0) {
            if (index + run.len > HLL_REGISTERS)
                break;
            for (uint32_t i = 0; i < run.len; i++)
                dense_set(registers, index + i, run.value);
        }
        index += run.len;
        at += run.size;
        if (index > HLL_REGISTERS)
            break;
    }
    if (index != HLL_REGISTERS)
        return ERR_CORRUPT;
    hll->data[HLL_ENCODING_OFF] = HLL_DENSE;
    memcpy(hll->data + HLL_HEADER_SIZE, registers, sizeof(registers));
    hll->len = HLL_DENSE_SIZE;
    return 0;
}

void hll_cache_invalidate(struct hll *hll)
{
    hll->data[HLL_CACHE_OFF + 7] |= 0x80;
}

void hll_cache_set(struct hll *hll, uint64_t count)
{
    for (unsigned i = 0; i < 8; i++)
        hll->data[HLL_CACHE_OFF + i] = (unsigned char)(count >> (8 * i));
}

bool hll_cached(struct bytes string, uint64_t *count)
{
    *count = load_u64((const unsigned char *)string.data + HLL_CACHE_OFF);
    return *count >> 63 == 0;
}

static int promote(struct hll *hll, uint32_t index, uint8_t value)
{
    int err = hll_make_dense(hll);

    if (err != 0)
        return err;
    return dense_raise(hll->data + HLL_HEADER_SIZE, index, value) ? 1 : 0;
}

/* The runs that replace `run`, which covers the registers from `first` on: what is left of it before and behind
 * `index`, and in between the new value. At most 5 bytes; how many. */
static uint32_t run_split(struct run run, uint32_t first, uint32_t index, uint8_t value,
                          unsigned char out[5])
{
    uint32_t before = index - first, behind = first + run.len - 1 - index;
    uint32_t size = 0;

    if (before > 0 && run.value == 0)
        size += run_put_zeros(out, before);
    else if (before > 0)
        out[size++] = run_value(run.value, before);
    out[size++] = run_value(value, 1);
    if (behind > 0 && run.value == 0)
        size += run_put_zeros(out + size, behind);
    else if (behind > 0)
        out[size++] = run_value(run.value, behind);
    return size;
}

/* Joins neighbours of equal value among the five runs from `off` on, while one byte can hold both. */
static void runs_join(struct hll *hll, size_t off)
{
    for (int i = 0; i < 5 && off < hll->len; i++) {
        struct run run = run_at(hll->data + off, hll->data + hll->len), next;

        if (run.value == 0) {
            off += run.size;
            continue;
        }
        if (off + 1 < hll->len) {
            next = run_at(hll->data + off + 1, hll->data + hll->len);
            if (next.value == run.value && run.len + next.len <= RUN_LEN_MAX) {
                hll->data[off] = run_value(run.value, run.len + next.len);
                hll->len--;
                memmove(hll->data + off + 1, hll->data + off + 2, hll->len - off - 1);
                continue; /* it may join the one behind, too */
            }
        }
        off++;
    }
}

/* As hll_add(). */
static int sparse_raise(struct hll *hll, uint32_t index, uint8_t value)
{
    size_t off = HLL_HEADER_SIZE, before = HLL_HEADER_SIZE;
    uint32_t first = 0, size;
    unsigned char split[5];
    struct run run = {0};

    if (value > RUN_VALUE_MAX)
        return promote(hll, index, value);
    for (; off < hll->len; off += run.size, first += run.len) {
        run = run_at(hll->data + off, hll->data + hll->len);
        if (index < first + run.len)
            break;
        before = off;
    }
    if (off >= hll->len || off + run.size > hll->len)
        return ERR_CORRUPT;
    if (run.value >= value)
        return 0;
    if (run.len == 1 && run.size == 1) {
        hll->data[off] = run_value(value, 1);
    } else {
        size = run_split(run, first, index, value, split);
        if (size > run.size && hll->len + size - run.size > HLL_SPARSE_MAX)
            return promote(hll, index, value);
        memmove(hll->data + off + size, hll->data + off + run.size, hll->len - off - run.size);
        memcpy(hll->data + off, split, size);
        hll->len = hll->len + size - run.size;
    }
    ASSERT(hll->len <= hll->cap);
    runs_join(hll, before);
    hll_cache_invalidate(hll);
    return 1;
}

static int hll_raise_register(struct hll *hll, uint32_t index, uint8_t value)
{
    if (hll_is_dense(hll_bytes(hll)))
        return dense_raise(hll->data + HLL_HEADER_SIZE, index, value) ? 1 : 0;
    return sparse_raise(hll, index, value);
}

int hll_add(struct hll *hll, struct bytes element)
{
    uint32_t index;
    uint8_t value = element_rank(element, &index);

    return hll_raise_register(hll, index, value);
}

void hll_raise(struct hll *hll, const uint8_t registers[HLL_REGISTERS])
{
    for (uint32_t i = 0; i < HLL_REGISTERS; i++)
        if (registers[i] != 0)
            (void)hll_raise_register(hll, i, registers[i]);
}

int hll_merge(struct bytes string, uint8_t registers[HLL_REGISTERS])
{
    const unsigned char *at = (const unsigned char *)string.data + HLL_HEADER_SIZE;
    const unsigned char *end = (const unsigned char *)string.data + string.len;
    uint32_t index = 0;

    if (hll_is_dense(string)) {
        for (; index < HLL_REGISTERS; index++)
            registers[index] = MAX(registers[index], dense_get(at, index));
        return 0;
    }
    while (at < end && index <= HLL_REGISTERS) {
        struct run run = run_at(at, end);

        if (run.value != 0) {
            if (index + run.len > HLL_REGISTERS)
                break;
            for (uint32_t i = index; i < index + run.len; i++)
                registers[i] = MAX(registers[i], run.value);
        }
        index += run.len;
        at += run.size;
    }
    return index == HLL_REGISTERS ? 0 : ERR_CORRUPT;
}

/* ---- estimation: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017 ---- */

static double ertl_sigma(double x)
{
    double y = 1, z = x, last;

    if (x == 1.)
        return INFINITY;
    do {
        x *= x;
        last = z;
        z += x * y;
        y += y;
    } while (last != z);
    return z;
}

static double ertl_tau(double x)
{
    double y = 1, z = 1 - x, last;

    if (x == 0. || x == 1.)
        return 0.;
    do {
        x = sqrt(x);
        last = z;
        y *= 0.5;
        z -= (1 - x) * (1 - x) * y;
    } while (last != z);
    return z / 3;
}

static uint64_t estimate(const uint64_t histogram[64])
{
    const double m = HLL_REGISTERS;
    double z = m * ertl_tau((m - (double)histogram[HLL_RANK_BITS + 1]) / m);

    for (unsigned i = HLL_RANK_BITS; i >= 1; i--) {
        z += (double)histogram[i];
        z *= 0.5;
    }
    z += m * ertl_sigma((double)histogram[0] / m);
    return (uint64_t)(double)llroundl((long double)(HLL_ALPHA * m * m / z));
}

uint64_t hll_count_registers(const uint8_t registers[HLL_REGISTERS])
{
    uint64_t histogram[64] = {0};

    for (uint32_t i = 0; i < HLL_REGISTERS; i++)
        histogram[registers[i] & HLL_REGISTER_MASK]++;
    return estimate(histogram);
}

int hll_count(struct bytes string, uint64_t *count)
{
    const unsigned char *at = (const unsigned char *)string.data + HLL_HEADER_SIZE;
    const unsigned char *end = (const unsigned char *)string.data + string.len;
    uint64_t histogram[64] = {0};
    uint64_t index = 0;

    if (hll_is_dense(string)) {
        for (uint32_t i = 0; i < HLL_REGISTERS; i++)
            histogram[dense_get(at, i)]++;
    } else {
        while (at < end) {
            struct run run = run_at(at, end);

            histogram[run.value] += run.len;
            index += run.len;
            at += run.size;
        }
        if (index != HLL_REGISTERS)
            return ERR_CORRUPT;
    }
    *count = estimate(histogram);
    return 0;
}
