/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resp.h - the Redis protocol, RESP2 and RESP3: requests in, replies through.
 *
 * Requests: multibulk ("*2\r\n$3\r\nGET\r\n$1\r\na\r\n") and inline ("GET a\r\n"). Stricter than Redis on
 * purpose: lengths are plain decimals, CRLF is CRLF. So an accepted multibulk frame is canonical and
 * can be forwarded as it is; an inline one is re-composed. Errors carry Redis's texts
 * ("Protocol error: invalid bulk length").
 *
 * Replies: scanned, not decoded. A reply can be passed on piece by piece while it is scanned.
 */
#pragma once
#include "common/proto/proto.h"

/* ---- requests ----------------------------------------------------------------------------- */

/* Room for the arguments of one request: one for a worker, reused for each request. */
struct resp_args {
    struct bytes *items; /* owns */
    uint32_t cap;
    char *inline_text; /* owns: unquoted inline arguments; NULL until one comes */
    uint32_t inline_cap;
};
void resp_args_init(struct resp_args *args);
void resp_args_deinit(struct resp_args *args);
void resp_args_trim(struct resp_args *args); /* gives back what a huge request took */

/* State between calls, one for a client. All zero is the start of a frame. */
struct resp_parser {
    uint32_t scan_off;  /* multibulk: where the next unread argument header starts; inline: how far the
                           search for the newline got */
    uint32_t args_left; /* valid while scan_off > 0 of a multibulk */
    uint32_t arg_count;
    uint32_t need;      /* after PARSE_MORE: total bytes without which there is no use in calling again */
};

struct resp_request {
    size_t len;               /* bytes of the frame */
    uint32_t argc;            /* 0: an empty line, "*0" or less: consume `len` and go on */
    const struct bytes *argv; /* borrows: the args' items; the views end with the frame's bytes (inline:
                                 with the next parse) */
    bool is_inline;
    const char *error;        /* after PARSE_BAD: static text, without "-ERR " and CRLF. Where it names a
                                 byte ("expected '$', got 'X'"), error_byte has it and the text has %c */
    char error_byte;
    /* After PARSE_MORE in the middle of a multibulk: the arguments whose headers were read so far, so
     * that a big value can be routed before it is complete. The last one may be incomplete: */
    uint32_t partial_argc;    /* arguments whose length is known; argv[0 .. partial_argc-1] */
    uint64_t partial_arg_len; /* declared length of argv[partial_argc - 1] */
    uint64_t partial_arg_off; /* where its bytes start in data */
    uint32_t total_argc;      /* declared */
};

/* Parses one request at the start of `data` (not empty). On OK and BAD the parser is reset. PARSE_MORE
 * fills the partial_ fields (and argv up to them) when `want_partial`; without it resuming costs only
 * the new bytes. */
enum parse_result resp_parse(struct resp_parser *parser, struct resp_args *args,
                             const struct proto_limits *limits, struct bytes data,
                             bool want_partial, struct resp_request *out);

/* ---- replies ------------------------------------------------------------------------------ */

#define RESP_DEPTH_MAX 32

/* State between calls, one for an upstream. All zero is the start of a reply; so is what PARSE_OK leaves
 * (type, is_null and integer stay readable until the next call). */
struct resp_reply_parser {
    uint64_t bulk_left;                /* bytes of the bulk (with its CRLF) still to pass */
    uint64_t remaining[RESP_DEPTH_MAX]; /* elements left at each open aggregate */
    uint32_t line_off; /* how far the search for the end of the header went */
    uint8_t depth;
    uint8_t started; /* the reply's first header was read */
    char type;       /* first byte of the reply: + - : $ * and RESP3's _ , # ! = ( % ~ > | */
    bool is_null;    /* $-1, *-1, _ */
    int64_t integer; /* of ':'; or the length/count of the first header */
    uint32_t need;     /* after PARSE_MORE: bytes behind the scanned ones, without which there is no use in
                          calling again */
    const char *error; /* after PARSE_BAD: static text */
};

/* Scans on in `data`. *scanned: bytes understood: they belong to this reply and may be passed on and
 * dropped. OK: the reply ends after them. MORE: the rest of data is a piece of a header; give it again
 * with more behind it (never the scanned bytes). BAD: not a reply; retire the connection.
 * bulk_max, line_max and RESP_DEPTH_MAX bound it. Attributes ('|') count as part of the reply that
 * follows, and type, integer and is_null are that one's. */
enum parse_result resp_reply_scan(struct resp_reply_parser *parser, const struct proto_limits *limits,
                                  struct bytes data, size_t *scanned);

/* One value's header out of complete, scanned bytes; payload included for scalars and bulks.
 * Advances the cursor behind what it read (for aggregates: behind the header). */
struct resp_value {
    char type;
    bool is_null;
    int64_t integer;      /* ':' value, or count of an aggregate's elements (maps: pairs) */
    struct bytes payload; /* of + - $ , ( = ! # : as text, without header and CRLF */
};
MUST_USE bool resp_next(struct bytes *cursor, struct resp_value *out);
/* What most MGETs are answered with: an array of `count` bulks and RESP2 nulls that is all there. Returns its
 * length and fills in those of its elements; 0: it is something else, or not whole, or wrong. */
size_t resp_bulks_scan(struct bytes data, const struct proto_limits *limits, uint32_t count, uint32_t *lens);
/* Length of the whole value at the start of complete, scanned bytes; 0: not a value. */
size_t resp_value_len(struct bytes data);

/* ---- composing ---------------------------------------------------------------------------- */

#define RESP_HEADER_MAX 32
/* "*3\r\n", "$12\r\n", ":1\r\n" ...: type, number, CRLF; returns the length (<= RESP_HEADER_MAX). */
size_t resp_compose_header(char out[RESP_HEADER_MAX], char type, int64_t number);
