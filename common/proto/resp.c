/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests.
 *
 * A frame is read from left to right, and the first byte that cannot be right decides the error: so the
 * answer does not depend on how the stream was cut, although a bad byte is reported as soon as it is
 * seen, not when its line ends. (The two bytes behind a bulk are looked at together.)
 *
 * A multibulk is first read in one pass that stores the arguments. If it is incomplete, the parser
 * remembers the header at which it stopped; the next calls go on from there and store nothing (the
 * bytes may have moved, and the room for arguments is shared by all clients). Only when the end is
 * there the headers are read a second time, now to store: the cost is the new bytes and one walk.
 */
#include "common/proto/resp.h"
#include "common/base/mem.h"

#define UNAUTH_ARGS_MAX 10u
#define UNAUTH_BULK_MAX 16384u

#define ARGS_CAP_START 64u
#define ARGS_CAP_KEPT  1024u
#define INLINE_CAP_KEPT 65536u

#define NEGATIVE_MAX 999999999999999999u

#define BAD_MULTIBULK "Protocol error: invalid multibulk length"
#define BAD_BULK      "Protocol error: invalid bulk length"
#define UNAUTH_MULTIBULK "Protocol error: unauthenticated multibulk length"
#define UNAUTH_BULK      "Protocol error: unauthenticated bulk length"
#define BAD_DOLLAR    "Protocol error: expected '$', got '%c'"
#define BAD_CRLF      "Protocol error: expected CRLF after bulk"
#define BAD_QUOTES    "Protocol error: unbalanced quotes in request"
#define BAD_INLINE    "Protocol error: too big inline request"
#define BAD_BYTE      "Protocol error: invalid byte"
#define BAD_SIZE      "Protocol error: too big request"
#define BAD_MEMORY    "Protocol error: out of memory"

/* Offsets are 32 bits: what ends beyond this is refused before it is awaited. */
#define FRAME_MAX (UINT32_MAX - 64u)

void resp_args_init(struct resp_args *args)
{
    *args = (struct resp_args){0};
}

void resp_args_deinit(struct resp_args *args)
{
    mem_free(args->items);
    mem_free(args->inline_text);
    *args = (struct resp_args){0};
}

void resp_args_trim(struct resp_args *args)
{
    if (args->cap > ARGS_CAP_KEPT) {
        mem_free(args->items);
        args->items = NULL;
        args->cap = 0;
    }
    if (args->inline_cap > INLINE_CAP_KEPT) {
        mem_free(args->inline_text);
        args->inline_text = NULL;
        args->inline_cap = 0;
    }
}

/* Room for one more than `count`. Grows with what came, not with what was announced. */
static NOINLINE bool args_grow(struct resp_args *args, uint32_t count)
{
    uint32_t cap = MAX(args->cap * 2, ARGS_CAP_START);
    struct bytes *items = mem_realloc(args->items, (size_t)cap * sizeof(*items));

    ASSERT(count < cap);
    if (items == NULL)
        return false;
    args->items = items;
    args->cap = cap;
    return true;
}

/* Gives the parser back for the next frame. */
static enum parse_result bad(struct resp_parser *parser, struct resp_request *out, const char *error)
{
    *parser = (struct resp_parser){0};
    out->error = error;
    return PARSE_BAD;
}

static enum parse_result more(struct resp_parser *parser, uint64_t need)
{
    parser->need = (uint32_t)MIN(need, (uint64_t)UINT32_MAX);
    return PARSE_MORE;
}

/* ---- multibulk ---------------------------------------------------------------------------- */

/* Plain decimal digits and CRLF at *at; *at moves behind them. */
static ALWAYS_INLINE enum parse_result read_length(const char **at, const char *end, uint64_t max,
                                                   uint64_t *out)
{
    const char *p = *at;
    uint64_t value;

    if (UNLIKELY(p == end))
        return PARSE_MORE;
    value = (uint64_t)(unsigned char)*p - '0';
    if (UNLIKELY(value > 9))
        return PARSE_BAD;
    p++;
    if (p < end && *p != '\r') {
        if (UNLIKELY(value == 0))
            return PARSE_BAD; /* a leading zero, or something else after it */
        do {
            uint64_t digit = (uint64_t)(unsigned char)*p - '0';

            if (UNLIKELY(digit > 9))
                return PARSE_BAD;
            value = value * 10 + digit;
            if (UNLIKELY(value > max))
                return PARSE_BAD;
            p++;
        } while (p < end && *p != '\r');
    }
    if (UNLIKELY(value > max))
        return PARSE_BAD;
    if (UNLIKELY(end - p < 2))
        return PARSE_MORE;
    if (UNLIKELY(p[1] != '\n'))
        return PARSE_BAD;
    *at = p + 2;
    *out = value;
    return PARSE_OK;
}

/* A count below zero is an empty request, as in Redis (which takes 19 digits). `at` is at the '-'. */
static NOINLINE enum parse_result read_negative_count(const char **at, const char *end)
{
    const char *p = *at + 1;
    enum parse_result result;
    uint64_t value = 0;

    if (p < end && *p == '0')
        return PARSE_BAD;
    result = read_length(&p, end, NEGATIVE_MAX, &value);
    if (result != PARSE_OK)
        return result;
    *at = p;
    return PARSE_OK;
}

static enum parse_result bad_dollar(struct resp_parser *parser, struct resp_request *out, char byte)
{
    unsigned char value = (unsigned char)byte;

    /* The byte goes into an error line: nothing that could end or hide it. */
    out->error_byte = byte == '\r' || byte == '\n' ? ' ' : value < 0x20 || value == 0x7f ? '?' : byte;
    return bad(parser, out, BAD_DOLLAR);
}

/* An argument whose length is known but whose bytes are not all there. */
static enum parse_result arg_incomplete(struct resp_parser *parser, struct resp_args *args, bool store,
                                        struct bytes data, size_t off, uint64_t len, uint32_t argc,
                                        struct resp_request *out)
{
    if (store) {
        if (argc == args->cap && !args_grow(args, argc))
            return bad(parser, out, BAD_MEMORY);
        args->items[argc] = bytes_first(bytes_skip(data, off), len);
        out->argv = args->items;
        out->partial_argc = argc + 1;
        out->partial_arg_len = len;
        out->partial_arg_off = off;
    }
    return more(parser, off + len + 2);
}

/* Reads arguments from `off` on until `total` are there. */
static ALWAYS_INLINE enum parse_result read_args(struct resp_parser *parser, struct resp_args *args,
                                                 const struct proto_limits *limits,
                                                 struct bytes data, size_t off, uint32_t argc,
                                                 uint32_t total, bool store,
                                                 struct resp_request *out)
{
    const char *end = data.data + data.len;
    const char *p = data.data + off;
    uint64_t len = 0;

    for (; argc < total; argc++) {
        const char *header = p;
        enum parse_result result;

        if (UNLIKELY(p == end)) {
            result = PARSE_MORE;
        } else {
            if (UNLIKELY(*p != '$'))
                return bad_dollar(parser, out, *p);
            p++;
            result = read_length(&p, end, limits->bulk_max, &len);
            if (UNLIKELY(result == PARSE_BAD))
                return bad(parser, out, BAD_BULK);
            if (UNLIKELY(result == PARSE_OK && len > UNAUTH_BULK_MAX) && limits->is_unauthenticated)
                return bad(parser, out, UNAUTH_BULK);
        }
        parser->scan_off = (uint32_t)(header - data.data);
        parser->args_left = total - argc;
        if (UNLIKELY(result == PARSE_MORE)) {
            if (store) {
                out->argv = args->items;
                out->partial_argc = argc;
            }
            return more(parser, data.len + 1);
        }
        off = (size_t)(p - data.data);
        if (UNLIKELY(off + len + 2 > FRAME_MAX))
            return bad(parser, out, BAD_SIZE);
        if (UNLIKELY((uint64_t)(end - p) < len + 2))
            return arg_incomplete(parser, args, store, data, off, len, argc, out);
        if (UNLIKELY(p[len] != '\r' || p[len + 1] != '\n'))
            return bad(parser, out, BAD_CRLF);
        if (store) {
            if (UNLIKELY(argc == args->cap) && !args_grow(args, argc))
                return bad(parser, out, BAD_MEMORY);
            args->items[argc] = (struct bytes){.data = p, .len = (size_t)len};
            out->partial_arg_len = len;
            out->partial_arg_off = off;
        }
        p += len + 2;
    }
    out->len = (size_t)(p - data.data);
    return PARSE_OK;
}

static NOINLINE enum parse_result skip_args(struct resp_parser *parser,
                                            const struct proto_limits *limits, struct bytes data,
                                            struct resp_request *out)
{
    return read_args(parser, NULL, limits, data, parser->scan_off,
                     parser->arg_count - parser->args_left, parser->arg_count, false, out);
}

static ALWAYS_INLINE enum parse_result parse_multibulk(struct resp_parser *parser,
                                                       struct resp_args *args,
                                                       const struct proto_limits *limits,
                                                       struct bytes data, struct resp_request *out)
{
    const char *p = data.data + 1;
    const char *end = data.data + data.len;
    uint64_t count = 0;
    enum parse_result result;

    if (p < end && UNLIKELY(*p == '-'))
        result = read_negative_count(&p, end);
    else
        result = read_length(&p, end, limits->args_max, &count);
    if (UNLIKELY(result == PARSE_BAD))
        return bad(parser, out, BAD_MULTIBULK);
    if (UNLIKELY(result == PARSE_MORE))
        return more(parser, data.len + 1);
    if (UNLIKELY(count > UNAUTH_ARGS_MAX) && limits->is_unauthenticated)
        return bad(parser, out, UNAUTH_MULTIBULK);
    out->total_argc = parser->arg_count = (uint32_t)count;
    result = read_args(parser, args, limits, data, (size_t)(p - data.data), 0, (uint32_t)count, true,
                       out);
    if (LIKELY(result == PARSE_OK)) {
        out->argc = (uint32_t)count;
        out->argv = args->items;
        *parser = (struct resp_parser){0};
    }
    return result;
}

/* ---- inline ------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The escape behind a backslash within double quotes, at *at (not at the end). */
static char unescape(const char **at, const char *end)
{
    const char *p = *at;

    if (*p == 'x' && end - p >= 3 && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0) {
        *at = p + 3;
        return (char)(hex_digit(p[1]) << 4 | hex_digit(p[2]));
    }
    *at = p + 1;
    switch (*p) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'b': return '\b';
    case 'a': return '\a';
    default: return *p;
    }
}

/* A quoted part from behind its opening quote to behind its closing one; the unquoted bytes go to *to.
 * False: unbalanced. */
static bool unquote(const char **at, const char *end, char quote, char **to)
{
    const char *p = *at;

    while (p < end) {
        if (*p == quote) {
            *at = p + 1;
            return p + 1 == end || is_blank(p[1]);
        }
        if (quote == '"' && *p == '\\' && p + 1 < end) {
            p++;
            *(*to)++ = unescape(&p, end);
        } else if (quote == '\'' && *p == '\\' && p + 1 < end && p[1] == '\'') {
            *(*to)++ = '\'';
            p += 2;
        } else {
            *(*to)++ = *p++;
        }
    }
    return false;
}

/* One argument by the rules of Redis's sdssplitargs(): quotes may start in the middle of a word, a
 * closing one ends it. */
static bool split_word(const char **at, const char *end, char **to)
{
    while (*at < end) {
        char c = *(*at)++;

        if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
            return true;
        if (c == '"' || c == '\'') {
            return unquote(at, end, c, to);
        }
        *(*to)++ = c;
    }
    return true;
}

static const char *split_line(struct resp_args *args, const struct proto_limits *limits,
                              struct bytes line, uint32_t *argc)
{
    const char *p = line.data;
    const char *end = line.data + line.len;
    char *to;

    *argc = 0;
    if (line.len > args->inline_cap) {
        uint32_t cap = (uint32_t)MAX(line.len, (size_t)1024);
        char *text = mem_realloc(args->inline_text, cap);

        if (text == NULL)
            return BAD_MEMORY;
        args->inline_text = text;
        args->inline_cap = cap;
    }
    to = args->inline_text;
    for (;;) {
        char *start = to;

        while (p < end && is_blank(*p))
            p++;
        if (p == end)
            return NULL;
        if (*argc >= limits->args_max)
            return BAD_MULTIBULK;
        if (*argc == args->cap && !args_grow(args, *argc))
            return BAD_MEMORY;
        if (!split_word(&p, end, &to))
            return BAD_QUOTES;
        args->items[(*argc)++] = bytes_of(start, (size_t)(to - start));
    }
}

static NOINLINE enum parse_result parse_inline(struct resp_parser *parser, struct resp_args *args,
                                               const struct proto_limits *limits, struct bytes data,
                                               struct resp_request *out)
{
    size_t window = MIN(data.len, (size_t)limits->line_max + 1); /* the newline is within, or never */
    const char *from = data.data + MIN((size_t)parser->scan_off, window);
    size_t left = window - (size_t)(from - data.data);
    const char *newline = left > 0 ? memchr(from, '\n', left) : NULL;
    struct bytes line;
    const char *error;

    if (newline != NULL)
        left = (size_t)(newline - from);
    if (left > 0 && memchr(from, '\0', left) != NULL)
        return bad(parser, out, BAD_BYTE);
    if (newline == NULL) {
        if (window > limits->line_max)
            return bad(parser, out, BAD_INLINE);
        parser->scan_off = (uint32_t)data.len;
        return more(parser, data.len + 1);
    }
    line = bytes_of(data.data, (size_t)(newline - data.data));
    if (line.len > 0 && line.data[line.len - 1] == '\r')
        line.len--;
    error = split_line(args, limits, line, &out->argc);
    if (error != NULL)
        return bad(parser, out, error);
    out->len = (size_t)(newline - data.data) + 1;
    out->argv = args->items;
    out->is_inline = true;
    out->total_argc = out->argc;
    *parser = (struct resp_parser){0};
    return PARSE_OK;
}

enum parse_result resp_parse(struct resp_parser *parser, struct resp_args *args,
                             const struct proto_limits *limits, struct bytes data,
                             bool want_partial, struct resp_request *out)
{
    ASSERT(data.len > 0);
    out->len = 0;
    out->argc = 0;
    out->is_inline = false;
    out->error = NULL;
    out->partial_argc = 0;
    out->partial_arg_len = 0;
    out->partial_arg_off = 0;
    if (UNLIKELY(data.data[0] != '*')) {
        out->total_argc = 0;
        return parse_inline(parser, args, limits, data, out);
    }
    if (UNLIKELY(parser->scan_off > 0 && !want_partial)) {
        enum parse_result result;

        out->total_argc = parser->arg_count;
        if (data.len < parser->need)
            return PARSE_MORE;
        result = skip_args(parser, limits, data, out);
        if (result != PARSE_OK)
            return result;
    }
    return parse_multibulk(parser, args, limits, data, out);
}

/* ---- composing ---------------------------------------------------------------------------- */

size_t resp_compose_header(char out[RESP_HEADER_MAX], char type, int64_t number)
{
    size_t len = 1;

    out[0] = type;
    if (LIKELY(number >= 0 && number < 10))
        out[len++] = (char)('0' + number);
    else
        len += i64_to_digits(number, out + len);
    out[len++] = '\r';
    out[len++] = '\n';
    return len;
}
