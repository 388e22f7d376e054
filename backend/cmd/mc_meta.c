/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meta commands, as memcached 1.6.18 answers them: mg ms md ma mn me.
 *
 * The parser has checked flags and read their numbers; what it does not keep is read here once more, in order, as the
 * reply's flags come in the order asked.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/mc_private.h"

#include "common/base/mem.h"

#include <stdio.h>

#define KEY_TEXT_MAX 336 /* base64 of 250 bytes */
/* A status and every flag once: the opaque (32), the key, and short numbers. */
#define REPLY_LINE_MAX (KEY_TEXT_MAX + 32 + 256)
#define FLAGS_MAX 24

struct meta {
    uint32_t count;
    struct bytes flags[FLAGS_MAX]; /* as they stand in the line */
    bool has_value, has_new_ttl, vivifies, has_recache, sets_stale, has_cas, no_update;
    uint64_t expire_ms, vivify_expire_ms, recache_expire_ms, cas, initial;
    uint8_t mode;
};

/* As mc_number_i32(), which has seen that it is a number: leading zeros, and -1 as 4294967295. */
static int32_t time_of(struct bytes token)
{
    uint64_t number = 0;
    bool is_negative = token.len > 1 && token.data[1] == '-';

    for (size_t i = 1u + is_negative; i < token.len; i++)
        number = number * 10 + (uint64_t)(token.data[i] - '0');
    return (int32_t)(uint32_t)(is_negative ? 0 - number : number);
}

static uint64_t unsigned_of(struct bytes token)
{
    uint64_t number = 0;

    for (size_t i = 1; i < token.len; i++)
        number = number * 10 + (uint64_t)(token.data[i] - '0');
    return number;
}

static uint64_t expire_of(const struct session *session, struct bytes token)
{
    return mc_expire_ms(session, mc_exptime_positive(time_of(token)));
}

/* False: 1.6.18 does not know this flag. */
static bool flag_take(struct session *session, struct bytes token, struct meta *meta)
{
    switch (token.data[0]) {
    case 'v': meta->has_value = true; break;
    case 'u': meta->no_update = true; break;
    case 'I': meta->sets_stale = true; break;
    case 'T':
        meta->has_new_ttl = true;
        meta->expire_ms = expire_of(session, token);
        break;
    case 'N':
        meta->vivifies = true;
        meta->vivify_expire_ms = expire_of(session, token);
        break;
    case 'R':
        meta->has_recache = true;
        meta->recache_expire_ms = expire_of(session, token);
        break;
    case 'C':
        meta->has_cas = true;
        meta->cas = unsigned_of(token);
        break;
    case 'J': meta->initial = unsigned_of(token); break;
    case 'M': meta->mode = (uint8_t)token.data[1]; break;
    case 'E':
    case 'x': return false;
    default: break;
    }
    return true;
}

/* NULL, or the error's line. */
static const char *meta_read(struct session *session, const struct mc_request *request, struct meta *meta)
{
    struct bytes line = request->line, token;

    *meta = (struct meta){0};
    mc_token_next(&line, &token); /* the verb, the key, the length */
    mc_token_next(&line, &token);
    if (request->verb == MC_ms)
        mc_token_next(&line, &token);
    while (mc_token_next(&line, &token)) {
        ASSERT(meta->count < FLAGS_MAX);
        meta->flags[meta->count++] = token;
        if (!flag_take(session, token, meta))
            return request->verb == MC_mg || request->verb == MC_ms
                       ? "CLIENT_ERROR invalid flag"
                       : "CLIENT_ERROR invalid or duplicate flag";
    }
    return NULL;
}

/* ---- the reply's line ------------------------------------------------------------------------ */

struct line {
    char text[REPLY_LINE_MAX];
    size_t len;
};

static void line_append(struct line *line, struct bytes bytes)
{
    ASSERT(line->len + bytes.len <= sizeof(line->text));
    memcpy(line->text + line->len, bytes.data, bytes.len);
    line->len += bytes.len;
}

static void line_number(struct line *line, char flag, int64_t number)
{
    char text[24] = {' ', flag};
    size_t len = 2 + i64_to_digits(number, text + 2);

    line_append(line, bytes_of(text, len));
}

static void line_unsigned(struct line *line, char flag, uint64_t number)
{
    char text[24] = {' ', flag};
    size_t len = 2 + u64_to_digits(number, text + 2);

    line_append(line, bytes_of(text, len));
}

static void line_letter(struct line *line, char letter)
{
    char text[2] = {' ', letter};

    line_append(line, bytes_of(text, 2));
}

/* O and k: the two that every reply may carry. */
static void line_echo(struct line *line, const struct mc_request *request, struct bytes flag)
{
    if (flag.data[0] == 'O') {
        line_append(line, BYTES(" "));
        line_append(line, flag);
    } else if (flag.data[0] == 'k') {
        line_append(line, BYTES(" k"));
        line_append(line, request->keys[0]);
        if (request->is_key_base64)
            line_append(line, BYTES(" b"));
    }
}

static void line_echo_all(struct line *line, const struct mc_request *request, const struct meta *meta)
{
    for (uint32_t i = 0; i < meta->count; i++)
        line_echo(line, request, meta->flags[i]);
}

static void line_send(struct session *session, struct line *line)
{
    line_append(line, BYTES("\r\n"));
    mc_reply(session, line->text, line->len);
}

/* A status and the flags that any reply carries. */
static void reply_status_line(struct session *session, const struct mc_request *request,
                              const struct meta *meta, const char *status)
{
    struct line line = {.len = 0};

    line_append(&line, bytes_of_string(status));
    line_echo_all(&line, request, meta);
    line_send(session, &line);
}

static enum cmd_result trouble_reply(struct session *session, enum mc_trouble trouble)
{
    if (trouble == MC_PARKED)
        return CMD_PARKED;
    mc_reply_line(session, mc_trouble_text(trouble));
    return CMD_DONE;
}

/* ---- mg -------------------------------------------------------------------------------------- */

/* What one mg found, and what it tells of it. */
struct fetched {
    bool is_created, is_won, was_fetched;
    uint64_t state;        /* MC_FLAGS_... before this request */
    uint64_t old_expire_ms; /* of the item before this request; 0 of one that it makes */
    uint32_t idle_s;
};

/* What a flag in its place in the line makes of the time to live. */
static void flag_expire(const struct meta *meta, const struct fetched *fetched, char flag, uint64_t *expire_ms)
{
    if (flag == 'T')
        *expire_ms = meta->expire_ms;
    else if (flag == 'N' && fetched->is_created)
        *expire_ms = meta->vivify_expire_ms;
}

/* Returns the time to live that all flags make, and tells whether this client is to fetch the value anew: R looks at
 * the time to live as it stands when its turn comes. */
static uint64_t flags_walk(const struct session *session, const struct meta *meta, struct fetched *fetched)
{
    uint64_t expire_ms = fetched->old_expire_ms;

    fetched->is_won = fetched->is_created && meta->vivifies;
    for (uint32_t i = 0; i < meta->count; i++) {
        char flag = meta->flags[i].data[0];

        flag_expire(meta, fetched, flag, &expire_ms);
        /* In whole seconds, as memcached's clock has no others. */
        if (flag == 'R' && (fetched->state & MC_FLAGS_SENT) == 0 && !fetched->is_created && expire_ms != 0 &&
            mc_ttl_of_s(session, expire_ms) < mc_ttl_of_s(session, meta->recache_expire_ms))
            fetched->is_won = true;
    }
    if (fetched->state == MC_FLAGS_STALE)
        fetched->is_won = true;
    return expire_ms;
}

static void mg_flags(struct session *session, struct line *line, const struct mc_request *request, const struct meta *meta,
                     const struct fetched *fetched, const struct store_key *key)
{
    uint64_t expire_ms = fetched->old_expire_ms;

    for (uint32_t i = 0; i < meta->count; i++) {
        flag_expire(meta, fetched, meta->flags[i].data[0], &expire_ms);
        switch (meta->flags[i].data[0]) {
        case 's': line_unsigned(line, 's', mc_value_len(key->entry)); break;
        case 't': line_number(line, 't', mc_ttl_of_s(session, expire_ms)); break;
        case 'c': line_unsigned(line, 'c', mc_cas(key->entry)); break;
        case 'f': line_unsigned(line, 'f', (uint32_t)entry_mc_flags(key->entry)); break;
        case 'l': line_unsigned(line, 'l', fetched->idle_s); break;
        case 'h': line_unsigned(line, 'h', fetched->was_fetched); break;
        default: line_echo(line, request, meta->flags[i]); break;
        }
    }
    if (fetched->state & MC_FLAGS_SENT)
        line_letter(line, 'Z');
    if (fetched->state & MC_FLAGS_STALE)
        line_letter(line, 'X');
    if (fetched->is_won)
        line_letter(line, 'W');
}

/* An empty item, for whom misses first. */
static enum mc_trouble vivify(struct session *session, const struct mc_request *request, uint64_t expire_ms,
                              struct store_key *key)
{
    struct mc_put put = {.key = request->route_key, .value = BYTES_EMPTY, .expire_ms = expire_ms,
                         .mode = MC_MODE_ADD};
    enum mc_stored stored = mc_store(session, &put);

    if (stored == MC_STORE_TROUBLE)
        return put.trouble;
    mc_find(session, request->route_key, key);
    return MC_FINE;
}

static void mg_reply(struct session *session, const struct mc_request *request, const struct meta *meta,
                     const struct fetched *fetched, const struct store_key *key)
{
    struct line line = {.len = 0};

    if (meta->has_value) {
        struct bytes value = mc_value(key->entry);
        char digits[21];

        line_append(&line, BYTES("VA "));
        line_append(&line, bytes_of(digits, u64_to_digits(value.len, digits)));
        mg_flags(session, &line, request, meta, fetched, key);
        line_send(session, &line);
        reply_raw_value(session, key->entry);
        mc_reply(session, "\r\n", 2);
    } else {
        line_append(&line, BYTES("HD"));
        mg_flags(session, &line, request, meta, fetched, key);
        line_send(session, &line);
    }
}

static void mg_count(struct session *session, const struct mc_request *request, const struct meta *meta,
                     bool is_hit)
{
    struct engine_counters *counters = &session->engine->counters;

    if (meta->has_new_ttl && is_hit) {
        counters->mc.touch++;
        counters->mc.touch_hits++;
    } else {
        counters->mc.get++;
        counters->mc.get_hits += is_hit;
        counters->mc.get_misses += !is_hit;
        counters->mc.get_expired += !is_hit && session->engine->mc->has_expired;
    }
    counters->keyspace_hits += is_hit;
    counters->keyspace_misses += !is_hit;
    mc_detail_note(session, MC_DETAIL_GET, request->route_key, is_hit);
}

static void mg_miss(struct session *session, const struct mc_request *request, const struct meta *meta)
{
    mg_count(session, request, meta, false);
    if (!request->is_quiet)
        reply_status_line(session, request, meta, "EN");
}

/* A created item that is dead at once, and the like of it: no entry to tell of. */
static void mg_ghost(struct session *session, const struct mc_request *request, const struct meta *meta)
{
    struct line line = {.len = 0};

    line_append(&line, meta->has_value ? BYTES("VA 0") : BYTES("HD"));
    for (uint32_t i = 0; i < meta->count; i++) {
        char flag = meta->flags[i].data[0];

        if (strchr("stfhl", flag) != NULL)
            line_unsigned(&line, flag, 0);
        else if (flag == 'c')
            line_unsigned(&line, 'c', store_lsn(session->engine->store));
        else
            line_echo(&line, request, meta->flags[i]);
    }
    line_letter(&line, 'W');
    line_send(session, &line);
    if (meta->has_value)
        mc_reply(session, "\r\n", 2);
}

/* What a hit changes besides its time to live: who won the token, and that it was fetched. */
static void mg_mark(struct session *session, const struct meta *meta, const struct fetched *fetched,
                    struct store_key *key)
{
    if (fetched->is_won)
        entry_mc_state_set(key->entry, fetched->state | MC_FLAGS_SENT);
    if (!meta->no_update)
        mc_bump(session, key);
}

static enum cmd_result mg_hit(struct session *session, const struct mc_request *request,
                              const struct meta *meta, struct fetched *fetched, struct store_key *key)
{
    bool dies = false;
    uint64_t expire_ms;

    if (!fetched->is_created) {
        fetched->state = entry_mc_flags(key->entry) & (MC_FLAGS_STALE | MC_FLAGS_SENT);
        fetched->old_expire_ms = entry_expire_ms(key->entry);
        fetched->idle_s = mc_idle_s(session, key);
        fetched->was_fetched = entry_access(key->entry) > 0;
        expire_ms = flags_walk(session, meta, fetched);
        dies = meta->has_new_ttl && mc_is_past(session, expire_ms);
        if (meta->has_new_ttl && !dies) {
            enum mc_trouble trouble = mc_touch(session, key, expire_ms);

            if (trouble != MC_FINE)
                return trouble_reply(session, trouble);
        }
    }
    mg_mark(session, meta, fetched, key);
    mg_reply(session, request, meta, fetched, key);
    mg_count(session, request, meta, true);
    if (dies)
        MAYBE(mc_remove(session, key));
    return CMD_DONE;
}

/* Also for s, if it is not known without. */
static bool needs_value(const struct session *session, const struct meta *meta, const struct store_key *key)
{
    return meta->has_value || meta->has_new_ttl || !store_len_is_known(session->engine->store, key);
}

static enum cmd_result execute_mg(struct session *session, const struct mc_request *request,
                                  const struct meta *meta)
{
    struct fetched fetched = {0};
    enum mc_trouble trouble = MC_FINE;
    struct store_key key;

    if (meta->has_new_ttl || meta->vivifies) {
        trouble = mc_may_write(session, 1);
        if (trouble != MC_FINE)
            return trouble_reply(session, trouble);
    }
    if (!mc_find(session, request->route_key, &key)) {
        if (!meta->vivifies || key.entry != NULL) {
            mg_miss(session, request, meta);
            return CMD_DONE;
        }
        fetched.is_created = true;
        trouble = vivify(session, request, flags_walk(session, meta, &fetched), &key);
        if (trouble != MC_FINE)
            return trouble_reply(session, trouble);
        if (key.entry == NULL) {
            mg_ghost(session, request, meta);
            mg_count(session, request, meta, true);
            return CMD_DONE;
        }
    } else if (needs_value(session, meta, &key)) {
        trouble = mc_need_value(session, &key);
        if (trouble != MC_FINE)
            return trouble_reply(session, trouble);
    }
    return mg_hit(session, request, meta, &fetched, &key);
}

/* ---- ms -------------------------------------------------------------------------------------- */

/* False: 1.6.18 does not know it. */
static bool ms_mode(uint8_t letter, uint8_t *mode)
{
    switch (letter) {
    case 0:
    case 'S': *mode = MC_MODE_SET; return true;
    case 'E': *mode = MC_MODE_ADD; return true;
    case 'A': *mode = MC_MODE_APPEND; return true;
    case 'P': *mode = MC_MODE_PREPEND; return true;
    case 'R': *mode = MC_MODE_REPLACE; return true;
    default: return false;
    }
}

static void ms_reply(struct session *session, const struct mc_request *request, const struct meta *meta,
                     const char *status, uint64_t cas)
{
    struct line line = {.len = 0};

    line_append(&line, bytes_of_string(status));
    for (uint32_t i = 0; i < meta->count; i++) {
        if (meta->flags[i].data[0] == 'c')
            line_unsigned(&line, 'c', cas);
        else
            line_echo(&line, request, meta->flags[i]);
    }
    line_send(session, &line);
}

static enum cmd_result execute_ms(struct session *session, const struct mc_request *request,
                                  const struct meta *meta)
{
    struct mc_put put = {.key = request->route_key, .value = request->data,
                         .expire_ms = meta->has_new_ttl ? meta->expire_ms : 0,
                         .cas = meta->cas, .flags = request->flags};
    enum mc_stored stored;

    if (!ms_mode(meta->mode, &put.mode)) {
        mc_reply_line(session, "CLIENT_ERROR invalid mode for ms M token");
        return CMD_DONE;
    }
    if (meta->has_cas && (put.mode == MC_MODE_SET || put.mode == MC_MODE_REPLACE))
        put.mode = MC_MODE_CAS;
    put.may_stale = meta->sets_stale && put.mode == MC_MODE_CAS;
    stored = mc_store(session, &put);
    if (stored == MC_STORE_TROUBLE && put.trouble == MC_PARKED)
        return CMD_PARKED;
    session->engine->counters.mc.set++;
    mc_detail_note(session, MC_DETAIL_SET, put.key, true);
    switch (stored) {
    case MC_STORED:
        if (!request->is_quiet)
            ms_reply(session, request, meta, "HD", put.new_cas);
        break;
    case MC_EXISTS: ms_reply(session, request, meta, "EX", 0); break;
    case MC_NOT_FOUND: ms_reply(session, request, meta, "NF", 0); break;
    case MC_NOT_STORED: ms_reply(session, request, meta, "NS", 0); break;
    case MC_STORE_TROUBLE: return trouble_reply(session, put.trouble);
    }
    return CMD_DONE;
}

/* ---- md, ma, me ------------------------------------------------------------------------------ */

static enum cmd_result execute_md(struct session *session, const struct mc_request *request,
                                  const struct meta *meta)
{
    struct engine_counters *counters = &session->engine->counters;
    enum mc_trouble trouble = mc_may_write(session, meta->sets_stale ? 1 : 0);
    struct store_key key;
    bool is_string;

    if (trouble != MC_FINE)
        return trouble_reply(session, trouble);
    is_string = mc_find(session, request->route_key, &key);
    if (key.entry == NULL || (meta->sets_stale && !is_string)) {
        counters->mc.delete_misses++;
        reply_status_line(session, request, meta, "NF");
        return CMD_DONE;
    }
    if (meta->has_cas && mc_cas(key.entry) != meta->cas) {
        counters->mc.delete_misses++;
        reply_status_line(session, request, meta, "EX");
        return CMD_DONE;
    }
    if (meta->sets_stale) {
        trouble = mc_need_value(session, &key);
        if (trouble == MC_FINE)
            trouble = mc_mark_stale(session, &key, meta->has_new_ttl, meta->expire_ms);
    } else {
        trouble = mc_remove(session, &key);
        counters->mc.delete_hits += trouble == MC_FINE;
        mc_detail_note(session, MC_DETAIL_DELETE, request->route_key, true);
    }
    if (trouble != MC_FINE)
        return trouble_reply(session, trouble);
    if (!request->is_quiet)
        reply_status_line(session, request, meta, "HD");
    return CMD_DONE;
}

/* The time to live that T and N make in their order, up to the flag before `end`. */
static uint64_t ma_expire(const struct meta *meta, const struct fetched *fetched, uint32_t end)
{
    uint64_t expire_ms = fetched->old_expire_ms;

    for (uint32_t i = 0; i < end; i++)
        flag_expire(meta, fetched, meta->flags[i].data[0], &expire_ms);
    return expire_ms;
}

static void ma_reply(struct session *session, const struct mc_request *request, const struct meta *meta,
                     const struct mc_add *add, const struct fetched *fetched)
{
    struct line line = {.len = 0};
    char digits[21];
    size_t len = u64_to_digits(add->value, digits);

    if (meta->has_value) {
        char size[4];

        line_append(&line, BYTES("VA "));
        line_append(&line, bytes_of(size, u64_to_digits(len, size)));
    } else {
        line_append(&line, BYTES("HD"));
    }
    for (uint32_t i = 0; i < meta->count; i++) {
        switch (meta->flags[i].data[0]) {
        case 'c': line_unsigned(&line, 'c', add->new_cas); break;
        case 't': line_number(&line, 't', mc_ttl_of_s(session, ma_expire(meta, fetched, i))); break;
        default: line_echo(&line, request, meta->flags[i]); break;
        }
    }
    line_send(session, &line);
    if (meta->has_value) {
        mc_reply(session, digits, len);
        mc_reply(session, "\r\n", 2);
    }
}

/* A counter that was not there begins with its initial value. */
static enum cmd_result ma_create(struct session *session, const struct mc_request *request,
                                 const struct meta *meta, struct mc_add *add)
{
    struct fetched fetched = {.is_created = true};
    char digits[21];
    struct mc_put put = {.key = request->route_key, .mode = MC_MODE_ADD,
                         .expire_ms = ma_expire(meta, &fetched, meta->count)};

    put.value = bytes_of(digits, u64_to_digits(meta->initial, digits));
    switch (mc_store(session, &put)) {
    case MC_STORED: break;
    case MC_STORE_TROUBLE: return trouble_reply(session, put.trouble);
    case MC_NOT_STORED:
    case MC_EXISTS:
    case MC_NOT_FOUND: reply_status_line(session, request, meta, "NS"); return CMD_DONE;
    }
    add->value = meta->initial;
    add->new_cas = put.new_cas;
    ma_reply(session, request, meta, add, &fetched);
    return CMD_DONE;
}

static enum cmd_result execute_ma(struct session *session, const struct mc_request *request,
                                  const struct meta *meta)
{
    struct engine_counters *counters = &session->engine->counters;
    struct mc_add add = {.key = request->route_key, .delta = request->delta, .cas = meta->cas,
                         .is_decr = meta->mode == 'D' || meta->mode == '-',
                         .sets_expire = meta->has_new_ttl, .expire_ms = meta->expire_ms};
    struct fetched fetched = {.is_created = false};
    struct store_key before;

    if (meta->mode != 0 && strchr("ID+-", meta->mode) == NULL) {
        mc_reply_line(session, "CLIENT_ERROR invalid mode for ma M token");
        return CMD_DONE;
    }
    if (mc_find(session, request->route_key, &before))
        fetched.old_expire_ms = entry_expire_ms(before.entry);
    switch (mc_add(session, &add)) {
    case MC_ADDED:
        if (!request->is_quiet)
            ma_reply(session, request, meta, &add, &fetched);
        break;
    case MC_ADD_NOT_FOUND:
        if (meta->vivifies)
            return ma_create(session, request, meta, &add);
        counters->mc.incr_misses += !add.is_decr;
        counters->mc.decr_misses += add.is_decr;
        reply_status_line(session, request, meta, "NF");
        break;
    case MC_ADD_NON_NUMERIC:
        mc_reply_line(session, "CLIENT_ERROR cannot increment or decrement non-numeric value");
        break;
    case MC_ADD_EXISTS: reply_status_line(session, request, meta, "EX"); break;
    case MC_ADD_TROUBLE: return trouble_reply(session, add.trouble);
    }
    return CMD_DONE;
}

static enum cmd_result execute_me(struct session *session, const struct mc_request *request)
{
    char text[KEY_TEXT_MAX + 160];
    struct store_key key;
    int64_t ttl_s;
    int len;

    if (!mc_find(session, request->route_key, &key)) {
        mc_reply_line(session, "EN");
        return CMD_DONE;
    }
    ttl_s = mc_ttl_s(session, key.entry);
    /* memcached's exp is the time since it expired, so of a living item the negative time to live. */
    len = snprintf(text, sizeof(text), "ME %.*s exp=%lld la=%u cas=%llu fetch=%s cls=1 size=%llu",
                   BYTES_ARG(request->keys[0]), (long long)(ttl_s < 0 ? -1 : -ttl_s),
                   mc_idle_s(session, &key), (unsigned long long)mc_cas(key.entry),
                   entry_access(key.entry) > 0 ? "yes" : "no",
                   (unsigned long long)(entry_size(key.entry) + (entry_is_object(key.entry) || entry_is_cold(key.entry)
                                            ? mc_value_len(key.entry) : 0)));
    ASSERT(len > 0 && (size_t)len < sizeof(text));
    mc_reply_line(session, text);
    return CMD_DONE;
}

enum cmd_result mc_meta_execute(struct session *session, const struct mc_request *request)
{
    struct meta meta;
    const char *error;

    if (request->verb == MC_mn) {
        mc_reply_line(session, "MN");
        return CMD_DONE;
    }
    session->engine->counters.mc.meta++;
    if (request->verb == MC_me)
        return execute_me(session, request);
    error = meta_read(session, request, &meta);
    if (error != NULL) {
        mc_reply_line(session, error);
        return CMD_DONE;
    }
    switch ((int)request->verb) {
    case MC_mg: return execute_mg(session, request, &meta);
    case MC_ms: return execute_ms(session, request, &meta);
    case MC_md: return execute_md(session, request, &meta);
    case MC_ma: return execute_ma(session, request, &meta);
    default: UNREACHABLE("every meta verb is handled");
    }
}
