/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader.h - configuration files: YAML to a tree of nodes, keys by table, values, errors with their place.
 *
 *     bytes --yaml.c--> tree of nodes --conf_read_mapping(), value.c--> fields of the program's struct
 *
 * The tree lives in a scratch arena that the program wipes when it has read it. Of several errors the first is
 * kept: a caller may go on after conf_fail() only to clean up. A command line can be made such a tree, too: see
 * conf_node_add().
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"

#include <sys/types.h>

#define CONF_FILE_SIZE_MAX (4u << 20)

struct conf; /* each program's own */

struct conf_position {
    uint32_t line, column; /* from 1; 0: unknown */
};

/* Where somebody listens or can be reached. Either host and port or path. */
struct conf_address {
    const char *text; /* as in the file; NULL: not configured */
    const char *host; /* NULL: a path. "": every local address. Brackets of IPv6 are removed */
    uint16_t port;
    const char *path; /* of a unix socket, or NULL */
    mode_t mode;      /* listeners: of the socket's file; 0: not given */
    struct conf_position at;
};

struct conf_strings {
    const char *const *items;
    uint32_t count;
};

/* Something legal that somebody may regret; `text` starts with file:line:column. */
struct conf_warning {
    const char *text;
};

struct conf_error {
    struct conf_position at;
    char text[768]; /* one line "file:line:column: what is wrong, what would be right", no newline */
};

/* ---- memory: everything of a configuration goes at once, wiped ------------------------------------ */

struct conf_arena {
    struct conf_block *blocks;
};

void *conf_alloc(struct conf_arena *arena, size_t size); /* zeroed; never NULL */
const char *conf_copy(struct conf_arena *arena, struct bytes text); /* with a NUL behind */
void conf_arena_wipe(struct conf_arena *arena);

/* ---- the tree ------------------------------------------------------------------------------------- */

enum conf_node_kind { CONF_NODE_SCALAR, CONF_NODE_MAPPING, CONF_NODE_LIST };

struct conf_node {
    enum conf_node_kind kind;
    struct conf_position at;
    struct bytes text;           /* scalar; in the scratch arena, no control characters */
    struct conf_node *first;     /* mapping: keys (scalars); list: items */
    struct conf_node *next;      /* sibling */
    struct conf_node *value;     /* of a key */
    uint32_t count;              /* of children */
};

struct conf_reader {
    const char *path;
    struct conf_error *error;
    struct conf *conf;         /* the program's own */
    const char *wants_what;    /* "at least one pool": what an empty file lacks */
    const char *starts_with;   /* "the name of a pool and a colon" */
    struct conf_arena *arena;  /* of the result */
    struct conf_arena scratch; /* of the tree */
    bool has_failed;
    struct conf_warning *warnings; /* in the result's arena; at most CONF_WARNINGS_MAX */
    uint32_t warnings_count;
};

/* The root mapping of the one document, checked for everything that is not about keys. */
MUST_USE int conf_yaml_read(struct conf_reader *reader, struct bytes yaml, struct conf_node **root);

/* Appends a key with a scalar to a mapping, in the scratch arena. */
void conf_node_add(struct conf_reader *reader, struct conf_node *mapping, struct bytes key, struct bytes value,
                   struct conf_position at);

/* ---- errors --------------------------------------------------------------------------------------- */

/* Returns ERR_INVALID. Line 0: the text starts with the path alone. */
int conf_fail(struct conf_reader *reader, struct conf_position at, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* At most CONF_WARNINGS_MAX are kept. */
#define CONF_WARNINGS_MAX 100
void conf_warn(struct conf_reader *reader, struct conf_position at, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* For "%.*s" of what the file says: no text is longer than the reader of an error wants. */
#define CONF_SHOW_MAX 80
#define CONF_SHOW(b)  (int)MIN((b).len, (size_t)CONF_SHOW_MAX), (b).data

/* ---- keys ------------------------------------------------------------------------------------------- */

struct conf_key;

struct conf_item {
    const struct conf_key *key;
    const char *name; /* as texts call it: "timeout", "limits.args_max" */
    const struct conf_node *name_node, *value;
};

typedef int (*conf_set_fn)(struct conf_reader *reader, const struct conf_item *item, void *target);

struct conf_key {
    const char *name;
    conf_set_fn set;
    size_t offset;         /* of the field in the target */
    uint64_t min, max;     /* numbers, sizes, times */
    const char *const *names; /* enums: NULL-terminated, value = index; not supported yet: a hint */
};

/* Sets every key of `mapping`; `seen` (of `count`) gets where each was, line 0 where not. Fails for
 * unknown and duplicate keys. `prefix` is "" or "limits." */
MUST_USE int conf_read_mapping(struct conf_reader *reader, const struct conf_node *mapping,
                               const char *prefix, const struct conf_key *keys, uint32_t count,
                               void *target, struct conf_position *seen);

/* The non-empty scalar of an item. */
MUST_USE int conf_scalar(struct conf_reader *reader, const struct conf_item *item,
                         struct bytes *out);
/* twemproxy's numbers: digits, leading zeros too, at most INT_MAX. */
MUST_USE bool conf_number(struct bytes text, uint32_t *out);

int conf_set_u32(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_u64(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_bool(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_string(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_enum(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_size32(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_size64(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_time(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_time_or_off(struct conf_reader *reader, const struct conf_item *item, void *target);
int conf_set_unsupported(struct conf_reader *reader, const struct conf_item *item, void *target);

/* The scalars of a list, or of one scalar with blanks or commas between. */
MUST_USE int conf_words(struct conf_reader *reader, const struct conf_item *item, uint32_t count_max,
                        struct conf_strings *out);

/* ---- addresses ---------------------------------------------------------------------------------- */

/* "host:port" or "/path [octal mode]"; texts are twemproxy's for `listen`. */
int conf_set_listen(struct conf_reader *reader, const struct conf_item *item, void *target);
/* Whether only this machine reaches it. */
bool conf_address_is_local(const struct conf_address *address);
/* Cuts the part behind the last `c` off *text; false when there is no `c`. */
bool conf_cut_last(struct bytes *text, char c, struct bytes *tail);
struct bytes conf_trim(struct bytes text);
struct bytes conf_without_brackets(struct bytes host);
MUST_USE bool conf_parse_port(struct bytes text, uint16_t *out);
#define CONF_UNIX_PATH_MAX 107u

/* ---- the file --------------------------------------------------------------------------------------- */

/* Reads all of it, for the caller to wipe and free. On an error *error has the text. */
MUST_USE int conf_file_read(const char *path, char **data, size_t *len, mode_t *mode,
                            struct conf_error *error);
