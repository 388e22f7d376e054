/* SPDX-License-Identifier: Apache-2.0 */
/*
 * object.h - a value that is not inline: a collection, or a long string.
 *
 * The store keeps objects by this header and a table of operations for each type; what they are inside
 * is backend/types' affair. A change is logged as a DELTA, a list of operations (effect.h) on top of an
 * image; when the deltas since the image weigh more than the image would, or before it goes cold, the
 * store writes a new IMAGE.
 *
 *     image at image_lsn          deltas                        now: entry.lsn
 *     [IMAGE base image_lsn] <-- [DELTA base lsn] <-- [DELTA base lsn]
 *
 *   O1  base_lsn is the LSN of the record that made the key come into being (since it last did not
 *       exist). A delta belongs to this object iff its base is equal: a deleted and re-created key
 *       never gets the deltas of its former life.
 *   O2  image_lsn <= entry.lsn. They are equal iff the chain is empty; only then may the value go cold.
 *   O3  encode() gives the same bytes for the same content, limits and history of changes, and decode(encode(x))
 *       answers every command as x does. What a delta says holds for every form: how compact an object is may
 *       differ between replicas with other limits, and images are local.
 */
#pragma once
#include "backend/store/entry.h"
#include "common/base/buffer.h"

/* Up to which size collections stay compact. Clients set them (hash-max-listpack-entries and their like), at most to
 * types/limits.h's. A lower limit converts what is over it when something is added next. */
struct object_limits {
    uint32_t hash_fields, hash_size; /* size: of a field, of a value */
    uint32_t set_ints;
    uint32_t zset_members, zset_size;
};

struct object {
    uint8_t type;     /* enum store_type */
    uint8_t encoding; /* the type's own */
    uint16_t spare;
    uint32_t delta_count;     /* since the image */
    uint64_t base_lsn;        /* 0: not logged yet */
    uint64_t image_lsn;       /* 0: no image yet, the chain starts with its creation */
    uint64_t chain_sequence;  /* of the segment with the oldest delta of the chain; 0: no chain */
    uint64_t delta_bytes, image_bytes;
    uint64_t accounted_bytes; /* what the store last charged for it */
    const struct object_limits *limits; /* borrows, the store's; types that have any set the defaults in create() and decode() */
};

/* A long string. The store reads it by itself (store_string()); string_ops in types/string.h changes it. */
struct string_object {
    struct object object; /* first */
    char *data;           /* holds (shared.h): replies refer to it */
    size_t len, cap;
};

struct object_ops {
    struct object *(*create)(void);          /* empty; NULL: out of memory */
    void (*destroy)(struct object *object);
    /* Frees a part; true: all is gone, the object too. For objects of many elements: called once a turn with
     * a bound on elements, until true. */
    bool (*destroy_step)(struct object *object, uint32_t elements_max);
    /* Elements (strings: bytes). 0: the key goes away, unless it is a string. */
    uint64_t (*count)(const struct object *object);
    /* Heap bytes, as accounted; O(1). */
    size_t (*bytes)(const struct object *object);
    void (*encode)(const struct object *object, struct buffer *out);
    /* NULL: not an image, or out of memory. Checks everything: it may come from a damaged disk. */
    struct object *(*decode)(struct bytes image);
    /* Applies the operations of one DELTA (effect.h). ERR_CORRUPT: they do not fit. */
    MUST_USE int (*apply)(struct object *object, struct bytes ops);
};
