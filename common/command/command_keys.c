/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a command's keys are, and what Redis says when that cannot be told.
 *
 * The walks over options are those of Redis's own getkeys functions (sort, georadius, xread, migrate):
 * what Redis takes for a key is a key here, so that a command is never sent to a wrong server.
 */
#include "common/base/err.h"
#include "common/command/command.h"

#define NOT_AN_INTEGER "ERR value is not an integer or out of range"
#define SYNTAX_ERROR   "ERR syntax error"

static bool word_is(struct bytes arg, const char *word)
{
    return bytes_equal_nocase(arg, bytes_of_string(word));
}

static void add_range(struct command_keys *out, uint32_t first, uint32_t count, uint32_t step)
{
    ASSERT(out->range_count < COMMAND_KEY_RANGES_MAX);
    out->ranges[out->range_count].first = first;
    out->ranges[out->range_count].count = count;
    out->ranges[out->range_count].step = step;
    out->range_count++;
    out->key_count += count;
}

/* MSET and MSETNX are the only ones whose step is not 1: their last value may not be missing. */
static int range_keys(const struct key_spec *spec, uint32_t argc, struct command_keys *out)
{
    int64_t last = spec->last < 0 ? (int64_t)argc + spec->last : spec->last;
    int64_t span = last - spec->first + 1;

    if (last >= (int64_t)argc || span % spec->step != 0)
        return ERR_INVALID;
    if (span > 0)
        add_range(out, (uint32_t)spec->first, (uint32_t)(span / spec->step), (uint32_t)spec->step);
    return 0;
}

/* Whether 0 keys are fine: scripts alone need none. */
static bool may_lack_keys(const struct command *command)
{
    return (command->flags & CMD_NO_MANDATORY_KEYS) != 0;
}

/* LMPOP and its like have a word (LEFT, MIN) behind the keys. */
static uint32_t words_behind_keys(const struct command *command)
{
    switch (command->id) {
    case COMMAND_lmpop:
    case COMMAND_blmpop:
    case COMMAND_zmpop:
    case COMMAND_bzmpop:
        return 1;
    default:
        return 0;
    }
}

static int numkeys_keys(const struct command *command, const struct bytes *argv, uint32_t argc,
                        struct command_keys *out)
{
    uint32_t at = (uint32_t)command->keys.first;
    int64_t count;

    if (at >= argc || !bytes_to_i64(argv[at], &count))
        return ERR_INVALID;
    if (count < (may_lack_keys(command) ? 0 : 1) ||
        count > (int64_t)argc - at - 1 - words_behind_keys(command))
        return ERR_INVALID;
    if (command->keys.last != 0)
        add_range(out, (uint32_t)command->keys.last, 1, 1);
    if (count > 0)
        add_range(out, at + 1, (uint32_t)count, 1);
    return 0;
}

/* The index of STREAMS, 0 when there is none. */
static uint32_t xread_streams(const struct bytes *argv, uint32_t argc)
{
    for (uint32_t i = 1; i < argc; i++) {
        if (word_is(argv[i], "streams"))
            return i;
        if (word_is(argv[i], "block") || word_is(argv[i], "count"))
            i++;
        else if (word_is(argv[i], "group"))
            i += 2;
        else if (!word_is(argv[i], "noack"))
            return 0;
    }
    return 0;
}

static int xread_keys(const struct bytes *argv, uint32_t argc, struct command_keys *out)
{
    uint32_t streams = xread_streams(argv, argc);
    uint32_t count = argc - streams - 1;

    if (streams == 0 || count == 0 || count % 2 != 0)
        return ERR_INVALID;
    add_range(out, streams + 1, count / 2, 1);
    return 0;
}

/* The last STORE counts, as in Redis. */
static int sort_keys(const struct bytes *argv, uint32_t argc, struct command_keys *out)
{
    uint32_t store = 0;

    for (uint32_t i = 2; i < argc; i++) {
        if (word_is(argv[i], "limit"))
            i += 2;
        else if (word_is(argv[i], "get") || word_is(argv[i], "by"))
            i++;
        else if (word_is(argv[i], "store") && i + 1 < argc)
            store = ++i;
    }
    add_range(out, 1, 1, 1);
    if (store != 0)
        add_range(out, store, 1, 1);
    return 0;
}

/* Redis writes to one of the two, but checks both. */
static int georadius_keys(const struct command *command, const struct bytes *argv, uint32_t argc,
                          struct command_keys *out)
{
    uint32_t store = 0, store_dist = 0;

    for (uint32_t i = command->id == COMMAND_georadius ? 6 : 5; i + 1 < argc; i++) {
        if (word_is(argv[i], "store"))
            store = ++i;
        else if (word_is(argv[i], "storedist"))
            store_dist = ++i;
    }
    add_range(out, 1, 1, 1);
    if (store != 0)
        add_range(out, store, 1, 1);
    if (store_dist != 0)
        add_range(out, store_dist, 1, 1);
    return 0;
}

static int migrate_keys(const struct bytes *argv, uint32_t argc, struct command_keys *out)
{
    if (argc < 6)
        return ERR_INVALID;
    for (uint32_t i = 6; i < argc; i++) {
        if (word_is(argv[i], "keys")) {
            if (argv[3].len > 0 || i + 1 == argc)
                break;
            add_range(out, i + 1, argc - i - 1, 1);
            return 0;
        }
        if (word_is(argv[i], "auth"))
            i++;
        else if (word_is(argv[i], "auth2"))
            i += 2;
    }
    add_range(out, 3, 1, 1);
    return 0;
}

int command_keys(const struct command *command, const struct bytes *argv, uint32_t argc,
                 struct command_keys *out)
{
    out->range_count = 0;
    out->key_count = 0;
    switch ((enum key_kind)command->keys.kind) {
    case KEYS_NONE:
        return 0;
    case KEYS_RANGE:
        return range_keys(&command->keys, argc, out);
    case KEYS_NUMKEYS:
        return numkeys_keys(command, argv, argc, out);
    case KEYS_XREAD:
        return xread_keys(argv, argc, out);
    case KEYS_SORT:
        return argc > 1 ? sort_keys(argv, argc, out) : ERR_INVALID;
    case KEYS_GEORADIUS:
        return argc > 1 ? georadius_keys(command, argv, argc, out) : ERR_INVALID;
    case KEYS_MIGRATE:
        return migrate_keys(argv, argc, out);
    }
    UNREACHABLE("a key kind");
}

/* ---- errors ------------------------------------------------------------------------------- */

#define AT_LEAST_ONE(name) "ERR at least 1 input key is needed for '" name "' command"
/* XREADGROUP's too, as in Redis. */
#define UNBALANCED                                                                                 \
    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."

static const char *set_operation_error(struct bytes numkeys, const char *too_few)
{
    int64_t count;

    if (!bytes_to_i64(numkeys, &count))
        return NOT_AN_INTEGER;
    return count < 1 ? too_few : SYNTAX_ERROR;
}

static const char *script_error(struct bytes numkeys, const char *not_a_number)
{
    int64_t count;

    if (!bytes_to_i64(numkeys, &count))
        return not_a_number;
    return count < 0 ? "ERR Number of keys can't be negative"
                     : "ERR Number of keys can't be greater than number of args";
}

static const char *positive_error(struct bytes numkeys, const char *too_many)
{
    int64_t count;

    return bytes_to_i64(numkeys, &count) && count > 0 ? too_many
                                                      : "ERR numkeys should be greater than 0";
}

static const char *xread_error(const struct bytes *argv, uint32_t argc)
{
    uint32_t streams = xread_streams(argv, argc);

    return streams != 0 && (argc - streams - 1) % 2 != 0 ? UNBALANCED : SYNTAX_ERROR;
}

const char *command_keys_error(const struct command *command, const struct bytes *argv, uint32_t argc)
{
    struct bytes numkeys = BYTES_EMPTY;

    if (command->keys.kind == KEYS_NUMKEYS && (uint32_t)command->keys.first < argc)
        numkeys = argv[command->keys.first];
    switch (command->id) {
    case COMMAND_mset: return "ERR wrong number of arguments for 'mset' command";
    case COMMAND_msetnx: return "ERR wrong number of arguments for 'msetnx' command";
    case COMMAND_zunion: return set_operation_error(numkeys, AT_LEAST_ONE("zunion"));
    case COMMAND_zinter: return set_operation_error(numkeys, AT_LEAST_ONE("zinter"));
    case COMMAND_zdiff: return set_operation_error(numkeys, AT_LEAST_ONE("zdiff"));
    case COMMAND_zunionstore: return set_operation_error(numkeys, AT_LEAST_ONE("zunionstore"));
    case COMMAND_zinterstore: return set_operation_error(numkeys, AT_LEAST_ONE("zinterstore"));
    case COMMAND_zdiffstore: return set_operation_error(numkeys, AT_LEAST_ONE("zdiffstore"));
    case COMMAND_zintercard: return set_operation_error(numkeys, AT_LEAST_ONE("zintercard"));
    case COMMAND_eval:
    case COMMAND_evalsha:
    case COMMAND_eval_ro:
    case COMMAND_evalsha_ro: return script_error(numkeys, NOT_AN_INTEGER);
    case COMMAND_fcall:
    case COMMAND_fcall_ro: return script_error(numkeys, "ERR Bad number of keys provided");
    case COMMAND_sintercard:
        return positive_error(numkeys, "ERR Number of keys can't be greater than number of args");
    case COMMAND_lmpop:
    case COMMAND_blmpop:
    case COMMAND_zmpop:
    case COMMAND_bzmpop: return positive_error(numkeys, SYNTAX_ERROR);
    case COMMAND_xread:
    case COMMAND_xreadgroup: return xread_error(argv, argc);
    default: return SYNTAX_ERROR;
    }
}
