/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_geo.h - what the geo commands share. All that say bool: false: the error was replied.
 */
#pragma once
#include "backend/cmd/cmd.h"
#include "backend/store/object.h"
#include "backend/types/geo.h"

/* Longitude and latitude, arguments i and i + 1. */
bool geo_arg_point(struct cmd *c, uint32_t i, struct geo_point *out);
/* Meters of "m", "km", "ft", "mi". */
bool geo_arg_unit(struct cmd *c, uint32_t i, double *meters);
/* False: `zset` has no such member; nothing was replied. */
bool geo_member_point(const struct object *zset, struct bytes member, struct geo_point *out);
void geo_reply_point(struct cmd *c, struct geo_point point);
void geo_reply_distance(struct cmd *c, double distance);
