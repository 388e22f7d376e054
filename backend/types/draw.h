/* SPDX-License-Identifier: Apache-2.0 */
/*
 * draw.h - as many random numbers as a command needs, from the one that struct io gave it (splitmix64).
 */
#pragma once
#include "common/base/base.h"

static inline uint64_t draw_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 .. bound - 1. */
static inline uint64_t draw_below(uint64_t *state, uint64_t bound)
{
    __extension__ typedef unsigned __int128 wide;

    return (uint64_t)((wide)draw_u64(state) * bound >> 64);
}

/* Selection sampling (Knuth, algorithm S): asked once for each of `left` items in turn, says yes to `wanted` of
 * them, all choices equally likely. */
struct draw_sample {
    uint64_t random, left, wanted;
};

static inline bool draw_takes(struct draw_sample *sample)
{
    bool takes = draw_below(&sample->random, sample->left) < sample->wanted;

    sample->left--;
    sample->wanted -= takes;
    return takes;
}
