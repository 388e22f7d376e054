/* SPDX-License-Identifier: Apache-2.0 */
/* The table of memcache's verbs, by identifier, name and opcode. */
#include "common/proto/memcache.h"

#define NAME_MAX_LEN 16

static const struct mc_verb_info verbs[MC_VERB_COUNT] = {
    [MC_none] = {.name = "", .id = MC_none, .kind = MC_KIND_LOCAL, .opcode = MC_OPCODE_NONE,
                 .quiet_opcode = MC_OPCODE_NONE},
#define MEMCACHE(id_, name_, kind_, opcode_, quiet_, write_, denied_)                              \
    [MC_##id_] = {.name = name_,                                                                   \
                  .id = MC_##id_,                                                                  \
                  .kind = MC_KIND_##kind_,                                                         \
                  .opcode = opcode_,                                                               \
                  .quiet_opcode = quiet_,                                                          \
                  .is_write = write_,                                                              \
                  .is_denied = denied_},
#include "common/command/memcache.def"
#undef MEMCACHE
};

/* Opcodes that do not exist are parked behind the real ones, a slot each. */
#define SLOT(opcode, id, which)                                                                    \
    ((opcode) == MC_OPCODE_NONE ? 256 + 2 * (id) + (which) : (opcode))

struct opcode_slot {
    uint8_t verb;
    uint8_t is_quiet;
};

static const struct opcode_slot opcodes[256 + 2 * MC_VERB_COUNT] = {
#define MEMCACHE(id_, name_, kind_, opcode_, quiet_, write_, denied_)                              \
    [SLOT(opcode_, MC_##id_, 0)] = {MC_##id_, 0}, [SLOT(quiet_, MC_##id_, 1)] = {MC_##id_, 1},
#include "common/command/memcache.def"
#undef MEMCACHE
};

const struct mc_verb_info *mc_verb_info(enum mc_verb verb)
{
    ASSERT((unsigned)verb < MC_VERB_COUNT);
    return &verbs[verb];
}

/* With a constant `len` all rows of other lengths vanish. */
static ALWAYS_INLINE enum mc_verb find_of_len(const char *name, size_t len)
{
#define MEMCACHE(id_, name_, ...)                                                                  \
    if (sizeof(name_) - 1 == len && memcmp(name, name_, sizeof(name_) - 1) == 0)                   \
        return MC_##id_;
#include "common/command/memcache.def"
#undef MEMCACHE
    return MC_none;
}

#define MEMCACHE(id_, name_, ...) _Static_assert(sizeof(name_) - 1 <= NAME_MAX_LEN, "a longer name");
#include "common/command/memcache.def"
#undef MEMCACHE

enum mc_verb mc_verb_find(struct bytes name)
{
    switch (name.len) {
    case 2:
        return find_of_len(name.data, 2);
    case 3:
        return find_of_len(name.data, 3);
    case 4:
        return find_of_len(name.data, 4);
    case 5:
        return find_of_len(name.data, 5);
    case 6:
        return find_of_len(name.data, 6);
    case 7:
        return find_of_len(name.data, 7);
    case 0:
        return MC_none; /* the name of what is binary only */
    default:
        return name.len <= NAME_MAX_LEN ? find_of_len(name.data, name.len) : MC_none;
    }
}

const struct mc_verb_info *mc_verb_by_opcode(uint8_t opcode, bool *is_quiet)
{
    const struct opcode_slot *slot = &opcodes[opcode];

    *is_quiet = slot->is_quiet;
    return slot->verb == MC_none ? NULL : &verbs[slot->verb];
}
