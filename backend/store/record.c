/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/record.h"
#include "backend/store/format_private.h"
#include "common/ring/hash.h"

_Static_assert(RECORD_OPTIONS_MAX == 8 + 8 + 8 + 16, "all options");
_Static_assert(STORE_DBS <= UINT8_MAX && STORE_TYPE_COUNT <= UINT8_MAX, "a byte each");

static uint8_t record_flags(const struct record *record)
{
    return (uint8_t)((record->expire_ms != 0 ? RECORD_HAS_EXPIRE : 0) |
                     (record->mc_flags != 0 ? RECORD_HAS_MC_FLAGS : 0) |
                     (record->base_lsn != 0 ? RECORD_HAS_BASE : 0) |
                     (record->has_request ? RECORD_HAS_REQUEST : 0));
}

static size_t options_size(uint8_t flags)
{
    static const uint8_t sizes[16] = {
        0, 8, 8, 16, 8, 16, 16, 24, 16, 24, 24, 32, 24, 32, 32, 40,
    };

    return sizes[flags & 0x0f];
}

size_t record_size(const struct record *record)
{
    size_t size = RECORD_HEADER_SIZE + options_size(record_flags(record)) + record->key.len +
                  record->value.len;

    return round_up(size, RECORD_ALIGN);
}

static char *put_options(char *at, const struct record *record)
{
    if (record->expire_ms != 0) {
        put_u64(at, record->expire_ms);
        at += 8;
    }
    if (record->mc_flags != 0) {
        put_u64(at, record->mc_flags);
        at += 8;
    }
    if (record->base_lsn != 0) {
        put_u64(at, record->base_lsn);
        at += 8;
    }
    if (record->has_request) {
        memcpy(at, record->request, sizeof(record->request));
        at += sizeof(record->request);
    }
    return at;
}

void record_encode(const struct record *record, char *out)
{
    char *at;
    size_t size, padded;

    ASSERT(record->type > RECORD_NONE && record->type < RECORD_TYPE_COUNT);
    ASSERT(record->key.len <= STORE_KEY_MAX && record->value.len <= RECORD_VALUE_MAX);
    ASSERT(record->lsn <= STORE_LSN_MAX && record->db <= STORE_DBS);
    put_u32(out + 4, (uint32_t)record->type | (uint32_t)record_flags(record) << 8 |
                         (uint32_t)record->slot << 16);
    put_u32(out + 8, (uint32_t)record->key.len | (uint32_t)record->db << 16 |
                         (uint32_t)record->value_type << 24);
    put_u32(out + 12, (uint32_t)record->value.len);
    put_u64(out + 16, record->lsn);
    put_u64(out + 24, record->epoch);
    at = put_options(out + RECORD_HEADER_SIZE, record);
    bytes_copy_short(at, record->key.data, record->key.len);
    at += record->key.len;
    if (record->value.len > 0)
        memcpy(at, record->value.data, record->value.len);
    size = (size_t)(at - out) + record->value.len;
    padded = round_up(size, RECORD_ALIGN);
    memset(out + size, 0, padded - size);
    put_u32(out, crc32c(0, out + 4, size - 4));
}

/* Bytes without padding; 0: the header cannot be one. */
static size_t header_size(const char *at)
{
    uint8_t type = (uint8_t)at[4], flags = (uint8_t)at[5], db = (uint8_t)at[10];
    uint32_t value_len = get_u32(at + 12);

    if (type <= RECORD_NONE || type >= RECORD_TYPE_COUNT || flags > 0x0f || db > STORE_DBS)
        return 0;
    if ((uint8_t)at[11] >= STORE_TYPE_COUNT || value_len > RECORD_VALUE_MAX)
        return 0;
    if (get_u64(at + 16) > STORE_LSN_MAX || get_u32(at + 28) != 0)
        return 0;
    return RECORD_HEADER_SIZE + options_size(flags) + get_u16(at + 8) + (size_t)value_len;
}

size_t record_size_announced(struct bytes data)
{
    ASSERT(data.len >= RECORD_HEADER_SIZE);
    return round_up(header_size(data.data), RECORD_ALIGN);
}

/* False: an option that says nothing, which no encoder writes. */
static bool get_options(const char *at, uint8_t flags, struct record *out)
{
    if ((flags & RECORD_HAS_EXPIRE) != 0) {
        out->expire_ms = get_u64(at);
        at += 8;
    }
    if ((flags & RECORD_HAS_MC_FLAGS) != 0) {
        out->mc_flags = get_u64(at);
        if (out->mc_flags > ENTRY_MC_FLAGS_MAX)
            return false;
        at += 8;
    }
    if ((flags & RECORD_HAS_BASE) != 0) {
        out->base_lsn = get_u64(at);
        at += 8;
    }
    if ((flags & RECORD_HAS_REQUEST) != 0) {
        out->has_request = true;
        memcpy(out->request, at, sizeof(out->request));
    }
    return record_flags(out) == flags;
}

size_t record_decode(struct bytes data, struct record *out)
{
    const char *at = data.data;
    size_t size, padded, head;
    uint8_t flags;

    if (data.len < RECORD_HEADER_SIZE)
        return 0;
    size = header_size(at);
    padded = round_up(size, RECORD_ALIGN);
    if (size == 0 || padded > data.len || get_u32(at) != crc32c(0, at + 4, size - 4) ||
        !is_zero(at + size, padded - size))
        return 0;
    flags = (uint8_t)at[5];
    head = RECORD_HEADER_SIZE + options_size(flags);
    *out = (struct record){
        .type = (uint8_t)at[4],
        .db = (uint8_t)at[10],
        .value_type = (uint8_t)at[11],
        .slot = get_u16(at + 6),
        .epoch = get_u32(at + 24),
        .lsn = get_u64(at + 16),
        .key = bytes_of(at + head, get_u16(at + 8)),
    };
    out->value = bytes_of(out->key.data + out->key.len, get_u32(at + 12));
    return get_options(at + RECORD_HEADER_SIZE, flags, out) ? padded : 0;
}

uint16_t key_slot(struct bytes key)
{
    return (uint16_t)hash_slot(key);
}
