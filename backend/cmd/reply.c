/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cmd/reply.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/settings.h"
#include "common/proto/resp.h"

#include <stdarg.h>
#include <stdio.h>

#define ERROR_TEXT_MAX 1024u
/* A bulk up to this size is written in one go, header, bytes and line end. */
#define BULK_WHOLE_MAX 2048u
/* A value from this size on is sent from where it lies. */
#define SHARE_MIN 16384u
/* Up to here the end of the turn is early enough to look at an output limit. */
#define LIMIT_CHECK_MIN 16384u

/* ---- bytes -------------------------------------------------------------------------------------- */

static NOINLINE void append_failed(struct session *s)
{
    s->is_killed = true;
    s->io->kill(s);
}

/* What is above the hard limit is not composed to its end, however much there is to say (client-output-buffer-limit). */
static NOINLINE void check_limit(struct session *s)
{
    uint64_t hard = session_output_limit(s)->hard;

    if (UNLIKELY(hard != 0 && s->out.len > hard))
        append_failed(s);
}

static ALWAYS_INLINE void appended(struct session *s)
{
    if (UNLIKELY(s->out.len > LIMIT_CHECK_MIN))
        check_limit(s);
}

static ALWAYS_INLINE void append(struct session *s, const char *data, size_t len)
{
    if (UNLIKELY(s->is_killed))
        return;
    if (UNLIKELY(!outbuf_append(&s->engine->chunks, &s->out, data, len)))
        append_failed(s);
    else
        appended(s);
}

static ALWAYS_INLINE bool is_muted(const struct session *s)
{
    return UNLIKELY(s->reply_mode == SESSION_REPLY_OFF || s->reply_mode == SESSION_REPLY_SKIP);
}

static ALWAYS_INLINE void append_header(struct session *s, char type, int64_t number)
{
    char header[RESP_HEADER_MAX];

    append(s, header, resp_compose_header(header, type, number));
}

static void append_bulk(struct session *s, struct bytes bytes)
{
    char *at;
    size_t len;

    if (UNLIKELY(s->is_killed))
        return;
    if (UNLIKELY(bytes.len > BULK_WHOLE_MAX)) {
        append_header(s, '$', (int64_t)bytes.len);
        append(s, bytes.data, bytes.len);
        append(s, "\r\n", 2);
        return;
    }
    at = outbuf_reserve(&s->engine->chunks, &s->out, bytes.len + RESP_HEADER_MAX + 2);
    if (UNLIKELY(at == NULL)) {
        append_failed(s);
        return;
    }
    len = resp_compose_header(at, '$', (int64_t)bytes.len);
    if (bytes.len > 0)
        memcpy(at + len, bytes.data, bytes.len);
    memcpy(at + len + bytes.len, "\r\n", 2);
    outbuf_commit(&s->out, len + bytes.len + 2);
    appended(s);
}

static void append_value(struct session *s, const struct entry *string)
{
    struct bytes value = store_string(string);
    char *shared = value.len >= SHARE_MIN ? store_string_shared(string) : NULL;

    if (shared == NULL)
        append(s, value.data, value.len);
    else if (s->is_killed)
        return;
    else if (!outbuf_append_shared(&s->engine->chunks, &s->out, shared, (uint32_t)value.len))
        append_failed(s);
    else
        appended(s);
}

void reply_raw_value(struct session *s, const struct entry *string)
{
    if (!is_muted(s))
        append_value(s, string);
}

void reply_raw(struct session *s, struct bytes bytes)
{
    if (!is_muted(s))
        append(s, bytes.data, bytes.len);
}

/* ---- lines -------------------------------------------------------------------------------------- */

void reply_ok(struct cmd *c)
{
    reply_raw(c->session, BYTES("+OK\r\n"));
}

/* An end of line within would be taken for the end of the reply. */
static void append_line(struct session *s, char type, const char *text)
{
    char line[ERROR_TEXT_MAX + 3];
    size_t len = strnlen(text, ERROR_TEXT_MAX);

    if (is_muted(s))
        return;
    line[0] = type;
    for (size_t i = 0; i < len; i++)
        line[1 + i] = text[i] == '\r' || text[i] == '\n' ? ' ' : text[i];
    memcpy(line + 1 + len, "\r\n", 2);
    append(s, line, len + 3);
}

void reply_status(struct cmd *c, const char *text)
{
    append_line(c->session, '+', text);
}

void reply_error(struct cmd *c, const char *text)
{
    c->has_failed = true;
    c->engine->counters.errors++;
    engine_error_note(c->engine, text);
    append_line(c->session, '-', text);
}

void reply_error_format(struct cmd *c, const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;

    va_start(args, format);
    if (vsnprintf(text, sizeof(text), format, args) < 0)
        text[0] = '\0';
    va_end(args);
    reply_error(c, text);
}

/* ---- values ------------------------------------------------------------------------------------- */

void reply_integer(struct cmd *c, int64_t number)
{
    if (!is_muted(c->session))
        append_header(c->session, ':', number);
}

void reply_bulk(struct cmd *c, struct bytes bytes)
{
    if (!is_muted(c->session))
        append_bulk(c->session, bytes);
}

void reply_bulk_value(struct cmd *c, const struct entry *string)
{
    struct bytes value = store_string(string);

    if (LIKELY(value.len < SHARE_MIN)) {
        reply_bulk(c, value);
    } else if (!is_muted(c->session)) {
        append_header(c->session, '$', (int64_t)value.len);
        append_value(c->session, string);
        append(c->session, "\r\n", 2);
    }
}

void reply_bulk_string(struct cmd *c, const char *string)
{
    reply_bulk(c, bytes_of_string(string));
}

void reply_bulk_integer(struct cmd *c, int64_t number)
{
    char digits[21];

    reply_bulk(c, bytes_of(digits, i64_to_digits(number, digits)));
}

void reply_null(struct cmd *c)
{
    reply_raw(c->session, c->session->resp == 2 ? BYTES("$-1\r\n") : BYTES("_\r\n"));
}

void reply_null_array(struct cmd *c)
{
    reply_raw(c->session, c->session->resp == 2 ? BYTES("*-1\r\n") : BYTES("_\r\n"));
}

static void reply_aggregate(struct cmd *c, char type, uint64_t count)
{
    if (!is_muted(c->session))
        append_header(c->session, c->session->resp == 2 ? '*' : type, (int64_t)count);
}

void reply_array(struct cmd *c, uint64_t count)
{
    reply_aggregate(c, '*', count);
}

void reply_map(struct cmd *c, uint64_t pairs)
{
    reply_aggregate(c, '%', c->session->resp == 2 ? pairs * 2 : pairs);
}

void reply_set(struct cmd *c, uint64_t count)
{
    reply_aggregate(c, '~', count);
}

void reply_push(struct cmd *c, uint64_t count)
{
    reply_aggregate(c, '>', count);
}

void reply_bool(struct cmd *c, bool value)
{
    if (c->session->resp == 2)
        reply_integer(c, value);
    else
        reply_raw(c->session, value ? BYTES("#t\r\n") : BYTES("#f\r\n"));
}

void reply_double(struct cmd *c, double value)
{
    char text[FORMAT_DOUBLE_MAX + 3];
    size_t len = format_double(value, text + 1);

    if (c->session->resp == 2) {
        reply_bulk(c, bytes_of(text + 1, len));
        return;
    }
    text[0] = ',';
    memcpy(text + 1 + len, "\r\n", 2);
    reply_raw(c->session, bytes_of(text, len + 3));
}

void reply_human_double(struct cmd *c, long double value)
{
    char text[FORMAT_HUMAN_DOUBLE_MAX];

    reply_bulk(c, bytes_of(text, format_human_double(value, text)));
}

void reply_verbatim(struct cmd *c, const char *format, struct bytes text)
{
    struct session *s = c->session;

    if (s->resp == 2) {
        reply_bulk(c, text);
        return;
    }
    if (is_muted(s))
        return;
    append_header(s, '=', (int64_t)text.len + 4);
    append(s, format, 3);
    append(s, ":", 1);
    append(s, text.data, text.len);
    append(s, "\r\n", 2);
}

void reply_bignum(struct cmd *c, struct bytes digits)
{
    struct session *s = c->session;

    if (s->resp == 2) {
        reply_bulk(c, digits);
        return;
    }
    reply_raw(s, BYTES("("));
    reply_raw(s, digits);
    reply_raw(s, BYTES("\r\n"));
}

/* ---- to a session that is not the command's own ---------------------------------------------------- */

/* CLIENT REPLY OFF is about replies: what a client subscribed to it still gets. */
void reply_session_push(struct session *s, uint64_t count)
{
    append_header(s, s->resp == 2 ? '*' : '>', (int64_t)count);
    s->io->dirty(s);
}

void reply_session_bulk(struct session *s, struct bytes bytes)
{
    append_bulk(s, bytes);
}

void reply_session_integer(struct session *s, int64_t number)
{
    append_header(s, ':', number);
}

void reply_session_null(struct session *s)
{
    if (s->resp == 2)
        append(s, "$-1\r\n", 5);
    else
        append(s, "_\r\n", 3);
}

/* ---- counts that come at the end ------------------------------------------------------------------- */

void reply_count_later(struct cmd *c)
{
    ASSERT(c->count_depth < REPLY_COUNTS_MAX);
    c->counts[c->count_depth++] = c->session->out;
    c->session->out = (struct outbuf){0};
}

static void count_end(struct cmd *c, char type, uint64_t count)
{
    struct session *s = c->session;
    struct outbuf elements = s->out;

    ASSERT(c->count_depth > 0);
    s->out = c->counts[--c->count_depth];
    reply_aggregate(c, type, count);
    outbuf_splice(&s->out, &elements);
}

void reply_count_array(struct cmd *c, uint64_t count)
{
    count_end(c, '*', count);
}

void reply_count_map(struct cmd *c, uint64_t pairs)
{
    count_end(c, '%', c->session->resp == 2 ? pairs * 2 : pairs);
}

void reply_count_set(struct cmd *c, uint64_t count)
{
    count_end(c, '~', count);
}

void reply_take_back(struct cmd *c, size_t len)
{
    struct session *s = c->session;

    while (c->count_depth > 0) {
        outbuf_clear(&c->engine->chunks, &s->out);
        s->out = c->counts[--c->count_depth];
    }
    if (s->out.len > len)
        outbuf_truncate(&c->engine->chunks, &s->out, len);
}
