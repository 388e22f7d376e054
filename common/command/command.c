/* SPDX-License-Identifier: Apache-2.0 */
#include "common/command/command.h"
#include "common/base/err.h"
#include "common/command/command_hash.h"
#include "common/command/command_index.h"

/* The words for key specs in command.def; each becomes four columns of ROW. */
#define NO_KEYS                  KEYS_NONE, 0, 0, 0
#define KEYS(from, to, by)       KEYS_RANGE, from, to, by
#define NUMKEYS(at, destination) KEYS_NUMKEYS, at, destination, 1
#define KEYS_BY(how)             KEYS_##how, 0, 0, 0

#define ROW(own_id, up, text, args, bits, kind_, from, to, by, way, where, family, version, about) \
    {.name = (text),                                                                               \
     .summary = (about),                                                                           \
     .since = (version),                                                                           \
     .flags = (bits) | ((where) == HOME_LATER ? CMD_LATER : 0),                                    \
     .arity = (args),                                                                              \
     .id = (own_id),                                                                               \
     .parent = (up),                                                                               \
     .name_len = sizeof(text) - 1,                                                                 \
     .route = (way),                                                                               \
     .home = (where),                                                                              \
     .group = (family),                                                                            \
     .keys = {.kind = (kind_), .first = (from), .last = (to), .step = (by)}}
#define ROW_EXPANDED(...) ROW(__VA_ARGS__)

static const struct command commands[COMMAND_COUNT] = {
#define COMMAND(id_, ...) [COMMAND_##id_] = ROW_EXPANDED(COMMAND_##id_, COMMAND_none, __VA_ARGS__),
#define SUBCOMMAND(up, id_, ...)                                                                   \
    [COMMAND_##up##_##id_] = ROW_EXPANDED(COMMAND_##up##_##id_, COMMAND_##up, __VA_ARGS__),
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND
};

const struct command *command_by_id(uint16_t id)
{
    ASSERT(id > COMMAND_none && id < COMMAND_COUNT);
    return &commands[id];
}

/* `row` is lower case. */
static ALWAYS_INLINE bool same_name(const char *row, struct bytes name)
{
    for (size_t i = 0; i < name.len; i++)
        if (ascii_lower(name.data[i]) != row[i])
            return false;
    return true;
}

const struct command *command_find(struct bytes name)
{
    const struct command *command;

    if (UNLIKELY(name.len == 0))
        return NULL;
    command = &commands[command_slots[command_hash_slot(name, 0, COMMAND_HASH_MULTIPLIER)]];
    /* Row 0 is nobody's: its length is 0. */
    if (command->name_len != name.len || command->parent != COMMAND_none ||
        !same_name(command->name, name))
        return NULL;
    return command;
}

const struct command *command_find_sub(const struct command *parent, struct bytes sub)
{
    const struct command *command;
    size_t skip = parent->name_len + 1u; /* "client|" */

    if (sub.len == 0)
        return NULL;
    command = &commands[command_slots[command_hash_slot(sub, parent->id, COMMAND_HASH_MULTIPLIER)]];
    if (command->parent != parent->id || command->name_len != skip + sub.len ||
        !same_name(command->name + skip, sub))
        return NULL;
    return command;
}

const struct command *command_find_full(struct bytes name)
{
    const char *bar = name.len > 0 ? memchr(name.data, '|', name.len) : NULL;
    size_t head = bar != NULL ? (size_t)(bar - name.data) : name.len;
    const struct command *command = command_find(bytes_first(name, head));

    if (command != NULL && bar != NULL)
        command = command_find_sub(command, bytes_skip(name, head + 1));
    return command;
}
