/* SPDX-License-Identifier: Apache-2.0 */
#include "common/command/command_docs.h"
#include "common/base/glob.h"
#include "common/command/command.h"

#define ECHO_MAX 128 /* bytes of a client's word in an error line */

struct composer {
    const struct compose_sink *sink; /* borrows */
    uint32_t hidden_flags;
    bool is_resp3;
};

/* ---- RESP --------------------------------------------------------------------------------- */

static void put(const struct composer *c, struct bytes text)
{
    c->sink->write(c->sink->arg, text.data, text.len);
}

static void put_string(const struct composer *c, const char *text)
{
    put(c, bytes_of_string(text));
}

static void put_number(const struct composer *c, char type, int64_t number)
{
    char line[24];
    size_t len = 1;

    line[0] = type;
    len += i64_to_digits(number, line + 1);
    line[len++] = '\r';
    line[len++] = '\n';
    put(c, bytes_of(line, len));
}

static void put_array(const struct composer *c, uint32_t count)
{
    put_number(c, '*', count);
}

static void put_set(const struct composer *c, uint32_t count)
{
    put_number(c, c->is_resp3 ? '~' : '*', count);
}

static void put_map(const struct composer *c, uint32_t pair_count)
{
    put_number(c, c->is_resp3 ? '%' : '*', c->is_resp3 ? pair_count : (int64_t)pair_count * 2);
}

static void put_bulk(const struct composer *c, struct bytes text)
{
    put_number(c, '$', (int64_t)text.len);
    put(c, text);
    put_string(c, "\r\n");
}

static void put_word(const struct composer *c, const char *text)
{
    put_bulk(c, bytes_of_string(text));
}

static void put_status(const struct composer *c, const char *text)
{
    put_string(c, "+");
    put_string(c, text);
    put_string(c, "\r\n");
}

static void put_null(const struct composer *c)
{
    put_string(c, c->is_resp3 ? "_\r\n" : "$-1\r\n");
}

/* A client's word within an error line: exactly one line whatever it holds. */
static void put_echo(const struct composer *c, struct bytes word)
{
    char safe[ECHO_MAX];
    size_t len = MIN(word.len, sizeof(safe));

    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)word.data[i];

        safe[i] = byte < 0x20 || byte == 0x7f ? ' ' : word.data[i];
    }
    put(c, bytes_of(safe, len));
}

/* ---- facts -------------------------------------------------------------------------------- */

static const struct {
    uint32_t flag;
    const char *text;
} flag_names[] = {
    {CMD_WRITE, "write"},
    {CMD_READ, "readonly"},
    {CMD_DENYOOM, "denyoom"},
    {CMD_ADMIN, "admin"},
    {CMD_PUBSUB, "pubsub"},
    {CMD_NOSCRIPT, "noscript"},
    {CMD_BLOCKING, "blocking"},
    {CMD_LOADING, "loading"},
    {CMD_STALE, "stale"},
    {CMD_SKIP_MONITOR, "skip_monitor"},
    {CMD_SKIP_SLOWLOG, "skip_slowlog"},
    {CMD_ASKING, "asking"},
    {CMD_FAST, "fast"},
    {CMD_NO_AUTH, "no_auth"},
    {CMD_NO_MANDATORY_KEYS, "no_mandatory_keys"},
    {CMD_NO_ASYNC_LOADING, "no_async_loading"},
    {CMD_NO_MULTI, "no_multi"},
    {CMD_ALLOW_BUSY, "allow_busy"},
};

/* SORT_RO's keys may also come from BY and GET. */
static bool has_movable_keys(const struct command *row)
{
    return row->keys.kind > KEYS_RANGE || row->id == COMMAND_sort_ro;
}

static const char *group_name(const struct command *row)
{
    switch ((enum command_group)row->group) {
    case GROUP_STRING: return "string";
    case GROUP_BITMAP: return "bitmap";
    case GROUP_HASH: return "hash";
    case GROUP_LIST: return "list";
    case GROUP_SET: return "set";
    case GROUP_SORTED_SET: return "sorted-set";
    case GROUP_HYPERLOGLOG: return "hyperloglog";
    case GROUP_GEO: return "geo";
    case GROUP_STREAM: return "stream";
    case GROUP_GENERIC: return "generic";
    case GROUP_TRANSACTIONS: return "transactions";
    case GROUP_PUBSUB: return "pubsub";
    case GROUP_SCRIPTING: return "scripting";
    case GROUP_CONNECTION: return "connection";
    case GROUP_SERVER: return "server";
    case GROUP_CLUSTER: return "cluster";
    }
    UNREACHABLE("a command group");
}

/* ACL categories, as bits in the order in which Redis lists them. */
enum category {
    CAT_KEYSPACE = 1 << 0,
    CAT_READ = 1 << 1,
    CAT_WRITE = 1 << 2,
    CAT_SET = 1 << 3,
    CAT_SORTEDSET = 1 << 4,
    CAT_LIST = 1 << 5,
    CAT_HASH = 1 << 6,
    CAT_STRING = 1 << 7,
    CAT_BITMAP = 1 << 8,
    CAT_HYPERLOGLOG = 1 << 9,
    CAT_GEO = 1 << 10,
    CAT_STREAM = 1 << 11,
    CAT_PUBSUB = 1 << 12,
    CAT_ADMIN = 1 << 13,
    CAT_FAST = 1 << 14,
    CAT_SLOW = 1 << 15,
    CAT_BLOCKING = 1 << 16,
    CAT_DANGEROUS = 1 << 17,
    CAT_CONNECTION = 1 << 18,
    CAT_TRANSACTION = 1 << 19,
    CAT_SCRIPTING = 1 << 20,
};

static const char *const category_names[] = {
    "@keyspace", "@read",   "@write",  "@set",         "@sortedset",  "@list",       "@hash",
    "@string",   "@bitmap", "@hyperloglog", "@geo",    "@stream",     "@pubsub",     "@admin",
    "@fast",     "@slow",   "@blocking", "@dangerous", "@connection", "@transaction", "@scripting",
};

static uint32_t group_category(const struct command *row)
{
    switch ((enum command_group)row->group) {
    case GROUP_STRING: return CAT_STRING;
    case GROUP_BITMAP: return CAT_BITMAP;
    case GROUP_HASH: return CAT_HASH;
    case GROUP_LIST: return CAT_LIST;
    case GROUP_SET: return CAT_SET;
    case GROUP_SORTED_SET: return CAT_SORTEDSET;
    case GROUP_HYPERLOGLOG: return CAT_HYPERLOGLOG;
    case GROUP_GEO: return CAT_GEO;
    case GROUP_STREAM: return CAT_STREAM;
    case GROUP_GENERIC: return CAT_KEYSPACE;
    case GROUP_TRANSACTIONS: return CAT_TRANSACTION;
    case GROUP_PUBSUB: return CAT_PUBSUB;
    case GROUP_SCRIPTING: return CAT_SCRIPTING;
    case GROUP_CONNECTION: return CAT_CONNECTION;
    case GROUP_SERVER:
    case GROUP_CLUSTER: return 0;
    }
    UNREACHABLE("a command group");
}

/* What a row's group and flags do not tell. */
static uint32_t own_categories(const struct command *row)
{
    switch (row->id) {
    case COMMAND_sort:
    case COMMAND_sort_ro:
        return CAT_SET | CAT_SORTEDSET | CAT_LIST | CAT_DANGEROUS;
    case COMMAND_flushall:
    case COMMAND_flushdb:
    case COMMAND_swapdb:
    case COMMAND_keys:
    case COMMAND_migrate:
    case COMMAND_restore:
    case COMMAND_restore_asking:
        return CAT_KEYSPACE | CAT_DANGEROUS;
    case COMMAND_dbsize:
        return CAT_KEYSPACE;
    case COMMAND_lastsave:
    case COMMAND_role:
        return CAT_ADMIN | CAT_DANGEROUS;
    case COMMAND_info:
        return CAT_DANGEROUS;
    case COMMAND_asking:
    case COMMAND_readonly:
    case COMMAND_readwrite:
    case COMMAND_wait:
    case COMMAND_command:
        return CAT_CONNECTION;
    case COMMAND_pubsub_help: /* no category of its group */
        return 0;
    default:
        if (row->parent == COMMAND_command)
            return CAT_CONNECTION;
        return (row->flags & CMD_HAS_SUBCOMMANDS) != 0 ? 0 : group_category(row);
    }
}

static uint32_t categories(const struct command *row)
{
    uint32_t bits = own_categories(row);

    if (row->flags & CMD_WRITE)
        bits |= CAT_WRITE;
    if ((row->flags & CMD_READ) && row->group != GROUP_SCRIPTING)
        bits |= CAT_READ;
    if (row->flags & CMD_ADMIN)
        bits |= CAT_ADMIN | CAT_DANGEROUS;
    if (row->flags & CMD_PUBSUB)
        bits |= CAT_PUBSUB;
    if (row->flags & CMD_BLOCKING)
        bits |= CAT_BLOCKING;
    return bits | (row->flags & CMD_FAST ? CAT_FAST : CAT_SLOW);
}

static bool is_shown(const struct composer *c, const struct command *row)
{
    return (row->flags & c->hidden_flags) == 0;
}

/* How many rows below `parent` are shown (COMMAND_none: commands). */
static uint32_t count_rows(const struct composer *c, uint16_t parent)
{
    uint32_t count = 0;

    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *row = command_by_id(id);

        count += row->parent == parent && is_shown(c, row);
    }
    return count;
}

/* "get" or "client|setname"; NULL when there is none, or it is hidden. */
static const struct command *find_row(const struct composer *c, struct bytes name)
{
    const struct command *row = command_find_full(name);

    return row != NULL && is_shown(c, row) ? row : NULL;
}

/* ---- COMMAND INFO ------------------------------------------------------------------------- */

static void put_flags(const struct composer *c, const struct command *row)
{
    uint32_t count = has_movable_keys(row);

    for (size_t i = 0; i < ARRAY_COUNT(flag_names); i++)
        count += (row->flags & flag_names[i].flag) != 0;
    put_set(c, count);
    for (size_t i = 0; i < ARRAY_COUNT(flag_names); i++)
        if (row->flags & flag_names[i].flag)
            put_status(c, flag_names[i].text);
    if (has_movable_keys(row))
        put_status(c, "movablekeys");
}

/* first key, last key, step: what was there before key specs, and is still what most clients read. */
static void put_legacy_range(const struct composer *c, const struct command *row)
{
    struct key_spec spec = {.first = 0};

    switch ((enum key_kind)row->keys.kind) {
    case KEYS_RANGE:
        spec = row->keys;
        break;
    case KEYS_NUMKEYS: /* the destination, where there is one */
        spec.first = spec.last = row->keys.last;
        spec.step = row->keys.last != 0;
        break;
    case KEYS_SORT:
    case KEYS_GEORADIUS:
        spec.first = spec.last = spec.step = 1;
        break;
    case KEYS_MIGRATE:
        spec.first = spec.last = 3;
        spec.step = 1;
        break;
    case KEYS_NONE:
    case KEYS_XREAD:
        break;
    }
    put_number(c, ':', spec.first);
    put_number(c, ':', spec.last);
    put_number(c, ':', spec.step);
}

static void put_categories(const struct composer *c, const struct command *row)
{
    uint32_t bits = categories(row);

    put_set(c, (uint32_t)__builtin_popcount(bits));
    for (size_t i = 0; i < ARRAY_COUNT(category_names); i++)
        if (bits & 1u << i)
            put_status(c, category_names[i]);
}

static void put_access(const struct composer *c, const struct command *row)
{
    if (row->flags & CMD_PUBSUB) {
        put_set(c, 1);
        put_status(c, "not_key"); /* a channel, placed like one */
    } else if (row->flags & (CMD_READ | CMD_TRANSACTION)) { /* WATCH */
        put_set(c, 2);
        put_status(c, "RO");
        put_status(c, "access");
    } else {
        put_set(c, 3);
        put_status(c, "RW");
        put_status(c, "access");
        put_status(c, "update");
    }
}

static void put_spec_begin(const struct composer *c, const struct command *row, const char *keyword,
                           int first)
{
    put_map(c, 3);
    put_word(c, "flags");
    put_access(c, row);
    put_word(c, "begin_search");
    put_map(c, 2);
    put_word(c, "type");
    put_word(c, keyword != NULL ? "keyword" : "index");
    put_word(c, "spec");
    put_map(c, keyword != NULL ? 2 : 1);
    if (keyword != NULL) {
        put_word(c, "keyword");
        put_word(c, keyword);
    }
    put_word(c, keyword != NULL ? "startfrom" : "index");
    put_number(c, ':', first);
    put_word(c, "find_keys");
    put_map(c, 2);
    put_word(c, "type");
}

static void put_spec_range(const struct composer *c, int last, int step, int limit)
{
    put_word(c, "range");
    put_word(c, "spec");
    put_map(c, 3);
    put_word(c, "lastkey");
    put_number(c, ':', last);
    put_word(c, "keystep");
    put_number(c, ':', step);
    put_word(c, "limit");
    put_number(c, ':', limit);
}

static void put_spec_numkeys(const struct composer *c)
{
    put_word(c, "keynum");
    put_word(c, "spec");
    put_map(c, 3);
    put_word(c, "keynumidx");
    put_number(c, ':', 0);
    put_word(c, "firstkey");
    put_number(c, ':', 1);
    put_word(c, "keystep");
    put_number(c, ':', 1);
}

static void put_key_specs(const struct composer *c, const struct command *row)
{
    const struct key_spec *keys = &row->keys;

    switch ((enum key_kind)keys->kind) {
    case KEYS_NONE:
        put_set(c, 0);
        return;
    case KEYS_RANGE:
        put_set(c, 1);
        put_spec_begin(c, row, NULL, keys->first);
        put_spec_range(c, keys->last < 0 ? keys->last : keys->last - keys->first, keys->step, 0);
        return;
    case KEYS_NUMKEYS:
        put_set(c, keys->last != 0 ? 2 : 1);
        if (keys->last != 0) {
            put_spec_begin(c, row, NULL, keys->last);
            put_spec_range(c, 0, 1, 0);
        }
        put_spec_begin(c, row, NULL, keys->first);
        put_spec_numkeys(c);
        return;
    case KEYS_XREAD:
        put_set(c, 1);
        put_spec_begin(c, row, "STREAMS", row->id == COMMAND_xread ? 1 : 4);
        put_spec_range(c, -1, 1, 2);
        return;
    case KEYS_SORT: /* STORE may be anywhere: no spec can say that; clients ask GETKEYS */
        put_set(c, 1);
        put_spec_begin(c, row, NULL, 1);
        put_spec_range(c, 0, 1, 0);
        return;
    case KEYS_GEORADIUS:
        put_set(c, 3);
        put_spec_begin(c, row, NULL, 1);
        put_spec_range(c, 0, 1, 0);
        put_spec_begin(c, row, "STORE", row->id == COMMAND_georadius ? 6 : 5);
        put_spec_range(c, 0, 1, 0);
        put_spec_begin(c, row, "STOREDIST", row->id == COMMAND_georadius ? 6 : 5);
        put_spec_range(c, 0, 1, 0);
        return;
    case KEYS_MIGRATE:
        put_set(c, 2);
        put_spec_begin(c, row, NULL, 3);
        put_spec_range(c, 0, 1, 0);
        put_spec_begin(c, row, "KEYS", -2);
        put_spec_range(c, -1, 1, 0);
        return;
    }
    UNREACHABLE("a key kind");
}

/* Everything but the subcommands. */
static void put_info_head(const struct composer *c, const struct command *row)
{
    put_array(c, 10);
    put_word(c, row->name);
    put_number(c, ':', row->arity);
    put_flags(c, row);
    put_legacy_range(c, row);
    put_categories(c, row);
    /* Of Redis's tips only those on the output are true of a proxy: how to spread a request over
     * shards is not the client's affair. */
    put_set(c, (row->flags & CMD_RANDOM) != 0);
    if (row->flags & CMD_RANDOM)
        put_word(c, "nondeterministic_output");
    put_key_specs(c, row);
}

static void put_info(const struct composer *c, const struct command *row)
{
    uint32_t count = row->flags & CMD_HAS_SUBCOMMANDS ? count_rows(c, row->id) : 0;

    put_info_head(c, row);
    if (count == 0) {
        put_set(c, 0);
        return;
    }
    put_array(c, count);
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *sub = command_by_id(id);

        if (sub->parent != row->id || !is_shown(c, sub))
            continue;
        put_info_head(c, sub);
        put_set(c, 0);
    }
}

static void reply_info(const struct composer *c, const struct bytes *names, uint32_t count)
{
    if (count == 0) {
        put_array(c, count_rows(c, COMMAND_none));
        for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
            const struct command *row = command_by_id(id);

            if (row->parent == COMMAND_none && is_shown(c, row))
                put_info(c, row);
        }
        return;
    }
    put_array(c, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct command *row = find_row(c, names[i]);

        if (row != NULL)
            put_info(c, row);
        else
            put_null(c);
    }
}

/* ---- COMMAND DOCS ------------------------------------------------------------------------- */

static void put_doc_pair(const struct composer *c, const char *name, const char *value)
{
    put_word(c, name);
    put_word(c, value);
}

static void put_doc(const struct composer *c, const struct command *row)
{
    uint32_t sub_count = row->flags & CMD_HAS_SUBCOMMANDS ? count_rows(c, row->id) : 0;
    bool is_deprecated = (row->flags & CMD_DEPRECATED) != 0;

    put_word(c, row->name);
    put_map(c, 3u + is_deprecated + (sub_count > 0));
    put_doc_pair(c, "summary", row->summary);
    put_doc_pair(c, "since", row->since);
    put_doc_pair(c, "group", group_name(row));
    if (is_deprecated) {
        put_word(c, "doc_flags");
        put_set(c, 1);
        put_status(c, "deprecated");
    }
    if (sub_count == 0)
        return;
    put_word(c, "subcommands");
    put_map(c, sub_count);
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const struct command *sub = command_by_id(id);

        if (sub->parent == row->id && is_shown(c, sub))
            put_doc(c, sub); /* subcommands have none: one level */
    }
}

static void reply_docs(const struct composer *c, const struct bytes *names, uint32_t count)
{
    uint32_t found = 0;

    if (count == 0) {
        put_map(c, count_rows(c, COMMAND_none));
        for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
            const struct command *row = command_by_id(id);

            if (row->parent == COMMAND_none && is_shown(c, row))
                put_doc(c, row);
        }
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        found += find_row(c, names[i]) != NULL;
    put_map(c, found);
    for (uint32_t i = 0; i < count; i++) {
        const struct command *row = find_row(c, names[i]);

        if (row != NULL)
            put_doc(c, row);
    }
}

/* ---- COMMAND LIST ------------------------------------------------------------------------- */

enum list_filter { LIST_ALL, LIST_NONE, LIST_CATEGORY, LIST_PATTERN };

static bool is_listed(const struct composer *c, const struct command *row, enum list_filter filter,
                      struct bytes value)
{
    if (!is_shown(c, row))
        return false;
    switch (filter) {
    case LIST_ALL:
        return true;
    case LIST_NONE:
        return false;
    case LIST_CATEGORY:
        for (size_t i = 0; i < ARRAY_COUNT(category_names); i++)
            if (bytes_equal_nocase(value, bytes_of_string(category_names[i] + 1)))
                return (categories(row) & 1u << i) != 0;
        return false;
    case LIST_PATTERN:
        return glob_matches(value, bytes_of(row->name, row->name_len), true);
    }
    UNREACHABLE("a list filter");
}

/* Subcommands are listed too. */
static void reply_list(const struct composer *c, const struct bytes *options, uint32_t count)
{
    enum list_filter filter = LIST_ALL;
    struct bytes value = BYTES_EMPTY;
    uint32_t found = 0;

    if (count == 3 && bytes_equal_nocase(options[0], BYTES("filterby"))) {
        value = options[2];
        if (bytes_equal_nocase(options[1], BYTES("module")))
            filter = LIST_NONE; /* there are no modules */
        else if (bytes_equal_nocase(options[1], BYTES("aclcat")))
            filter = LIST_CATEGORY;
        else if (bytes_equal_nocase(options[1], BYTES("pattern")))
            filter = LIST_PATTERN;
    }
    if (count != 0 && filter == LIST_ALL) {
        put_string(c, "-ERR syntax error\r\n");
        return;
    }
    for (uint16_t id = 1; id < COMMAND_COUNT; id++)
        found += is_listed(c, command_by_id(id), filter, value);
    put_array(c, found);
    for (uint16_t id = 1; id < COMMAND_COUNT; id++)
        if (is_listed(c, command_by_id(id), filter, value))
            put_word(c, command_by_id(id)->name);
}

/* ---- COMMAND GETKEYS ---------------------------------------------------------------------- */

static void reply_keys(const struct composer *c, const struct bytes *argv, uint32_t argc,
                       bool with_flags)
{
    const struct command *row = find_row(c, argv[0]);
    struct command_keys keys;

    if (row != NULL && (row->flags & CMD_HAS_SUBCOMMANDS) && argc > 1)
        row = command_find_sub(row, argv[1]);
    if (row == NULL || !is_shown(c, row)) {
        put_string(c, "-ERR Invalid command specified\r\n");
    } else if (row->keys.kind == KEYS_NONE || (row->flags & CMD_PUBSUB)) {
        put_string(c, "-ERR The command has no key arguments\r\n");
    } else if (!command_arity_fits(row, argc)) {
        put_string(c, "-ERR Invalid number of arguments specified for command\r\n");
    } else if (command_keys(row, argv, argc, &keys) < 0) {
        put_string(c, row->flags & CMD_NO_MANDATORY_KEYS
                          ? "*0\r\n"
                          : "-ERR Invalid arguments specified for command\r\n");
    } else {
        put_array(c, keys.key_count);
        for (uint32_t i = 0; i < keys.range_count; i++) {
            for (uint32_t j = 0; j < keys.ranges[i].count; j++) {
                if (with_flags)
                    put_array(c, 2);
                put_bulk(c, argv[keys.ranges[i].first + j * keys.ranges[i].step]);
                if (with_flags)
                    put_access(c, row);
            }
        }
    }
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void reply_help(const struct composer *c)
{
    static const char *const lines[] = {
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
        "HELP",
        "    Prints this help.",
    };

    put_array(c, ARRAY_COUNT(lines));
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        put_status(c, lines[i]);
}

void command_reply_compose(const struct bytes *argv, uint32_t argc, bool is_resp3,
                           uint32_t hidden_flags, const struct compose_sink *sink)
{
    const struct composer composer = {
        .sink = sink, .hidden_flags = hidden_flags, .is_resp3 = is_resp3};
    const struct composer *c = &composer;
    const struct command *row;

    ASSERT(argc > 0);
    if (argc == 1) {
        reply_info(c, NULL, 0);
        return;
    }
    row = command_find_sub(command_by_id(COMMAND_command), argv[1]);
    if (row == NULL) {
        put_string(c, "-ERR unknown subcommand '");
        put_echo(c, argv[1]);
        put_string(c, "'. Try COMMAND HELP.\r\n");
    } else if (!command_arity_fits(row, argc)) {
        put_string(c, "-ERR wrong number of arguments for '");
        put_string(c, row->name);
        put_string(c, "' command\r\n");
    } else if (row->id == COMMAND_command_count) {
        put_number(c, ':', count_rows(c, COMMAND_none));
    } else if (row->id == COMMAND_command_info) {
        reply_info(c, argv + 2, argc - 2);
    } else if (row->id == COMMAND_command_docs) {
        reply_docs(c, argv + 2, argc - 2);
    } else if (row->id == COMMAND_command_list) {
        reply_list(c, argv + 2, argc - 2);
    } else if (row->id == COMMAND_command_getkeys) {
        reply_keys(c, argv + 2, argc - 2, false);
    } else if (row->id == COMMAND_command_getkeysandflags) {
        reply_keys(c, argv + 2, argc - 2, true);
    } else {
        ASSERT(row->id == COMMAND_command_help);
        reply_help(c);
    }
}
