/* SPDX-License-Identifier: Apache-2.0 */
/*
 * latency.h - LATENCY: spikes by event, and a histogram for each command.
 */
#pragma once
#include "backend/cmd/engine.h"

struct latency;

MUST_USE int latency_create(struct latency **out);
void latency_destroy(struct latency **latency);
/* An event ("command", "fast-command", "fetch" ...) that took so long: kept if latency-monitor-threshold
 * says so. */
void latency_note(struct engine *engine, const char *event, uint64_t took_ms);
/* After each command; counts into its histogram, and notes the event. */
void latency_command_note(struct engine *engine, const struct command *command, uint64_t took_us);
/* CONFIG RESETSTAT. */
void latency_histograms_reset(struct latency *latency);
/* The p50, p99 and p99.9 of a command in microseconds; false: it was never called. For INFO. */
bool latency_percentiles(const struct latency *latency, uint16_t command, double out[3]);
