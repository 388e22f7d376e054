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
    MC_KIND_GET,      /* get gets gat gats: VALUE* END */
    MC_KIND_STORE,    /* set add replace append prepend cas: a data block */
    MC_KIND_KEY_LINE, /* delete incr decr touch: one line */
    MC_KIND_META,     /* mg md ma me: one line or VA + data */
    MC_KIND_META_STORE, /* ms */
    MC_KIND_META_NOOP,  /* mn */
    MC_KIND_LOCAL,    /* version verbosity quit and denied ones: answered by the proxy (flush_all, stats
                         fan out) */
};

struct mc_verb_info {
    const char *name; /* text; "" when binary only */
    uint8_t id, kind;
    uint8_t opcode, quiet_opcode; /* binary; 0xff none */
    uint8_t is_write, is_denied;
};
const struct mc_verb_info *mc_verb_info(enum mc_verb verb);

/* ---- text requests ------------------------------------------------------------------------ */

enum mc_status {
    MC_REQ_OK,
    MC_REQ_ERROR, /* answer `error`, forward nothing; the frame was swallowed whole: keep the connection */
};

/* Room for the keys of one get: one for a worker. */
struct mc_keys {
    struct bytes *items; /* owns */
    uint32_t cap;
};
void mc_keys_init(struct mc_keys *keys);
void mc_keys_deinit(struct mc_keys *keys);

struct mc_parser {
    uint32_t scan_off; /* how far the search for the newline got */
    uint32_t need;     /* after PARSE_MORE: total bytes needed */
    uint64_t swallow;  /* bytes of a refused data block still to be thrown away */
};

struct mc_request {
    size_t len;                /* bytes of the frame consumed */
    enum mc_verb verb;
    enum mc_status status;
    const char *error;         /* static line without CRLF: "CLIENT_ERROR key too long", "ERROR" ... */
    bool is_noreply;           /* also: meta quiet flag on (see is_quiet) */
    bool is_quiet;             /* meta q flag: some replies are suppressed */
    bool is_canonical;         /* the frame may be forwarded byte for byte */
    uint32_t key_count;
    const struct bytes *keys;  /* borrows the mc_keys' items; meta: one, as written */
    bool is_key_base64;        /* meta b flag: the routing key is the decoded one: */
    struct bytes route_key;    /* of the first key, decoded; borrows the parser's scratch */
    struct bytes line;         /* the command line without its end */
    struct bytes data;         /* the block of a storage command, without CRLF; empty otherwise */
    struct bytes opaque;       /* meta O flag's token */
    bool returns_key;          /* meta k flag: the reply carries the key, to be verified */
    /* Numbers of the line where the verb has them: */
    uint32_t flags;
    int64_t exptime;
    uint64_t value_len, cas, delta;
    /* After PARSE_MORE with the command line read: a large block is on its way (0 otherwise). The line
     * fields above are valid; `line_len` bytes of line and end precede the block. */
    uint64_t partial_data_len;
    uint32_t line_len;
    char key_scratch[256]; /* decoded base64 key */
};

/* As resp_parse(). PARSE_BAD: out->error is the line to send before closing. */
enum parse_result mc_parse(struct mc_parser *parser, struct mc_keys *keys,
                           const struct proto_limits *limits, struct bytes data,
                           struct mc_request *out);
/* Writes the canonical frame of an accepted request's command line with CRLF (for get: with these keys
 * only; key_count 0: as it is) to out (cap bytes); returns the length, 0 when it does not fit. */
size_t mc_compose_line(const struct mc_request *request, const struct bytes *keys, uint32_t key_count,
                       char *out, size_t cap);

/* ---- text replies ------------------------------------------------------------------------- */

/* What the reply at the head of the connection may look like: set for each reply before its first
 * byte is scanned, from the request. */
struct mc_reply_parser {
    uint8_t expect;   /* enum mc_kind; MC_KIND_LOCAL here: stats (STAT* END, or RESET/OK line) */
    uint8_t phase_;
    uint64_t data_left; /* bytes of a block with CRLF still to pass */
    uint32_t scan_off;
    uint32_t need;
    const char *error;
};

struct mc_reply {
    size_t scanned;      /* bytes understood in this call; they may be passed on and dropped */
    bool is_item_start;  /* a VALUE line (or VA with k flag) starts at item_off: its key must be checked
                            before the bytes are passed on. The scan stops behind each item's line: */
    struct bytes item_key;
    uint64_t item_data_len;
    bool is_end;         /* with PARSE_OK: the reply ended with END (MC_KIND_GET, stats) */
    bool is_error;       /* ERROR, CLIENT_ERROR ..., SERVER_ERROR ... line */
    struct bytes line;   /* the last line read, without CRLF */
};
/* One step: up to the end of the reply (OK), up to the end of an item's VALUE line (MORE with
 * is_item_start), or as far as data goes (MORE). */
enum parse_result mc_reply_scan(struct mc_reply_parser *parser, const struct proto_limits *limits,
                                struct bytes data, struct mc_reply *out);

/* ---- binary ------------------------------------------------------------------------------- */

#define MC_BIN_HEADER 24
#define MC_BIN_REQUEST 0x80
#define MC_BIN_RESPONSE 0x81
struct mc_bin_header {
    uint8_t magic, opcode, extras_len, data_type;
    uint16_t key_len, status; /* request: vbucket */
    uint32_t body_len, opaque;
    uint64_t cas;
};
struct mc_bin_request {
    size_t len; /* whole frame */
    struct mc_bin_header header;
    const struct mc_verb_info *verb; /* NULL: unknown opcode */
    bool is_quiet;
    struct bytes extras, key, value;
    uint16_t error_status;    /* != 0: answer with this status, forward nothing */
    uint64_t partial_len;     /* PARSE_MORE with the header read: whole frame's length */
};
/* Checks magic, lengths against each other, extras by opcode, key length. BAD: close without answer. */
enum parse_result mc_bin_parse(uint32_t *need, const struct proto_limits *limits, struct bytes data,
                               struct mc_bin_request *out);
void mc_bin_decode(const char data[MC_BIN_HEADER], struct mc_bin_header *out);
void mc_bin_encode(const struct mc_bin_header *header, char out[MC_BIN_HEADER]);
/* The text that memcached sends with a status ("Not found"). */
const char *mc_bin_status_text(uint16_t status);
