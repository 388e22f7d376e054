/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entry.h - a key in memory: one run of bytes from the slab.
 *
 *     0  address   u64   of the record with the value, or of the collection's image; 0: none yet
 *     8  lsn       48 b  of the last change
 *    14  type      u8    STORE_STRING ...: low 3 bits; above: ENTRY_ flags
 *    15  db, access u8   database in the low 4 bits; bits 4-5: how often used (0-3); 6-7 mc_state
 *    16  key_len   u8    ENTRY_KEY_LONG: a u16 behind the options has it
 *    17  value_len u24   of an inline string, below ENTRY_FORM_SHIFT; of a cold value: size of its record's value, clipped
 *    20  [u64 expire_ms]  ENTRY_EXPIRES
 *        [u32 mc_flags]   ENTRY_MC_FLAGS   (memcache's client flags, not 0)
 *        [u16 key length] key_len == ENTRY_KEY_LONG
 *        key
 *        value            inline string: its bytes. ENTRY_OBJECT: an unaligned pointer to struct object.
 *                         ENTRY_COLD: nothing, it is on disk at `address`
 *
 * A string of at most STRING_INLINE_MAX bytes that is put is inline: its record is a whole one, so it has no chain of
 * deltas. From STRING_DELTA_MIN bytes on it becomes an object when a part of it changes, or what is beside it: the log
 * gets that, and not the string again. All else is an object (object.h).
 *
 * An entry has no room to grow: another size means another slab object, and the index is told. So a
 * pointer to an entry ends with the next call that changes that key.
 *
 * An inline string that SET would not have stored the same way says so in the bits above its length (enum entry_form):
 * only OBJECT ENCODING tells, and what leaves memory forgets it, as a Redis that is started again does.
 *
 *   E1  ENTRY_COLD and ENTRY_OBJECT exclude each other. A cold entry has an address, but for what recovery leaves: a
 *       chain of deltas without an image (fetch.c), and, while it lasts, tombstones of type STORE_NONE.
 *   E2  (segment sequence, offset) in `address` never names two records: sequences are not used again.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"

struct object;

enum store_type {
    STORE_NONE, STORE_STRING, STORE_LIST, STORE_SET, STORE_ZSET, STORE_HASH, STORE_STREAM,
    STORE_TYPE_COUNT,
};

#define ENTRY_TYPE_MASK 0x07u
#define ENTRY_OBJECT    0x08u
#define ENTRY_COLD      0x10u
#define ENTRY_EXPIRES   0x20u
#define ENTRY_MC_FLAGS  0x40u
#define ENTRY_MAIN      0x80u /* S3-FIFO: it has been used again and left the small queue */

#define ENTRY_KEY_LONG        255u
#define ENTRY_VALUE_LEN_MAX   0xffffffu
#define ENTRY_FORM_SHIFT      20u
#define STRING_INLINE_MAX     16384u
#define STRING_DELTA_MIN      1024u /* an object has some hundred bytes around it */
/* What memcache keeps beside a value: the client's 32 bits of flags, and above them two bits of state. */
#define MC_FLAGS_STALE        (1ull << 32) /* invalidated; the value may still be shown, as stale */
#define MC_FLAGS_SENT         (1ull << 33) /* some client was told to fetch the value anew */
#define ENTRY_MC_FLAGS_MAX    ((1ull << 34) - 1)

enum entry_form { FORM_SET, FORM_TEXT, FORM_RAW }; /* TEXT: no integer though it reads like one. RAW: of any length */

#define STORE_KEY_MAX         65535u
#define STORE_VALUE_MAX       (512u << 20)
#define STORE_DBS             16u
#define STORE_LSN_MAX         ((1ull << 48) - 1)

struct entry {
    uint64_t address;
    uint32_t lsn_low;
    uint16_t lsn_high;
    uint8_t type_flags;
    uint8_t db_access;
    uint8_t key_len_;
    uint8_t value_len_[3];
    char rest[];
} __attribute__((packed));
_Static_assert(STRING_INLINE_MAX < 1u << ENTRY_FORM_SHIFT, "the form lies above");
_Static_assert(sizeof(struct entry) == 20, "the header of a hot string is 20 bytes");

static inline enum store_type entry_type(const struct entry *e)
{
    return (enum store_type)(e->type_flags & ENTRY_TYPE_MASK);
}

static inline bool entry_is_cold(const struct entry *e)
{
    return (e->type_flags & ENTRY_COLD) != 0;
}

static inline bool entry_is_object(const struct entry *e)
{
    return (e->type_flags & ENTRY_OBJECT) != 0;
}

static inline uint8_t entry_db(const struct entry *e)
{
    return e->db_access & 0x0f;
}

static inline uint8_t entry_access(const struct entry *e)
{
    return (e->db_access >> 4) & 3;
}

static inline void entry_access_set(struct entry *e, uint8_t access)
{
    e->db_access = (uint8_t)((e->db_access & 0xcf) | (access & 3) << 4);
}

static inline uint64_t entry_lsn(const struct entry *e)
{
    return (uint64_t)e->lsn_high << 32 | e->lsn_low;
}

static inline void entry_lsn_set(struct entry *e, uint64_t lsn)
{
    ASSERT(lsn <= STORE_LSN_MAX);
    e->lsn_low = (uint32_t)lsn;
    e->lsn_high = (uint16_t)(lsn >> 32);
}

static inline uint32_t entry_value_bits_(const struct entry *e)
{
    return (uint32_t)e->value_len_[0] | (uint32_t)e->value_len_[1] << 8 |
           (uint32_t)e->value_len_[2] << 16;
}

static inline uint32_t entry_value_len(const struct entry *e)
{
    uint32_t bits = entry_value_bits_(e);

    return entry_is_cold(e) ? bits : bits & ((1u << ENTRY_FORM_SHIFT) - 1);
}

static inline enum entry_form entry_form(const struct entry *e)
{
    return entry_is_cold(e) ? FORM_SET : (enum entry_form)(entry_value_bits_(e) >> ENTRY_FORM_SHIFT);
}

/* Longer ones are clipped: the record itself knows. */
static inline void entry_value_len_set(struct entry *e, size_t len)
{
    uint32_t clipped = len > ENTRY_VALUE_LEN_MAX ? ENTRY_VALUE_LEN_MAX : (uint32_t)len;

    e->value_len_[0] = (uint8_t)clipped;
    e->value_len_[1] = (uint8_t)(clipped >> 8);
    e->value_len_[2] = (uint8_t)(clipped >> 16);
}

static inline size_t entry_flags_off_(const struct entry *e)
{
    return (e->type_flags & ENTRY_EXPIRES) ? 8 : 0;
}

static inline size_t entry_options_size_(const struct entry *e)
{
    return entry_flags_off_(e) + ((e->type_flags & ENTRY_MC_FLAGS) ? 4u : 0u);
}

/* Of an inline string that is not cold; in memory only. */
static inline void entry_form_set(struct entry *e, enum entry_form form)
{
    uint32_t bits = entry_value_len(e) | (uint32_t)form << ENTRY_FORM_SHIFT;

    ASSERT(!entry_is_cold(e) && !entry_is_object(e));
    e->value_len_[2] = (uint8_t)(bits >> 16);
}

/* Milliseconds since the epoch; 0: never. */
static inline uint64_t entry_expire_ms(const struct entry *e)
{
    uint64_t expire_ms = 0;

    if (e->type_flags & ENTRY_EXPIRES)
        memcpy(&expire_ms, e->rest, 8);
    return expire_ms;
}

static inline uint64_t entry_mc_flags(const struct entry *e)
{
    uint32_t flags = 0;

    if (e->type_flags & ENTRY_MC_FLAGS)
        memcpy(&flags, e->rest + entry_flags_off_(e), 4);
    return flags | (uint64_t)(e->db_access >> 6) << 32;
}

/* Changes the state only, and only in memory: what a crash may lose. */
static inline void entry_mc_state_set(struct entry *e, uint64_t state)
{
    ASSERT((state & ~(MC_FLAGS_STALE | MC_FLAGS_SENT)) == 0);
    e->db_access = (uint8_t)((e->db_access & 0x3f) | (uint8_t)(state >> 32) << 6);
}

/* The view ends with the entry. */
static inline struct bytes entry_key(const struct entry *e)
{
    const char *at = e->rest + entry_options_size_(e);
    uint16_t len = e->key_len_;

    if (UNLIKELY(len == ENTRY_KEY_LONG)) {
        memcpy(&len, at, 2);
        at += 2;
    }
    return bytes_of(at, len);
}

/* Of an inline string that is not cold. The view ends with the entry. */
static inline struct bytes entry_inline_value(const struct entry *e)
{
    struct bytes key = entry_key(e);

    return bytes_of(key.data + key.len, entry_value_bits_(e) & ((1u << ENTRY_FORM_SHIFT) - 1));
}

static inline struct object *entry_object(const struct entry *e)
{
    struct bytes key = entry_key(e);
    struct object *object = NULL;

    ASSERT(entry_is_object(e));
    memcpy(&object, key.data + key.len, sizeof(object));
    return object;
}

/* Bytes of the whole run. */
static inline size_t entry_size(const struct entry *e)
{
    struct bytes key = entry_key(e);
    size_t head = (size_t)(key.data - (const char *)e) + key.len;

    if (entry_is_cold(e))
        return head;
    return head + (entry_is_object(e) ? sizeof(struct object *) : entry_value_len(e));
}

/* What an entry is made of. */
struct entry_parts {
    uint64_t address, lsn, expire_ms; /* expire_ms 0: never */
    uint64_t mc_flags;                /* with the state, <= ENTRY_MC_FLAGS_MAX */
    uint8_t type, db;
    bool is_cold, is_main;
    uint8_t access, form; /* form: of an inline string */
    struct bytes key;
    struct bytes value;    /* inline string; cold: only its len counts */
    struct object *object; /* not NULL: an object */
};

static inline size_t entry_size_of(const struct entry_parts *parts)
{
    size_t size = sizeof(struct entry) + parts->key.len;

    size += parts->expire_ms != 0 ? 8u : 0u;
    size += (uint32_t)parts->mc_flags != 0 ? 4u : 0u;
    size += parts->key.len >= ENTRY_KEY_LONG ? 2u : 0u;
    if (parts->is_cold)
        return size;
    return size + (parts->object != NULL ? sizeof(struct object *) : parts->value.len);
}

/* What entry.type_flags will be. */
static inline uint8_t entry_type_flags(const struct entry_parts *parts)
{
    unsigned flags = parts->type;

    flags |= parts->object != NULL ? ENTRY_OBJECT : 0;
    flags |= parts->is_cold ? ENTRY_COLD : 0;
    flags |= parts->expire_ms != 0 ? ENTRY_EXPIRES : 0;
    flags |= (uint32_t)parts->mc_flags != 0 ? ENTRY_MC_FLAGS : 0;
    flags |= parts->is_main ? ENTRY_MAIN : 0;
    return (uint8_t)flags;
}

/* Writes entry_size_of() bytes to `at`. Neither key nor value may overlap it. */
void entry_compose(struct entry *at, const struct entry_parts *parts);
/* The parts of an entry; views into it. */
void entry_parts_of(const struct entry *e, struct entry_parts *out);
