/* SPDX-License-Identifier: Apache-2.0 */
/* make_index - writes command_index.h at build time: see command_hash.h. */
#include "common/command/command_hash.h"
#include "common/command/command.h"
#include <stdio.h>

static const struct {
    const char *name;
    uint16_t parent;
} rows[COMMAND_COUNT] = {
#define COMMAND(id, text, ...) [COMMAND_##id] = {text, 0},
#define SUBCOMMAND(up, id, text, ...) [COMMAND_##up##_##id] = {text, COMMAND_##up},
#include "common/command/command.def"
#undef COMMAND
#undef SUBCOMMAND
};

static bool fits(uint64_t multiplier, uint16_t slots[COMMAND_HASH_SLOTS])
{
    memset(slots, 0, COMMAND_HASH_SLOTS * sizeof(slots[0]));
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        const char *bar = strchr(rows[id].name, '|');
        struct bytes name = bytes_of_string(bar != NULL ? bar + 1 : rows[id].name);
        uint32_t slot = command_hash_slot(name, rows[id].parent, multiplier);

        if (slots[slot] != 0)
            return false;
        slots[slot] = id;
    }
    return true;
}

int main(void)
{
    uint16_t slots[COMMAND_HASH_SLOTS];
    uint64_t multiplier = 0x9e3779b97f4a7c15u;
    uint32_t tries = 0;

    while (!fits(multiplier, slots)) {
        if (++tries > 10000000) {
            fputs("make_index: no multiplier found: raise COMMAND_HASH_BITS\n", stderr);
            return 1;
        }
        multiplier = multiplier * 6364136223846793005u + 1442695040888963408u;
        multiplier |= 1;
    }
    printf("/* Written by make_index. */\n#define COMMAND_HASH_MULTIPLIER 0x%llxu\n"
           "static const uint16_t command_slots[COMMAND_HASH_SLOTS] = {\n",
           (unsigned long long)multiplier);
    for (uint32_t slot = 0; slot < COMMAND_HASH_SLOTS; slot++)
        if (slots[slot] != 0)
            printf("    [%u] = %u,\n", slot, slots[slot]);
    puts("};");
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
