/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsm.h - state machines as data: a table of names and allowed edges, one checked way to move.
 */
#pragma once
#include "common/base/base.h"

struct fsm_state {
    const char *name;
    uint32_t allowed; /* FSM_TO() of every state that may follow */
};

#define FSM_TO(state) (1u << (state))

static inline bool fsm_may_move(const struct fsm_state *states, unsigned from, unsigned to)
{
    return (states[from].allowed & FSM_TO(to)) != 0;
}

/* Asserts that the edge is in the table. */
static inline void fsm_move(uint8_t *state, const struct fsm_state *states, unsigned to)
{
    ASSERT(fsm_may_move(states, *state, to));
    *state = (uint8_t)to;
}
