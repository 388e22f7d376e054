/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every change of a key. The order is always the same: room for the new entry, the record into the log,
 * then memory. So what can fail fails before anything is changed, and memory never shows what the log does
 * not have.
 *
 *   H1  A record is appended exactly once for each change; entry.lsn is its LSN afterwards (S2).
 *   H2  Between store_object_open() and store_change() nothing else changes that key.
 *   H3  counts, expiring, cold_count and object_bytes are sums over the entries that the index has (but for
 *       flushed ones, which are not counted any more).
 */
#include "backend/store/checkpoint.h"
#include "backend/store/cleaner.h"
#include "backend/store/effect.h"
#include "backend/store/store_private.h"

#include "common/base/mem.h"

#define DYING_AT_ONCE_MAX 64u  /* elements */
#define CHAIN_BYTES_MIN   4096u

/* ---- the log ---------------------------------------------------------------------------------- */

int store_append(struct store *store, struct record *record, uint64_t *address)
{
    int err;

    record->slot = record->key.len > 0 ? key_slot(record->key) : 0;
    if (store->log == NULL) {
        record->lsn = ++store->memory_lsn;
        *address = 0;
        return 0;
    }
    if (UNLIKELY(store->lsn_gap != 0)) {
        store_log_lsn_floor(store->log, store_log_last_lsn(store->log) + store->lsn_gap);
        store->lsn_gap = 0;
    }
    err = store_log_append(store->log, record, address);
    if (err == 0)
        store->stats.record_bytes_client += record->size;
    return err;
}

size_t store_record_bytes(const struct entry *e)
{
    size_t options = ((e->type_flags & ENTRY_EXPIRES) ? 8u : 0u) + ((e->type_flags & ENTRY_MC_FLAGS) ? 8u : 0u);
    size_t value_len = entry_value_len(e);

    if (entry_is_object(e))
        value_len = entry_object(e)->image_bytes;
    return (RECORD_HEADER_SIZE + options + entry_key(e).len + value_len + RECORD_ALIGN - 1) &
           ~(size_t)(RECORD_ALIGN - 1);
}

void store_live_add(struct store *store, uint64_t address, size_t bytes)
{
    struct segment_info *segment;

    if (store->log == NULL || address == 0)
        return;
    segment = store_log_segment_find(store->log, address_sequence(address));
    if (segment != NULL)
        segment->live_bytes += bytes;
}

void store_live_remove(struct store *store, uint64_t address, size_t bytes)
{
    struct segment_info *segment;

    if (store->log == NULL || address == 0)
        return;
    segment = store_log_segment_find(store->log, address_sequence(address));
    if (segment != NULL)
        segment->live_bytes -= MIN(segment->live_bytes, bytes);
}

/* The deltas of a chain are dead. They are counted where they lie, but where is not kept for each: they are taken from
 * the segment with the oldest on, so that in sum nothing is left over. */
static void store_live_remove_chain(struct store *store, uint64_t sequence, uint64_t bytes)
{
    if (store->log == NULL || sequence == 0)
        return;
    for (uint64_t end = store_log_hot_sequence(store->log), at = sequence; bytes > 0 && at <= end; at++) {
        struct segment_info *segment = store_log_segment_find(store->log, at);
        uint64_t part;

        if (segment == NULL || (segment->kind != SEGMENT_HOT && at != sequence))
            continue;
        part = MIN(segment->live_bytes, bytes);
        segment->live_bytes -= part;
        bytes -= part;
    }
}

static void store_live_remove_deltas(struct store *store, const struct object *object)
{
    store_live_remove_chain(store, object->chain_sequence, object->delta_bytes);
}

int store_log_expired(struct store *store, const struct entry *e)
{
    struct record record = {.type = RECORD_TOMB, .db = entry_db(e), .key = entry_key(e)};
    uint64_t address;
    int err = store_append(store, &record, &address);

    if (err == 0)
        store->absent_lsn = record.lsn;
    return err;
}

/* ---- entries ---------------------------------------------------------------------------------- */

/* direction: 1 or -1. */
static void store_count_entry(struct store *store, const struct entry *e, int direction)
{
    uint8_t db = entry_db(e);

    if (UNLIKELY(entry_type(e) == STORE_NONE))
        return; /* a tombstone of recovery */
    if (entry_is_cold(e))
        store->cold_count += (uint64_t)(int64_t)direction;
    if (UNLIKELY(store_is_flushed(store, e)))
        return;
    store->counts[db] += (uint64_t)(int64_t)direction;
    if (e->type_flags & ENTRY_EXPIRES)
        store->expiring[db] += (uint64_t)(int64_t)direction;
}

/* The memory that an entry of these parts needs, *now; NULL: it takes the old one's place. */
static int entry_room_get(struct store *store, const struct entry *old, const struct entry_parts *parts, struct entry **now)
{
    size_t size = entry_size_of(parts);

    *now = NULL;
    if (old != NULL && slab_charge(entry_size(old)) == slab_charge(size) && size <= SLAB_SIZE_MAX)
        return 0;
    *now = slab_get(store->slab, size);
    return *now == NULL ? ERR_FULL : 0;
}

static void entry_room_put(struct store *store, const struct entry_parts *parts, struct entry *now)
{
    if (now != NULL)
        slab_put(store->slab, now, entry_size_of(parts));
}

/* Where there was an entry it cannot fail; else ERR_FULL, and the memory is given back. */
static int entry_put_into(struct store *store, uint64_t hash, struct entry **at, const struct entry_parts *parts,
                          struct entry *now)
{
    struct entry *old = *at;

    if (now == NULL) {
        bool counts_as_before = old->type_flags == entry_type_flags(parts) && !store_is_flushed(store, old);

        if (!counts_as_before)
            store_count_entry(store, old, -1);
        entry_compose(old, parts);
        if (!counts_as_before) {
            store_count_entry(store, old, 1);
            index_replace(store->index, hash, old, old);
        }
        checkpoint_touch(store, hash);
        return 0;
    }
    entry_compose(now, parts);
    if (old == NULL) {
        if (index_insert(store->index, hash, now) != 0) {
            entry_room_put(store, parts, now);
            return ERR_FULL;
        }
    } else {
        index_replace(store->index, hash, old, now);
        store_count_entry(store, old, -1);
        slab_put(store->slab, old, entry_size(old));
    }
    store_count_entry(store, now, 1);
    checkpoint_touch(store, hash);
    *at = now;
    return 0;
}

int store_entry_put(struct store *store, uint64_t hash, struct entry **at, const struct entry_parts *parts)
{
    struct entry *now;
    int err = entry_room_get(store, *at, parts, &now);

    return err != 0 ? err : entry_put_into(store, hash, at, parts, now);
}

void store_entry_drop(struct store *store, uint64_t hash, struct entry *e)
{
    store_live_remove(store, e->address, store_record_bytes(e));
    if (UNLIKELY(entry_is_cold(e) && store->chains != NULL))
        chain_end(store, hash, e);
    if (entry_is_object(e))
        store_live_remove_deltas(store, entry_object(e));
    store_count_entry(store, e, -1);
    index_remove(store->index, hash, e);
    checkpoint_touch_gone(store, hash);
    slab_put(store->slab, e, entry_size(e));
}

void store_entry_destroy(struct store *store, uint64_t hash, struct entry *e)
{
    struct object *object = entry_is_object(e) ? entry_object(e) : NULL;

    store_entry_drop(store, hash, e);
    if (object != NULL)
        store_object_destroy(store, object);
}

/* ---- objects that go away --------------------------------------------------------------------- */

struct dying {
    struct list_node node;
    struct object *object; /* owns */
    uint64_t left;         /* elements, about */
};

void store_object_account(struct store *store, struct object *object)
{
    uint64_t bytes = store->options.types[object->type]->bytes(object);

    store->object_bytes += bytes - object->accounted_bytes;
    object->accounted_bytes = bytes;
}

/* What is one block, however many elements it has, is gone with the first step. */
void store_object_destroy(struct store *store, struct object *object)
{
    const struct object_ops *ops = store->options.types[object->type];
    uint64_t count = ops->count(object);
    struct dying *dying;

    store->object_bytes -= object->accounted_bytes;
    object->accounted_bytes = 0;
    if (ops->destroy_step(object, DYING_AT_ONCE_MAX))
        return;
    dying = mem_alloc(sizeof(*dying));
    if (dying == NULL) {
        ops->destroy(object);
        return;
    }
    store_object_account(store, object);
    *dying = (struct dying){.object = object, .left = count};
    list_push_back(&store->dying, &dying->node);
    store->dying_count++;
    store->dying_bytes += object->accounted_bytes;
}

bool store_dying_work(struct store *store, uint32_t elements_max)
{
    struct dying *dying;
    uint64_t room = elements_max;

    while (room > 0 && (dying = LIST_FIRST(&store->dying, struct dying, node)) != NULL) {
        struct object *object = dying->object;
        uint64_t part = MIN(dying->left + 1, room); /* each one costs something */

        store->object_bytes -= object->accounted_bytes;
        store->dying_bytes -= object->accounted_bytes;
        object->accounted_bytes = 0;
        if (store->options.types[object->type]->destroy_step(object, (uint32_t)room)) {
            list_remove(&dying->node);
            mem_free(dying);
            store->dying_count--;
            store->stats.objects_freed++;
        } else {
            store_object_account(store, object);
            store->dying_bytes += object->accounted_bytes;
            dying->left -= MIN(dying->left, room);
            part = room;
        }
        room -= part;
    }
    return store->dying_count > 0;
}

/* ---- whole values ----------------------------------------------------------------------------- */

/* After a change of a key that had `old_kind` of value. */
static void store_changed(struct store *store, struct store_key *key, bool existed)
{
    store_tell_changed(store, key->db, key->name, existed ? STORE_CHANGED : STORE_CREATED);
}

/* The object of an entry that is about to be composed anew: it goes away, unless it is the one that stays. */
static struct object *store_old_object(const struct entry *e, const struct object *stays)
{
    struct object *object = e != NULL && entry_is_object(e) ? entry_object(e) : NULL;

    return object == stays ? NULL : object;
}

/* The index has no memory for a new key that the log has already been told. A record that memory does not show must not
 * stand, so the key is told to be gone. */
static void store_revoke(struct store *store, struct record *record)
{
    uint64_t address;

    record->type = RECORD_TOMB;
    record->value = BYTES_EMPTY;
    record->expire_ms = 0;
    record->mc_flags = 0;
    MAYBE(store_append(store, record, &address) != 0);
}

/* The value's old key, behind the new one in the log: there was room for both. What fails all the same leaves the log with
 * the value under two keys, and memory with the old one: nothing more may be written. */
static int log_moved(struct store *store, const struct store_key *from)
{
    struct record tomb = {.type = RECORD_TOMB, .db = from->db, .key = from->name};
    uint64_t address;
    int err = store_append(store, &tomb, &address);

    if (UNLIKELY(err != 0))
        store_break(store, err);
    else
        store->absent_lsn = tomb.lsn;
    return err;
}

static bool has_room_for_move(struct store *store, const struct record *record, const struct store_key *from)
{
    const struct record tomb = {.type = RECORD_TOMB, .db = from->db, .key = from->name};

    return store->log == NULL || (store_log_takes(store->log, record_size(record) + record_size(&tomb)) &&
                                  store_log_takes(store->log, record_size(&tomb)));
}

/* Another key's entry may have made room by moving this one's. Its database is a place, which has no other name here. */
static void key_again(struct store *store, struct store_key *key)
{
    key->entry = index_find(store->index, key->hash, key->db, key->name);
    ASSERT(key->entry != NULL);
}

/* Its object lives on, under another key. */
static void moved_drop(struct store *store, struct store_key *from)
{
    key_again(store, from);
    store_entry_drop(store, from->hash, from->entry);
    from->entry = NULL;
    store_tell_changed(store, from->db, from->name, STORE_REMOVED);
}

/* Puts a whole value: the record is appended, then the entry made, whose memory is there by then. `object` as in parts.
 * `from`: the key that has the object now, and is deleted by this; NULL: none. */
static int store_put_whole(struct store *store, struct store_key *key, struct record *record,
                           struct entry_parts *parts, struct store_key *from)
{
    struct object *old_object = store_old_object(key->entry, parts->object);
    struct entry *old = key->entry, *now;
    uint64_t old_address = old != NULL ? old->address : 0, address;
    size_t old_bytes = old != NULL ? store_record_bytes(old) : 0;
    bool existed = old != NULL, was_hot = existed && !entry_is_cold(old);
    int err = entry_room_get(store, old, parts, &now);

    if (UNLIKELY(err != 0))
        return err;
    err = from == NULL || has_room_for_move(store, record, from) ? store_append(store, record, &address) : -ENOSPC;
    if (LIKELY(err == 0) && from != NULL)
        err = log_moved(store, from);
    if (UNLIKELY(err != 0)) {
        entry_room_put(store, parts, now);
        return err;
    }
    if (UNLIKELY(old != NULL && entry_is_cold(old) && store->chains != NULL))
        chain_end(store, key->hash, old);
    if (existed && entry_is_object(old))
        store_live_remove_deltas(store, entry_object(old));
    parts->address = address;
    parts->lsn = record->lsn;
    if (existed) {
        parts->is_main = (old->type_flags & ENTRY_MAIN) != 0;
        parts->access = entry_access(old);
    }
    err = entry_put_into(store, key->hash, &key->entry, parts, now);
    if (UNLIKELY(err != 0)) {
        ASSERT(!existed);
        if (from != NULL)
            store_break(store, err);
        else
            store_revoke(store, record);
        return err;
    }
    if (from != NULL)
        moved_drop(store, from);
    if (parts->object != NULL) {
        parts->object->base_lsn = parts->object->image_lsn = record->lsn;
        parts->object->image_bytes = record->value.len;
        parts->object->delta_bytes = parts->object->delta_count = 0;
        parts->object->chain_sequence = 0;
    }
    store_live_remove(store, old_address, old_bytes);
    DCHECK(store->log == NULL || record->size == store_record_bytes(key->entry));
    store_live_add(store, address, record->size);
    if (old_object != NULL)
        store_object_destroy(store, old_object);
    if (parts->object != NULL)
        store_object_account(store, parts->object);
    if (!was_hot)
        spill_inserted(store, key->hash, key->entry);
    store_changed(store, key, existed);
    return 0;
}

static struct entry_parts parts_of_key(const struct store_key *key, enum store_type type,
                                       const struct store_attributes *attributes)
{
    return (struct entry_parts){
        .type = (uint8_t)type,
        .db = key->db,
        .key = key->name,
        .expire_ms = attributes != NULL ? attributes->expire_ms : 0,
        .mc_flags = attributes != NULL ? attributes->mc_flags : 0,
        .form = attributes != NULL ? attributes->form : FORM_SET,
    };
}

static struct record record_of_parts(const struct entry_parts *parts, uint8_t record_type, struct bytes value)
{
    return (struct record){
        .type = record_type,
        .db = parts->db,
        .value_type = parts->type,
        .expire_ms = parts->expire_ms,
        .mc_flags = parts->mc_flags,
        .key = parts->key,
        .value = value,
    };
}

int store_put_string(struct store *store, struct store_key *key, struct bytes value,
                     const struct store_attributes *attributes)
{
    struct entry_parts parts = parts_of_key(key, STORE_STRING, attributes);
    struct record record = record_of_parts(&parts, RECORD_SET, value);
    struct object *object;
    int err;

    ASSERT(value.len <= STORE_VALUE_MAX && key->name.len <= STORE_KEY_MAX);
    if (LIKELY(value.len <= STRING_INLINE_MAX)) {
        parts.value = value;
        return store_put_whole(store, key, &record, &parts, NULL);
    }
    object = store->options.types[STORE_STRING]->decode(value);
    if (object == NULL)
        return ERR_FULL;
    parts.object = object;
    err = store_put_whole(store, key, &record, &parts, NULL);
    if (err != 0)
        store->options.types[STORE_STRING]->destroy(object);
    return err;
}

int store_put_copy(struct store *store, struct store_key *key, struct object *object, struct bytes image,
                   const struct store_attributes *attributes)
{
    struct entry_parts parts = parts_of_key(key, (enum store_type)object->type, attributes);
    struct record record = record_of_parts(&parts, RECORD_SET, image);

    if (image.len > RECORD_VALUE_MAX)
        return ERR_FULL;
    store_object_limit(store, object);
    parts.object = object;
    return store_put_whole(store, key, &record, &parts, NULL);
}

/* A string that is short enough is inline, wherever it comes from (RENAME, COPY). */
static bool object_fits_inline(const struct object *object)
{
    return object->type == STORE_STRING && ((const struct string_object *)object)->len <= STRING_INLINE_MAX;
}

static struct bytes string_object_bytes(const struct object *object)
{
    const struct string_object *string = (const struct string_object *)object;

    return bytes_of(string->data, string->len);
}

/* Into the scratch. */
static bool object_encode(struct store *store, struct object *object)
{
    const struct object_ops *type = store->options.types[object->type];

    buffer_clear(&store->scratch);
    buffer_expect(&store->scratch, MIN(type->bytes(object), (size_t)RECORD_VALUE_MAX)); /* more than the image, nearly always */
    type->encode(object, &store->scratch);
    return !store->scratch.failed && store->scratch.len <= RECORD_VALUE_MAX;
}

int store_put_object(struct store *store, struct store_key *key, struct object *object,
                     const struct store_attributes *attributes)
{
    if (object_fits_inline(object)) {
        int err = store_put_string(store, key, string_object_bytes(object), attributes);

        if (err == 0)
            store_object_destroy(store, object);
        return err;
    }
    if (!object_encode(store, object))
        return ERR_FULL;
    return store_put_copy(store, key, object, buffer_bytes(&store->scratch), attributes);
}

static int store_remove(struct store *store, struct store_key *key, enum store_change_kind kind)
{
    struct record record = {.type = RECORD_TOMB, .db = key->db, .key = key->name};
    uint64_t address;
    int err;

    if (key->entry == NULL)
        return 0;
    if (key->entry == store->open_key.entry)
        store->open_key.entry = NULL;
    err = store_append(store, &record, &address);
    if (err != 0)
        return err;
    store->absent_lsn = record.lsn;
    store_entry_destroy(store, key->hash, key->entry);
    key->entry = NULL;
    store_tell_changed(store, key->db, key->name, kind);
    return 0;
}

int store_delete(struct store *store, struct store_key *key)
{
    return store_remove(store, key, STORE_REMOVED);
}

/* The name lies in the entry that goes away. */
int store_evict(struct store *store, struct store_key *key)
{
    struct buffer name = {0};
    int err;

    buffer_append(&name, key->name.data, key->name.len);
    if (name.failed)
        return ERR_FULL;
    key->name = buffer_bytes(&name);
    err = store_remove(store, key, STORE_EVICTED);
    buffer_deinit(&name);
    return err;
}

int store_move_object(struct store *store, struct store_key *source, struct store_key *target,
                      const struct store_attributes *attributes)
{
    struct object *object = entry_object(source->entry);
    struct entry_parts parts = parts_of_key(target, (enum store_type)object->type, attributes);
    struct record record;

    if (object_fits_inline(object)) {
        int err = store_put_string(store, target, string_object_bytes(object), attributes);

        if (err != 0)
            return err;
        key_again(store, source);
        return store_delete(store, source);
    }
    if (!object_encode(store, object))
        return ERR_FULL;
    record = record_of_parts(&parts, RECORD_SET, buffer_bytes(&store->scratch));
    parts.object = object;
    return store_put_whole(store, target, &record, &parts, source);
}

/* ---- changes of objects ----------------------------------------------------------------------- */

struct object *store_object_open(struct store *store, struct store_key *key, enum store_type type, bool create)
{
    struct entry_parts parts;
    struct object *object;

    if (store->open_key.entry != NULL)
        store_open_cancel(store);
    buffer_clear(&store->effects);
    if (key->entry != NULL) {
        ASSERT(entry_type(key->entry) == type && !entry_is_cold(key->entry));
        return entry_object(key->entry);
    }
    if (!create)
        return NULL;
    object = store->options.types[type]->create();
    if (object == NULL)
        return NULL;
    store_object_limit(store, object);
    parts = parts_of_key(key, type, NULL);
    parts.object = object;
    parts.lsn = MAX(store_lsn(store) + 1, 1u); /* as its first record will have; above any flush */
    if (store_entry_put(store, key->hash, &key->entry, &parts) != 0) {
        store->options.types[type]->destroy(object);
        return NULL;
    }
    store->open_key = *key;
    return object;
}

void store_limits_set(struct store *store, const struct object_limits *limits)
{
    store->limits = *limits;
    store->has_limits = true;
}

void store_object_limit(const struct store *store, struct object *object)
{
    if (store->has_limits)
        object->limits = &store->limits;
}

const struct object_ops *store_type_ops(const struct store *store, enum store_type type)
{
    ASSERT(type > STORE_NONE && type < STORE_TYPE_COUNT && store->options.types[type] != NULL);
    return store->options.types[type];
}

struct buffer *store_effects(struct store *store)
{
    return &store->effects;
}

void store_open_cancel(struct store *store)
{
    struct store_key key = store->open_key;

    store->open_key.entry = NULL;
    store_entry_destroy(store, key.hash, key.entry);
}

static bool object_is_gone(const struct store *store, const struct object *object)
{
    return object->type != STORE_STRING && store->options.types[object->type]->count(object) == 0;
}

/* The chain since the image weighs more than a new image would. */
static bool chain_is_heavy(const struct store *store, const struct object *object)
{
    return object->delta_bytes > CHAIN_BYTES_MIN &&
           object->delta_bytes > store->options.types[object->type]->bytes(object);
}

static int store_append_delta(struct store *store, struct store_key *key, struct object *object)
{
    struct record record = {
        .type = RECORD_DELTA,
        .db = key->db,
        .value_type = object->type,
        .base_lsn = object->base_lsn, /* 0: its own, this record makes the key */
        .key = key->name,
        .value = buffer_bytes(&store->effects),
    };
    uint64_t address;
    bool is_bad = store->effects.failed || store->effects.len > RECORD_VALUE_MAX;
    int err = is_bad ? ERR_FULL : store_append(store, &record, &address);

    if (err != 0)
        return err;
    entry_lsn_set(key->entry, record.lsn);
    if (object->base_lsn == 0)
        object->base_lsn = record.lsn;
    if (object->chain_sequence == 0)
        object->chain_sequence = address_sequence(address);
    object->delta_count++;
    object->delta_bytes += record_size(&record);
    store_live_add(store, address, record_size(&record));
    checkpoint_touch(store, key->hash);
    return 0;
}

/* After a delta, when the entry is all that the delta made of it. */
static void store_chain_check(struct store *store, struct store_key *key)
{
    if (chain_is_heavy(store, entry_object(key->entry)))
        MAYBE(store_image(store, key->hash, key->entry) != 0); /* no memory or disk: the chain goes on */
}

int store_change(struct store *store, struct store_key *key)
{
    bool is_new = store->open_key.entry != NULL && store->open_key.entry == key->entry;
    struct object *object = entry_object(key->entry);
    int err;

    if (object_is_gone(store, object)) {
        if (!is_new)
            return store_delete(store, key);
        store_open_cancel(store);
        key->entry = NULL;
        return 0;
    }
    if (store->effects.len == 0 && !store->effects.failed) {
        ASSERT(!is_new); /* it has elements that nobody logged */
        return 0;
    }
    err = store_append_delta(store, key, object);
    if (UNLIKELY(err != 0)) {
        /* Memory has what the log will never have. Nothing but the very end of memory or disk comes here, as
         * store_may_write() has asked for both before and deletes have a reserve. */
        store_object_account(store, object);
        store_break(store, err);
        return err;
    }
    store->open_key.entry = NULL;
    store_chain_check(store, key);
    store_object_account(store, object);
    if (is_new)
        spill_inserted(store, key->hash, key->entry);
    store_changed(store, key, !is_new);
    return 0;
}

bool store_string_in_place(struct store *store, struct store_key *key)
{
    const struct object_ops *ops = store->options.types[STORE_STRING];
    struct entry_parts parts;
    struct object *object;

    ASSERT(entry_type(key->entry) == STORE_STRING && !entry_is_cold(key->entry));
    if (entry_is_object(key->entry))
        return true;
    if (entry_value_len(key->entry) < STRING_DELTA_MIN || store->log == NULL)
        return false;
    object = ops->decode(entry_inline_value(key->entry));
    if (object == NULL)
        return false;
    object->base_lsn = object->image_lsn = entry_lsn(key->entry); /* an inline string's record is a whole one */
    object->image_bytes = entry_value_len(key->entry);
    entry_parts_of(key->entry, &parts);
    parts.key = key->name;
    parts.value = BYTES_EMPTY;
    parts.object = object;
    if (store_entry_put(store, key->hash, &key->entry, &parts) != 0) {
        ops->destroy(object);
        return false;
    }
    store_object_account(store, object);
    return true;
}

int store_set_expire(struct store *store, struct store_key *key, uint64_t expire_ms)
{
    struct store_attributes attributes = {expire_ms, entry_mc_flags(key->entry), (uint8_t)entry_form(key->entry)};
    struct entry_parts parts;
    struct entry *now;
    struct object *object;
    int err;

    ASSERT(!entry_is_cold(key->entry));
    if (!entry_is_object(key->entry) && !store_string_in_place(store, key)) {
        /* The value lies in the entry that is to be replaced. */
        struct bytes value = entry_inline_value(key->entry);

        buffer_clear(&store->scratch);
        buffer_append(&store->scratch, value.data, value.len);
        if (store->scratch.failed)
            return ERR_FULL;
        return store_put_string(store, key, buffer_bytes(&store->scratch), &attributes);
    }
    object = entry_object(key->entry);
    entry_parts_of(key->entry, &parts);
    parts.key = key->name;
    parts.expire_ms = expire_ms;
    buffer_clear(&store->effects);
    effect_begin(&store->effects, EFFECT_EXPIRE, 1);
    effect_u64(&store->effects, expire_ms);
    err = entry_room_get(store, key->entry, &parts, &now);
    if (err != 0)
        return err;
    err = store_append_delta(store, key, object);
    if (err != 0) {
        entry_room_put(store, &parts, now);
        return err;
    }
    parts.lsn = entry_lsn(key->entry);
    parts.address = key->entry->address;
    err = entry_put_into(store, key->hash, &key->entry, &parts, now);
    ASSERT(err == 0);
    store_chain_check(store, key);
    store_changed(store, key, true);
    return 0;
}

int store_image(struct store *store, uint64_t hash, struct entry *e)
{
    struct object *object = entry_object(e);
    struct record record;
    uint64_t address;
    int err;

    ASSERT(object->image_lsn < entry_lsn(e)); /* O2 */
    if (store->log == NULL)
        return 0;
    if (!object_encode(store, object))
        return ERR_FULL;
    record = (struct record){
        .type = RECORD_IMAGE,
        .db = entry_db(e),
        .value_type = object->type,
        .lsn = entry_lsn(e),
        .epoch = store->epoch,
        .expire_ms = entry_expire_ms(e),
        .mc_flags = entry_mc_flags(e),
        .base_lsn = object->base_lsn,
        .key = entry_key(e),
        .value = buffer_bytes(&store->scratch),
    };
    record.slot = key_slot(record.key);
    err = store_log_cold_append(store->log, &record, cleaner_class(store, record.expire_ms, record.lsn), &address);
    if (err != 0)
        return err;
    store_live_remove(store, e->address, store_record_bytes(e));
    store_live_remove_deltas(store, object);
    e->address = address;
    object->image_lsn = record.lsn;
    object->image_bytes = record.value.len;
    object->delta_bytes = object->delta_count = 0;
    object->chain_sequence = 0;
    store_live_add(store, address, store_record_bytes(e));
    checkpoint_touch(store, hash);
    store->stats.images++;
    return 0;
}

/* ---- whole databases -------------------------------------------------------------------------- */

int store_flush(struct store *store, uint8_t db)
{
    struct record record = {.type = RECORD_FLUSH, .db = STORE_DBS};
    uint64_t address;
    int err;

    ASSERT(db <= STORE_DBS);
    if (db != STORE_DBS)
        record.db = store->places[db];
    if (store->open_key.entry != NULL)
        store_open_cancel(store);
    err = store_append(store, &record, &address);
    if (err != 0)
        return err;
    store->absent_lsn = record.lsn;
    for (uint8_t i = 0; i < STORE_DBS; i++) {
        if (record.db != STORE_DBS && record.db != i)
            continue;
        store->flush_lsn[i] = record.lsn;
        store->flushed_left += store->counts[i];
        store->counts[i] = store->expiring[i] = 0;
    }
    if (store->options.hooks.flushed != NULL)
        store->options.hooks.flushed(store->options.hooks.arg, db);
    return 0;
}

/* The record has all places, not just the two: the newest one says it all, whatever is replayed before it. */
int store_swap(struct store *store, uint8_t a, uint8_t b)
{
    struct record record = {.type = RECORD_SWAP};
    uint8_t places[STORE_DBS];
    uint64_t address;
    bool is_set;
    int err;

    ASSERT(a < STORE_DBS && b < STORE_DBS);
    if (store->open_key.entry != NULL)
        store_open_cancel(store);
    memcpy(places, store->places, sizeof(places));
    places[a] = store->places[b];
    places[b] = store->places[a];
    record.value = bytes_of((const char *)places, sizeof(places));
    err = store_append(store, &record, &address);
    if (err != 0)
        return err;
    store->absent_lsn = record.lsn;
    is_set = store_places_set(store, places, record.lsn);
    ASSERT(is_set);
    return 0;
}
