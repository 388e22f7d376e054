/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary protocol. Quiet forms leave out the answer that everybody expects: success of a change, the miss of a
 * get. Errors are always told. (SASL is the connection's affair: client_auth.c.)
 */
#include "backend/cmd/cmd_private.h"
#include "backend/cmd/mc_private.h"

#include "common/base/mem.h"

#include <stdio.h>

#define KEY_LEN_MAX 250
#define SHORT_VALUE_MAX 1024
#define EXPIRATION_NO_CREATE UINT32_MAX

static uint64_t number_at(struct bytes extras, size_t off, size_t size)
{
    uint64_t value = 0;

    ASSERT(off + size <= extras.len);
    for (size_t i = off; i < off + size; i++)
        value = value << 8 | (unsigned char)extras.data[i];
    return value;
}

static void number_put(char *out, size_t size, uint64_t value)
{
    for (size_t i = size; i-- > 0; value >>= 8)
        out[i] = (char)(value & 0xff);
}

/* Header, extras, key in one piece with the value where it is short. True: the value is to follow. */
static bool reply_head(struct session *session, const struct mc_bin_request *request, uint16_t status, uint64_t cas,
                       struct bytes extras, struct bytes key, struct bytes value)
{
    struct mc_bin_header header = {
        .magic = MC_BIN_RESPONSE, .opcode = request->header.opcode, .extras_len = (uint8_t)extras.len,
        .key_len = (uint16_t)key.len, .status = status, .opaque = request->header.opaque, .cas = cas,
        .body_len = (uint32_t)(extras.len + key.len + value.len)};
    char text[MC_BIN_HEADER + 8 + KEY_LEN_MAX + SHORT_VALUE_MAX], *at = text + MC_BIN_HEADER;

    ASSERT(extras.len <= 8 && key.len <= KEY_LEN_MAX);
    mc_bin_encode(&header, text);
    at = mc_append(at, extras);
    at = mc_append(at, key);
    if (LIKELY(value.len <= SHORT_VALUE_MAX))
        at = mc_append(at, value);
    mc_reply(session, text, (size_t)(at - text));
    return value.len > SHORT_VALUE_MAX;
}

static void reply(struct session *session, const struct mc_bin_request *request, uint16_t status, uint64_t cas,
                  struct bytes extras, struct bytes key, struct bytes value)
{
    if (reply_head(session, request, status, cas, extras, key, value))
        reply_raw(session, value);
}

static void status_send(struct session *session, const struct mc_bin_request *request, uint16_t status)
{
    char text[MC_BIN_STATUS_REPLY_MAX];

    mc_reply(session, text, mc_bin_compose_status(&request->header, status, text));
}

/* Of a change that went well. */
static void reply_changed(struct session *session, const struct mc_bin_request *request, uint64_t cas)
{
    if (!request->is_quiet)
        reply(session, request, MC_BIN_OK, cas, BYTES_EMPTY, BYTES_EMPTY, BYTES_EMPTY);
}

static enum cmd_result reply_trouble(struct session *session, const struct mc_bin_request *request,
                                     enum mc_trouble trouble)
{
    if (trouble == MC_PARKED)
        return CMD_PARKED;
    reply(session, request, mc_trouble_status(trouble), 0, BYTES_EMPTY, BYTES_EMPTY,
          bytes_of_string(mc_trouble_text(trouble)));
    return CMD_DONE;
}

/* ---- get, gat, touch ------------------------------------------------------------------------- */

static void reply_item(struct session *session, const struct mc_bin_request *request, const struct entry *entry)
{
    enum mc_verb verb = (enum mc_verb)request->verb->id;
    bool with_key = verb == MC_getk || verb == MC_gatk;
    char flags[4];

    number_put(flags, sizeof(flags), (uint32_t)entry_mc_flags(entry));
    if (reply_head(session, request, MC_BIN_OK, mc_cas(entry), bytes_of(flags, sizeof(flags)),
                   with_key ? request->key : BYTES_EMPTY, verb == MC_touch ? BYTES_EMPTY : mc_value(entry)))
        reply_raw_value(session, entry);
}

static void reply_miss(struct session *session, const struct mc_bin_request *request)
{
    if (request->is_quiet)
        return;
    if (request->verb->id == MC_getk || request->verb->id == MC_gatk)
        reply(session, request, MC_BIN_NOT_FOUND, 0, BYTES_EMPTY, request->key, BYTES_EMPTY);
    else
        status_send(session, request, MC_BIN_NOT_FOUND);
}

static enum cmd_result execute_get(struct session *session, const struct mc_bin_request *request)
{
    bool is_touch = request->extras.len > 0, is_hit, dies;
    uint64_t expire_ms = 0;
    enum mc_trouble trouble = MC_FINE;
    struct store_key key;

    if (is_touch) {
        expire_ms = mc_expire_ms(session, (int64_t)number_at(request->extras, 0, 4));
        trouble = mc_may_write(session, 1);
    }
    dies = mc_is_past(session, expire_ms);
    is_hit = trouble == MC_FINE && mc_find(session, request->key, &key);
    if (is_hit)
        trouble = mc_need_value(session, &key);
    if (is_hit && trouble == MC_FINE && is_touch && !dies)
        trouble = mc_touch(session, &key, expire_ms);
    if (UNLIKELY(trouble != MC_FINE))
        return reply_trouble(session, request, trouble);
    if (is_hit) {
        mc_bump(session, &key);
        reply_item(session, request, key.entry);
        if (dies)
            MAYBE(mc_remove(session, &key));
    } else {
        reply_miss(session, request);
    }
    mc_count_get(session, is_touch, is_hit);
    mc_detail_note(session, MC_DETAIL_GET, request->key, is_hit);
    return CMD_DONE;
}

/* ---- changes --------------------------------------------------------------------------------- */

static enum mc_mode mode_of(const struct mc_bin_request *request)
{
    switch ((int)request->verb->id) {
    case MC_append: return MC_MODE_APPEND;
    case MC_prepend: return MC_MODE_PREPEND;
    default: break;
    }
    if (request->header.cas != 0)
        return MC_MODE_CAS;
    return request->verb->id == MC_add       ? MC_MODE_ADD
           : request->verb->id == MC_replace ? MC_MODE_REPLACE
                                             : MC_MODE_SET;
}

static enum cmd_result execute_store(struct session *session, const struct mc_bin_request *request)
{
    struct mc_put put = {.key = request->key, .value = request->value, .cas = request->header.cas,
                         .mode = (uint8_t)mode_of(request)};
    enum mc_stored stored;

    if (request->extras.len > 0) {
        put.flags = (uint32_t)number_at(request->extras, 0, 4);
        put.expire_ms = mc_expire_ms(session, (int64_t)number_at(request->extras, 4, 4));
    }
    stored = mc_store(session, &put);
    if (stored == MC_STORE_TROUBLE)
        return reply_trouble(session, request, put.trouble);
    session->engine->counters.mc.set++;
    mc_detail_note(session, MC_DETAIL_SET, put.key, true);
    switch (stored) {
    case MC_STORED: reply_changed(session, request, put.new_cas); break;
    case MC_EXISTS: status_send(session, request, MC_BIN_EXISTS); break;
    case MC_NOT_FOUND: status_send(session, request, MC_BIN_NOT_FOUND); break;
    case MC_NOT_STORED:
        status_send(session, request,
                     put.mode == MC_MODE_ADD       ? MC_BIN_EXISTS
                     : put.mode == MC_MODE_REPLACE ? MC_BIN_NOT_FOUND
                                                   : MC_BIN_NOT_STORED);
        break;
    case MC_STORE_TROUBLE: UNREACHABLE("it was answered above");
    }
    return CMD_DONE;
}

static enum cmd_result execute_delete(struct session *session, const struct mc_bin_request *request)
{
    struct engine_counters *counters = &session->engine->counters;
    enum mc_trouble trouble = mc_may_write(session, 0);
    struct store_key key;

    if (trouble != MC_FINE)
        return reply_trouble(session, request, trouble);
    mc_find(session, request->key, &key);
    if (key.entry == NULL) {
        counters->mc.delete_misses++;
        status_send(session, request, MC_BIN_NOT_FOUND);
        return CMD_DONE;
    }
    if (request->header.cas != 0 && request->header.cas != mc_cas(key.entry)) {
        status_send(session, request, MC_BIN_EXISTS);
        return CMD_DONE;
    }
    trouble = mc_remove(session, &key);
    if (trouble != MC_FINE)
        return reply_trouble(session, request, trouble);
    counters->mc.delete_hits++;
    mc_detail_note(session, MC_DETAIL_DELETE, request->key, true);
    reply_changed(session, request, 0);
    return CMD_DONE;
}

static void reply_number(struct session *session, const struct mc_bin_request *request, uint64_t number,
                         uint64_t cas)
{
    char text[8];

    if (request->is_quiet)
        return;
    number_put(text, sizeof(text), number);
    reply(session, request, MC_BIN_OK, cas, BYTES_EMPTY, BYTES_EMPTY, bytes_of(text, sizeof(text)));
}

static enum cmd_result number_create(struct session *session, const struct mc_bin_request *request)
{
    uint64_t initial = number_at(request->extras, 8, 8), expiration = number_at(request->extras, 16, 4);
    struct mc_put put = {.key = request->key, .mode = MC_MODE_ADD};
    char digits[21];

    put.expire_ms = mc_expire_ms(session, (int64_t)expiration);
    put.value = bytes_of(digits, u64_to_digits(initial, digits));
    switch (mc_store(session, &put)) {
    case MC_STORED: reply_number(session, request, initial, put.new_cas); break;
    case MC_STORE_TROUBLE: return reply_trouble(session, request, put.trouble);
    case MC_NOT_STORED:
    case MC_EXISTS:
    case MC_NOT_FOUND: status_send(session, request, MC_BIN_NOT_STORED); break;
    }
    return CMD_DONE;
}

static enum cmd_result execute_arithmetic(struct session *session, const struct mc_bin_request *request)
{
    struct engine_counters *counters = &session->engine->counters;
    struct mc_add add = {.key = request->key, .delta = number_at(request->extras, 0, 8),
                         .cas = request->header.cas, .is_decr = request->verb->id == MC_decr};

    switch (mc_add(session, &add)) {
    case MC_ADDED: reply_number(session, request, add.value, add.new_cas); break;
    case MC_ADD_NOT_FOUND:
        if (number_at(request->extras, 16, 4) != EXPIRATION_NO_CREATE)
            return number_create(session, request);
        counters->mc.incr_misses += !add.is_decr;
        counters->mc.decr_misses += add.is_decr;
        status_send(session, request, MC_BIN_NOT_FOUND);
        break;
    case MC_ADD_NON_NUMERIC: status_send(session, request, MC_BIN_NON_NUMERIC); break;
    case MC_ADD_EXISTS: status_send(session, request, MC_BIN_EXISTS); break;
    case MC_ADD_TROUBLE: return reply_trouble(session, request, add.trouble);
    }
    return CMD_DONE;
}

/* ---- about the server ------------------------------------------------------------------------ */

static enum cmd_result execute_flush(struct session *session, const struct mc_bin_request *request)
{
    int64_t delay_s = request->extras.len > 0 ? (int64_t)number_at(request->extras, 0, 4) : 0;
    enum mc_trouble trouble = mc_flush_all(session, delay_s);

    if (trouble != MC_FINE)
        return reply_trouble(session, request, trouble);
    reply_changed(session, request, 0);
    return CMD_DONE;
}

static void stat_frame(struct mc_stats_out *out, const char *name, const char *value)
{
    reply(out->session, out->arg, MC_BIN_OK, 0, BYTES_EMPTY, bytes_of_string(name), bytes_of_string(value));
}

/* "on", "off", "dump". False: neither. */
static bool execute_detail(struct session *session, const struct mc_bin_request *request, struct bytes word)
{
    struct mc *mc = session->engine->mc;
    struct buffer text = {0};

    if (bytes_equal(word, BYTES(" on")) || bytes_equal(word, BYTES(" off"))) {
        mc->has_detail = word.len == 3;
        return true;
    }
    if (!bytes_equal(word, BYTES(" dump")))
        return false;
    mc_detail_dump(mc, &text);
    reply(session, request, MC_BIN_OK, 0, BYTES_EMPTY, BYTES("detailed"), buffer_bytes(&text));
    buffer_deinit(&text);
    return true;
}

static void execute_stats(struct session *session, const struct mc_bin_request *request)
{
    struct mc_bin_request copy = *request;
    struct mc_stats_out out = {.stat = stat_frame, .session = session, .arg = &copy};
    struct bytes group = request->key;

    if (bytes_equal(bytes_first(group, 6), BYTES("detail"))) {
        if (!execute_detail(session, request, bytes_skip(group, 6))) {
            status_send(session, request, MC_BIN_NOT_FOUND);
            return;
        }
    } else if (bytes_equal(group, BYTES("reset"))) {
        mc_stats_reset(session->engine);
    } else if (!mc_stats(&out, group)) {
        status_send(session, request, MC_BIN_NOT_FOUND);
        return;
    }
    reply(session, request, MC_BIN_OK, 0, BYTES_EMPTY, BYTES_EMPTY, BYTES_EMPTY);
}

static enum cmd_result execute_other(struct session *session, const struct mc_bin_request *request)
{
    switch ((int)request->verb->id) {
    case MC_flush_all: return execute_flush(session, request);
    case MC_noop: status_send(session, request, MC_BIN_OK); break;
    case MC_version:
        reply(session, request, MC_BIN_OK, 0, BYTES_EMPTY, BYTES_EMPTY, BYTES(MC_VERSION));
        break;
    case MC_stats: execute_stats(session, request); break;
    case MC_quit:
        reply_changed(session, request, 0);
        session->close_after_reply = true;
        break;
    default: status_send(session, request, MC_BIN_UNKNOWN_COMMAND); break;
    }
    return CMD_DONE;
}

static enum cmd_result execute(struct session *session, const struct mc_bin_request *request)
{
    if (UNLIKELY(!session->is_authenticated) && request->verb->id != MC_version) {
        status_send(session, request, MC_BIN_AUTH_ERROR);
        session->close_after_reply = true;
        return CMD_DONE;
    }
    switch ((int)request->verb->id) {
    case MC_get:
    case MC_getk:
    case MC_gat:
    case MC_gatk:
    case MC_touch: return execute_get(session, request);
    case MC_set:
    case MC_add:
    case MC_replace:
    case MC_append:
    case MC_prepend: return execute_store(session, request);
    case MC_delete: return execute_delete(session, request);
    case MC_incr:
    case MC_decr: return execute_arithmetic(session, request);
    default: return execute_other(session, request);
    }
}

enum cmd_result mc_binary_execute(struct session *session, const struct mc_bin_request *request)
{
    if (UNLIKELY(request->error_status != 0)) {
        /* Never waits: the parser has already begun to throw the frame away. */
        mc_turn_begin(session);
        if (request->error_status == MC_BIN_TOO_LARGE) /* of 2 GiB and more there is no key, maybe no verb */
            mc_too_large(session, request->key, request->key.len > 0 && request->verb->id == MC_set);
        status_send(session, request, request->error_status);
        return mc_end(session, CMD_DONE);
    }
    if (UNLIKELY(!mc_begin(session, request->verb != NULL && request->verb->is_write)))
        return CMD_PARKED;
    return mc_end(session, execute(session, request));
}
