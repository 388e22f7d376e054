/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache_reply.c - what servers answer: scanned, never decoded further than needed.
 *
 *     FIRST --VALUE, VA--> DATA --CRLF--> LATER (VALUE) or done (VA)
 *       |                   ^               |
 *       |                   '----VALUE------'
 *       '--- any last line: done ---'
 *
 * Strict, as a server that says something else than what may be said here is not where we think it is
 * in the stream: every line ends in CRLF, lengths are plain decimals, and the word must be one that this
 * verb is answered with.
 */
#include "common/proto/memcache_private.h"

enum reply_phase { PHASE_FIRST, PHASE_LATER, PHASE_DATA };

enum line_kind {
    LINE_BAD,
    LINE_LAST,  /* the reply ends here */
    LINE_END,   /* it ends with END */
    LINE_ERROR, /* it ends with an error */
    LINE_ITEM,  /* a block follows */
    LINE_PASS,  /* more lines follow */
};

static bool is_text(struct bytes line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.data[i];

        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool starts_with(struct bytes line, const char *word, size_t len)
{
    return line.len >= len && memcmp(line.data, word, len) == 0;
}
#define STARTS_WITH(line, literal) starts_with((line), (literal), sizeof(literal) - 1)

/* Up to the next single blank or the end; what is behind the blank stays in *line. */
static struct bytes field_take(struct bytes *line)
{
    const char *blank = line->len == 0 ? NULL : memchr(line->data, ' ', line->len);
    struct bytes field = *line;

    if (blank != NULL)
        field.len = (size_t)(blank - line->data);
    *line = bytes_skip(*line, field.len + (blank != NULL));
    return field;
}

static bool is_key(struct bytes key, const struct proto_limits *limits)
{
    return key.len > 0 && key.len <= limits->key_max && is_text(key) &&
           memchr(key.data, '\t', key.len) == NULL;
}

/* "VALUE key flags bytes[ cas]" */
static enum line_kind value_line(struct bytes line, const struct proto_limits *limits,
                                 struct mc_reply *out)
{
    struct bytes rest = bytes_skip(line, 6), key = field_take(&rest), flags = field_take(&rest),
                 len = field_take(&rest);
    uint64_t number;

    if (!is_key(key, limits) || !bytes_to_u64(flags, UINT64_MAX, &number) ||
        !bytes_to_u64(len, MC_REPLY_VALUE_MAX, &out->item_data_len))
        return LINE_BAD;
    /* Behind the length: nothing, or one blank and the token of gets. */
    if (len.data + len.len != line.data + line.len && !bytes_to_u64(rest, UINT64_MAX, &number))
        return LINE_BAD;
    out->item_key = key;
    return LINE_ITEM;
}

static enum line_kind get_line(struct bytes line, const struct proto_limits *limits,
                               struct mc_reply *out)
{
    if (LIKELY(STARTS_WITH(line, "VALUE ")))
        return value_line(line, limits, out);
    return MC_BYTES_ARE(line, "END") ? LINE_END : LINE_BAD;
}

static enum line_kind store_line(struct bytes line, enum mc_verb verb)
{
    if (LIKELY(MC_BYTES_ARE(line, "STORED")) || MC_BYTES_ARE(line, "NOT_STORED"))
        return LINE_LAST;
    if ((verb == MC_cas || verb == MC_none) &&
        (MC_BYTES_ARE(line, "EXISTS") || MC_BYTES_ARE(line, "NOT_FOUND")))
        return LINE_LAST;
    return LINE_BAD;
}

static enum line_kind key_line(struct bytes line, enum mc_verb verb)
{
    bool is_any = verb == MC_none, is_good = MC_BYTES_ARE(line, "NOT_FOUND");
    uint64_t number;

    if (is_any || verb == MC_delete)
        is_good |= MC_BYTES_ARE(line, "DELETED");
    if (is_any || verb == MC_touch)
        is_good |= MC_BYTES_ARE(line, "TOUCHED");
    if (!is_good && (is_any || verb == MC_incr || verb == MC_decr))
        is_good = bytes_to_u64(line, UINT64_MAX, &number);
    return is_good ? LINE_LAST : LINE_BAD;
}

static bool is_meta_code(struct bytes code, enum mc_verb verb)
{
    static const char *const codes[] = {"HD", "VA", "EN", "NF", "EX", "NS", "ME"};
    static const struct {
        uint8_t verb;
        uint8_t mask; /* of codes */
    } allowed[] = {{MC_mg, 0x07}, {MC_ms, 0x39}, {MC_md, 0x19}, {MC_ma, 0x3b}, {MC_me, 0x44}};

    for (size_t i = 0; i < ARRAY_COUNT(codes); i++) {
        if (!mc_bytes_are(code, codes[i], 2))
            continue;
        for (size_t j = 0; j < ARRAY_COUNT(allowed); j++) {
            if (allowed[j].verb == verb)
                return (allowed[j].mask >> i & 1) != 0;
        }
        return true;
    }
    return false;
}

/* Code, the length of a VA, then flags; k and O are taken. */
static enum line_kind meta_line(struct bytes line, enum mc_verb verb,
                                const struct proto_limits *limits, struct mc_reply *out)
{
    struct bytes rest = line, code = field_take(&rest), token;
    bool is_item = MC_BYTES_ARE(code, "VA");

    if (!is_meta_code(code, verb) || !is_text(line))
        return LINE_BAD;
    if (MC_BYTES_ARE(code, "ME")) {
        out->item_key = field_take(&rest);
        return is_key(out->item_key, limits) ? LINE_LAST : LINE_BAD;
    }
    if (is_item && !bytes_to_u64(field_take(&rest), MC_REPLY_VALUE_MAX, &out->item_data_len))
        return LINE_BAD;
    while (mc_token_next(&rest, &token)) {
        if (token.data[0] == 'k')
            out->item_key = bytes_skip(token, 1);
        else if (token.data[0] == 'O')
            out->opaque = bytes_skip(token, 1);
    }
    return is_item ? LINE_ITEM : LINE_LAST;
}

/* Statistics, and one-line answers. */
static enum line_kind local_line(struct bytes line, enum mc_verb verb, bool is_first)
{
    bool is_any = verb == MC_none, is_stats = is_any || verb == MC_stats;

    if (!is_text(line) || line.len == 0)
        return LINE_BAD;
    if (is_stats && (STARTS_WITH(line, "STAT ") || STARTS_WITH(line, "ITEM ") ||
                     STARTS_WITH(line, "PREFIX ")))
        return LINE_PASS;
    if (is_stats && MC_BYTES_ARE(line, "END"))
        return LINE_END;
    if (!is_first)
        return LINE_BAD;
    switch (verb) {
    case MC_stats:
        return MC_BYTES_ARE(line, "OK") || MC_BYTES_ARE(line, "RESET") ? LINE_LAST : LINE_BAD;
    case MC_version:
        return STARTS_WITH(line, "VERSION ") ? LINE_LAST : LINE_BAD;
    case MC_flush_all:
    case MC_verbosity:
        return MC_BYTES_ARE(line, "OK") ? LINE_LAST : LINE_BAD;
    default: /* any word: what an operator's command may be answered is not listed anywhere */
        return LINE_LAST;
    }
}

static bool is_error_line(struct bytes line)
{
    if (STARTS_WITH(line, "CLIENT_ERROR") || STARTS_WITH(line, "SERVER_ERROR"))
        return (line.len == 12 || line.data[12] == ' ') && is_text(line);
    return STARTS_WITH(line, "ERROR") &&
           (line.len == 5 || line.data[5] == ' ' || line.data[5] == ':') && is_text(line);
}

static enum line_kind line_judge(const struct mc_reply_parser *parser,
                                 const struct proto_limits *limits, struct bytes line,
                                 struct mc_reply *out)
{
    enum line_kind kind = LINE_BAD;

    switch ((enum mc_kind)parser->expect) {
    case MC_KIND_GET:
        kind = get_line(line, limits, out);
        break;
    case MC_KIND_STORE:
        kind = store_line(line, parser->verb);
        break;
    case MC_KIND_KEY_LINE:
        kind = key_line(line, parser->verb);
        break;
    case MC_KIND_META:
    case MC_KIND_META_STORE:
        kind = meta_line(line, parser->verb, limits, out);
        break;
    case MC_KIND_META_NOOP:
        kind = MC_BYTES_ARE(line, "MN") ? LINE_LAST : LINE_BAD;
        break;
    case MC_KIND_LOCAL:
        /* Before the words: "any word" would take an error for an answer. */
        if (is_error_line(line))
            return LINE_ERROR;
        return local_line(line, parser->verb, parser->phase_ == PHASE_FIRST);
    }
    if (UNLIKELY(kind == LINE_BAD) && is_error_line(line))
        return LINE_ERROR;
    return kind;
}

static enum parse_result reply_bad(struct mc_reply_parser *parser, struct mc_reply *out,
                                   const char *error)
{
    parser->error = error;
    out->is_item_start = false;
    return PARSE_BAD;
}

static enum parse_result reply_done(struct mc_reply_parser *parser)
{
    parser->phase_ = PHASE_FIRST;
    return PARSE_OK;
}

/* Passes what there is of the block. False: it does not end in CRLF. */
static bool data_pass(struct mc_reply_parser *parser, struct bytes data, struct mc_reply *out)
{
    struct bytes piece = bytes_skip(data, out->scanned);
    size_t len = (size_t)MIN(parser->data_left, (uint64_t)piece.len);
    uint64_t left = parser->data_left - len;

    if (len == 0)
        return true;
    if (left == 0 && piece.data[len - 1] != '\n')
        return false;
    if (left <= 1 && len + left >= 2 && piece.data[len + left - 2] != '\r')
        return false;
    parser->data_left = left;
    out->scanned += len;
    return true;
}

/* The next line, without its end; behind it is out->scanned. MORE: it is not whole yet. */
static enum parse_result line_take(struct mc_reply_parser *parser,
                                   const struct proto_limits *limits, struct bytes data,
                                   struct mc_reply *out)
{
    size_t max = MC_REPLY_LINE_MAX + (size_t)limits->key_max;
    struct bytes rest = bytes_first(bytes_skip(data, out->scanned), max);
    const char *newline;

    ASSERT(parser->scan_off <= rest.len);
    newline = rest.len == parser->scan_off
                  ? NULL
                  : memchr(rest.data + parser->scan_off, '\n', rest.len - parser->scan_off);
    if (newline == NULL) {
        if (rest.len == max)
            return reply_bad(parser, out, "line too long");
        parser->scan_off = (uint32_t)rest.len;
        return PARSE_MORE;
    }
    parser->scan_off = 0;
    if (newline == rest.data || newline[-1] != '\r')
        return reply_bad(parser, out, "line without CRLF");
    out->line = bytes_of(rest.data, (size_t)(newline - 1 - rest.data));
    out->scanned += out->line.len + 2;
    return PARSE_OK;
}

/* ---- whole items --------------------------------------------------------------------------- */

/* Canonical digits at *at up to the byte `stop`, behind which *at goes; 9 at most are enough here. */
static inline bool item_number(const char **at, const char *end, char stop, uint64_t *out)
{
    const char *p = *at;
    uint64_t value = 0, digit;

    while (p < end && (digit = (uint64_t)(unsigned char)*p - '0') <= 9 && p - *at < 10) {
        value = value * 10 + digit;
        p++;
    }
    if (p == end || p == *at || *p != stop || (**at == '0' && p - *at > 1))
        return false;
    *at = p + 1;
    *out = value;
    return true;
}

static inline bool ends_block(const char *p)
{
    return p[0] == '\r' && p[1] == '\n';
}

/* "VALUE key flags bytes\r\n" and the block. What gets answers, with its cas, is left to the careful way. */
static size_t whole_item_len(struct bytes data, const struct proto_limits *limits, struct bytes *key)
{
    const char *p = data.data + 6, *end = data.data + data.len;
    uint64_t flags, len;
    unsigned span;

    if (!STARTS_WITH(data, "VALUE "))
        return 0;
    do {
        if (end - p < 8)
            return 0;
        span = mc_token_span(p);
        p += span;
    } while (span == 8);
    *key = bytes_of(data.data + 6, (size_t)(p - data.data) - 6);
    if (key->len == 0 || key->len > limits->key_max || *p++ != ' ')
        return 0;
    if (!item_number(&p, end, ' ', &flags) || !item_number(&p, end, '\r', &len))
        return 0;
    if (p == end || *p++ != '\n' || len > MC_REPLY_VALUE_MAX || (uint64_t)(end - p) < len + 2 ||
        !ends_block(p + len))
        return 0;
    return (size_t)(p - data.data) + (size_t)len + 2;
}

size_t mc_reply_item(struct mc_reply_parser *parser, const struct proto_limits *limits,
                     struct bytes data, struct bytes *key)
{
    size_t len;

    ASSERT(parser->expect == MC_KIND_GET);
    *key = BYTES_EMPTY;
    if (parser->phase_ == PHASE_DATA) {
        /* A CRLF that came in two pieces is not worth it. */
        if (parser->data_left > data.len || parser->data_left < 2 ||
            !ends_block(data.data + parser->data_left - 2))
            return 0;
        len = (size_t)parser->data_left;
        parser->data_left = 0;
    } else {
        len = parser->scan_off > 0 ? 0 : whole_item_len(data, limits, key);
        if (len == 0)
            return 0;
    }
    parser->phase_ = PHASE_LATER;
    return len;
}

/* ---- step by step ---------------------------------------------------------------------------- */

enum parse_result mc_reply_scan(struct mc_reply_parser *parser, const struct proto_limits *limits,
                                struct bytes data, struct mc_reply *out)
{
    enum parse_result result;

    *out = (struct mc_reply){0};
    while (true) {
        if (parser->phase_ == PHASE_DATA) {
            if (!data_pass(parser, data, out))
                return reply_bad(parser, out, "value without CRLF");
            if (parser->data_left > 0)
                return PARSE_MORE;
            if (parser->expect != MC_KIND_GET)
                return reply_done(parser);
            parser->phase_ = PHASE_LATER;
        }
        result = line_take(parser, limits, data, out);
        if (result != PARSE_OK)
            return result;
        switch (line_judge(parser, limits, out->line, out)) {
        case LINE_BAD:
            return reply_bad(parser, out, "not an answer to this command");
        case LINE_END:
            out->is_end = true;
            return reply_done(parser);
        case LINE_ERROR:
            out->is_error = true;
            return reply_done(parser);
        case LINE_LAST:
            return reply_done(parser);
        case LINE_ITEM:
            out->is_item_start = true;
            parser->data_left = out->item_data_len + 2;
            parser->phase_ = PHASE_DATA;
            return PARSE_MORE;
        case LINE_PASS:
            parser->phase_ = PHASE_LATER;
            break;
        }
    }
}
