/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcache.h - memcache's text protocol with its meta commands, and the binary protocol.
 *
 * Requests are parsed in place. One rule for line ends: a command line may end with LF or CRLF, a data
 * block must end with CRLF. What the proxy forwards is canonical: a request that is written otherwise
 * (LF, more than one blank, leading zeros in a length ...) is marked and re-composed.
 *
 * No payload byte is ever taken for a command: a storage command whose line is wrong but whose length
 * is readable has its data block swallowed; where the length is not readable the connection closes.
 */
#pragma once
#include "common/proto/proto.h"

enum mc_verb {
    MC_none,
#define MEMCACHE(id, ...) MC_##id,
#include "common/command/memcache.def"
#undef MEMCACHE
    MC_VERB_COUNT
};

/* What a verb's request and reply look like; the route is chosen by it. */
enum mc_kind {
    MC_KIND_GET,        /* get gets gat gats: VALUE* END */
    MC_KIND_STORE,      /* set add replace append prepend cas: a data block */
    MC_KIND_KEY_LINE,   /* delete incr decr touch: one line */
    MC_KIND_META,       /* mg md ma me: one line or VA + data */
    MC_KIND_META_STORE, /* ms */
    MC_KIND_META_NOOP,  /* mn; binary noop */
    MC_KIND_LOCAL,      /* version verbosity quit and denied ones: answered by the proxy (flush_all, stats
                           fan out) */
};

#define MC_OPCODE_NONE 0xff

/* A get of many keys is one line, which memcached does not bound. A proxy may be told to take as much, a node does. */
#define MC_LINE_MAX (64u << 20)

struct mc_verb_info {
    const char *name; /* text; "" when binary only */
    uint8_t id, kind;
    uint8_t opcode, quiet_opcode; /* binary; MC_OPCODE_NONE: none */
    uint8_t is_write, is_denied;
};
/* MC_none has a row as well: an empty name, no opcodes. */
const struct mc_verb_info *mc_verb_info(enum mc_verb verb);
/* MC_none: no such text verb. Lower case only, as memcached. */
enum mc_verb mc_verb_find(struct bytes name);
/* NULL: no such opcode. */
const struct mc_verb_info *mc_verb_by_opcode(uint8_t opcode, bool *is_quiet);

/* ---- text requests ------------------------------------------------------------------------ */

enum mc_status {
    MC_REQ_OK,
    MC_REQ_ERROR, /* answer `error`, forward nothing, keep the connection. A refused data block is thrown
                     away by the next calls: */
    MC_REQ_SKIP,  /* nothing to answer, nothing to forward: drop `len` bytes and go on (a piece of a
                     refused block; or a wrong line with noreply: then `error` says why) */
};

/* Room for the keys of one get: one for a worker. */
struct mc_keys {
    struct bytes *items; /* owns */
    uint32_t cap;
    char scratch[256];   /* the decoded base64 key */
};
void mc_keys_init(struct mc_keys *keys);
void mc_keys_deinit(struct mc_keys *keys);
void mc_keys_trim(struct mc_keys *keys); /* gives back what a huge get took */

/* State between calls, one for a client. All zero is the start of a frame. */
struct mc_parser {
    uint32_t scan_off; /* how far the search for the newline got */
    uint32_t need;     /* after PARSE_MORE: total bytes needed; 0: not known, more of the line */
    uint64_t swallow;  /* bytes of a refused data block, with its CRLF, still to be thrown away */
};

struct mc_request {
    size_t len;                /* bytes of the frame consumed */
    enum mc_verb verb;
    enum mc_status status;
    const char *error;         /* static line without CRLF: "CLIENT_ERROR key too long", "ERROR" ... */
    bool is_noreply;           /* the classic commands' noreply; never set for meta */
    bool is_quiet;             /* meta q flag: some replies are suppressed, see mc_meta_is_silenced() */
    bool is_canonical;         /* the frame may be forwarded byte for byte */
    bool is_write;             /* the verb's, or a meta get that changes the item (T N R flags) */
    bool is_key_base64;        /* meta b flag: the routing key is the decoded one */
    bool returns_key;          /* meta k flag: the reply carries the key, to be verified */
    uint32_t key_count;
    const struct bytes *keys;  /* borrows the mc_keys' items; meta: one, as written */
    struct bytes route_key;    /* of the first key, decoded; may borrow the mc_keys' scratch: ends with the
                                  next parse; empty when there is no key */
    struct bytes line;         /* the command line without its end */
    struct bytes data;         /* the block of a storage command, without CRLF; empty otherwise */
    struct bytes opaque;       /* meta O flag's token, without the O */
    /* Numbers of the line where the verb has them (meta: F T/none C D): */
    uint32_t flags;
    int32_t exptime;
    uint64_t value_len, cas, delta;
    /* After PARSE_MORE with the command line read: a data block of value_len bytes and its CRLF is on
     * its way (0 otherwise: also for an empty block). The line fields above are valid (len and data are
     * not); `line_len` bytes of line and end precede the block. Who streams the block past the parser
     * checks its CRLF, and zeroes the parser for the next frame. */
    uint64_t partial_data_len;
    uint32_t line_len;
};

/* Parses one request at the start of `data` (not empty), as resp_parse(). On OK and BAD the parser is
 * ready for what follows. PARSE_BAD: out->error is the line to send before closing; "": close without a
 * line (HTTP). */
enum parse_result mc_parse(struct mc_parser *parser, struct mc_keys *keys,
                           const struct proto_limits *limits, struct bytes data,
                           struct mc_request *out);
/* Writes the canonical command line of an accepted request, with CRLF (for get: with these keys only;
 * key_count 0: as it is) to out (cap bytes); returns the length, 0 when it does not fit. The data block
 * follows as it stands in the request. Follows is_noreply and is_quiet as they are in the struct: clear
 * them to have the server answer always. */
size_t mc_compose_line(const struct mc_request *request, const struct bytes *keys, uint32_t key_count,
                       char *out, size_t cap);
/* The next token of a line; blanks around it are skipped. Advances the line. */
bool mc_token_next(struct bytes *line, struct bytes *token);
/* Whether a server leaves out this reply line when the meta request has the q flag. */
bool mc_meta_is_silenced(enum mc_verb verb, struct bytes reply_line);

/* ---- text replies ------------------------------------------------------------------------- */

/* No server's value is longer (memcached: -I of at most 1 GiB): a VALUE line that says so is broken. */
#define MC_REPLY_VALUE_MAX (1u << 30)
/* Of a reply line, beside the longest key. */
#define MC_REPLY_LINE_MAX 2048

/* What the reply at the head of the connection may look like: set `expect` (and `verb`) for each reply
 * before its first byte is scanned, from the request, and all else to zero. */
struct mc_reply_parser {
    uint8_t expect;   /* enum mc_kind; MC_KIND_LOCAL: stats (STAT* END) or one line */
    uint8_t verb;     /* enum mc_verb: only what this verb may be answered; MC_none: any of the kind */
    uint8_t phase_;
    uint64_t data_left; /* bytes of a block with CRLF still to pass */
    uint32_t scan_off;
    uint32_t need;
    const char *error;
};

struct mc_reply {
    size_t scanned;      /* bytes understood in this call; they may be passed on and dropped */
    bool is_item_start;  /* a VALUE or VA line was read: its key must be checked before the bytes are
                            passed on. The scan stops behind each item's line: */
    struct bytes item_key; /* also of a one-line meta reply that has it; VA and meta without k: empty */
    struct bytes opaque;   /* meta: O flag's token */
    uint64_t item_data_len;
    bool is_end;         /* with PARSE_OK: the reply ended with END (MC_KIND_GET, stats) */
    bool is_error;       /* ERROR, CLIENT_ERROR ..., SERVER_ERROR ... line; a bare ERROR means that the
                            server did not understand us: doubt about the framing */
    struct bytes line;   /* the last line read in this call, without CRLF */
};
/* One step: up to the end of the reply (OK), up to the end of an item's VALUE line (MORE with
 * is_item_start), or as far as data goes (MORE). BAD: not a reply to what was asked; retire. */
enum parse_result mc_reply_scan(struct mc_reply_parser *parser, const struct proto_limits *limits,
                                struct bytes data, struct mc_reply *out);

/* A shorter way for whole items (MC_KIND_GET) one behind the other. Returns the length of the whole item at
 * the start of `data`, its key in *key; or, where a block is under way, the length of the whole rest of it,
 * with an empty key. 0: neither; mc_reply_scan() knows what it is. */
size_t mc_reply_item(struct mc_reply_parser *parser, const struct proto_limits *limits,
                     struct bytes data, struct bytes *key);

/* ---- binary ------------------------------------------------------------------------------- */

#define MC_BIN_HEADER   24
#define MC_BIN_REQUEST  0x80
#define MC_BIN_RESPONSE 0x81

enum mc_bin_status {
    MC_BIN_OK = 0x00,
    MC_BIN_NOT_FOUND = 0x01,
    MC_BIN_EXISTS = 0x02,
    MC_BIN_TOO_LARGE = 0x03,
    MC_BIN_INVALID = 0x04,
    MC_BIN_NOT_STORED = 0x05,
    MC_BIN_NON_NUMERIC = 0x06,
    MC_BIN_AUTH_ERROR = 0x20,
    MC_BIN_AUTH_CONTINUE = 0x21,
    MC_BIN_UNKNOWN_COMMAND = 0x81,
    MC_BIN_NO_MEMORY = 0x82,
};

struct mc_bin_header {
    uint8_t magic, opcode, extras_len, data_type;
    uint16_t key_len, status; /* request: vbucket */
    uint32_t body_len, opaque;
    uint64_t cas;
};

/* State between calls, one for a client. All zero is the start of a frame. */
struct mc_bin_parser {
    uint64_t swallow; /* bytes of a refused frame still to be thrown away */
    uint32_t need;    /* after PARSE_MORE: total bytes needed */
};

struct mc_bin_request {
    size_t len; /* bytes consumed: the whole frame, or what of a refused one is to be dropped now */
    struct mc_bin_header header;
    const struct mc_verb_info *verb; /* NULL: unknown opcode */
    bool is_quiet;
    bool is_skip;             /* a piece of a refused frame: drop `len` bytes, nothing to answer */
    struct bytes extras, key, value;
    uint16_t error_status;    /* != 0: answer with this status, forward nothing, keep; MC_BIN_TOO_LARGE has
                                 extras and key. With PARSE_BAD: answer before closing; 0: nothing to
                                 answer */
    uint64_t partial_len;     /* PARSE_MORE with header, extras and key read (those fields are valid): the
                                 whole frame's length; who streams the rest zeroes the parser */
};
/* Checks magic, lengths against each other, extras by opcode, key length. BAD: close. */
enum parse_result mc_bin_parse(struct mc_bin_parser *parser, const struct proto_limits *limits,
                               struct bytes data, struct mc_bin_request *out);

/* One for each reply; all zero before its first byte. */
struct mc_bin_reply_parser {
    uint64_t body_left; /* of the value, behind header, extras and key */
    uint8_t phase_;
    uint32_t need;
    const char *error;
};
struct mc_bin_reply {
    size_t scanned; /* bytes understood in this call; they may be passed on and dropped */
    bool is_start;  /* header, extras and key were read: check opcode, opaque and key now */
    struct mc_bin_header header; /* with is_start */
    struct bytes extras, key;
};
/* One step: up to the value (MORE or OK with is_start), to the end of the frame (OK), or as far as data
 * goes (MORE). One frame is one reply; stat's ends with a frame whose key is empty. */
enum parse_result mc_bin_reply_scan(struct mc_bin_reply_parser *parser,
                                    const struct proto_limits *limits, struct bytes data,
                                    struct mc_bin_reply *out);

void mc_bin_decode(const char data[MC_BIN_HEADER], struct mc_bin_header *out);
void mc_bin_encode(const struct mc_bin_header *header, char out[MC_BIN_HEADER]);
/* The text that memcached sends with a status ("Not found"). */
const char *mc_bin_status_text(uint16_t status);
/* A response to `request` without extras and key, its status's text as the value (none for OK). Returns
 * the length. */
#define MC_BIN_STATUS_REPLY_MAX (MC_BIN_HEADER + 64)
size_t mc_bin_compose_status(const struct mc_bin_header *request, uint16_t status,
                             char out[MC_BIN_STATUS_REPLY_MAX]);
