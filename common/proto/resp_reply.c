/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies.
 *
 * The scanner keeps a stack of the elements still owed by each open aggregate. A header, and the line of
 * a scalar, is taken whole or not at all; a bulk's bytes pass piece by piece. An attribute is an
 * aggregate that completes nothing: its place on the stack is marked.
 */
#include "common/proto/resp.h"

#define ATTRIBUTE_MARK (UINT64_C(1) << 63)
/* Elements of one aggregate; a billion-element reply is a broken server, not a big reply. */
#define COUNT_MAX UINT64_C(0x7fffffff)

#define BAD_TYPE     "unknown type"
#define BAD_LENGTH   "invalid length"
#define BAD_TOO_BIG  "length over the limit"
#define BAD_DEPTH    "nested too deep"
#define BAD_LINE     "invalid line"
#define BAD_LINE_MAX "line too long"
#define BAD_CRLF     "expected CRLF after bulk"
#define BAD_NUMBER   "invalid number"
#define BAD_PUSH     "push inside of a reply"

static enum parse_result bad(struct resp_reply_parser *parser, const char *error)
{
    parser->error = error;
    return PARSE_BAD;
}

/* ---- lines -------------------------------------------------------------------------------- */

/* The line at `p` up to its CRLF. MORE keeps how far it looked. */
static ALWAYS_INLINE enum parse_result find_line(struct resp_reply_parser *parser,
                                                 const struct proto_limits *limits, const char *p,
                                                 const char *end, struct bytes *line)
{
    size_t len = (size_t)(end - p);
    size_t off = parser->line_off;

    for (; off < len; off++) {
        if (p[off] == '\r') {
            if (off + 1 == len)
                break;
            if (UNLIKELY(p[off + 1] != '\n'))
                return bad(parser, BAD_LINE);
            *line = bytes_of(p, off);
            parser->line_off = 0;
            return PARSE_OK;
        }
        if (UNLIKELY(p[off] == '\n'))
            return bad(parser, BAD_LINE);
        if (UNLIKELY(off >= limits->line_max))
            return bad(parser, BAD_LINE_MAX);
    }
    parser->line_off = (uint32_t)off;
    return PARSE_MORE;
}

/* "-1" as well where `null_ok`: *out is -1 then. */
static enum parse_result line_length(struct resp_reply_parser *parser, struct bytes digits,
                                     bool null_ok, uint64_t max, int64_t *out)
{
    uint64_t value;

    if (null_ok && digits.len == 2 && digits.data[0] == '-' && digits.data[1] == '1') {
        *out = -1;
        return PARSE_OK;
    }
    if (!bytes_to_u64(digits, UINT64_MAX, &value))
        return bad(parser, BAD_LENGTH);
    if (value > max)
        return bad(parser, BAD_TOO_BIG);
    *out = (int64_t)value;
    return PARSE_OK;
}

static size_t skip_digits(struct bytes b, size_t off)
{
    while (off < b.len && b.data[off] >= '0' && b.data[off] <= '9')
        off++;
    return off;
}

/* [+-]digits[.digits][e[+-]digits], inf, -inf, nan: what servers print. */
static bool is_double(struct bytes b)
{
    size_t off = b.len > 0 && (b.data[0] == '-' || b.data[0] == '+') ? 1 : 0;
    size_t start = off;

    if (bytes_equal_nocase(bytes_skip(b, off), BYTES("inf")))
        return true;
    if (bytes_equal_nocase(bytes_skip(b, off), BYTES("nan")))
        return true;
    off = skip_digits(b, off);
    if (off == start)
        return false;
    if (off < b.len && b.data[off] == '.')
        off = skip_digits(b, off + 1);
    if (off < b.len && (b.data[off] == 'e' || b.data[off] == 'E')) {
        off++;
        if (off < b.len && (b.data[off] == '-' || b.data[off] == '+'))
            off++;
        start = off;
        off = skip_digits(b, off);
        if (off == start)
            return false;
    }
    return off == b.len;
}

static bool is_big_number(struct bytes b)
{
    size_t off = b.len > 0 && (b.data[0] == '-' || b.data[0] == '+') ? 1 : 0;

    return b.len > off && skip_digits(b, off) == b.len;
}

/* ---- the stack ---------------------------------------------------------------------------- */

/* A value is complete. True: so is the reply. */
static ALWAYS_INLINE bool value_done(struct resp_reply_parser *parser)
{
    while (parser->depth > 0) {
        uint64_t *left = &parser->remaining[parser->depth - 1];
        bool is_attribute = (*left & ATTRIBUTE_MARK) != 0;

        if ((--*left & ~ATTRIBUTE_MARK) != 0)
            return false;
        parser->depth--;
        if (is_attribute)
            return false; /* the value that it belongs to comes next */
    }
    return true;
}

/* An aggregate's header. *done: it was empty, and the reply is complete. */
static enum parse_result open_aggregate(struct resp_reply_parser *parser, char type, int64_t count,
                                        bool *done)
{
    bool is_attribute = type == '|';
    uint64_t left = (uint64_t)count;

    *done = false;
    if (type == '>' && parser->depth > 0)
        return bad(parser, BAD_PUSH);
    if (count <= 0) {
        *done = !is_attribute && value_done(parser);
        return PARSE_OK;
    }
    if (parser->depth == RESP_DEPTH_MAX)
        return bad(parser, BAD_DEPTH);
    if (type == '%' || is_attribute)
        left *= 2;
    parser->remaining[parser->depth++] = left | (is_attribute ? ATTRIBUTE_MARK : 0);
    return PARSE_OK;
}

/* ---- headers ------------------------------------------------------------------------------ */

/* The outermost value's header describes the reply. */
static ALWAYS_INLINE void describe(struct resp_reply_parser *parser, char type, int64_t integer,
                                   bool is_null)
{
    if (parser->depth == 0) {
        parser->type = type;
        parser->integer = integer;
        parser->is_null = is_null;
        parser->started = 1;
    }
}

static bool scalar_fits(char type, struct bytes text, int64_t *integer)
{
    switch (type) {
    case ':': return bytes_to_i64(text, integer);
    case '_': return text.len == 0;
    case '#': return text.len == 1 && (text.data[0] == 't' || text.data[0] == 'f');
    case ',': return is_double(text);
    case '(': return is_big_number(text);
    default: return true; /* + and -: any line */
    }
}

/* One header or scalar, `line` from its type byte on. *done: the reply is complete. */
static enum parse_result take_line(struct resp_reply_parser *parser, const struct proto_limits *limits,
                                   struct bytes line, bool *done)
{
    struct bytes text = bytes_skip(line, 1);
    char type = line.data[0];
    int64_t number = 0;
    enum parse_result result;

    *done = false;
    switch (type) {
    case '+': case '-': case ':': case '_': case '#': case ',': case '(':
        if (!scalar_fits(type, text, &number))
            return bad(parser, type == '_' || type == '#' ? BAD_LINE : BAD_NUMBER);
        describe(parser, type, number, type == '_');
        *done = value_done(parser);
        return PARSE_OK;
    case '$': case '!': case '=':
        result = line_length(parser, text, type == '$', limits->bulk_max, &number);
        if (result != PARSE_OK)
            return result;
        if (type == '=' && number < 4)
            return bad(parser, BAD_LENGTH); /* "txt:" at least */
        describe(parser, type, number, number < 0);
        if (number < 0)
            *done = value_done(parser);
        else
            parser->bulk_left = (uint64_t)number + 2;
        return PARSE_OK;
    case '*': case '%': case '~': case '|': case '>':
        result = line_length(parser, text, type == '*', COUNT_MAX, &number);
        if (result != PARSE_OK)
            return result;
        if (type != '|')
            describe(parser, type, number, number < 0);
        return open_aggregate(parser, type, number, done);
    default:
        return bad(parser, BAD_TYPE);
    }
}

static bool is_type(char c)
{
    switch (c) {
    case '+': case '-': case ':': case '$': case '*': case '_': case ',': case '#':
    case '!': case '=': case '(': case '%': case '~': case '|': case '>':
        return true;
    default:
        return false;
    }
}

/* Passes what is there of a bulk, its CRLF included. */
static ALWAYS_INLINE enum parse_result pass_bulk(struct resp_reply_parser *parser, const char **at,
                                                 const char *end)
{
    const char *p = *at;
    uint64_t have = (uint64_t)(end - p);

    if (parser->bulk_left > 2) {
        uint64_t step = MIN(parser->bulk_left - 2, have);

        p += step;
        parser->bulk_left -= step;
        *at = p;
    }
    for (; parser->bulk_left <= 2 && parser->bulk_left > 0 && p < end; p++) {
        if (UNLIKELY(*p != (parser->bulk_left == 2 ? '\r' : '\n')))
            return bad(parser, BAD_CRLF);
        parser->bulk_left--;
    }
    *at = p;
    return parser->bulk_left == 0 ? PARSE_OK : PARSE_MORE;
}

/* Length of the whole "$n" or "$-1" at p; 0: it is something else, or not whole, or wrong: that is for
 * the careful way to say. */
static ALWAYS_INLINE size_t whole_bulk_len(const char *p, const char *end, uint64_t bulk_max)
{
    const char *at = p + 2;
    uint64_t len, digit;

    if (UNLIKELY(end - p < 5 || p[0] != '$'))
        return 0;
    len = (uint64_t)(unsigned char)p[1] - '0';
    if (UNLIKELY(len > 9))
        return memcmp(p, "$-1\r\n", 5) == 0 ? 5 : 0;
    if (len > 0) {
        while (at < end && (digit = (uint64_t)(unsigned char)*at - '0') <= 9 && len <= bulk_max) {
            len = len * 10 + digit;
            at++;
        }
    }
    if (UNLIKELY((uint64_t)(end - at) < 4 || len > bulk_max || len > (uint64_t)(end - at) - 4))
        return 0;
    if (UNLIKELY(at[0] != '\r' || at[1] != '\n' || at[2 + len] != '\r' || at[3 + len] != '\n'))
        return 0;
    return (size_t)(at - p) + (size_t)len + 4;
}

/* What most long replies are made of: whole bulks, one behind the other, but for the last of their
 * aggregate, which may end more than itself. */
static ALWAYS_INLINE const char *pass_whole_bulks(struct resp_reply_parser *parser,
                                                  const struct proto_limits *limits, const char *p,
                                                  const char *end)
{
    uint64_t *left = &parser->remaining[parser->depth - 1];
    size_t len;

    while ((*left & ~ATTRIBUTE_MARK) > 1 && (len = whole_bulk_len(p, end, limits->bulk_max)) > 0) {
        p += len;
        --*left;
    }
    return p;
}

/* Ready for the next reply; type, is_null and integer stay to be read. */
static ALWAYS_INLINE enum parse_result reply_done(struct resp_reply_parser *parser)
{
    ASSERT(parser->depth == 0 && parser->bulk_left == 0);
    parser->started = 0;
    parser->need = 0;
    return PARSE_OK;
}

enum parse_result resp_reply_scan(struct resp_reply_parser *parser, const struct proto_limits *limits,
                                  struct bytes data, size_t *scanned)
{
    const char *p = data.data;
    const char *end = data.data + data.len;

    for (;;) {
        enum parse_result result;
        struct bytes line;
        bool done;

        if (parser->bulk_left > 0) {
            result = pass_bulk(parser, &p, end);
            *scanned = (size_t)(p - data.data);
            if (result != PARSE_OK) {
                parser->need = 1;
                return result;
            }
            if (value_done(parser))
                return reply_done(parser);
        }
        if (parser->depth > 0 && parser->line_off == 0)
            p = pass_whole_bulks(parser, limits, p, end);
        *scanned = (size_t)(p - data.data);
        if (p == end) {
            parser->need = 1;
            return PARSE_MORE;
        }
        if (UNLIKELY(!is_type(*p)))
            return bad(parser, BAD_TYPE);
        result = find_line(parser, limits, p, end, &line);
        if (UNLIKELY(result != PARSE_OK)) {
            parser->need = (uint32_t)(end - p) + 1;
            return result;
        }
        p += line.len + 2;
        result = take_line(parser, limits, line, &done);
        if (UNLIKELY(result != PARSE_OK))
            return result;
        *scanned = (size_t)(p - data.data);
        if (done)
            return reply_done(parser);
    }
}

/* ---- reading complete values -------------------------------------------------------------- */

bool resp_next(struct bytes *cursor, struct resp_value *out)
{
    const char *newline;
    struct bytes text;
    int64_t number = 0;

    *out = (struct resp_value){.payload = BYTES_EMPTY};
    if (cursor->len < 3)
        return false;
    newline = memchr(cursor->data, '\n', cursor->len);
    if (newline == NULL || newline - cursor->data < 2 || newline[-1] != '\r')
        return false;
    out->type = cursor->data[0];
    text = bytes_of(cursor->data + 1, (size_t)(newline - cursor->data) - 2);
    switch (out->type) {
    case '+': case '-': case ':': case '_': case '#': case ',': case '(':
        if (!scalar_fits(out->type, text, &number))
            return false;
        out->payload = text;
        out->is_null = out->type == '_';
        break;
    case '$': case '!': case '=': case '*': case '%': case '~': case '|': case '>':
        if (!bytes_to_i64(text, &number) || number < -1)
            return false;
        out->is_null = number < 0;
        break;
    default:
        return false;
    }
    out->integer = number;
    *cursor = bytes_skip(*cursor, (size_t)(newline - cursor->data) + 1);
    if ((out->type == '$' || out->type == '!' || out->type == '=') && number >= 0) {
        if (cursor->len < 2 || (uint64_t)number > cursor->len - 2)
            return false;
        out->payload = bytes_first(*cursor, (size_t)number);
        *cursor = bytes_skip(*cursor, (size_t)number + 2);
    }
    return true;
}

static NOINLINE size_t value_len_any(struct bytes data)
{
    struct resp_reply_parser parser = {0};
    const struct proto_limits limits = {.line_max = UINT32_MAX, .bulk_max = UINT32_MAX};
    size_t scanned;

    if (data.len == 0 || resp_reply_scan(&parser, &limits, data, &scanned) != PARSE_OK)
        return 0;
    return scanned;
}

size_t resp_bulks_scan(struct bytes data, const struct proto_limits *limits, uint32_t count, uint32_t *lens)
{
    const char *p = data.data, *end = data.data + data.len;
    char header[RESP_HEADER_MAX];
    size_t len = resp_compose_header(header, '*', (int64_t)count);

    if (data.len < len || memcmp(p, header, len) != 0)
        return 0;
    p += len;
    for (uint32_t i = 0; i < count; i++) {
        len = whole_bulk_len(p, end, limits->bulk_max);
        if (UNLIKELY(len == 0))
            return 0;
        lens[i] = (uint32_t)len;
        p += len;
    }
    return (size_t)(p - data.data);
}

size_t resp_value_len(struct bytes data)
{
    size_t len = data.len == 0 ? 0 : whole_bulk_len(data.data, data.data + data.len, UINT32_MAX);

    return LIKELY(len > 0) ? len : value_len_any(data);
}
