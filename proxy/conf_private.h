/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conf_private.h - what the files of conf share.
 *
 *     bytes --conf_yaml--> tree of nodes --conf_process, conf_pool--> struct conf
 *                                            (keys by table, conf_value; lines, conf_server)
 *
 * The tree lives in a scratch arena that is gone when conf_parse() returns. Of several errors the first is kept:
 * a caller may go on after conf_fail() only to clean up.
 */
#pragma once
#include "proxy/conf.h"

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
    struct conf *conf;
    struct conf_arena *arena;  /* of the result */
    struct conf_arena scratch; /* of the tree */
    bool has_failed;
    struct conf_warning *warnings; /* grows in the result's arena */
    uint32_t warnings_cap;
};

/* The root mapping of the one document, checked for everything that is not about keys. */
MUST_USE int conf_yaml_read(struct conf_reader *reader, struct bytes yaml, struct conf_node **root);

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

/* ---- addresses and lines ---------------------------------------------------------------------------- */

/* "host:port" or "/path [octal mode]"; texts are twemproxy's for `listen`. */
int conf_set_listen(struct conf_reader *reader, const struct conf_item *item, void *target);
/* One line of `servers:`. `needs_weight`: twemproxy's form; else "host:port" is enough. */
MUST_USE int conf_read_server(struct conf_reader *reader, const struct conf_node *node,
                              bool needs_weight, struct conf_server *server);
/* "name" or "name:weight". */
MUST_USE int conf_read_master(struct conf_reader *reader, const struct conf_node *node,
                              struct conf_master *master);
/* Whether only this machine reaches it. */
bool conf_address_is_local(const struct conf_address *address);

/* ---- parts ------------------------------------------------------------------------------------------ */

MUST_USE int conf_read_pool(struct conf_reader *reader, const struct conf_node *key,
                            struct conf_pool *pool);
void conf_process_defaults(struct conf_process *process);
MUST_USE int conf_read_process(struct conf_reader *reader, const struct conf_node *mapping,
                               struct conf_process *process);

/* twemproxy's order of names: length, then bytes. */
int conf_compare_names(const char *a, const char *b);

extern const char *const conf_members_names[], *const conf_protocol_names[],
    *const conf_eject_names[], *const conf_accept_names[];
