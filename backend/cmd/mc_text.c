/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The classic text commands, and what all of text shares: authentication, waiting, counting.
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/mc_private.h"

#include "common/base/mem.h"

#include <stdio.h>

#define KEY_LEN_MAX 250
/* "VALUE " key " 4294967295 1073741824 18446744073709551615\r\n" */
#define HEAD_LEN_MAX (6 + KEY_LEN_MAX + 3 + 10 + 10 + 20 + 2)
/* Values up to this go out with their head and tail in one piece. */
#define SHORT_VALUE_MAX 1024

static enum cmd_result reply_trouble(struct session *session, enum mc_trouble trouble)
{
    if (trouble == MC_PARKED)
        return CMD_PARKED;
    mc_reply_line(session, mc_trouble_text(trouble));
    return CMD_DONE;
}

static void reply_unless(struct session *session, bool is_noreply, const char *line)
{
    if (!is_noreply)
        mc_reply_line(session, line);
}

/* ---- get ------------------------------------------------------------------------------------- */

static void reply_item(struct session *session, struct bytes name, const struct entry *entry, bool with_cas)
{
    struct bytes value = mc_value(entry);
    char text[HEAD_LEN_MAX + SHORT_VALUE_MAX + 2], *at = text;

    ASSERT(name.len <= KEY_LEN_MAX);
    at = MC_APPEND_LITERAL(at, "VALUE ");
    at = mc_append(at, name);
    *at++ = ' ';
    at += u64_to_digits((uint32_t)entry_mc_flags(entry), at);
    *at++ = ' ';
    at += u64_to_digits(value.len, at);
    if (with_cas) {
        *at++ = ' ';
        at += u64_to_digits(mc_cas(entry), at);
    }
    at = MC_APPEND_LITERAL(at, "\r\n");
    if (LIKELY(value.len <= SHORT_VALUE_MAX)) {
        at = mc_append(at, value);
        at = MC_APPEND_LITERAL(at, "\r\n");
        mc_reply(session, text, (size_t)(at - text));
        return;
    }
    mc_reply(session, text, (size_t)(at - text));
    reply_raw_value(session, entry);
    mc_reply(session, "\r\n", 2);
}

/* Starts to fetch what is cold of all the keys, so that one wait is enough. */
static enum mc_trouble need_all(struct session *session, const struct mc_request *request)
{
    enum mc_trouble trouble = MC_FINE;

    for (uint32_t i = 0; i < request->key_count; i++) {
        struct store_key key;
        enum mc_trouble one;

        if (!mc_find(session, request->keys[i], &key))
            continue;
        one = mc_need_value(session, &key);
        if (one == MC_PARKED || trouble == MC_FINE)
            trouble = one;
        if (one == MC_NO_MEMORY)
            break;
    }
    return trouble;
}

/* The new time to live of a gat: past ones take effect once the value has been shown. */
static enum mc_trouble get_touch(struct session *session, struct store_key *key, uint64_t expire_ms)
{
    return mc_is_past(session, expire_ms) ? MC_FINE : mc_touch(session, key, expire_ms);
}

static enum cmd_result execute_get(struct session *session, const struct mc_request *request)
{
    bool with_cas = request->verb == MC_gets || request->verb == MC_gats;
    bool is_touch = request->verb == MC_gat || request->verb == MC_gats;
    uint64_t expire_ms = 0;
    enum mc_trouble trouble;

    if (is_touch) {
        expire_ms = mc_expire_ms(session, mc_exptime_positive(request->exptime));
        trouble = mc_may_write(session, 1);
        if (trouble != MC_FINE)
            return reply_trouble(session, trouble);
    }
    /* Of one key, the look-up below finds out. */
    if (request->key_count > 1 || is_touch) {
        trouble = need_all(session, request);
        if (UNLIKELY(trouble != MC_FINE))
            return reply_trouble(session, trouble);
    }
    for (uint32_t i = 0; i < request->key_count; i++) {
        struct store_key key;
        bool is_hit = mc_find(session, request->keys[i], &key);

        if (is_hit) {
            trouble = mc_need_value(session, &key);
            if (LIKELY(trouble == MC_FINE) && is_touch)
                trouble = get_touch(session, &key, expire_ms);
            if (UNLIKELY(trouble != MC_FINE))
                return reply_trouble(session, trouble);
            mc_bump(session, &key);
            reply_item(session, request->keys[i], key.entry, with_cas);
            if (is_touch && mc_is_past(session, expire_ms))
                MAYBE(mc_remove(session, &key));
        }
        mc_count_get(session, is_touch, is_hit);
        mc_detail_note(session, MC_DETAIL_GET, request->keys[i], is_hit);
    }
    mc_reply(session, "END\r\n", 5);
    return CMD_DONE;
}

/* ---- storing --------------------------------------------------------------------------------- */

static enum mc_mode mode_of(enum mc_verb verb)
{
    switch ((int)verb) {
    case MC_add: return MC_MODE_ADD;
    case MC_replace: return MC_MODE_REPLACE;
    case MC_append: return MC_MODE_APPEND;
    case MC_prepend: return MC_MODE_PREPEND;
    case MC_cas: return MC_MODE_CAS;
    default: return MC_MODE_SET;
    }
}

static enum cmd_result execute_store(struct session *session, const struct mc_request *request)
{
    struct mc_put put = {
        .key = request->keys[0],
        .value = request->data,
        .expire_ms = mc_expire_ms(session, mc_exptime_positive(request->exptime)),
        .cas = request->cas,
        .flags = request->flags,
        .mode = (uint8_t)mode_of(request->verb),
    };
    enum mc_stored stored = mc_store(session, &put);

    if (stored == MC_STORE_TROUBLE && put.trouble == MC_PARKED)
        return CMD_PARKED;
    session->engine->counters.mc.set++;
    mc_detail_note(session, MC_DETAIL_SET, put.key, true);
    if (request->is_noreply)
        return CMD_DONE;
    switch (stored) {
    case MC_STORED: mc_reply(session, "STORED\r\n", 8); break;
    case MC_NOT_STORED: mc_reply_line(session, "NOT_STORED"); break;
    case MC_EXISTS: mc_reply_line(session, "EXISTS"); break;
    case MC_NOT_FOUND: mc_reply_line(session, "NOT_FOUND"); break;
    case MC_STORE_TROUBLE: return reply_trouble(session, put.trouble);
    }
    return CMD_DONE;
}

static enum cmd_result execute_delete(struct session *session, const struct mc_request *request)
{
    struct engine_counters *counters = &session->engine->counters;
    enum mc_trouble trouble = mc_may_write(session, 0);
    struct store_key key;
    bool is_there;

    if (trouble == MC_FINE) {
        /* A key is a key: delete takes away what Redis put there as well. */
        mc_find(session, request->keys[0], &key);
        is_there = key.entry != NULL;
        if (is_there)
            trouble = mc_remove(session, &key);
    }
    if (trouble != MC_FINE)
        return trouble == MC_PARKED || !request->is_noreply ? reply_trouble(session, trouble) : CMD_DONE;
    counters->mc.delete_hits += is_there;
    counters->mc.delete_misses += !is_there;
    mc_detail_note(session, MC_DETAIL_DELETE, request->keys[0], is_there);
    reply_unless(session, request->is_noreply, is_there ? "DELETED" : "NOT_FOUND");
    return CMD_DONE;
}

static enum cmd_result execute_touch(struct session *session, const struct mc_request *request)
{
    uint64_t expire_ms = mc_expire_ms(session, mc_exptime_positive(request->exptime));
    enum mc_trouble trouble = mc_may_write(session, 1);
    struct store_key key;
    bool is_there = false;

    if (trouble == MC_FINE) {
        is_there = mc_find(session, request->keys[0], &key);
        if (is_there)
            trouble = mc_need_value(session, &key);
        if (is_there && trouble == MC_FINE) {
            mc_bump(session, &key);
            trouble = mc_touch(session, &key, expire_ms);
        }
    }
    if (trouble != MC_FINE)
        return trouble == MC_PARKED || !request->is_noreply ? reply_trouble(session, trouble) : CMD_DONE;
    mc_count_get(session, true, is_there);
    reply_unless(session, request->is_noreply, is_there ? "TOUCHED" : "NOT_FOUND");
    return CMD_DONE;
}

static enum cmd_result execute_arithmetic(struct session *session, const struct mc_request *request)
{
    struct engine_counters *counters = &session->engine->counters;
    struct mc_add add = {.key = request->keys[0], .delta = request->delta,
                         .is_decr = request->verb == MC_decr};
    char digits[21];
    size_t len;

    switch (mc_add(session, &add)) {
    case MC_ADDED:
        if (request->is_noreply)
            break;
        len = u64_to_digits(add.value, digits);
        mc_reply(session, digits, len);
        mc_reply(session, "\r\n", 2);
        break;
    case MC_ADD_NOT_FOUND:
        counters->mc.incr_misses += !add.is_decr;
        counters->mc.decr_misses += add.is_decr;
        reply_unless(session, request->is_noreply, "NOT_FOUND");
        break;
    case MC_ADD_NON_NUMERIC:
        reply_unless(session, request->is_noreply,
                     "CLIENT_ERROR cannot increment or decrement non-numeric value");
        break;
    case MC_ADD_EXISTS: UNREACHABLE("no cas was given");
    case MC_ADD_TROUBLE:
        if (add.trouble == MC_PARKED || !request->is_noreply)
            return reply_trouble(session, add.trouble);
        break;
    }
    return CMD_DONE;
}

/* ---- about the server ------------------------------------------------------------------------ */

static enum cmd_result execute_flush_all(struct session *session, const struct mc_request *request)
{
    enum mc_trouble trouble = mc_flush_all(session, request->exptime);

    if (trouble == MC_PARKED)
        return CMD_PARKED;
    reply_unless(session, request->is_noreply, trouble == MC_FINE ? "OK" : mc_trouble_text(trouble));
    return CMD_DONE;
}

static void stat_line(struct mc_stats_out *out, const char *name, const char *value)
{
    struct session *session = out->session;

    mc_reply(session, "STAT ", 5);
    mc_reply(session, name, strlen(name));
    mc_reply(session, " ", 1);
    mc_reply_line(session, value);
}

static void execute_detail(struct session *session, struct bytes word)
{
    struct mc *mc = session->engine->mc;
    struct buffer text = {0};

    if (bytes_equal(word, BYTES("on"))) {
        mc->has_detail = true;
        mc_reply_line(session, "OK");
    } else if (bytes_equal(word, BYTES("off"))) {
        mc->has_detail = false;
        mc_reply_line(session, "OK");
    } else if (bytes_equal(word, BYTES("dump"))) {
        mc_detail_dump(mc, &text);
        if (text.failed)
            mc_reply_line(session, "SERVER_ERROR out of memory writing stats");
        else
            reply_raw(session, buffer_bytes(&text));
        buffer_deinit(&text);
    } else {
        mc_reply_line(session, "CLIENT_ERROR usage: stats detail on|off|dump");
    }
}

static void execute_stats(struct session *session, const struct mc_request *request)
{
    struct mc_stats_out out = {.stat = stat_line, .session = session};
    struct bytes line = request->line, verb, group = BYTES_EMPTY, word = BYTES_EMPTY;

    mc_token_next(&line, &verb);
    mc_token_next(&line, &group);
    mc_token_next(&line, &word);
    if (bytes_equal(group, BYTES("reset"))) {
        mc_stats_reset(session->engine);
        mc_reply_line(session, "RESET");
    } else if (bytes_equal(group, BYTES("detail"))) {
        execute_detail(session, word);
    } else if (bytes_equal(group, BYTES("cachedump"))) {
        mc_reply_line(session, "CLIENT_ERROR stats cachedump not allowed");
    } else if (mc_stats(&out, group)) {
        mc_reply_line(session, "END");
    } else {
        mc_reply_line(session, "ERROR");
    }
}

/* What is an operator's of a memcached process, and has no meaning here: as a memcached started without it. */
static const char *operator_answer(enum mc_verb verb)
{
    switch ((int)verb) {
    case MC_shutdown: return "ERROR: shutdown not enabled";
    case MC_slabs: return "CLIENT_ERROR slab reassignment disabled";
    case MC_lru_crawler: return "CLIENT_ERROR lru crawler disabled";
    case MC_watch: return "WATCHER_FAILED failed to add log watcher";
    default: return "ERROR";
    }
}

/* The parser reads no arguments of what it does not know. */
static bool is_noreply_last(struct bytes line)
{
    struct bytes token = BYTES_EMPTY;

    while (mc_token_next(&line, &token))
        ASSERT(token.len > 0);
    return bytes_equal(token, BYTES("noreply"));
}

static enum cmd_result execute_local(struct session *session, const struct mc_request *request)
{
    switch ((int)request->verb) {
    case MC_flush_all: return execute_flush_all(session, request);
    case MC_stats: execute_stats(session, request); break;
    case MC_version: mc_reply_line(session, "VERSION " MC_VERSION); break;
    case MC_verbosity: reply_unless(session, request->is_noreply, "OK"); break;
    case MC_quit: session->close_after_reply = true; break;
    case MC_cache_memlimit: reply_unless(session, is_noreply_last(request->line), operator_answer(request->verb)); break;
    default: mc_reply_line(session, operator_answer(request->verb)); break;
    }
    return CMD_DONE;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void refuse(struct session *session, const struct mc_request *request)
{
    uint8_t kind = mc_verb_info(request->verb)->kind;
    bool is_store = kind == MC_KIND_STORE || kind == MC_KIND_META_STORE;

    if (is_store && request->key_count == 1 && session->is_authenticated &&
        strcmp(request->error, "SERVER_ERROR object too large for cache") == 0)
        mc_too_large(session, request->route_key, kind == MC_KIND_META_STORE || request->verb == MC_set);
    if (request->status == MC_REQ_ERROR)
        mc_reply_line(session, request->error);
}

static enum cmd_result execute(struct session *session, const struct mc_request *request)
{
    if (UNLIKELY(!session->is_authenticated) && request->verb != MC_quit) {
        mc_reply_line(session, "CLIENT_ERROR unauthenticated");
        return CMD_DONE;
    }
    switch ((enum mc_kind)mc_verb_info(request->verb)->kind) {
    case MC_KIND_GET: return execute_get(session, request);
    case MC_KIND_STORE: return execute_store(session, request);
    case MC_KIND_KEY_LINE:
        if (request->verb == MC_delete)
            return execute_delete(session, request);
        return request->verb == MC_touch ? execute_touch(session, request)
                                         : execute_arithmetic(session, request);
    case MC_KIND_META:
    case MC_KIND_META_STORE:
    case MC_KIND_META_NOOP: return mc_meta_execute(session, request);
    case MC_KIND_LOCAL: return execute_local(session, request);
    }
    UNREACHABLE("every kind is handled");
}

enum cmd_result mc_text_execute(struct session *session, const struct mc_request *request)
{
    if (UNLIKELY(request->status != MC_REQ_OK)) {
        mc_turn_begin(session);
        if (request->error != NULL)
            refuse(session, request);
        return mc_end(session, CMD_DONE);
    }
    if (UNLIKELY(!mc_begin(session, request->is_write)))
        return CMD_PARKED;
    return mc_end(session, execute(session, request));
}
