/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memcached's do_store_item() and do_add_delta() do, over the store.
 *
 *   K1  Every change of an item gives it a new cas: the LSN of the record. A touch too, as it is a record here;
 *       memcached's keeps the cas.
 *   K2  A command whose item is dead at once (a negative exptime) deletes the key and answers as if it had stored.
 *   K3  Nothing is changed before everything that may park or refuse has been asked.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/mc_private.h"

#include "backend/types/string.h"
#include "common/base/mem.h"

/* ---- looking up ------------------------------------------------------------------------------ */

bool mc_find(struct session *session, struct bytes name, struct store_key *key)
{
    struct store *store = session->engine->store;
    uint64_t expired = session->engine->counters.expired;

    store_find(store, session->engine->options.memcache_db, name, key);
    if (key->entry == NULL) {
        session->engine->mc->has_expired = session->engine->counters.expired != expired;
        session_hold(session, store_absent_lsn(store));
        return false;
    }
    session_hold(session, entry_lsn(key->entry));
    return LIKELY(entry_type(key->entry) == STORE_STRING);
}

enum mc_trouble mc_need_value(struct session *session, const struct store_key *key)
{
    if (LIKELY(!entry_is_cold(key->entry)))
        return MC_FINE;
    if (session->fetch_error != 0)
        return MC_UNREADABLE;
    if (!session_fetch(session, key))
        return MC_NO_MEMORY;
    return MC_PARKED;
}

#define DELETE_BYTES_MAX 512u /* a record that deletes one key, or touches it */

enum mc_trouble mc_may_write(struct session *session, size_t grows)
{
    int err = store_may_write(session->engine->store, grows);

    if (LIKELY(err == 0))
        return grows > 0 || LIKELY(store_may_delete(session->engine->store, DELETE_BYTES_MAX)) ? MC_FINE : MC_NO_DISK;
    session->engine->counters.mc.store_no_memory += err == ERR_FULL;
    switch (err) {
    case ERR_FULL: return MC_NO_MEMORY;
    case -ENOSPC: return grows > 0 ? MC_NO_DISK : MC_FINE; /* deletes have a reserve */
    case -EROFS: return MC_READ_ONLY;
    default: session_wait_for_log(session); return MC_PARKED;
    }
}

/* Of a change: 0 is fine. */
static enum mc_trouble trouble_of(struct session *session, int err)
{
    if (LIKELY(err == 0)) {
        session_hold(session, store_lsn(session->engine->store));
        return MC_FINE;
    }
    return err == -ENOSPC ? MC_NO_DISK : err == -EROFS ? MC_READ_ONLY : MC_NO_MEMORY;
}

const char *mc_trouble_text(enum mc_trouble trouble)
{
    switch (trouble) {
    case MC_FINE:
    case MC_PARKED: break;
    case MC_NO_MEMORY: return "SERVER_ERROR out of memory storing object";
    case MC_NO_DISK: return "SERVER_ERROR out of disk space storing object";
    case MC_READ_ONLY: return "SERVER_ERROR read-only after a failed write of the log";
    case MC_UNREADABLE: return "SERVER_ERROR the stored value cannot be read";
    }
    UNREACHABLE("no trouble has no text");
}

uint16_t mc_trouble_status(enum mc_trouble trouble)
{
    /* Clients know 0x82 as "try another day"; the codes above it (busy, internal) are in no 1.6 server. */
    ASSERT(trouble != MC_FINE && trouble != MC_PARKED);
    return MC_BIN_NO_MEMORY;
}

/* The slot's epoch in the high 16 bits is 0 as long as slots do not move. */
uint64_t mc_cas(const struct entry *entry)
{
    return entry_lsn(entry);
}

struct bytes mc_value(const struct entry *entry)
{
    return store_string(entry);
}

uint64_t mc_value_len(const struct entry *entry)
{
    return entry_is_cold(entry) ? entry_value_len(entry) : store_string(entry).len;
}

/* ---- times ----------------------------------------------------------------------------------- */

static uint32_t age_s(const struct engine *engine)
{
    return (uint32_t)((engine->now_ms - engine->started_ms) / 1000);
}

static uint32_t tag_of(const struct store_key *key)
{
    return (uint32_t)(key->hash >> 32) | 1;
}

static void time_note(struct session *session, const struct store_key *key)
{
    struct mc *mc = session->engine->mc;
    size_t slot = key->hash & (MC_TIME_SLOTS - 1);

    mc->times[slot].tag = tag_of(key);
    mc->times[slot].time_s = age_s(session->engine);
}

/* memcached marks an item at its first fetch, and moves its time at the second. */
void mc_bump(struct session *session, const struct store_key *key)
{
    if (UNLIKELY(entry_access(key->entry) == 1))
        time_note(session, key);
    store_touch(key->entry);
}

uint32_t mc_idle_s(struct session *session, const struct store_key *key)
{
    struct mc *mc = session->engine->mc;
    size_t slot = key->hash & (MC_TIME_SLOTS - 1);
    uint32_t now_s = age_s(session->engine);

    return mc->times[slot].tag == tag_of(key) ? now_s - mc->times[slot].time_s : now_s;
}

int64_t mc_ttl_of_s(const struct session *session, uint64_t expire_ms)
{
    uint64_t now_ms = session->engine->now_ms;

    if (expire_ms == 0)
        return -1;
    return expire_ms > now_ms ? (int64_t)((expire_ms - now_ms + 999) / 1000) : 0;
}

uint64_t mc_expire_ms(const struct session *session, int64_t exptime)
{
    uint64_t now_ms = session->engine->now_ms;

    ASSERT(exptime >= 0);
    if (exptime == 0)
        return 0;
    if (exptime <= MC_RELATIVE_MAX)
        return now_ms + (uint64_t)exptime * 1000;
    return (uint64_t)exptime * 1000 <= now_ms ? MC_EXPIRED : (uint64_t)exptime * 1000;
}

bool mc_is_past(const struct session *session, uint64_t expire_ms)
{
    return expire_ms != 0 && expire_ms <= session->engine->now_ms;
}

/* ---- storing --------------------------------------------------------------------------------- */

enum mc_trouble mc_remove(struct session *session, struct store_key *key)
{
    return trouble_of(session, store_delete(session->engine->store, key));
}

/* The key becomes this item; expire_ms may be past. */
static enum mc_stored item_put(struct session *session, struct mc_put *put, struct store_key *key,
                               struct bytes value, const struct store_attributes *attributes)
{
    struct store *store = session->engine->store;

    if (UNLIKELY(mc_is_past(session, attributes->expire_ms))) {
        if (key->entry != NULL)
            put->trouble = mc_remove(session, key);
        put->new_cas = store_lsn(store);
    } else {
        put->trouble = trouble_of(session, store_put_string(store, key, value, attributes));
        if (LIKELY(put->trouble == MC_FINE)) {
            put->new_cas = mc_cas(key->entry);
            entry_access_set(key->entry, 0);
            time_note(session, key);
        }
    }
    return LIKELY(put->trouble == MC_FINE) ? MC_STORED : MC_STORE_TROUBLE;
}

/* A long string grows in place, and the log gets only what is new. */
static enum mc_trouble object_append(struct session *session, struct store_key *key, struct bytes value)
{
    struct store *store = session->engine->store;
    struct object *object = store_object_open(store, key, STORE_STRING, false);
    int err = object == NULL ? ERR_FULL : string_append(object, value);

    if (err == 0) {
        string_effect_append(store_effects(store), value);
        err = store_change(store, key);
    }
    return trouble_of(session, err);
}

static enum mc_stored item_join(struct session *session, struct mc_put *put, struct store_key *key)
{
    struct store_attributes attributes = {.expire_ms = entry_expire_ms(key->entry),
                                          .mc_flags = (uint32_t)entry_mc_flags(key->entry)};
    struct bytes old = mc_value(key->entry), first = old, second = put->value;
    enum mc_stored stored;
    char *both;

    if (old.len + put->value.len > session->engine->settings->mc_value_max)
        return MC_NOT_STORED;
    if (put->mode == MC_MODE_APPEND && entry_mc_flags(key->entry) <= UINT32_MAX &&
        store_string_in_place(session->engine->store, key)) {
        put->trouble = object_append(session, key, put->value);
        if (put->trouble != MC_FINE)
            return MC_STORE_TROUBLE;
        put->new_cas = mc_cas(key->entry);
        entry_access_set(key->entry, 0);
        return MC_STORED;
    }
    both = mem_alloc(old.len + put->value.len + 1);
    if (both == NULL)
        return MC_NOT_STORED;
    if (put->mode == MC_MODE_PREPEND) {
        first = put->value;
        second = old;
    }
    memcpy(both, first.data, first.len);
    if (second.len > 0)
        memcpy(both + first.len, second.data, second.len);
    stored = item_put(session, put, key, bytes_of(both, first.len + second.len), &attributes);
    mem_free(both);
    return stored;
}

static enum mc_stored trouble(struct mc_put *put, enum mc_trouble why)
{
    put->trouble = why;
    return MC_STORE_TROUBLE;
}

static enum mc_stored join_existing(struct session *session, struct mc_put *put, struct store_key *key)
{
    enum mc_trouble why;

    if (put->cas != 0 && put->cas != mc_cas(key->entry))
        return MC_EXISTS;
    why = mc_need_value(session, key);
    return why != MC_FINE ? trouble(put, why) : item_join(session, put, key);
}

/* Compare and swap with what is there. */
static enum mc_stored swap_existing(struct session *session, struct mc_put *put, struct store_key *key,
                                    struct store_attributes *attributes)
{
    uint64_t old_cas = mc_cas(key->entry);

    if (put->cas == old_cas) {
        session->engine->counters.mc.cas_hits++;
        return item_put(session, put, key, put->value, attributes);
    }
    if (put->may_stale && put->cas != 0 && put->cas < old_cas) {
        /* Better an old value than none: but whoever reads it is told, and its time to live stays. */
        session->engine->counters.mc.cas_hits++;
        attributes->expire_ms = entry_expire_ms(key->entry);
        attributes->mc_flags |= MC_FLAGS_STALE | (entry_mc_flags(key->entry) & MC_FLAGS_SENT);
        return item_put(session, put, key, put->value, attributes);
    }
    session->engine->counters.mc.cas_badval++;
    return MC_EXISTS;
}

static enum mc_stored store_over(struct session *session, struct mc_put *put, struct store_key *key)
{
    struct store_attributes attributes = {.expire_ms = put->expire_ms, .mc_flags = put->flags};

    switch ((enum mc_mode)put->mode) {
    case MC_MODE_ADD: return MC_NOT_STORED;
    case MC_MODE_CAS: return swap_existing(session, put, key, &attributes);
    case MC_MODE_APPEND:
    case MC_MODE_PREPEND: return join_existing(session, put, key);
    case MC_MODE_REPLACE:
    case MC_MODE_SET: return item_put(session, put, key, put->value, &attributes);
    }
    UNREACHABLE("no such mode");
}

static enum mc_stored store_absent(struct session *session, struct mc_put *put, struct store_key *key)
{
    struct store_attributes attributes = {.expire_ms = put->expire_ms, .mc_flags = put->flags};
    bool is_other = key->entry != NULL; /* another type */

    switch ((enum mc_mode)put->mode) {
    case MC_MODE_ADD:
        if (is_other)
            return MC_NOT_STORED;
        break;
    case MC_MODE_SET: break;
    case MC_MODE_CAS: session->engine->counters.mc.cas_misses++; return MC_NOT_FOUND;
    case MC_MODE_REPLACE:
    case MC_MODE_APPEND:
    case MC_MODE_PREPEND: return MC_NOT_STORED;
    }
    return item_put(session, put, key, put->value, &attributes);
}

enum mc_stored mc_store(struct session *session, struct mc_put *put)
{
    struct store_key key;
    bool is_there;

    put->trouble = mc_may_write(session, 1 + put->key.len + put->value.len);
    if (UNLIKELY(put->trouble != MC_FINE))
        return MC_STORE_TROUBLE;
    is_there = mc_find(session, put->key, &key);
    return is_there ? store_over(session, put, &key) : store_absent(session, put, &key);
}

/* A value that is too large to replace the old one must not leave the old one either: who set it means that it is no
 * longer right. As memcached, which leaves alone what the other commands were not allowed to touch. */
void mc_too_large(struct session *session, struct bytes name, bool is_set)
{
    struct store_key key;

    session->engine->counters.mc.store_too_large++;
    if (is_set && session->is_authenticated && store_may_write(session->engine->store, 0) != -EROFS &&
        mc_find(session, name, &key))
        MAYBE(mc_remove(session, &key));
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

#define NUMBER_LEN_MAX 20

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* As memcached's safe_strtoull(): blanks, a sign, digits, then the end or a blank and whatever follows it. */
static bool number_parse(struct bytes text, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0, first;
    bool is_negative = false;

    while (i < text.len && is_blank(text.data[i]))
        i++;
    if (i < text.len && (text.data[i] == '-' || text.data[i] == '+'))
        is_negative = text.data[i++] == '-';
    for (first = i; i < text.len; i++) {
        unsigned digit = (unsigned char)text.data[i] - (unsigned)'0';

        if (digit > 9)
            break;
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (i == first || (i < text.len && !is_blank(text.data[i])))
        return false;
    if (is_negative)
        value = -value;
    /* It looks for a minus only where the number does not fit 63 bits, and anywhere. */
    if ((int64_t)value < 0 && memchr(text.data, '-', text.len) != NULL)
        return false;
    *out = value;
    return true;
}

static enum mc_added add_trouble(struct mc_add *add, enum mc_trouble why)
{
    add->trouble = why;
    return MC_ADD_TROUBLE;
}

/* The number goes where the old one stood, blanks after it, so that the item keeps its length; a longer one makes a
 * new item, which has neither been fetched nor is stale. */
static enum mc_added number_put(struct session *session, struct mc_add *add, size_t old_len)
{
    struct store *store = session->engine->store;
    struct entry *entry = add->at.entry;
    struct store_attributes attributes = {
        .expire_ms = add->sets_expire ? add->expire_ms : entry_expire_ms(entry),
        .mc_flags = entry_mc_flags(entry)};
    uint8_t access = entry_access(entry);
    char digits[NUMBER_LEN_MAX + 1], *text = digits;
    size_t len = u64_to_digits(add->value, digits);

    if (mc_is_past(session, attributes.expire_ms)) {
        add->trouble = mc_remove(session, &add->at);
        add->new_cas = store_lsn(store);
        return add->trouble == MC_FINE ? MC_ADDED : MC_ADD_TROUBLE;
    }
    if (len > old_len) {
        attributes.mc_flags = (uint32_t)attributes.mc_flags;
        access = 0;
    } else if (len < old_len) {
        text = mem_alloc(old_len);
        if (text == NULL)
            return add_trouble(add, MC_NO_MEMORY);
        memcpy(text, digits, len);
        memset(text + len, ' ', old_len - len);
        len = old_len;
    }
    add->trouble = trouble_of(session, store_put_string(store, &add->at, bytes_of(text, len), &attributes));
    if (text != digits)
        mem_free(text);
    if (add->trouble != MC_FINE)
        return MC_ADD_TROUBLE;
    entry_access_set(add->at.entry, access);
    time_note(session, &add->at);
    add->new_cas = mc_cas(add->at.entry);
    return MC_ADDED;
}

enum mc_added mc_add(struct session *session, struct mc_add *add)
{
    struct engine *engine = session->engine;
    struct bytes old;

    add->trouble = mc_may_write(session, 1);
    if (add->trouble != MC_FINE)
        return MC_ADD_TROUBLE;
    if (!mc_find(session, add->key, &add->at)) {
        add->at.entry = NULL;
        return MC_ADD_NOT_FOUND;
    }
    add->trouble = mc_need_value(session, &add->at);
    if (add->trouble != MC_FINE)
        return MC_ADD_TROUBLE;
    old = mc_value(add->at.entry);
    if (old.len == 0)
        return MC_ADD_NON_NUMERIC;
    if (add->cas != 0 && add->cas != mc_cas(add->at.entry))
        return MC_ADD_EXISTS;
    if (!number_parse(old, &add->value))
        return MC_ADD_NON_NUMERIC;
    if (add->is_decr) {
        engine->counters.mc.decr_hits++;
        add->value = add->delta > add->value ? 0 : add->value - add->delta;
    } else {
        engine->counters.mc.incr_hits++;
        add->value += add->delta;
    }
    return number_put(session, add, old.len);
}

/* ---- the rest -------------------------------------------------------------------------------- */

enum mc_trouble mc_touch(struct session *session, struct store_key *key, uint64_t expire_ms)
{
    uint8_t access = entry_access(key->entry);
    enum mc_trouble why;

    if (mc_is_past(session, expire_ms))
        return mc_remove(session, key);
    why = trouble_of(session, store_set_expire(session->engine->store, key, expire_ms));
    if (why == MC_FINE)
        entry_access_set(key->entry, access);
    return why;
}

enum mc_trouble mc_mark_stale(struct session *session, struct store_key *key, bool sets_expire,
                              uint64_t expire_ms)
{
    struct store_attributes attributes = {
        .expire_ms = sets_expire ? expire_ms : entry_expire_ms(key->entry),
        .mc_flags = (uint32_t)entry_mc_flags(key->entry) | MC_FLAGS_STALE};
    uint8_t access = entry_access(key->entry);
    struct bytes value = mc_value(key->entry);
    enum mc_trouble why;
    char *copy;

    if (mc_is_past(session, attributes.expire_ms))
        return mc_remove(session, key);
    copy = mem_alloc(value.len + 1);
    if (copy == NULL)
        return MC_NO_MEMORY;
    memcpy(copy, value.data, value.len);
    why = trouble_of(session, store_put_string(session->engine->store, key, bytes_of(copy, value.len),
                                               &attributes));
    mem_free(copy);
    if (why == MC_FINE)
        entry_access_set(key->entry, access);
    return why;
}

static void flush_fire(struct io_timer *timer)
{
    struct mc *mc = timer->arg;
    struct engine *engine = mc->engine;

    engine_clock_read(engine);
    if (engine->now_ms < mc->flush_at_ms) { /* the clock was set back, or the delay is longer than a timer's */
        io_timer_start(engine->io, timer, MIN(mc->flush_at_ms - engine->now_ms, UINT64_C(3600000)));
        return;
    }
    if (engine_is_in_exec(engine) || store_may_write(engine->store, 0) == ERR_AGAIN ||
        store_flush(engine->store, engine->options.memcache_db) != 0) {
        io_timer_start(engine->io, timer, 100);
        return;
    }
    mc->flush_at_ms = 0;
}

enum mc_trouble mc_flush_all(struct session *session, int64_t delay_s)
{
    struct engine *engine = session->engine;
    struct mc *mc = engine->mc;
    enum mc_trouble why = mc_may_write(session, 0);

    if (why != MC_FINE)
        return why;
    engine->counters.mc.flush++;
    /* As memcached: a new flush takes the place of one that is still to come. */
    io_timer_stop(&mc->flush_timer);
    mc->flush_at_ms = 0;
    if (delay_s > 0) {
        uint64_t at_ms = mc_expire_ms(session, delay_s);

        if (!mc_is_past(session, at_ms)) {
            mc->flush_at_ms = at_ms;
            io_timer_start(engine->io, &mc->flush_timer,
                           MIN(at_ms - engine->now_ms, UINT64_C(3600000)));
            return MC_FINE;
        }
    }
    return trouble_of(session, store_flush(engine->store, engine->options.memcache_db));
}

int mc_create(struct engine *engine, struct mc **out)
{
    struct mc *mc = mem_zalloc(sizeof(*mc));

    if (mc == NULL)
        return ERR_FULL;
    mc->engine = engine;
    mc->flush_timer.fire = flush_fire;
    mc->flush_timer.arg = mc;
    *out = mc;
    return 0;
}

void mc_destroy(struct mc **mc)
{
    if (*mc == NULL)
        return;
    io_timer_stop(&(*mc)->flush_timer);
    mem_free((*mc)->prefixes);
    mem_free(*mc);
    *mc = NULL;
}

void mc_limits(const struct engine *engine, struct proto_limits *out)
{
    *out = PROTO_LIMITS_DEFAULT;
    out->line_max = MC_LINE_MAX;
    out->has_control_keys = true;
    out->value_max = engine->settings->mc_value_max;
    out->bulk_max = engine->settings->bulk_max;
}

/* ---- around a request ------------------------------------------------------------------------ */

bool mc_begin(struct session *session, bool writes)
{
    mc_turn_begin(session);
    return LIKELY(!engine_must_wait(session, writes));
}

enum cmd_result mc_end(struct session *session, enum cmd_result result)
{
    if (UNLIKELY(result == CMD_PARKED)) {
        session->is_parked = true;
        session->engine->counters.parked_cold += session->fetches != NULL;
        if (session->fetches != NULL)
            fetch_round(session);
        return CMD_PARKED;
    }
    session->fetch_error = 0;
    fetch_settle(session);
    session->command_count++;
    session->engine->counters.commands++;
    return CMD_DONE;
}

void mc_count_get(struct session *session, bool is_touch, bool is_hit)
{
    struct engine_counters *counters = &session->engine->counters;

    if (is_touch) {
        counters->mc.touch++;
        counters->mc.touch_hits += is_hit;
        counters->mc.touch_misses += !is_hit;
    } else {
        counters->mc.get++;
        counters->mc.get_hits += is_hit;
        counters->mc.get_misses += !is_hit;
        counters->mc.get_expired += !is_hit && session->engine->mc->has_expired;
    }
    counters->keyspace_hits += is_hit;
    counters->keyspace_misses += !is_hit;
}

/* ---- out ------------------------------------------------------------------------------------- */

void mc_reply(struct session *session, const char *data, size_t len)
{
    reply_raw(session, bytes_of(data, len));
}

void mc_reply_line(struct session *session, const char *line)
{
    mc_reply(session, line, strlen(line));
    mc_reply(session, "\r\n", 2);
}
